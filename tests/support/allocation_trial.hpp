#pragma once

#include <runnel/mqtt/client/session.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/transport/asio_stream.hpp>

#include <asio/io_context.hpp>
#include <asio/local/connect_pair.hpp>
#include <asio/local/stream_protocol.hpp>
#include <asio/post.hpp>
#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/run.hpp"
#include "support/sample.hpp"
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#endif

// A whole conversation of a session in which the n-th allocation fails. The broker has a context of its own, and its
// allocations do not fail: nor do the test's.

namespace test {

/// Whether Asio takes its memory by `aligned_alloc`, as it does where the standard library has told it in time; else by
/// `operator new`, like everybody.
inline bool asio_allocates_apart() {
    asio::io_context io;
    auto const before = runnel::testing::aligned_allocation_count();
    asio::post(io, [room = std::array<char, 2000>()] { (void)room; });
    io.run();
    return runnel::testing::aligned_allocation_count() != before;
}

using runnel::testing::allocator;

/// Local sockets, whose other end `accept` gets.
struct local_transport {
    using executor_type = asio::any_io_executor;
    using socket_type = asio::basic_stream_socket<asio::local::stream_protocol, executor_type>;
    using stream_type = runnel::asio_stream<socket_type>;
    static constexpr bool secure = false;

    std::shared_ptr<std::function<void(stream_type)>> accept;
    executor_type peer;
    std::string host = "localhost";
    std::uint16_t port = 1;

    bool operator==(local_transport const&) const = default;
    std::string url() const { return "local://"; }

    asio::awaitable<stream_type> open(executor_type by) const {
        socket_type own(by);
        {
            runnel::testing::spared_allocations const spared;
            socket_type far(peer);
            asio::local::connect_pair(own, far);
            (*accept)(stream_type(std::move(far)));
        }
        co_return stream_type(std::move(own));
    }
};

/// How an operation has ended.
enum class ending { well, no_memory, failed, never };

template <class Transport>
class allocation_trial {
  public:
    using session_type = runnel::mqtt::session<Transport>;
    using reach = std::function<Transport(runnel::testing::broker&, asio::io_context&)>;

    allocation_trial(runnel::mqtt::protocol_version version, reach const& how)
        : version_(version), transport_(how(broker_, server_)) {
        broker_.hooks().on_publish = [this](auto const&, runnel::mqtt::publish const& m) {
            arrived_.emplace_back(m.payload);
        };
    }

    /// The whole of it. Returns the exit code that tells of it.
    int run(std::size_t nth, allocator by) {
        nth_ = nth;
        by_ = by;
        runnel::testing::failing_allocation const failing(nth, by);
        runnel::testing::spared_allocations const spared;
        failing_ = &failing;
        bool failed = false;
        {
            std::optional<session_type> s;
            std::optional<task<void>> running;
            converse(s, running);
            failed = failing.has_failed();
            expect(failed || escaped_ == 0, "nothing leaves the context");
            finish(s, running);
        }
        check_promises();
        broker_.close();
        settle();
        if (!failed) return exit_not_reached;
        return escaped_ != 0 ? exit_escaped : ended_ != 0 ? exit_ended : exit_went_on;
    }

    /// Asio has ended the program.
    int terminated() {
        runnel::testing::spared_allocations const spared;
        check_promises();
        return exit_terminated;
    }

    enum : int { exit_went_on, exit_wrong, exit_not_reached, exit_ended, exit_escaped, exit_terminated };

  private:
    struct sent {
        std::string payload;
        runnel::mqtt::qos quality;
        ending how;
        bool is_waited_for = true;    // who has published it has waited for its end
        bool is_before_loss = false;  // the broker has lost its session since
    };
    // What was in flight when the broker lost the session is sent anew, and may have arrived before.
    static bool may_double(sent const& m) noexcept {
        return m.is_before_loss && (m.how != ending::well || !m.is_waited_for);
    }
    using subscription = typename session_type::subscription;

    // A subscription with an inbox, and the payloads that have been received from it.
    struct reader {
        std::optional<subscription> handle;
        std::vector<std::string> received;
    };

