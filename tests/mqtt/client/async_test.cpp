#include <runnel/mqtt/client/async.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/bind_executor.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/strand.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/use_future.hpp>
#include <doctest/doctest.h>
#if __has_include(<asio/deferred.hpp>)
#include <asio/as_tuple.hpp>
#include <asio/deferred.hpp>
#define NEW_TOKENS asio
#endif
#if !__has_include(<asio/deferred.hpp>)
#include <asio/experimental/as_tuple.hpp>
#include <asio/experimental/deferred.hpp>
#define NEW_TOKENS asio::experimental
#endif

#include "support/memory_sessions.hpp"
#include <array>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using namespace runnel::mqtt;
using namespace std::chrono_literals;
using subscription = test::memory_session::subscription;

publish_options const at_least_once{.qos = qos::at_least_once};

// Sends what it is given by strings that are gone when it returns.
template <class Token>
auto send(test::memory_session& s, Token&& token) {
    std::string topic = "a/long/topic/that/no/small/string/has", payload(100, 'x');
    return async_publish(s, topic, payload, at_least_once, std::forward<Token>(token));
}

bool is_sent(publish_result const& r) { return r.what == publish_result::outcome::acknowledged; }

struct fixture : test::connected_session {
    explicit fixture(session_options o = test::quick()) : connected_session(std::move(o)) {
        broker.hooks().on_publish = [this](auto const&, auto const& p) { arrived.emplace_back(p.payload); };
    }
    std::vector<std::string> arrived;
    std::string const sent = std::string(100, 'x');
};

}  // namespace

TEST_CASE("a callback is told the outcome, once and never from within the call") {
    fixture f;
    int called = 0;
    bool inside = true;
    asio::post(f.io, [&] {  // on the executor, where the operation begins at once
        async_publish(f.session, "a", "payload", [&](std::error_code e, publish_result r) {
            ++called;
            CHECK_FALSE(inside);
            CHECK_FALSE(e);
            CHECK(r.what == publish_result::outcome::sent);
        });
        inside = false;
    });
    CHECK(test::wait_until(f.io, [&] { return called != 0 && f.arrived.size() == 1; }));
    send(f.session, [&](std::error_code e, publish_result r) {
        ++called;
        CHECK_FALSE(e);
        CHECK(is_sent(r));
    });
    CHECK(test::wait_until(f.io, [&] { return called == 2; }));
    CHECK(f.arrived == std::vector<std::string>{"payload", f.sent});
    async_publish(f.session, "a/#", "payload", [&](std::error_code e, publish_result) {
        ++called;
        CHECK(e == errc::wildcard_in_topic_name);
    });
    CHECK(test::wait_until(f.io, [&] { return called == 3; }));
    test::settle(f.io);
    CHECK(called == 3);
    f.disconnect();
}

TEST_CASE("an operation is told by a future, which other threads can wait for") {
    fixture f;
    bool ended = false;
    std::thread user([&] {
        CHECK(is_sent(send(f.session, asio::use_future).get()));
        auto refused = async_publish(f.session, "", "payload", asio::use_future);
        CHECK_THROWS_AS(refused.get(), std::exception);  // Asio's own: with Boost it is another
        asio::post(f.io, [&] { ended = true; });
    });
    CHECK(test::wait_until(f.io, [&] { return ended; }));
    user.join();
    CHECK(f.arrived == std::vector<std::string>{f.sent});
    f.disconnect();
}

TEST_CASE("operations are awaited, as exceptions or as values") {
    fixture f;
    auto const user = [&]() -> asio::awaitable<void> {
        auto const r = co_await send(f.session, asio::use_awaitable);
        CHECK(is_sent(r));
        auto const [e, result] = co_await send(f.session, NEW_TOKENS::as_tuple(asio::use_awaitable));
        CHECK_FALSE(e);
        CHECK(is_sent(result));
        auto const refused = co_await async_subscribe(f.session, "a#", NEW_TOKENS::as_tuple(asio::use_awaitable));
        CHECK(std::error_code(std::get<0>(refused)) == errc::invalid_topic_filter);
        bool thrown = false;
        try {
            co_await async_subscribe(f.session, "a#", asio::use_awaitable);
        } catch (std::exception const& x) {
            thrown = std::string(x.what()) != "";
        }
        CHECK(thrown);
    };
    test::run(f.io, user());
    CHECK(f.arrived.size() == 2);
    f.disconnect();
}

