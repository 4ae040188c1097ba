#include <runnel/mqtt/client/session.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/testing/certificate.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/testing/over_websocket.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/tls.hpp>
#include <runnel/websocket/transport.hpp>

#include <asio/error.hpp>
#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/sample.hpp"
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

// A conversation over real sockets, in which each step of I/O below all layers fails in turn with each error that a
// resolver or a socket has.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::qos;
using runnel::websocket::over;
using test::task;

struct script {
    std::size_t fails = std::numeric_limits<std::size_t>::max();  // which step of opening, reading and writing
    bool for_good = false;                                        // and all that follow
    std::error_code error;
    std::size_t steps = 0;
    std::size_t opened = 0;

    void step() {
        auto const now = steps++;
        if (now == fails || (for_good && now > fails)) throw std::system_error(error);
    }
};

class faulty_socket {
  public:
    using next_type = runnel::tcp::stream_type;
    using executor_type = next_type::executor_type;
    static constexpr std::size_t headroom = next_type::headroom;

    faulty_socket(script& plan, next_type next) : plan_(&plan), next_(std::move(next)) {}
    executor_type get_executor() { return next_.get_executor(); }
    asio::awaitable<std::size_t> read_some(asio::mutable_buffer into) {
        plan_->step();
        return next_.read_some(into);
    }
    asio::awaitable<void> write(runnel::send_buffer& out) {
        plan_->step();
        return next_.write(out);
    }
    asio::awaitable<void> shutdown() {
        plan_->step();
        return next_.shutdown();
    }

  private:
    script* plan_;
    next_type next_;
};

struct faulty_tcp {
    using executor_type = runnel::tcp::executor_type;
    using stream_type = faulty_socket;
    static constexpr bool secure = false;

    std::string host = "localhost";
    std::uint16_t port = 0;
    script* plan = nullptr;

    bool operator==(faulty_tcp const&) const = default;
    std::string url() const { return "tcp://" + host; }
    asio::awaitable<faulty_socket> open(executor_type executor) const {
        plan->step();
        runnel::tcp const next{.host = "127.0.0.1", .port = port};
        auto opening = next.open(executor);
        auto opened = co_await std::move(opening);
        ++plan->opened;
        co_return faulty_socket(*plan, std::move(opened));
    }
};

struct fixture {
    ~fixture() {
        broker.close();
        test::settle(io);
    }
    std::size_t clients = 0;
    asio::io_context io;
    runnel::testing::certificate_authority authority;
    runnel::testing::broker broker{io.get_executor()};
    std::uint16_t const plain = broker.listen_tcp();
    std::uint16_t const web = broker.listen(runnel::testing::over_websocket());
    std::uint16_t const encrypted = broker.listen(runnel::testing::over_tls(authority));
    std::uint16_t const both = broker.listen(runnel::testing::over_websocket(runnel::testing::over_tls(authority)));

    runnel::tls_context trusting() const {
        runnel::tls_options options;
        options.ca_pem = authority.certificate_pem();
        return runnel::tls_context(options);
    }
    runnel::tls_context const context = trusting();
};

auto transport(fixture& p, script& plan, faulty_tcp) { return faulty_tcp{"localhost", p.plain, &plan}; }
auto transport(fixture& p, script& plan, over<faulty_tcp>) {
    return over<faulty_tcp>{.host = "localhost", .port = p.web, .next = {.plan = &plan}};
}
auto transport(fixture& p, script& plan, runnel::tls<faulty_tcp>) {
    return runnel::tls<faulty_tcp>{
        .host = "localhost", .port = p.encrypted, .context = p.context, .next = {.plan = &plan}};
}
auto transport(fixture& p, script& plan, over<runnel::tls<faulty_tcp>>) {
    over<runnel::tls<faulty_tcp>> to{.host = "localhost", .port = p.both};
    to.next.context = p.context;
    to.next.next.plan = &plan;
    return to;
}

// All of them, or, above TLS, whose handshakes take their time, some of each kind.
std::vector<std::error_code> errors(bool secure) {
    using namespace asio::error;
    std::vector<std::error_code> all;
    for (auto const e : {connection_refused, connection_reset, connection_aborted, timed_out, network_unreachable,
                         network_down, host_unreachable, no_buffer_space, no_descriptors, no_memory, broken_pipe,
                         not_connected, operation_aborted, access_denied, address_in_use, bad_descriptor, interrupted})
        all.emplace_back(e);
    for (auto const e : {host_not_found, host_not_found_try_again, no_data, no_recovery}) all.emplace_back(e);
    for (auto const e : {service_not_found, socket_type_not_supported}) all.emplace_back(e);
    all.emplace_back(eof);
    for (auto const e : {std::errc::connection_reset, std::errc::host_unreachable, std::errc::io_error})
        all.push_back(std::make_error_code(e));
    if (!secure) return all;
    std::vector<std::error_code> some;
    for (std::size_t i = 0; i < all.size(); i += 4) some.push_back(all[i]);
    return some;
}

// All that a session does, with a connection lost by the broker in the middle.
template <class Transport>
class conversation {
  public:
    conversation(fixture& p, script& plan, mqtt::session_options o)
        : p_(p), session_(p.io.get_executor(), transport(p, plan, Transport()), std::move(o)) {
        p.broker.hooks().on_publish = [this](auto const&, mqtt::publish const& m) { arrived_.emplace_back(m.payload); };
    }

