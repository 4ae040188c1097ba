#include <runnel/mqtt/client/threaded_client.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/execution_context.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/strand.hpp>
#include <asio/thread_pool.hpp>
#include <asio/use_future.hpp>
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace runnel::mqtt;
using namespace std::chrono_literals;
using client_type = threaded_client<runnel::tcp>;

publish_options const at_least_once{.qos = qos::at_least_once};

// A broker in a thread of its own.
struct broker_thread {
    broker_thread() : thread([this] { io.run(); }) {}
    ~broker_thread() {
        on([](auto& b) { b.close(); });
        thread.join();
    }
    template <class F>
    void on(F f) {
        asio::post(io, asio::use_future([&] { f(broker); })).get();
    }
    runnel::tcp transport() const { return {.host = "127.0.0.1", .port = port}; }

    asio::io_context io;
    runnel::testing::broker broker{io.get_executor()};
    std::uint16_t const port = broker.listen_tcp();
    std::thread thread;
};

// Nobody listens there.
runnel::tcp nowhere() {
    asio::io_context io;
    asio::ip::tcp::acceptor a(io, {asio::ip::address_v4::loopback(), 0});
    return {.host = "127.0.0.1", .port = a.local_endpoint().port()};
}

session_options quick(std::string id = "client") {
    session_options o;
    o.credentials.client_id = std::move(id);
    o.reconnect.initial = o.reconnect.maximum = 1ms;
    return o;
}
// Of a client that has no connection, and does not look for one all the time.
session_options idle() {
    auto o = quick();
    o.reconnect.initial = o.reconnect.maximum = 60s;
    return o;
}

bool is_sent(publish_result const& r) { return r.what == publish_result::outcome::acknowledged; }

template <class T>
std::error_code error_of(std::future<T>& f) {
    REQUIRE(f.wait_for(20s) == std::future_status::ready);
    try {
        f.get();
        return {};
    } catch (std::system_error const& e) {
        return e.code();
    }
}
template <class T>
std::error_code error_of(std::future<T>&& f) {
    return error_of(f);
}

template <class Condition>
bool wait_until(Condition condition) {
    for (int i = 0; i < 4000 && !condition(); ++i) std::this_thread::sleep_for(5ms);
    return condition();
}

template <class F>
std::error_code code_of(F f) {
    try {
        f();
        return {};
    } catch (std::system_error const& e) {
        return e.code();
    }
}

auto const deadlock = std::errc::resource_deadlock_would_occur;

}  // namespace

TEST_CASE("any thread publishes, subscribes and receives") {
    broker_thread b;
    client_type client(b.transport(), quick());
    auto queue = client.subscribe("a/#").get();
    CHECK(queue.filters() == std::vector<std::string>{"a/#"});
    CHECK(queue.granted_qos() == std::vector<qos>{qos::exactly_once});
    CHECK(client.is_connected());
    CHECK(client.wait_connected(1s));
    CHECK_FALSE(queue.try_receive());
    CHECK_FALSE(queue.receive_for(1ms));
    std::promise<publish_result> told;
    {
        std::string topic = "a/topic/that/is/long/enough/for/the/heap", payload(100, 'x');
        client.publish(topic, payload, at_least_once, [&](std::error_code e, publish_result const& r) {
            CHECK_FALSE(e);
            told.set_value(r);
        });
    }
    CHECK(is_sent(told.get_future().get()));
    auto m = queue.receive();
    CHECK(m.topic() == "a/topic/that/is/long/enough/for/the/heap");
    CHECK(m.payload() == std::string(100, 'x'));
    CHECK(m.qos() == qos::at_least_once);
    m.acknowledge();
    CHECK_FALSE(m);
    CHECK(client.publish("b", "", {}).get().what == publish_result::outcome::sent);
    CHECK(error_of(client.publish("b/#", "")) == errc::wildcard_in_topic_name);
    CHECK(client.on_session([](auto& s) { return s.counters().messages_received; }).get() == 1);
    CHECK(*client.on_session([](auto&) { return std::make_unique<int>(7); }).get() == 7);
    CHECK(error_of(client.on_session([](auto&) { throw std::system_error(errc::queue_full); })) == errc::queue_full);
    client.unsubscribe(queue).get();
    CHECK(code_of([&] { queue.receive(); }) == errc::disconnected);
    CHECK(client.outstanding() == 0);
    auto const report = client.close(5s);
    CHECK(report.undelivered == 0);
    CHECK(report.in_time);
    CHECK(client.error() == nullptr);
    CHECK_FALSE(client.is_connected());
}

TEST_CASE("properties and filters are copied") {
    broker_thread b;
    auto o = quick();
    o.version = protocol_version::v5;
    client_type client(b.transport(), o);
    std::promise<std::string> got;
    client
        .subscribe(std::vector<std::string>{"a", "b"},
                   [&](publish const& p) {
                       got.set_value(std::string(p.props.get<property_id::content_type>().value_or("")));
                   })
        .get();
    {
        std::string const type = "application/json; charset=utf-8";
        properties p;
        p.content_type = type;
        client.publish("b", "{}", {.props = &p});
    }
    CHECK(got.get_future().get() == "application/json; charset=utf-8");
}