TEST_CASE("a deferred operation owns its arguments until it is begun") {
    fixture f;
    auto later = send(f.session, NEW_TOKENS::deferred);
    test::settle(f.io);
    CHECK(f.arrived.empty());
    auto outcome = std::move(later)(asio::use_future);
    CHECK(test::wait_until(f.io, [&] { return outcome.wait_for(0s) == std::future_status::ready; }));
    CHECK(is_sent(outcome.get()));
    CHECK(f.arrived == std::vector<std::string>{f.sent});
    f.disconnect();
}

TEST_CASE("what is detached is sent all the same") {
    fixture f;
    send(f.session, asio::detached);
    CHECK(test::wait_until(f.io, [&] { return f.arrived.size() == 1; }));
    CHECK(f.arrived == std::vector<std::string>{f.sent});
    f.disconnect();
}

TEST_CASE("properties are owned by the operation") {
    fixture f(test::quick("client", protocol_version::v5));
    std::string type;
    std::size_t pairs = 0;
    f.broker.hooks().on_publish = [&](auto const&, auto const& p) {
        type = p.props.template get<property_id::content_type>().value_or("");
        pairs = p.props.template get<property_id::user_property>().size();
    };
    {
        std::string const kept = "application/json; charset=utf-8";
        std::array<user_property, 2> const user = {user_property{kept, kept}, user_property{kept, "x"}};
        properties p;
        p.content_type = kept;
        p.user_properties = user;
        async_publish(f.session, "a", "b", {.props = &p}, asio::detached);
    }
    CHECK(test::wait_until(f.io, [&] { return pairs == 2; }));
    CHECK(type == "application/json; charset=utf-8");
    f.disconnect();
}

TEST_CASE("callbacks subscribe, receive and unsubscribe") {
    fixture f;
    std::optional<subscription> of;
    std::vector<std::string> got;
    // As a user without coroutines would: one receives after the other.
    std::function<void(std::error_code, message)> take = [&](std::error_code e, message m) {
        if (e) return;
        got.emplace_back(m.payload());
        async_receive(f.session, *of, take);
    };
    async_subscribe(f.session, std::vector<std::string>{"a/#", "b"}, [&](std::error_code e, subscription s) {
        REQUIRE_FALSE(e);
        of = std::move(s);
        async_receive(f.session, *of, take);
    });
    CHECK(test::wait_until(f.io, [&] { return of.has_value(); }));
    CHECK(of->filters() == 2);
    for (auto const* topic : {"a/b", "b", "c"}) async_publish(f.session, topic, topic, at_least_once, asio::detached);
    CHECK(test::wait_until(f.io, [&] { return got.size() == 2; }));
    CHECK(got == std::vector<std::string>{"a/b", "b"});
    std::error_code ended = errc::queue_full;
    async_unsubscribe(f.session, *of, [&](std::error_code e) { ended = e; });
    CHECK(test::wait_until(f.io, [&] { return !ended; }));
    f.disconnect();
}

TEST_CASE("a subscription with a handler, and options of MQTT 5, which are owned") {
    fixture f(test::quick("client", protocol_version::v5));
    std::vector<std::string> got;
    int subscribed = 0;
    {
        std::string const name = "name", filter = "a/filter/that/is/long/enough/for/the/heap";
        user_property const pair{name, filter};
        async_subscribe(
            f.session, filter, [&](publish const& p) { got.emplace_back(p.payload); }, {.user_properties = pair},
            [&](std::error_code e, subscription s) {
                CHECK_FALSE(e);
                CHECK(s.filter() == "a/filter/that/is/long/enough/for/the/heap");
                ++subscribed;
            });
        async_subscribe(
            f.session, "b", [&](publish const& p) { got.emplace_back(p.payload); },
            [&](std::error_code e, subscription) {
                CHECK_FALSE(e);
                ++subscribed;
            });
    }
    CHECK(test::wait_until(f.io, [&] { return subscribed == 2; }));
    async_publish(f.session, "b", "payload", at_least_once, asio::detached);
    CHECK(test::wait_until(f.io, [&] { return got.size() == 1; }));
    f.disconnect();
}