    // Returns how `run` has ended.
    std::error_code run() {
        task<void> running(p_.io, session_.run());
        task<void> talking(p_.io, talk());
        CHECK(test::wait_until(p_.io, [&] { return talking.done(); }));
        error = talking.error();
        CHECK(test::wait_until(p_.io, [&] { return running.done(); }));
        test::settle(p_.io);
        CHECK(running.ended() == 1);
        CHECK(talking.ended() == 1);
        return running.error();
    }
    std::error_code error;  // of the first operation that has failed

    auto arrived(std::string const& text) const { return std::ranges::count(arrived_, text); }
    std::size_t received() const { return received_.size(); }

  private:
    asio::awaitable<void> talk() {
        auto subscribing = session_.subscribe("t");
        auto inbox = co_await std::move(subscribing);
        for (auto const* const round : {"1", "2"}) {
            auto const zero = std::string("zero ") + round, one = std::string("one ") + round,
                       two = std::string("two ") + round;
            auto first = session_.publish("t", zero);
            co_await std::move(first);
            auto second = session_.publish("t", one, {.qos = qos::at_least_once});
            co_await std::move(second);
            auto third = session_.publish("t", two, {.qos = qos::exactly_once});
            co_await std::move(third);
            for (received_.clear(); received_.empty() || received_.back() != two;) {
                auto receiving = inbox.receive();
                auto const m = co_await std::move(receiving);
                received_.emplace_back(m.payload());
            }
            p_.broker.drop_client("client " + std::to_string(p_.clients));
        }
        auto unsubscribing = session_.unsubscribe(inbox);
        co_await std::move(unsubscribing);
        try {
            auto disconnecting = session_.disconnect();
            co_await std::move(disconnecting);
        } catch (std::system_error const&) {  // then `run` has ended all the same
        }
    }

    fixture& p_;
    mqtt::session<Transport> session_;
    std::vector<std::string> arrived_;
    std::vector<std::string> received_;
};

// Each conversation is that of another client.
mqtt::session_options options(fixture& p) {
    return test::quick("client " + std::to_string(++p.clients), mqtt::protocol_version::v5);
}

// All of it takes ten minutes: each step is tried with a fifth of the errors, and each error at a fifth of the steps,
// or with less (`every`), unless RUNNEL_EVERY_ERROR is set.
bool is_tried(std::size_t step, std::size_t error) {
    static bool const all = std::getenv("RUNNEL_EVERY_ERROR") != nullptr;
    return all || (step + error) % (5 * test::every(5)) == 0;
}

// Returns how many steps have failed.
template <class Transport>
std::size_t fail_each_step(fixture& p, std::error_code error, std::size_t number) {
    for (std::size_t step = 0, tried = 0;; ++step) {
        if (!is_tried(step, number)) continue;
        CAPTURE(step);
        script plan{.fails = step, .error = error};
        conversation<Transport> c(p, plan, options(p));
        CHECK_FALSE(c.run());
        CHECK_FALSE(c.error);
        for (std::string const round : {"1", "2"}) {
            CHECK(c.arrived("zero " + round) <= 1);
            CHECK(c.arrived("one " + round) >= 1);
            CHECK(c.arrived("two " + round) == 1);
        }
        if (plan.steps <= step) return tried;
        ++tried;
    }
}

template <class Transport>
void fail_with_each_error() {
    fixture p;
    std::size_t failures = 0, number = 0;
    for (auto const& error : errors(Transport::secure)) {
        CAPTURE(error.message());
        CHECK(mqtt::recovery_from(error) == mqtt::recovery::retry);
        failures += fail_each_step<Transport>(p, error, number++);
    }
    MESSAGE(failures << " failed steps");
    CHECK(failures > (Transport::secure ? 40U : 100U) / test::every(5));
    CHECK(p.broker.counters().protocol_errors == 0);
}

// From some step on nothing succeeds any more: `run` gives up after so many attempts, and all that waits is told.
template <class Transport>
void fail_for_good() {
    fixture p;
    std::size_t failures = 0, number = 0;
    for (auto const& error : errors(Transport::secure)) {
        ++number;
        for (std::size_t step = 0;; ++step) {
            if (!is_tried(step, number)) continue;
            CAPTURE(error.message());
            CAPTURE(step);
            script plan{.fails = step, .for_good = true, .error = error};
            auto o = options(p);
            o.reconnect.attempts = 3;
            o.reconnect.stable_after = std::chrono::hours(1);
            conversation<Transport> c(p, plan, std::move(o));
            auto const why = c.run();
            if (plan.steps <= step) break;
            ++failures;
            if (!why) continue;  // the last steps of all: DISCONNECT had been called
            CHECK(c.error == mqtt::errc::disconnected);
        }
    }
    MESSAGE(failures << " failed steps");
    CHECK(failures > (Transport::secure ? 40U : 100U) / test::every(5));
}

}  // namespace

TEST_CASE("whatever error a step of I/O ends with, a session over TCP goes on, and loses and doubles nothing") {
    fail_with_each_error<faulty_tcp>();
}
TEST_CASE("the same over a WebSocket") { fail_with_each_error<over<faulty_tcp>>(); }
TEST_CASE("the same over TLS") { fail_with_each_error<runnel::tls<faulty_tcp>>(); }
TEST_CASE("the same over a WebSocket over TLS") { fail_with_each_error<over<runnel::tls<faulty_tcp>>>(); }

TEST_CASE("whatever error all steps of I/O end with from some step on, run gives up, and everybody is told") {
    fail_for_good<faulty_tcp>();
    fail_for_good<over<runnel::tls<faulty_tcp>>>();
}