TEST_CASE("a message is acknowledged when its thread lets go of it, and comes again when it is given back") {
    broker_thread b;
    auto o = quick();
    o.stalled_after = 20ms;
    client_type client(b.transport(), o);
    auto queue = client.subscribe("a").get();
    client.publish("a", "1", at_least_once).get();
    {
        auto first = queue.receive_for(10s);
        REQUIRE(first);
        CHECK_FALSE(first->view().dup);
        try {
            auto const held = std::move(*first);
            throw std::runtime_error("the work on it has failed");
        } catch (std::runtime_error const&) {
        }
    }
    auto again = queue.receive_for(10s);
    REQUIRE(again);
    CHECK(again->payload() == "1");
    CHECK(again->view().dup);
    again->abandon();
    auto third = queue.receive_for(20s);
    REQUIRE(third);
    third.reset();
    client.close(5s);
    client_type next(b.transport(), quick());
    auto empty = next.subscribe("a").get();
    CHECK_FALSE(empty.receive_for(100ms));
}

TEST_CASE("what was not taken comes to the next client of the name") {
    broker_thread b;
    std::optional<threaded_message> held;
    message_queue queue;
    {
        client_type client(b.transport(), quick());
        queue = client.subscribe("a").get();
        for (auto const* text : {"1", "2", "3"}) client.publish("a", text, at_least_once).get();
        queue.receive();
        held = queue.receive();
        CHECK(wait_until([&] { return queue.size() == 1; }));
        std::this_thread::sleep_for(20ms);  // so that the first is acknowledged
    }
    CHECK(held->payload() == "2");
    CHECK(queue.receive().payload() == "3");  // which nobody acknowledges
    CHECK(code_of([&] { queue.receive(); }) == errc::disconnected);
    held.reset();
    client_type next(b.transport(), quick());
    auto rest = next.subscribe("a").get();
    CHECK(rest.receive().payload() == "2");
    CHECK(rest.receive().payload() == "3");
}

TEST_CASE("a queue that everybody has let go of takes no more, and a subscription with a callback goes on") {
    broker_thread b;
    std::atomic<int> called = 0, unrouted = 0;
    auto o = quick();
    o.on_event = [&](session_event const& e) { unrouted += e.what == session_event::kind::unrouted; };
    client_type client(b.transport(), o);
    auto queue = client.subscribe("a").get();
    client.subscribe("b", [&](publish const&) { ++called; }).get();
    client.subscribe("c", client_type::message_callback{}).get();
    client.publish("a", "1", at_least_once).get();
    CHECK(wait_until([&] { return queue.size() == 1; }));
    {
        auto const copy = queue;
        queue = {};
        CHECK(copy.size() == 1);
        CHECK(unrouted == 0);
    }
    CHECK(wait_until([&] { return unrouted == 1; }));  // it has been given back
    for (auto const* topic : {"b", "c"}) client.publish(topic, "2", at_least_once).get();
    CHECK(wait_until([&] { return called == 1; }));
    CHECK(client.close(5s).in_time);
}

TEST_CASE("options out of range are refused") {
    auto const refused = [](threaded_options const& how, char const* text) {
        CHECK_THROWS_WITH_AS(client_type(nowhere(), idle(), how), text, std::out_of_range);
    };
    threaded_options how;
    how.limits.messages = 0;
    refused(how, "messages must be 1 or more");
    how = {};
    how.maximum_requests = 0;
    refused(how, "maximum_requests must be 1 or more");
    how = {};
    how.close_limit = -1ms;
    refused(how, "close_limit must be 0 ms to 24 h");
    how.close_limit = 25h;
    refused(how, "close_limit must be 0 ms to 24 h");
    auto o = idle();
    o.maximum_in_flight = 0;
    CHECK_THROWS_AS(client_type(nowhere(), o), std::out_of_range);
    client_type client(nowhere(), idle());
    CHECK_THROWS_WITH_AS(client.close(-1ms), "limit must be 0 ms to 24 h", std::out_of_range);
    CHECK_THROWS_AS(client.begin_close(25h), std::out_of_range);
    client.close(0ms);
}

