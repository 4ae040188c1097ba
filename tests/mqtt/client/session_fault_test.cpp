#include <runnel/coro/race.hpp>
#include <runnel/mqtt/client/session.hpp>
#include <runnel/websocket/transport.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

// A conversation of every kind of exchange, in which each step of I/O fails in turn.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::protocol_version;
using mqtt::qos;
using test::memory_fixture;
using test::quick;
using test::task;

// Which of the steps at the client's end (opening, reading, writing) goes wrong, and how.
struct script {
    static constexpr auto never = std::numeric_limits<std::size_t>::max();

    std::size_t fails = never;
    bool late = false;     // only once it has taken effect
    bool lingers = false;  // the server does not notice, until the client comes again
    bool delays = false;   // every step takes its time
    std::size_t chop = never;

    std::size_t steps = 0;
    std::vector<std::shared_ptr<runnel::memory_stream<>>> lingering{};

    bool failed() const noexcept { return steps > fails; }
};

[[noreturn]] void fail() { throw std::system_error(std::make_error_code(std::errc::io_error)); }

class faulty_stream {
  public:
    using executor_type = test::executor;
    static constexpr std::size_t headroom = 0;

    faulty_stream(script& plan, runnel::memory_stream<> next)
        : plan_(&plan), next_(std::make_shared<runnel::memory_stream<>>(std::move(next))) {}

    executor_type get_executor() const { return next_->get_executor(); }

    asio::awaitable<std::size_t> read_some(asio::mutable_buffer into) {
        bool const fails = co_await begin();
        std::size_t const n = co_await next_->read_some(into);
        if (fails) fail();
        co_return n;
    }
    asio::awaitable<void> write(runnel::send_buffer& out) {
        bool const fails = co_await begin();
        co_await next_->write(out);
        if (fails) fail();
    }
    asio::awaitable<void> shutdown() { return next_->shutdown(); }

  private:
    // Whether the step is to fail in the end.
    asio::awaitable<bool> begin() {
        bool const fails = plan_->steps++ == plan_->fails;
        if (plan_->delays) co_await runnel::sleep_for(get_executor(), std::chrono::microseconds(300));
        if (fails && plan_->lingers) plan_->lingering.push_back(next_);
        if (fails && !plan_->late) fail();
        co_return fails;
    }

    script* plan_;
    std::shared_ptr<runnel::memory_stream<>> next_;
};

struct faulty_transport {
    using executor_type = test::executor;
    using stream_type = faulty_stream;
    static constexpr bool secure = false;

    script* plan = nullptr;
    runnel::memory_transport next;
    std::string host = "memory";
    std::uint16_t port = 1;

    bool operator==(faulty_transport const&) const = default;
    std::string url() const { return next.url(); }

    asio::awaitable<faulty_stream> open(executor_type executor) const {
        bool const fails = plan->steps++ == plan->fails;
        if (fails && !plan->late) fail();
        auto opening = next.open(executor);
        auto opened = co_await std::move(opening);
        opened.incoming().max_read = opened.outgoing().max_read = plan->chop;
        faulty_stream s(*plan, std::move(opened));
        if (fails) fail();
        co_return std::move(s);
    }
};

struct plain {
    static auto transport(memory_fixture& p, script& plan) { return faulty_transport{&plan, p.transport}; }
};

struct websocket {
    using server_stream = runnel::websocket::stream<runnel::memory_stream<>>;

    static auto transport(memory_fixture& p, script& plan) {
        runnel::memory_transport below([&p](runnel::memory_stream<> s) {
            asio::co_spawn(p.io, serve(p, std::move(s)), [](std::exception_ptr) {});
        });
        return runnel::websocket::over<faulty_transport>{.host = "memory",
                                                         .close_timeout = std::chrono::milliseconds(5),
                                                         .next = faulty_transport{&plan, std::move(below)}};
    }
    static asio::awaitable<void> serve(memory_fixture& p, runnel::memory_stream<> s) {
        runnel::websocket::server_options options;
        options.subprotocols = "mqtt";
        auto accepting = server_stream::accept(std::move(s), std::move(options));
        auto opened = co_await std::move(accepting);
        p.broker.attach(std::move(opened));
    }
};