    // Calls the user's way: here allocations fail.
    template <class F>
    auto armed(F call) {
        runnel::testing::spared_allocations const not_spared(is_finishing_);
        return call();
    }

    bool step() {
        std::size_t n = 0;
        client_.restart();
        try {
            n = armed([&] { return client_.poll(); });
        } catch (std::bad_alloc const&) {
            ++escaped_;
            ++n;
        }
        server_.restart();
        return n + server_.poll() != 0;
    }

    template <class Condition>
    bool until(Condition met) {
        auto const limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        while (!met()) {
            if (step()) continue;
            if (escaped_ != 0 || std::chrono::steady_clock::now() > limit) return false;
            std::this_thread::sleep_for(std::chrono::microseconds(100));
        }
        return true;
    }
    void settle() {
        while (step()) {
        }
    }

    template <class T, class Keep>
    ending ending_of(task<T>& t, Keep keep) {
        try {
            keep(t);
            return ending::well;
        } catch (std::bad_alloc const&) {
            return ending::no_memory;
        } catch (std::system_error const& e) {
            told_ = e.what();
            // Only where a failed allocation has ended `run`, or has become an error of the stream's.
            expect(failing_->has_failed(), "nothing fails without reason");
            return ending::failed;
        }
    }

    // One operation, from its call to its end; `keep` is given its value.
    template <class Make, class Keep>
    ending operate(std::optional<task<void>>& running, Make make, Keep keep) {
        using awaitable = decltype(make());
        std::optional<awaitable> operation;
        try {
            armed([&] { operation.emplace(make()); });
        } catch (std::bad_alloc const&) {
            return ending::no_memory;
        }
        task<typename awaitable::value_type> t(client_, std::move(*operation));
        bool const ended = until([&] { return t.done() || (running && running->done()); });
        settle();
        if (!t.done()) {
            // Asio has lost it, and has said so.
            expect(escaped_ > 0, "an operation ends");
            return ending::never;
        }
        expect(ended || escaped_ > 0, "an operation ends before run does, or with it");
        return ending_of(t, keep);
    }
    template <class Make>
    ending operate(std::optional<task<void>>& running, Make make) {
        return operate(running, make, [](auto& t) { t.get(); });
    }

    ending publish(session_type& s, std::optional<task<void>>& running, std::string_view topic, std::string payload,
                   runnel::mqtt::qos quality) {
        auto& m = sent_.emplace_back(sent{std::move(payload), quality, ending::never});
        m.how = operate(running, [&] { return s.publish(topic, m.payload, {.qos = quality}); });
        return m.how;
    }

    runnel::mqtt::session_options options() const {
        runnel::mqtt::session_options o;
        o.credentials.client_id = "client";
        o.version = version_;
        o.reconnect.initial = o.reconnect.maximum = std::chrono::milliseconds(1);
        o.close_timeout = std::chrono::seconds(5);
        return o;
    }

    void make(std::optional<session_type>& s) {
        auto const o = options();
        for (int i = 0; !s && i < 2; ++i) {
            try {
                auto own = o;
                auto to = transport_;
                armed([&] { s.emplace(client_.get_executor(), std::move(to), std::move(own)); });
            } catch (std::bad_alloc const&) {
            }
        }
        expect(s.has_value(), "there is a session");
    }
    void begin_run(session_type& s, std::optional<task<void>>& running) {
        running.reset();
        try {
            std::optional<asio::awaitable<void>> operation;
            armed([&] { operation.emplace(s.run()); });
            running.emplace(client_, std::move(*operation));
        } catch (std::bad_alloc const&) {
            running.emplace(client_, s.run());
        }
    }