TEST_CASE("without room a message is refused, dropped, or waits") {
    threaded_options how;
    how.limits = {.messages = 2, .bytes = 100, .handed_over = 1};
    how.close_limit = 0ms;
    using result = std::future<publish_result>;
    for (auto const policy : {when_full::refuse, when_full::drop_newest, when_full::drop_oldest, when_full::wait}) {
        CAPTURE(static_cast<int>(policy));
        how.when_full = policy;
        client_type client(nowhere(), idle(), how);
        result handed = client.publish("a", "1", at_least_once);
        CHECK(wait_until([&] { return client.on_session([](auto& s) { return s.accepted(); }).get() == 1; }));
        result waiting = client.publish("a", "2", at_least_once);
        CHECK(error_of(client.publish("a", std::string(100, 'x'))) ==
              (policy == when_full::drop_newest ? errc::message_discarded : errc::queue_full));
        result third;
        std::error_code called;
        switch (policy) {
            case when_full::wait: {
                auto o = at_least_once;
                o.timeout = 20ms;
                CHECK(error_of(client.publish("a", "3", o)) == errc::message_expired);
                std::thread producer([&] { third = client.publish("a", "4", at_least_once); });
                std::this_thread::sleep_for(20ms);
                CHECK(client.close(0ms).undelivered == 3);
                producer.join();
                CHECK(error_of(third) == errc::disconnected);
                CHECK(error_of(waiting) == errc::disconnected);
                break;
            }
            case when_full::drop_oldest:
                third = client.publish("a", "3", at_least_once);
                CHECK(error_of(waiting) == errc::message_discarded);
                CHECK(third.wait_for(0s) == std::future_status::timeout);
                CHECK(client.outstanding() == 2);
                CHECK(error_of(client.publish("a", std::string(99, 'x'))) == errc::queue_full);
                break;
            case when_full::refuse:
            case when_full::drop_newest:
                client.publish("a", "3", at_least_once, [&](std::error_code e, publish_result const&) { called = e; });
                CHECK(called == (policy == when_full::refuse ? errc::queue_full : errc::message_discarded));
                CHECK(waiting.wait_for(0s) == std::future_status::timeout);
                break;
        }
        client.close(0ms);
        CHECK(error_of(handed) == errc::disconnected);
    }
}

TEST_CASE("a producer goes on when there is room, and the order is kept") {
    broker_thread b;
    threaded_options how;
    how.limits = {.messages = 2, .bytes = 1000, .handed_over = 1};
    client_type client(b.transport(), quick(), how);
    auto queue = client.subscribe("a").get();
    std::vector<std::future<publish_result>> results;
    for (int i = 0; i < 100; ++i) results.push_back(client.publish("a", std::to_string(i), at_least_once));
    for (int i = 0; i < 100; ++i) CHECK(queue.receive().payload() == std::to_string(i));
    for (auto& r : results) CHECK(is_sent(r.get()));
}

TEST_CASE("a timeout counts from the call, also for what waits behind others") {
    threaded_options how;
    how.limits.handed_over = 1;
    how.close_limit = 0ms;
    client_type client(nowhere(), idle(), how);
    auto first = client.publish("a", "1", at_least_once);
    auto o = at_least_once;
    o.timeout = 30ms;
    auto const begin = std::chrono::steady_clock::now();
    auto second = client.publish("a", "2", o);
    o.timeout = 60ms;
    std::promise<std::error_code> told;
    client.publish("a", "3", o, [&](std::error_code e, publish_result const&) { told.set_value(e); });
    CHECK(error_of(second) == errc::message_expired);
    CHECK(std::chrono::steady_clock::now() - begin >= 30ms);
    CHECK(told.get_future().get() == errc::message_expired);
    CHECK(std::chrono::steady_clock::now() - begin >= 60ms);
    CHECK(first.wait_for(0s) == std::future_status::timeout);
    CHECK(client.outstanding() == 1);
}

TEST_CASE("closing delivers what was accepted, within the limit") {
    broker_thread b;
    std::atomic<int> arrived = 0;
    b.on([&](auto& broker) { broker.hooks().on_publish = [&](auto const&, auto const&) { ++arrived; }; });
    std::atomic<int> called = 0;
    {
        client_type client(b.transport(), quick());
        for (int i = 0; i < 500; ++i)
            client.publish("a", std::to_string(i), at_least_once, [&](std::error_code e, publish_result const&) {
                if (!e) ++called;
            });
    }
    CHECK(called == 500);
    CHECK(arrived == 500);
}

TEST_CASE("what is refused while the client closes is not what could not be delivered") {
    broker_thread b;
    client_type client(b.transport(), quick());
    CHECK(client.wait_connected(10s));
    b.on([](auto& broker) { broker.delay({role::server, packet_type::puback}, 50ms); });
    auto slow = client.publish("a", "1", at_least_once);
    auto const busy = client.on_session([](auto&) { std::this_thread::sleep_for(20ms); });
    auto refused = client.publish("a/#", "2", at_least_once);
    auto const report = client.close(10s);
    CHECK(error_of(refused) == errc::wildcard_in_topic_name);
    CHECK(is_sent(slow.get()));
    CHECK(report.undelivered == 0);
}

TEST_CASE("a silent broker: what could not be delivered is told when the limit is over") {
    broker_thread b;
    client_type client(b.transport(), quick());
    CHECK(client.wait_connected(10s));
    b.on([](auto& broker) { broker.lose({role::server, packet_type::puback}); });
    auto lost = client.publish("a", "1", at_least_once);
    auto const begin = std::chrono::steady_clock::now();
    auto const report = client.close(100ms);
    auto const took = std::chrono::steady_clock::now() - begin;
    CHECK(took >= 100ms);
    CHECK(took < 5s);
    CHECK(report.undelivered == 1);
    CHECK_FALSE(report.in_time);
    CHECK(error_of(lost) == errc::disconnected);
    CHECK(client.error() == nullptr);
}