TEST_CASE("requests and responses by callbacks") {
    fixture f(test::quick("client", protocol_version::v5));
    bool answered = false, served = false;
    auto const serve = [&](publish const& p) {
        async_respond(f.session, p, std::string("pong"), at_least_once, [&](std::error_code e, publish_result r) {
            CHECK_FALSE(e);
            CHECK(is_sent(r));
            served = true;
        });
    };
    async_subscribe(f.session, "ping", serve, [&](std::error_code e, subscription) {
        REQUIRE_FALSE(e);
        async_request(f.session, "ping", "?", 5s, [&](std::error_code error, message m) {
            CHECK_FALSE(error);
            CHECK(m.payload() == "pong");
            answered = true;
        });
    });
    CHECK(test::wait_until(f.io, [&] { return answered && served; }));
    std::error_code why;
    async_request(f.session, "nobody", "?", 10ms, at_least_once, [&](std::error_code e, message m) {
        CHECK_FALSE(m);
        why = e;
    });
    CHECK(test::wait_until(f.io, [&] { return why == errc::response_timeout; }));
    why = {};
    async_respond(f.session, publish{.topic = "a"}, "b", [&](std::error_code e, publish_result) { why = e; });
    CHECK(test::wait_until(f.io, [&] { return why == errc::no_response_topic; }));
    f.disconnect();
}

TEST_CASE("a session runs, connects, drains and disconnects by callbacks") {
    test::memory_fixture m;
    auto options = test::quick();
    test::memory_session s(m.io.get_executor(), m.transport, options);
    std::vector<std::string> order;
    auto events = s.events();
    async_next_event(s, events, [&](std::error_code e, session_event event) {
        CHECK_FALSE(e);
        CHECK(event.what == session_event::kind::connecting);
    });
    async_connected(s, [&](std::error_code e) {
        CHECK_FALSE(e);
        order.emplace_back("connected");
        async_publish(s, "a", "b", at_least_once, asio::detached);
        async_drained(s, [&](std::error_code drained) {
            CHECK_FALSE(drained);
            order.emplace_back("drained");
            async_disconnect(s, [&](std::error_code ended) {
                CHECK_FALSE(ended);
                order.emplace_back("disconnected");
            });
        });
    });
    async_connected(s, 0, [&](std::error_code e, std::uint64_t count) {
        CHECK_FALSE(e);
        CHECK(count == 1);
    });
    async_run(s, [&](std::exception_ptr e) {
        CHECK_FALSE(e);
        order.emplace_back("run");
    });
    CHECK(test::wait_until(m.io, [&] { return order.size() == 4; }));
    CHECK(order[0] == "connected");
    CHECK(order[1] == "drained");
    std::exception_ptr why;
    async_reauthenticate(s, [&](std::exception_ptr e) { why = e; });
    CHECK(test::wait_until(m.io, [&] { return why != nullptr; }));
    CHECK(runnel::exception_code(why) == errc::not_connected);
}

TEST_CASE("the properties of a disconnect are owned, and refused ones are an error") {
    fixture f(test::quick("client", protocol_version::v5));
    std::error_code refused, ended = errc::queue_full;
    properties wrong;
    wrong.topic_alias = std::uint16_t{1};
    async_disconnect(f.session, reason_code::normal_disconnection, &wrong, [&](std::error_code e) { refused = e; });
    CHECK(test::wait_until(f.io, [&] { return refused == errc::property_not_allowed; }));
    {
        std::string const text = "a reason that is long enough for the heap";
        properties p;
        p.reason_string = text;
        async_disconnect(f.session, reason_code::normal_disconnection, &p, [&](std::error_code e) { ended = e; });
    }
    CHECK(test::wait_until(f.io, [&] { return !ended; }));
    CHECK_FALSE(f.running.run_for_error());
}