    // Goes on in spite of errors, while there is a `run`.
    void converse(std::optional<session_type>& s, std::optional<task<void>>& running) {
        using runnel::mqtt::qos;
        make(s);
        auto handling = [this](runnel::mqtt::publish const& m) { handled_.emplace_back(m.payload); };
        std::optional<subscription> viewed, served;
        begin_run(*s, running);
        operate(running, [&] { return s->subscribe("view", handling); }, [&](auto& t) { viewed = t.get(); });
        is_viewed_ = viewed.has_value();
        if (running->done()) return;
        subscribe(*s, running, "in", in_);
        if (running->done()) return;
        subscribe(*s, running, "in/#", also_);  // which "in" matches, too
        was_also_ = also_.handle.has_value();
        for (auto const quality : {qos::at_most_once, qos::at_least_once, qos::exactly_once}) {
            auto const name = std::to_string(static_cast<int>(quality));
            if (running->done()) return;
            auto const how = publish(*s, running, "in", "in " + name, quality);
            if (running->done()) return;
            publish(*s, running, "view", "view " + name, quality);
            if (running->done()) return;
            if (how != ending::well) continue;
            // A library's failure may end the connection, and what has been written of QoS 0 with it.
            if (quality == qos::at_most_once && by_ == allocator::library) continue;
            receive(running, in_);
            receive(running, also_, quality == qos::at_least_once);
        }
        if (!running->done()) come_too_soon(*s, running);
        if (running->done()) return;
        if (version_ == runnel::mqtt::protocol_version::v5 && !running->done()) ask(*s, running, served);
        if (running->done()) return;
        lose_connection(*s, running);
        if (running->done()) return;
        lose_session(*s, running);
        if (running->done()) return;
        if (in_.handle) operate(running, [&] { return s->unsubscribe(*in_.handle); });
        if (running->done()) return;
        operate(running, [&] { return s->disconnect(); });
        if (!running->done() && escaped_ == 0) operate(running, [&] { return s->disconnect(); });
        until([&] { return running->done() || escaped_ != 0; });
    }

    void subscribe(session_type& s, std::optional<task<void>>& running, std::string_view filter, reader& to) {
        operate(running, [&] { return s.subscribe(filter); }, [&](auto& t) { to.handle = t.get(); });
    }
    // One message, which is acknowledged or given back.
    void receive(std::optional<task<void>>& running, reader& from, bool gives_back = false) {
        if (!from.handle || running->done()) return;
        operate(
            running, [&] { return from.handle->receive(); },
            [&](auto& t) {
                auto m = t.get();
                from.received.emplace_back(m.payload());
                armed([&] { gives_back ? m.abandon() : m.acknowledge(); });
            });
    }
    void receive_all(reader& from) {
        settle();
        while (auto m = from.handle ? from.handle->try_receive() : std::nullopt) {
            from.received.emplace_back(m->payload());
            armed([&] { m.reset(); });
            settle();
        }
    }

    // Messages wait for a subscription that nobody has any more, until there is another.
    void come_too_soon(session_type& s, std::optional<task<void>>& running) {
        using runnel::mqtt::qos;
        subscribe(s, running, "later", later_);
        if (!later_.handle || running->done()) return;
        auto const how = publish(s, running, "later", "unread", qos::exactly_once);
        armed([&] { later_.handle.reset(); });
        if (how != ending::well || running->done()) return;
        publish(s, running, "later", "unrouted", qos::at_least_once);
        if (!running->done()) subscribe(s, running, "later", later_);
        receive_all(later_);
    }

    // The broker loses the session, to another client of its name.
    void lose_session(session_type& s, std::optional<task<void>>& running) {
        receive_all(in_);
        receive_all(also_);
        receive_all(later_);
        for (auto& m : sent_) m.is_before_loss = true;
        auto o = options();
        o.clean_start = true;
        if (o.version == runnel::mqtt::protocol_version::v5) o.session_expiry = std::chrono::seconds(0);
        session_type other(server_.get_executor(), transport_, std::move(o));
        task<void> others(server_, other.run());
        task<void>(server_, other.connected()).run();
        task<void>(server_, other.disconnect()).run();
        others.run();
        auto const before = s.counters().connections;
        operate(running, [&] { return s.connected(before); });
    }