TEST_CASE("nothing is taken after close, and closing again tells the same") {
    client_type client(nowhere(), idle());
    auto waiting = client.publish("a", "b", at_least_once);
    std::array<close_report, 3> reports;
    std::vector<std::thread> closers;
    for (auto& r : reports) closers.emplace_back([&] { r = client.close(50ms); });
    for (auto& t : closers) t.join();
    for (auto const& r : reports) {
        CHECK(r.undelivered == 1);
        CHECK_FALSE(r.in_time);
    }
    CHECK(error_of(waiting) == errc::disconnected);
    int called = 0;
    client.publish("a", "b", {}, [&](std::error_code e, publish_result const&) {
        CHECK(e == errc::disconnected);
        ++called;
    });
    CHECK(called == 1);
    CHECK(error_of(client.publish("a", "b")) == errc::disconnected);
    CHECK(error_of(client.subscribe("a")) == errc::disconnected);
    CHECK(error_of(client.on_session([](auto&) {})) == errc::disconnected);
    CHECK(client.close(1s).undelivered == 1);
    CHECK(client.begin_close(1s).get().undelivered == 1);
    CHECK_FALSE(client.wait_connected(1h));
}

TEST_CASE("what is asked for and not done with is bounded, too") {
    client_type client(nowhere(), idle(), {.maximum_requests = 2, .close_limit = 0ms});
    auto first = client.subscribe("a");
    auto second = client.subscribe("b", [](publish const&) {});
    CHECK(error_of(client.subscribe("c")) == errc::queue_full);
    CHECK(error_of(client.on_session([](auto&) {})) == errc::queue_full);
    client.close(0ms);
    CHECK(error_of(first) == errc::disconnected);
    CHECK(error_of(second) == errc::disconnected);
    CHECK(error_of(client.on_session([](auto&) {})) == errc::disconnected);
    // There is room again for each that is done with.
    broker_thread b;
    client_type other(b.transport(), quick(), {.maximum_requests = 1});
    for (int i = 0; i < 20; ++i) CHECK(other.on_session([](auto& s) { return s.counters().connections; }).get() <= 1);
}

TEST_CASE("messages of QoS 0 that wait for a connection are delivered before the end, too") {
    broker_thread b;
    b.on([](auto& broker) { broker.refuse_next(2, reason_code::server_busy); });
    std::atomic<int> arrived = 0;
    b.on([&](auto& broker) { broker.hooks().on_publish = [&](auto const&, auto const&) { ++arrived; }; });
    auto o = quick();
    o.reconnect.initial = o.reconnect.maximum = 30ms;
    client_type client(b.transport(), o);
    for (int i = 0; i < 5; ++i) client.publish("a", "b");
    CHECK(client.close(10s).in_time);
    CHECK(wait_until([&] { return arrived == 5; }));
    client_type offline(nowhere(), idle());
    CHECK(offline.publish("a", "b").get().what == publish_result::outcome::queued);
    CHECK_FALSE(offline.close(20ms).in_time);
}

TEST_CASE("a shorter limit counts") {
    client_type client(nowhere(), idle());
    auto const waiting = client.publish("a", "b", at_least_once);
    auto first = client.begin_close(1h);
    CHECK(first.wait_for(20ms) == std::future_status::timeout);
    CHECK(client.close(10ms).undelivered == 1);
    CHECK(first.get().undelivered == 1);
    client_type other(nowhere(), idle());
    auto const lost = other.publish("a", "b", at_least_once);
    auto const shorter = other.begin_close(50ms), longer = other.begin_close(1h);
    CHECK(longer.wait_for(20s) == std::future_status::ready);
    CHECK(shorter.wait_for(0s) == std::future_status::ready);
}

TEST_CASE("callbacks publish, subscribe and close, and do not wait for themselves") {
    broker_thread b;
    threaded_options how;
    how.limits = {.messages = 1, .bytes = 100, .handed_over = 1};
    client_type client(b.transport(), quick(), how);
    message_queue queue = client.subscribe("q").get();
    std::promise<std::vector<std::error_code>> told;
    std::promise<std::future<close_report>> closing;
    auto in_callback = [&](std::error_code, publish_result const&) {
        std::vector<std::error_code> all;
        all.push_back(code_of([&] { queue.receive(); }));
        all.push_back(code_of([&] { queue.receive_for(1h); }));
        all.push_back(code_of([&] { client.close(1s); }));
        auto const first = client.publish("a", "2", at_least_once);
        auto second = client.publish("a", "3", at_least_once);
        all.push_back(error_of(second));
        told.set_value(all);
        closing.set_value(client.begin_close(5s));
    };
    client.publish("a", "1", at_least_once, in_callback);
    CHECK(told.get_future().get() == std::vector<std::error_code>(4, std::make_error_code(deadlock)));
    auto const report = closing.get_future().get().get();
    CHECK(report.undelivered == 0);
    CHECK(report.in_time);
}