TEST_CASE("what a message handler throws comes to the handler of async_run as it is") {
    test::memory_fixture m;
    test::memory_session s(m.io.get_executor(), m.transport, test::quick());
    std::exception_ptr why;
    async_run(s, [&](std::exception_ptr e) { why = e; });
    async_subscribe(s, "a", [](publish const&) { throw std::runtime_error("the user's"); }, asio::detached);
    async_publish(s, "a", "b", asio::detached);
    CHECK(test::wait_until(m.io, [&] { return why != nullptr; }));
    CHECK_THROWS_WITH(std::rethrow_exception(why), "the user's");
}

TEST_CASE("one operation is cancelled, and the others go on") {
    fixture f;
    auto of = f.subscribe("a");
    std::vector<std::error_code> ended;
    std::array<asio::cancellation_signal, 3> signals;
    auto const told = [&](std::error_code e, message) { ended.push_back(e); };
    for (auto& s : signals) async_receive(f.session, of, asio::bind_cancellation_slot(s.slot(), told));
    test::settle(f.io);
    signals[1].emit(asio::cancellation_type::total);
    test::settle(f.io);
    REQUIRE(ended.size() == 1);
    CHECK(ended[0] == asio::error::operation_aborted);
    async_publish(f.session, "a", "1", asio::detached);
    CHECK(test::wait_until(f.io, [&] { return ended.size() == 2; }));
    CHECK_FALSE(ended[1]);
    signals[1].emit(asio::cancellation_type::terminal);  // it has ended: no effect
    signals[2].emit(asio::cancellation_type::partial);
    test::settle(f.io);
    REQUIRE(ended.size() == 3);
    CHECK(ended[2] == asio::error::operation_aborted);
    f.disconnect();
}

TEST_CASE("a slot serves one operation after the other, begun in the handler of the one before") {
    fixture f;
    auto of = f.subscribe("a");
    asio::cancellation_signal signal;
    int got = 0;
    std::error_code ended;
    std::function<void(std::error_code, message)> take = [&](std::error_code e, message) {
        if (e) return static_cast<void>(ended = e);
        ++got;
        async_receive(f.session, of, asio::bind_cancellation_slot(signal.slot(), take));
    };
    async_receive(f.session, of, asio::bind_cancellation_slot(signal.slot(), take));
    for (int i = 0; i < 5; ++i) async_publish(f.session, "a", "b", at_least_once, asio::detached);
    CHECK(test::wait_until(f.io, [&] { return got == 5; }));
    signal.emit(asio::cancellation_type::terminal);
    CHECK(test::wait_until(f.io, [&] { return ended == asio::error::operation_aborted; }));
    f.disconnect();
}

// As in coro/child_task_test.cpp.
TEST_CASE("a signal may go behind the end of what it cancels from elsewhere than the executor") {
    fixture f;
    std::optional<asio::cancellation_signal> signal(std::in_place);
    bool ended = false;
    async_connected(f.session, asio::bind_cancellation_slot(signal->slot(), [&](std::error_code) { ended = true; }));
    f.io.restart();
    f.io.poll_one();
    signal->emit(asio::cancellation_type::terminal);
    while (!ended && f.io.poll_one() != 0) {
    }
    CHECK(ended);
    signal.reset();
    test::settle(f.io);
    f.disconnect();
}

TEST_CASE("what has an effect is not cancelled as if it had none") {
    test::memory_fixture m;
    test::memory_session s(m.io.get_executor(), m.transport, test::quick());
    asio::cancellation_signal signal;
    std::error_code ended;
    async_publish(s, "a", "b", at_least_once,
                  asio::bind_cancellation_slot(signal.slot(), [&](std::error_code e, publish_result) { ended = e; }));
    signal.emit(asio::cancellation_type::total);
    test::settle(m.io);
    CHECK_FALSE(ended);
    signal.emit(asio::cancellation_type::partial);
    test::settle(m.io);
    CHECK(ended == asio::error::operation_aborted);
}