    void ask(session_type& s, std::optional<task<void>>& running, std::optional<subscription>& served) {
        using namespace std::chrono_literals;
        operate(running, [&] { return s.subscribe("service"); }, [&](auto& t) { served = t.get(); });
        if (!served || running->done()) return;
        std::optional<asio::awaitable<runnel::mqtt::message>> operation;
        try {
            armed([&] { operation.emplace(s.request("service", "?", 2s)); });
        } catch (std::bad_alloc const&) {
            return;
        }
        task<runnel::mqtt::message> asking(client_, std::move(*operation));
        std::optional<runnel::mqtt::message> request;
        std::optional<task<runnel::mqtt::message>> receiving;
        try {
            std::optional<asio::awaitable<runnel::mqtt::message>> receive;
            armed([&] { receive.emplace(served->receive()); });
            receiving.emplace(client_, std::move(*receive));
            until([&] { return receiving->done() || asking.done() || running->done(); });
            if (receiving->done()) ending_of(*receiving, [&](auto& t) { request.emplace(t.get()); });
        } catch (std::bad_alloc const&) {
        }
        if (request && !running->done()) operate(running, [&] { return s.respond(request->view(), "!"); });
        if (request) request->acknowledge();
        until([&] { return asking.done() || running->done(); });
        settle();
        expect(asking.done() || escaped_ > 0, "a request ends");
        if (receiving && !receiving->done()) {
            receiving->cancel();
            settle();
        }
    }

    void lose_connection(session_type& s, std::optional<task<void>>& running) {
        using runnel::mqtt::qos;
        broker_.hold_acknowledgements(true);
        for (auto const quality : {qos::at_least_once, qos::exactly_once, qos::at_most_once}) {
            auto& m = sent_.emplace_back(
                sent{"lost " + std::to_string(static_cast<int>(quality)), quality, ending::no_memory, false});
            try {
                if (armed([&] { return s.try_publish("in", m.payload, {.qos = quality}); })) m.how = ending::well;
            } catch (std::bad_alloc const&) {
            }
        }
        settle();
        broker_.drop_client("client");
        broker_.hold_acknowledgements(false);
        operate(running, [&] { return s.connected(); });
        if (!running->done()) operate(running, [&] { return s.drained(); });
    }

    // What is left is delivered, without a failure: by the same session.
    void finish(std::optional<session_type>& s, std::optional<task<void>>& running) {
        using runnel::mqtt::qos;
        is_finishing_ = true;
        if (escaped_ != 0) {
            // Whatever Asio has lost, the session can be destroyed.
            s.reset();
            settle();
            return;
        }
        if (running->done()) {
            auto const how = ending_of(*running, [](auto& t) { t.get(); });
            // A library has errors of its own.
            expect(how != ending::failed || by_ == allocator::library, "run ends with what has failed");
            if (how != ending::well) ++ended_;
            begin_run(*s, running);
        }
        publish(*s, running, "end", "end", qos::exactly_once);
        expect(sent_.back().how == ending::well, "another message can be published");
        receive_the_rest(*s, running);
        expect(operate(running, [&] { return s->drained(); }) == ending::well, "all is delivered");
        expect(operate(running, [&] { return s->disconnect(); }) == ending::well, "the session disconnects");
        expect(until([&] { return running->done(); }), "run ends");
        expect(s->queued().empty(), "nothing is left");
        is_finished_ = true;
        s.reset();
        settle();
    }

    // Whatever there was, all subscriptions get messages.
    void receive_the_rest(session_type& s, std::optional<task<void>>& running) {
        using runnel::mqtt::qos;
        for (auto* const r : {&also_, &later_}) {
            std::string const topic = r == &also_ ? "in" : "later";
            if (!r->handle) subscribe(s, running, r == &also_ ? "in/#" : "later", *r);
            publish(s, running, topic, "last " + topic, qos::exactly_once);
            receive_all(*r);
            expect(until([&] {
                       receive_all(*r);
                       return !r->received.empty() && r->received.back() == "last " + topic;
                   }),
                   "messages come");
        }
        publish(s, running, "view", "last view", qos::exactly_once);
        if (is_viewed_)
            expect(until([&] { return !handled_.empty() && handled_.back() == "last view"; }), "a handler is called");
        for (auto const& m : sent_) {
            if (m.how != ending::well || m.is_before_loss || m.quality == qos::at_most_once) continue;
            if (m.payload.starts_with("in "))
                expect(!was_also_ || std::ranges::count(also_.received, m.payload) > 0, "no message is lost");
            if (m.payload.starts_with("un"))
                expect(std::ranges::count(later_.received, m.payload) > 0, "no message is lost that is kept");
        }
        for (auto const* r : {&in_, &also_, &later_})
            for (auto const& m : sent_)
                if (m.quality == qos::exactly_once && !may_double(m))
                    expect(std::ranges::count(r->received, m.payload) <= 1, "QoS 2 is received once");
    }