TEST_CASE("what a callback throws ends the client, and error tells it") {
    broker_thread b;
    for (int const which : {0, 1, 2}) {
        CAPTURE(which);
        auto o = quick("throws-" + std::to_string(which));
        if (which == 2)
            o.on_event = [](session_event const& e) {
                if (e.what == session_event::kind::connected) throw std::runtime_error("the user's");
            };
        std::promise<std::exception_ptr> ended;
        threaded_options how;
        how.on_end = [&](std::exception_ptr e) { ended.set_value(std::move(e)); };
        client_type client(b.transport(), o, how);
        if (which == 1) {
            client.subscribe("a", [](publish const&) { throw std::runtime_error("the user's"); });
            client.publish("a", "1", {});
        }
        if (which == 0)
            client.publish("b", "1", at_least_once,
                           [](std::error_code, publish_result const&) { throw std::runtime_error("the user's"); });
        auto const e = ended.get_future().get();
        REQUIRE(e != nullptr);
        CHECK_THROWS_WITH(std::rethrow_exception(e), "the user's");
        CHECK_THROWS_WITH(std::rethrow_exception(client.error()), "the user's");
        CHECK(error_of(client.publish("a", "2", at_least_once)) == errc::disconnected);
        CHECK(client.close(1s).in_time);
    }
}

TEST_CASE("an end of run is told, to all who wait") {
    broker_thread b;
    b.on([](auto& broker) { broker.refuse_next(1, reason_code::client_identifier_not_valid); });
    std::atomic<int> ended = 0;
    threaded_options how;
    how.limits = {.messages = 2, .bytes = 100, .handed_over = 1};
    how.on_end = [&](std::exception_ptr) { ++ended; };
    auto o = quick();
    client_type client(b.transport(), o, how);
    CHECK_FALSE(client.wait_connected(20s));
    CHECK(wait_until([&] { return ended == 1; }));
    REQUIRE(client.error() != nullptr);
    CHECK(runnel::exception_code(client.error()) == reason_code::client_identifier_not_valid);
    CHECK(error_of(client.publish("a", "1")) == errc::disconnected);
    CHECK(client.close(1h).in_time);
    CHECK(ended == 1);
}

TEST_CASE("a client that goes in its own callback goes on by itself until it is closed") {
    broker_thread b;
    std::atomic<int> arrived = 0;
    b.on([&](auto& broker) { broker.hooks().on_publish = [&](auto const&, auto const&) { ++arrived; }; });
    auto client = std::make_unique<client_type>(b.transport(), quick());
    std::promise<void> gone;
    client->publish("a", "1", at_least_once, [&](std::error_code, publish_result const&) {
        client->publish("a", "2", at_least_once);
        client.reset();
        gone.set_value();
    });
    gone.get_future().get();
    CHECK(wait_until([&] { return arrived == 2; }));
    CHECK(wait_until([&] {
        bool is_connected = true;
        b.on([&](auto& broker) { is_connected = broker.connected("client"); });
        return !is_connected;
    }));
}

TEST_CASE("on an executor with several threads") {
    broker_thread b;
    asio::thread_pool pool(3);
    std::atomic<int> called = 0;
    {
        client_type client(pool.get_executor(), b.transport(), quick());
        std::vector<std::thread> producers;
        for (int t = 0; t < 3; ++t)
            producers.emplace_back([&] {
                for (int i = 0; i < 50; ++i)
                    client.publish("a", "x", at_least_once, [&](std::error_code e, publish_result const&) {
                        if (!e) ++called;
                    });
            });
        for (auto& t : producers) t.join();
        CHECK(client.close(20s).in_time);
    }
    CHECK(called == 150);
    pool.join();
}

TEST_CASE("an executor that nobody runs: all is told at the limit, and once") {
    asio::io_context io;
    std::atomic<int> called = 0;
    std::optional<client_type> client;
    client.emplace(io.get_executor(), nowhere(), idle());
    auto const run_for = [&](auto time) {
        io.restart();
        io.run_for(time);
    };
    bool const runs_first = true;
    if (runs_first) {
        client->publish("a", "1", at_least_once, [&](std::error_code e, publish_result const&) {
            CHECK(e == errc::close_timeout);
            ++called;
        });
        run_for(20ms);  // the session has it
    }
    auto later = client->publish("a", "2", at_least_once);
    auto subscribing = client->subscribe("a");
    CHECK(client->outstanding() == 2);
    auto const report = client->close(10ms);
    CHECK(report.undelivered == 2);
    CHECK_FALSE(report.in_time);
    CHECK(error_of(later) == errc::close_timeout);
    CHECK(error_of(subscribing) == errc::close_timeout);
    CHECK(called == 1);
    client.reset();
    run_for(200ms);  // and when somebody runs it after all, it ends
    CHECK(io.stopped());
    CHECK(called == 1);
}