// Subscribes, publishes to itself with every QoS, receives, unsubscribes, disconnects; checks what has come.
template <class Kind>
void converse(protocol_version version, script& plan) {
    memory_fixture p;
    auto options = quick("client", version);
    bool const is_to_fail = plan.fails != script::never;
    if (is_to_fail) options.close_timeout = std::chrono::milliseconds(10);
    mqtt::session s(p.io.get_executor(), Kind::transport(p, plan), std::move(options));
    task<void> running(p.io, s.run());
    auto inbox = test::run(p.io, s.subscribe("t"));
    for (auto const* const round : {"1", "2"}) {
        test::run(p.io, s.publish("t", std::string("zero ") + round));
        test::run(p.io, s.publish("t", std::string("once or more ") + round, {.qos = qos::at_least_once}));
        test::run(p.io, s.publish("t", std::string("once ") + round, {.qos = qos::exactly_once}));
    }
    std::vector<std::string> arrived;
    while (arrived.empty() || arrived.back() != "once 2")
        arrived.emplace_back(test::run(p.io, inbox.receive()).payload());
    p.settle();
    while (auto const m = inbox.try_receive()) arrived.emplace_back(m->payload());
    test::run(p.io, s.unsubscribe(inbox));
    auto const said = test::error_of(p.io, s.disconnect());
    CHECK((!said || is_to_fail));
    CHECK_FALSE(running.run_for_error());
    plan.lingering.clear();
    p.settle();
    CHECK(p.broker.counters().protocol_errors == 0);
    p.broker.close();
    p.settle();

    auto const count = [&](std::string const& text) { return std::ranges::count(arrived, text); };
    auto const fixture = [&](std::string const& text) { return std::ranges::find(arrived, text); };
    for (std::string const round : {"1", "2"}) {
        CHECK(count("zero " + round) <= 1);
        CHECK(count("once or more " + round) >= 1);
        CHECK(count("once " + round) == 1);
    }
    CHECK(fixture("once or more 1") < fixture("once or more 2"));
    CHECK(fixture("once 1") < fixture("once 2"));
}

// Lets each step fail in turn, until there are no more; returns how many.
template <class Kind>
std::size_t fail_each_step(protocol_version version, bool late, bool lingers) {
    for (std::size_t step = 0;; ++step) {
        CAPTURE(static_cast<int>(version));
        CAPTURE(late);
        CAPTURE(lingers);
        CAPTURE(step);
        script plan{.fails = step, .late = late, .lingers = lingers};
        converse<Kind>(version, plan);
        if (!plan.failed()) return step;
    }
}

template <class Kind>
std::size_t fail_in_every_way() {
    std::size_t failures = 0;
    for (auto const version : test::versions)
        for (bool const late : {false, true})
            for (bool const lingers : {false, true}) failures += fail_each_step<Kind>(version, late, lingers);
    return failures;
}

}  // namespace

TEST_CASE("whichever step of I/O fails, no QoS 1 message is lost and no QoS 2 message comes twice") {
    auto const failures = fail_in_every_way<plain>();
    MESSAGE(failures << " failed steps");
    CHECK(failures > 100);
}

TEST_CASE("the same over a WebSocket, with the steps of its handshake") {
    auto const failures = fail_in_every_way<websocket>();
    MESSAGE(failures << " failed steps");
    CHECK(failures > 100);
}

TEST_CASE("a conversation goes on byte by byte, and with delays at every step") {
    for (auto const version : test::versions) {
        for (bool const delays : {false, true}) {
            script plan{.delays = delays, .chop = 1};
            converse<plain>(version, plan);
            script over_websocket{.delays = delays, .chop = 1};
            converse<websocket>(version, over_websocket);
        }
    }
}