    void check_promises() {
        for (auto const& m : sent_) {
            auto const copies = std::ranges::count(arrived_, m.payload);
            bool const acknowledged = m.quality != runnel::mqtt::qos::at_most_once && m.how == ending::well;
            expect(copies >= 1 || !acknowledged || !(m.is_waited_for || is_finished_),
                   "what was acknowledged has arrived");
            expect(copies <= 1 || may_double(m) || m.quality != runnel::mqtt::qos::exactly_once, "QoS 2 arrives once");
        }
        expect(broker_.counters().protocol_errors == 0, "nothing wrong is sent");
    }

    void expect(bool holds, char const* what) {
        if (holds) return;
        char const* const whose = by_ == allocator::library                                    ? "a library's"
                                  : by_ == allocator::aligned_alloc || !asio_allocates_apart() ? "Asio's, perhaps,"
                                                                                               : "operator new";
        std::fprintf(stderr, "allocation %zu of %s: not so: %s (%s)\n", nth_, whose, what, told_.c_str());
        ::_exit(exit_wrong);
    }

    asio::io_context client_, server_;
    runnel::testing::broker broker_{server_.get_executor()};
    runnel::mqtt::protocol_version version_;
    Transport transport_;
    runnel::testing::failing_allocation const* failing_ = nullptr;
    std::size_t nth_ = 0;
    allocator by_ = allocator::operator_new;
    bool is_finishing_ = false;
    bool is_finished_ = false;
    std::string told_;         // by the exception of the last operation that has failed
    std::size_t escaped_ = 0;  // exceptions that have left the context
    std::size_t ended_ = 0;    // runs ended by one
    std::vector<std::string> handled_;
    bool is_viewed_ = false;  // there is a handler
    bool was_also_ = false;   // there was the second inbox before the first message
    reader in_, also_, later_;
    std::vector<std::string> arrived_;
    std::list<sent> sent_;
};

/// What became of the failures of all allocations of one kind, one after another.
struct allocation_failures {
    std::size_t count = 0;
    std::size_t ended = 0;       ///< `run`
    std::size_t escaped = 0;     ///< have left the context
    std::size_t terminated = 0;  ///< the program
    std::size_t wrong = 0;
};

/// One trial, in a process of its own: Asio may end it. Does not return.
template <class Transport>
[[noreturn]] void be_trial(runnel::mqtt::protocol_version version, allocator by, std::size_t nth,
                           typename allocation_trial<Transport>::reach const& how) {
    static allocation_trial<Transport>* current = nullptr;
    std::set_terminate([] { ::_exit(current->terminated()); });
    int code = 0;
    {
        allocation_trial<Transport> t(version, how);
        current = &t;
        code = t.run(nth, by);
    }
#if defined(__SANITIZE_ADDRESS__)
    if (__lsan_do_recoverable_leak_check() != 0) code = allocation_trial<Transport>::exit_wrong;
#endif
    ::_exit(code);
}

template <class Transport>
allocation_failures fail_each_allocation(runnel::mqtt::protocol_version version, allocator by,
                                         typename allocation_trial<Transport>::reach const& how,
                                         std::size_t step = every(7)) {
    using trial = allocation_trial<Transport>;
    allocation_failures all;
    for (std::size_t nth = 1;; nth += step, ++all.count) {
        auto const child = ::fork();
        if (child == 0) be_trial<Transport>(version, by, nth, how);
        int status = 0;
        ::waitpid(child, &status, 0);
        int const code = WIFEXITED(status) ? WEXITSTATUS(status) : static_cast<int>(trial::exit_wrong);
        if (code == trial::exit_not_reached) return all;
        all.ended += code == trial::exit_ended;
        all.escaped += code == trial::exit_escaped;
        all.terminated += code == trial::exit_terminated;
        if (code == trial::exit_wrong || code > trial::exit_terminated) {
            MESSAGE("allocation " << nth << " of MQTT version " << static_cast<int>(version));
            ++all.wrong;
        }
    }
}

}  // namespace test