TEST_CASE("who waits for messages goes on when nobody runs the executor any more") {
    broker_thread b;
    asio::io_context io;
    std::optional<client_type> client;
    client.emplace(io.get_executor(), b.transport(), quick());
    std::thread runner([&] { io.run(); });
    auto queue = client->subscribe("a").get();
    client_type other(b.transport(), quick("other"));
    CHECK(error_of(other.unsubscribe(queue)) == errc::disconnected);
    io.stop();
    runner.join();
    std::error_code told;
    std::thread consumer([&] { told = code_of([&] { queue.receive(); }); });
    CHECK_FALSE(client->close(10ms).in_time);
    consumer.join();
    CHECK(told == errc::close_timeout);
}

TEST_CASE("the execution context may go before the client, and after it") {
    broker_thread b;
    for (bool const is_first : {true, false}) {
        CAPTURE(is_first);
        auto io = std::make_unique<asio::io_context>();
        std::atomic<int> called = 0, ended = 0;
        threaded_options how;
        how.close_limit = 0ms;
        how.on_end = [&](std::exception_ptr) { ++ended; };
        std::optional<client_type> client;
        client.emplace(io->get_executor(), b.transport(), quick(), how);
        std::thread runner([&] { io->run(); });
        auto queue = client->subscribe("a").get();
        client->publish("a", "1", at_least_once).get();
        auto held = queue.receive();
        CHECK(wait_until([&] { return client->outstanding() == 0; }));
        client->publish("a", "2", at_least_once).get();
        io->stop();
        runner.join();
        client->publish("a", "3", at_least_once, [&](std::error_code e, publish_result const&) {
            CHECK(e == (is_first ? errc::disconnected : errc::close_timeout));
            ++called;
        });
        auto waiting = client->publish("a", "4", at_least_once);
        if (is_first) {
            io.reset();
            CHECK(called == 1);
            CHECK(error_of(waiting) == errc::disconnected);
            CHECK(error_of(client->publish("a", "5")) == errc::disconnected);
            CHECK(client->close(1h).undelivered == 2);
        }
        client.reset();
        io.reset();
        CHECK(called == 1);
        CHECK(held.payload() == "1");
        held.acknowledge();
        if (auto next = queue.try_receive()) CHECK(next->payload() == "2");
    }
}

TEST_CASE("the execution context of a client on a strand of the user's may go first") {
    broker_thread b;
    for (bool const has_sockets : {false, true})
        for (bool const has_callback : {false, true}) {
            auto io = std::make_unique<asio::io_context>();
            if (has_sockets) asio::ip::tcp::socket(*io).open(asio::ip::tcp::v4());
            client_type client(asio::make_strand(*io), b.transport(), quick());
            auto const wait_for = [&](auto begun) {
                while (begun.wait_for(0s) != std::future_status::ready) io->run_for(5ms);
                begun.get();
            };
            if (has_callback)
                wait_for(client.subscribe("a", [](publish const&) {}));
            else
                wait_for(client.subscribe("a"));
            io.reset();
            CHECK(client.close(1h).undelivered == 0);
        }
}

TEST_CASE("a callback that the end of the context or of the waiting calls does not wait for what nobody does") {
    for (bool const is_given_up : {false, true})
        for (bool const destroys : {false, true}) {
            CAPTURE(is_given_up);
            CAPTURE(destroys);
            auto io = std::make_unique<asio::io_context>();
            auto client = std::make_unique<client_type>(io->get_executor(), nowhere(), idle());
            std::error_code closing;
            int called = 0;
            client->publish("a", "1", at_least_once, [&](std::error_code, publish_result const&) {
                ++called;
                if (destroys)
                    client.reset();
                else
                    closing = code_of([&] { client->close(5s); });
            });
            io->run_for(20ms);
            auto const begin = std::chrono::steady_clock::now();
            if (is_given_up) client->close(0ms);
            io.reset();
            CHECK(std::chrono::steady_clock::now() - begin < 3s);
            CHECK(called == 1);
            CHECK((destroys || closing == deadlock));
            if (client) CHECK(client->close(1h).undelivered == 1);
        }
}

TEST_CASE("a client that only its own message callback has goes with the context") {
    broker_thread b;
    auto io = std::make_unique<asio::io_context>();
    auto client = std::make_shared<client_type>(io->get_executor(), b.transport(), quick());
    auto subscribing = client->subscribe("a", [client](publish const&) {});
    while (subscribing.wait_for(0s) != std::future_status::ready) io->run_for(5ms);
    client.reset();
    auto const begin = std::chrono::steady_clock::now();
    io.reset();
    CHECK(std::chrono::steady_clock::now() - begin < 3s);
}