TEST_CASE("an operation that is cancelled before it begins ends as cancelled and does nothing, or is done") {
    fixture f;
    asio::cancellation_signal signal;
    std::optional<std::error_code> ended;
    async_publish(f.session, "a", "b",
                  asio::bind_cancellation_slot(signal.slot(), [&](std::error_code e, publish_result) { ended = e; }));
    signal.emit(asio::cancellation_type::terminal);
    test::settle(f.io);
    REQUIRE(ended);
    // Since 1.22.2 Asio brings what is emitted elsewhere to the executor, behind the beginning.
#if !defined(RUNNEL_USE_BOOST_ASIO) && ASIO_VERSION < 102202
    CHECK(*ended == asio::error::operation_aborted);
#endif
    CHECK(f.arrived.empty() == (*ended == asio::error::operation_aborted));
    f.disconnect();
}

TEST_CASE("the handler is called on its own executor, and keeps that from running out of work") {
    fixture f;
    asio::io_context other;
    bool called = false;
    send(f.session, asio::bind_executor(other.get_executor(), [&](std::error_code e, publish_result) {
             CHECK(other.get_executor().running_in_this_thread());
             CHECK_FALSE(e);
             called = true;
         }));
    CHECK(other.poll() == 0);
    CHECK_FALSE(other.stopped());
    CHECK(test::wait_until(f.io, [&] { return f.arrived.size() == 1; }));
    test::settle(f.io);
    CHECK_FALSE(called);
    other.run();
    CHECK(called);
    f.disconnect();
}

namespace {

template <class T>
struct counting_allocator {
    using value_type = T;
    explicit counting_allocator(int& n) noexcept : count(&n) {}
    template <class U>
    counting_allocator(counting_allocator<U> const& other) noexcept : count(other.count) {}
    T* allocate(std::size_t n) {
        ++*count;
        return std::allocator<T>().allocate(n);
    }
    void deallocate(T* p, std::size_t n) noexcept { std::allocator<T>().deallocate(p, n); }
    template <class U>
    bool operator==(counting_allocator<U> const& other) const noexcept {
        return count == other.count;
    }
    int* count;
};

struct with_allocator {
    using allocator_type = counting_allocator<std::byte>;
    allocator_type get_allocator() const noexcept { return allocator_type(*count); }
    void operator()(std::error_code, publish_result) { *called = true; }
    int* count;
    bool* called;
};

}  // namespace

TEST_CASE("the handler's allocator is used to call it") {
    fixture f;
    asio::io_context other;
    int count = 0;
    bool called = false;
    send(f.session, asio::bind_executor(other.get_executor(), with_allocator{&count, &called}));
    CHECK(test::wait_until(f.io, [&] { return f.arrived.size() == 1; }));
    test::settle(f.io);
    other.run();
    CHECK(called);
    CHECK(count != 0);
    f.disconnect();
}

TEST_CASE("operations that have begun end when their session goes") {
    test::memory_fixture m;
    auto s = std::make_unique<test::memory_session>(m.io.get_executor(), m.transport, test::quick());
    std::vector<std::error_code> ended;
    async_run(*s, [&](std::exception_ptr e) { ended.push_back(runnel::exception_code(e)); });
    async_publish(*s, "a", "b", at_least_once, [&](std::error_code e, publish_result) { ended.push_back(e); });
    async_drained(*s, [&](std::error_code e) { ended.push_back(e); });
    m.io.poll_one();
    m.io.poll_one();
    m.io.poll_one();
    s.reset();
    CHECK(test::wait_until(m.io, [&] { return ended.size() == 3; }));
    for (auto const& e : ended) CHECK(e == errc::disconnected);
}

TEST_CASE("handlers go without a call when the context ends, and so do operations that never began") {
    auto const kept = std::make_shared<int>();
    for (bool const begins : {false, true}) {
        asio::cancellation_signal signal;
        test::memory_fixture m;
        test::memory_session s(m.io.get_executor(), m.transport, test::quick());
        async_connected(s, asio::bind_cancellation_slot(signal.slot(), [kept](std::error_code) { CHECK(false); }));
        async_publish(s, "a", "b", at_least_once, [kept](std::error_code, publish_result) { CHECK(false); });
        if (begins) test::settle(m.io);
    }
    CHECK(kept.use_count() == 1);
}