TEST_CASE("nobody is called any more by an executor that was not run in time, and no message is lost") {
    broker_thread b;
    for (int const level : {1, 2}) {
        CAPTURE(level);
        auto const id = "level-" + std::to_string(level);
        publish_options const how{.qos = static_cast<qos>(level)};
        asio::io_context io;
        int calls = 0;
        auto o = quick(id);
        o.make_credentials = [&, id] {
            ++calls;
            credentials c;
            c.client_id = id;
            return c;
        };
        o.on_event = [&](session_event const&) { ++calls; };
        threaded_options t{.close_limit = 0ms, .on_end = [&](std::exception_ptr) { ++calls; }};
        auto client = std::make_unique<client_type>(io.get_executor(), b.transport(), o, t);
        auto subscribing = client->subscribe("a", [&](publish const&) { ++calls; });
        while (subscribing.wait_for(0s) != std::future_status::ready) io.run_for(5ms);
        CHECK(calls > 0);
        {
            client_type other(b.transport(), quick("other"));
            for (auto const* text : {"1", "2", "3"}) other.publish("a", text, how).get();
        }
        std::this_thread::sleep_for(50ms);  // so that they have come
        auto asked = client->on_session([&](auto&) { ++calls; });
        client->close(0ms);
        if (level == 1) client.reset();
        CHECK(error_of(asked) == errc::close_timeout);
        calls = 0;
        io.restart();
        io.run_for(10s);
        CHECK(io.stopped());
        CHECK(calls == 0);
        if (client) CHECK(client->error() == nullptr);
        // Nor by one that had not been run at all.
        client = std::make_unique<client_type>(io.get_executor(), b.transport(), o, t);
        client.reset();
        io.restart();
        io.run_for(10s);
        CHECK(io.stopped());
        CHECK(calls == 0);
        client_type next(b.transport(), quick(id));
        auto queue = next.subscribe("a").get();
        for (auto const* text : {"1", "2", "3"}) {
            auto const m = queue.receive_for(10s);
            REQUIRE(m);
            CHECK(m->payload() == text);
        }
    }
}

TEST_CASE("who has not run the executor in time is not asked what an error means, however far it has come") {
    asio::io_context server;
    asio::ip::tcp::acceptor acceptor(server, {asio::ip::address_v4::loopback(), 0});
    runnel::tcp const transport{.host = "127.0.0.1", .port = acceptor.local_endpoint().port()};
    int calls = 0;
    for (int step = 0; step < 12; ++step) {
        CAPTURE(step);
        int const turns = step / 2;
        bool const goes = step % 2 == 0;
        asio::io_context io;
        auto o = quick();
        o.reconnect.classify = [&](std::error_code e) {
            ++calls;
            return recovery_from(e);
        };
        auto client =
            std::make_unique<client_type>(io.get_executor(), transport, o, threaded_options{.close_limit = 0ms});
        io.run_for(50ms);
        acceptor.accept().close();
        std::this_thread::sleep_for(20ms);  // so that its end has come
        io.restart();
        for (int i = 0; i < turns; ++i) io.poll_one();
        client->close(0ms);
        if (goes) client.reset();
        calls = 0;
        io.restart();
        io.run_for(10s);
        CHECK(io.stopped());
        CHECK(calls == 0);
        if (client) CHECK(client->error() == nullptr);
    }
}

TEST_CASE("who gives up while the executor is at work is not called by what it has begun") {
    broker_thread b;
    asio::io_context io;
    auto o = quick();
    auto client =
        std::make_unique<client_type>(io.get_executor(), b.transport(), o, threaded_options{.close_limit = 0ms});
    std::promise<void> reached, go;
    int calls = 0;
    // The second is begun in the same turn as the first, and comes to be called when the client has gone.
    auto first = client->on_session([&](auto&) {
        reached.set_value();
        go.get_future().wait();
    });
    auto second = client->on_session([&](auto&) { ++calls; });
    std::thread runner([&] { io.run_for(10s); });
    reached.get_future().wait();
    client.reset();
    go.set_value();
    CHECK(error_of(first) == errc::close_timeout);
    CHECK(error_of(second) == errc::close_timeout);
    runner.join();
    CHECK(calls == 0);
}

TEST_CASE("clients are closed at any moment") {
    broker_thread b;
    for (int i = 0; i < 30; ++i) {
        std::atomic<int> called = 0;
        constexpr int messages = 50;
        std::thread producer;
        {
            threaded_options how;
            how.limits = {.messages = 5, .bytes = 1000, .handed_over = 2};
            how.close_limit = std::chrono::milliseconds(i % 3);
            client_type client(b.transport(), quick("any-" + std::to_string(i)), how);
            auto subscribing = client.subscribe("a");
            std::promise<void> begun;
            producer = std::thread([&] {
                begun.set_value();
                for (int m = 0; m < messages; ++m)
                    client.publish("a", "x", at_least_once, [&](std::error_code, publish_result const&) { ++called; });
            });
            begun.get_future().get();
            std::this_thread::sleep_for(std::chrono::microseconds(300 * i));
            client.close(std::chrono::milliseconds(i % 3));
            producer.join();
        }
        CHECK(called == messages);
    }
}

TEST_CASE("a shorter limit counts also while the session has all and waits for a connection") {
    auto const begin = std::chrono::steady_clock::now();
    std::future<close_report> first;
    {
        client_type c{nowhere(), {}, {.close_limit = 100ms}};
        c.publish("a", "x").get();
        first = c.begin_close(1h);
        std::this_thread::sleep_for(20ms);
    }
    CHECK(std::chrono::steady_clock::now() - begin < 30s);
    CHECK_FALSE(first.get().in_time);
}

TEST_CASE("what the callback of a displaced message throws is not thrown at who has published another") {
    asio::io_context io;
    threaded_options o{.limits = {.messages = 1, .bytes = 1000, .handed_over = 1}, .close_limit = 0ms};
    o.when_full = when_full::drop_oldest;
    client_type c{io.get_executor(), nowhere(), {}, o};
    c.publish("a", "1", {}, [](std::error_code, publish_result const&) { throw std::runtime_error("mine"); });
    auto const second = c.publish("a", "2");
    CHECK(c.outstanding() == 1);
    io.run_for(100ms);
    REQUIRE(c.error() != nullptr);
    CHECK_THROWS_WITH_AS(std::rethrow_exception(c.error()), "mine", std::runtime_error);
}

TEST_CASE("a callback's subscription that has ended is forgotten, and cannot be ended twice") {
    broker_thread b;
    client_type c{b.transport()};
    std::atomic<int> got = 0;
    auto const handle = c.subscribe("a", [&](publish const&) { ++got; }).get();
    c.publish("a", "x", at_least_once).get();
    c.unsubscribe(handle).get();
    CHECK(got == 1);
    CHECK_THROWS_AS(c.unsubscribe(handle).get(), std::system_error);
}

TEST_CASE("a client of its own thread may go in the handler of an operation that its session has ended") {
    for (bool const publishes : {false, true}) {
        CAPTURE(publishes);
        auto client = std::make_unique<client_type>(nowhere(), idle());
        std::promise<std::error_code> told;
        auto const go = [&](std::error_code e) {
            auto const closing = code_of([&] { client->close(5s); });
            client.reset();
            told.set_value(closing == deadlock ? e : closing);
        };
        client
            ->on_session([&](auto& s) {
                if (publishes)
                    async_publish(s, "a", "b", at_least_once, [&](std::error_code e, publish_result) { go(e); });
                else
                    async_connected(s, [&](std::error_code e) { go(e); });
                client->begin_close(0ms);
            })
            .get();
        CHECK(told.get_future().get() == errc::disconnected);
    }
}

namespace {

// Holds its context's destruction up, as Asio's resolver does while the system resolves a name.
struct slow_service : asio::execution_context::service {
    using key_type = slow_service;
    static inline asio::execution_context::id id;
    explicit slow_service(asio::execution_context& c) : service(c) {}
    void shutdown() override {
        released.wait_for(3s);
        gone.set_value();
    }
    std::shared_future<void> released;
    std::promise<void> gone;
};

}  // namespace

TEST_CASE("what holds up a client's own thread, as a name that is resolved, does not hold up its destructor") {
    std::promise<void> release;
    int told = 0, called = 0;
    auto const begin = std::chrono::steady_clock::now();
    auto shut_down = [&] {
        client_type client(nowhere(), idle(), {.close_limit = 0ms});
        return client
            .on_session([&, released = release.get_future().share()](auto& s) mutable {
                auto& context = asio::query(s.get_executor(), asio::execution::context);
                auto& service = asio::use_service<slow_service>(context);
                service.released = std::move(released);
                // What is ready when the session is over is still called, however long it takes; what is not, never.
                async_connected(s, [&](std::error_code) {
                    std::this_thread::sleep_for(300ms);
                    ++told;
                });
                async_connected(s, [&](std::error_code) { ++told; });
                auto timer = std::make_shared<asio::steady_timer>(s.get_executor(), 2s);
                timer->async_wait([&, timer](auto const&) { ++called; });
                return service.gone.get_future();
            })
            .get();
    }();
    CHECK(std::chrono::steady_clock::now() - begin < 1500ms);
    CHECK(told == 2);
    CHECK(shut_down.wait_for(0s) == std::future_status::timeout);
    release.set_value();
    CHECK(shut_down.wait_for(20s) == std::future_status::ready);
    CHECK(called == 0);
}

TEST_CASE("what is ready on a client's own thread when that is stopped is still done") {
    broker_thread b;
    auto const is_done = std::make_shared<std::atomic<bool>>(false);
    asio::any_io_executor on_thread;
    threaded_options how;
    how.on_end = [&](std::exception_ptr) {
        auto& io = static_cast<asio::io_context&>(asio::query(on_thread, asio::execution::context));
        asio::post(on_thread, [&io] { wait_until([&] { return io.stopped(); }); });
        asio::post(on_thread, [is_done] { *is_done = true; });
    };
    {
        client_type client(b.transport(), quick(), how);
        client.on_session([&](auto& session) { on_thread = session.get_executor(); }).get();
    }
    CHECK(wait_until([&] { return is_done->load(); }));
}
