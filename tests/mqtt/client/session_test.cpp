#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include <stdexcept>
#include <string>
#include <vector>

// A session and the embedded broker, in memory.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::errc;
using mqtt::publish_result;
using mqtt::qos;
using mqtt::reason_code;
using test::connected_session;
using test::memory_fixture;
using test::memory_session;
using test::quick;
using test::task;
using kind = mqtt::session_event::kind;

}  // namespace

TEST_CASE("messages of every QoS go to the broker and back, in both versions") {
    for (auto const version : test::versions) {
        connected_session c(quick("client", version));
        auto inbox = c.subscribe("a/+");
        CHECK(inbox.filter() == "a/+");
        CHECK(inbox.granted_qos() == qos::exactly_once);
        for (auto const quality : test::qualities) {
            CHECK(c.publish("a/b", "text", quality) == reason_code::success);
            auto const m = test::run(c.io, inbox.receive());
            CHECK(m.topic() == "a/b");
            CHECK(m.payload() == "text");
            CHECK(m.qos() == quality);
        }
        c.disconnect();
        CHECK(c.session.counters().messages_received == 3);
        CHECK(c.broker.counters().protocol_errors == 0);
    }
}

TEST_CASE("run completes after disconnect, and may run again") {
    connected_session c;
    CHECK(c.session.is_connected());
    c.disconnect();
    CHECK_FALSE(c.session.is_connected());
    task<void> again(c.io, c.session.run());
    test::run(c.io, c.session.connected());
    test::run(c.io, c.session.disconnect());
    CHECK_FALSE(again.run_for_error());
    CHECK(c.session.counters().connections == 2);
    CHECK(c.broker.counters().protocol_errors == 0);
}

TEST_CASE("a second run beside the first is refused") {
    connected_session c;
    task<void> second(c.io, c.session.run());
    CHECK_THROWS_AS(second.run(), std::logic_error);
    c.disconnect();
}

TEST_CASE("disconnect without run does nothing; during a pause before the next attempt it ends run") {
    memory_fixture p;
    p.on_open = [](auto&) { throw std::system_error(asio::error::connection_refused); };
    auto options = quick();
    options.reconnect.initial = options.reconnect.maximum = std::chrono::hours(1);
    memory_session s(p.io.get_executor(), p.transport, options);
    test::run(p.io, s.disconnect());
    task<void> running(p.io, s.run());
    p.settle();
    CHECK(p.opened == 1);
    test::run(p.io, s.disconnect());
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("what is ready to be sent is sent before DISCONNECT") {
    connected_session c;
    std::size_t heard = 0;
    c.broker.hooks().on_publish = [&](auto const&, auto const&) { ++heard; };
    for (int i = 0; i < 1000; ++i) CHECK(c.session.try_publish("t", "0123456789"));
    c.disconnect();
    c.settle();
    CHECK(heard == 1000);
}

TEST_CASE("operations begun before run wait for the connection") {
    memory_fixture p;
    memory_session s(p.io.get_executor(), p.transport, quick());
    task<mqtt::basic_subscription<test::executor>> subscribing(p.io, s.subscribe("t"));
    task<publish_result> publishing(p.io, s.publish("t", "early", {.qos = qos::exactly_once}));
    CHECK(s.try_publish("t", "earlier"));
    p.settle();
    CHECK_FALSE(subscribing.done());
    CHECK_FALSE(publishing.done());
    task<void> running(p.io, s.run());
    auto inbox = subscribing.run();
    CHECK(publishing.run() == reason_code::success);
    CHECK(test::run(p.io, inbox.receive()).payload() == "earlier");
    CHECK(test::run(p.io, inbox.receive()).payload() == "early");
    test::run(p.io, s.disconnect());
}

TEST_CASE("the overloads with an error code do not throw") {
    connected_session c;
    std::error_code error = errc::queue_full;
    test::run(c.io, c.session.publish("t", "p", {.qos = qos::at_least_once}, error));
    CHECK_FALSE(error);
    test::run(c.io, c.session.publish("bad/#", "p", {}, error));
    CHECK(error == errc::wildcard_in_topic_name);
    auto const good = test::run(c.io, c.session.subscribe("t", {}, error));
    CHECK_FALSE(error);
    CHECK(good.filter() == "t");
    test::run(c.io, c.session.subscribe("bad/#/x", {}, error));
    CHECK(error == errc::invalid_topic_filter);
    c.disconnect();
}

TEST_CASE("messages that cannot be sent are refused at once") {
    connected_session c;
    CHECK(test::error_of(c.io, c.session.publish("", "p")) == errc::topic_empty);
    CHECK(test::error_of(c.io, c.session.publish("a/+", "p")) == errc::wildcard_in_topic_name);
    CHECK(test::error_of(c.io, c.session.publish(std::string(65536, 'a'), "p")) == errc::string_too_long);
    CHECK_THROWS_AS(c.session.try_publish("a/+", "p"), std::system_error);
    c.disconnect();
    CHECK(c.broker.counters().protocol_errors == 0);
}

TEST_CASE("the server's refusal of a subscription or a message comes to the caller") {
    runnel::testing::broker_options o;
    connected_session c(quick("client", mqtt::protocol_version::v5), o);
    c.broker.hooks().authorize_subscribe = [](auto const&, auto const&, auto const& r) {
        return r.filter == "secret" ? reason_code::not_authorized : static_cast<reason_code>(r.maximum_qos);
    };
    c.broker.hooks().authorize_publish = [](auto const&, mqtt::publish const& m) {
        return runnel::testing::publish_verdict{m.topic == "secret" ? reason_code::quota_exceeded
                                                                    : reason_code::success};
    };
    CHECK(test::error_of(c.io, c.session.subscribe("secret")) == reason_code::not_authorized);
    for (auto const quality : {qos::at_least_once, qos::exactly_once})
        CHECK(test::error_of(c.io, c.session.publish("secret", "p", {.qos = quality})) == reason_code::quota_exceeded);
    auto inbox = c.subscribe("open");
    CHECK(c.publish("open", "p", qos::exactly_once) == reason_code::success);
    CHECK(c.publish("nobody/listens", "p", qos::at_least_once) == reason_code::no_matching_subscribers);
    CHECK(test::run(c.io, inbox.receive()).payload() == "p");
    c.disconnect();
}

TEST_CASE("a handler is called with each message, which is then acknowledged") {
    for (auto const quality : test::qualities) {
        connected_session c;
        std::vector<std::string> seen;
        test::run(c.io, c.session.subscribe("t", [&](mqtt::publish const& m) { seen.emplace_back(m.payload); }));
        for (auto const* text : {"a", "b", "c"}) c.broker.publish("t", text, quality);
        c.settle();
        CHECK(seen == std::vector<std::string>{"a", "b", "c"});
        c.disconnect();
        // All are acknowledged: a new connection brings nothing.
        task<void> again(c.io, c.session.run());
        test::run(c.io, c.session.connected());
        c.settle();
        CHECK(seen.size() == 3);
        test::run(c.io, c.session.disconnect());
    }
}

TEST_CASE("what a handler throws ends run, and the others have got the message") {
    for (auto const quality : test::qualities) {
        connected_session c;
        auto inbox = c.subscribe("t");
        int calls = 0;
        test::run(c.io, c.session.subscribe("t", [&](mqtt::publish const&) {
            if (++calls == 1) throw std::runtime_error("handler");
        }));
        c.broker.publish("t", "p", quality);
        CHECK_THROWS_WITH_AS(c.running.run(), "handler", std::runtime_error);
        CHECK_FALSE(c.session.is_connected());
        CHECK(test::run(c.io, inbox.receive()).payload() == "p");
        // The session can go on.
        task<void> again(c.io, c.session.run());
        test::run(c.io, c.session.connected());
        CHECK(c.publish("t", "q", qos::exactly_once) == reason_code::success);
        test::run(c.io, c.session.disconnect());
        CHECK_FALSE(again.run_for_error());
        CHECK(c.broker.counters().protocol_errors == 0);
    }
}

TEST_CASE("a system error from a handler is not taken for a lost connection") {
    connected_session c;
    test::run(c.io, c.session.subscribe(
                        "t", [](mqtt::publish const&) { throw std::system_error(asio::error::connection_reset); }));
    c.broker.publish("t", "p");
    CHECK(c.running.run_for_error() == asio::error::connection_reset);
    CHECK(c.session.counters().connections == 1);
}

TEST_CASE("a handler may use the session: publish, unsubscribe, disconnect") {
    connected_session c;
    int calls = 0;
    mqtt::basic_subscription<test::executor> own;
    own = test::run(c.io, c.session.subscribe("t", [&](mqtt::publish const&) {
        ++calls;
        c.session.try_publish("answer", "p", {.qos = qos::exactly_once});
        asio::co_spawn(c.io, c.session.unsubscribe(own), [](std::exception_ptr) {});
    }));
    auto answers = c.subscribe("answer");
    for (int i = 0; i < 3; ++i) c.broker.publish("t", "p", qos::at_least_once);
    CHECK(test::run(c.io, answers.receive()).payload() == "p");
    c.settle();
    CHECK(calls >= 1);
    test::run(c.io, c.session.subscribe("end", [&](mqtt::publish const&) {
        asio::co_spawn(c.io, c.session.disconnect(), [](std::exception_ptr) {});
    }));
    c.broker.publish("end", "p");
    CHECK_FALSE(c.running.run_for_error());
    CHECK(c.broker.counters().protocol_errors == 0);
}

TEST_CASE("a message that matches several subscriptions arrives in each, and is acknowledged once all let go of it") {
    for (auto const quality : {qos::at_least_once, qos::exactly_once}) {
        connected_session c;
        auto one = c.subscribe("a/+");
        auto two = c.subscribe("a/#");
        int handled = 0;
        test::run(c.io, c.session.subscribe("a/b", [&](mqtt::publish const&) { ++handled; }));
        c.broker.publish("a/b", "p", quality);
        c.settle();
        CHECK(handled == 1);
        auto const sent = c.session.counters().bytes_sent;
        auto m = test::run(c.io, one.receive());
        auto n = test::run(c.io, two.receive());
        CHECK(m.payload() == "p");
        CHECK(n.payload() == "p");
        m.acknowledge();
        c.settle();
        CHECK(c.session.counters().bytes_sent == sent);
        n.acknowledge();
        c.settle();
        CHECK(c.session.counters().bytes_sent > sent);
        CHECK(one.size() + two.size() == 0);
        c.disconnect();
    }
}

TEST_CASE("a message is acknowledged only when the application lets go of it, and in the order of arrival") {
    connected_session c;
    auto inbox = c.subscribe("t");
    auto const sent = c.session.counters().bytes_sent;
    for (auto const* text : {"a", "b"}) c.broker.publish("t", text, qos::at_least_once);
    auto first = test::run(c.io, inbox.receive());
    auto second = test::run(c.io, inbox.receive());
    c.settle();
    CHECK(c.session.counters().bytes_sent == sent);
    second.acknowledge();
    c.settle();
    CHECK(c.session.counters().bytes_sent == sent);
    auto const copy = first.copy();
    first.acknowledge();
    c.settle();
    CHECK(c.session.counters().bytes_sent == sent + 8);  // two PUBACKs
    CHECK(copy.payload() == "a");
    c.disconnect();
}

TEST_CASE("an unacknowledged message comes again on the next connection") {
    connected_session c;
    auto inbox = c.subscribe("t");
    c.broker.publish("t", "p", qos::at_least_once);
    auto first = test::run(c.io, inbox.receive());
    c.broker.drop_client("client");
    test::run(c.io, test::only(c.session.connected(1)));
    c.settle();
    CHECK(inbox.size() == 0);  // the application has it
    first.abandon();
    c.broker.drop_client("client");
    auto const again = test::run(c.io, inbox.receive());
    CHECK(again.payload() == "p");
    CHECK(again.dup());
    c.disconnect();
    CHECK(c.broker.counters().protocol_errors == 0);
}

TEST_CASE("a slow reader loses QoS 0 messages, which are counted, and no others") {
    connected_session c;
    auto inbox = c.subscribe("t", {.inbox = 2000});
    for (int i = 0; i < 100; ++i) c.broker.publish("t", std::string(100, 'x'), qos::at_most_once);
    c.settle();
    auto const kept = inbox.size();
    CHECK(kept > 0);
    CHECK(kept < 20);
    CHECK(inbox.dropped() == 100 - kept);
    for (int i = 0; i < 100; ++i) c.broker.publish("t", std::string(100, 'x'), qos::at_least_once);
    c.settle();
    CHECK(inbox.size() == kept + 100);
    CHECK(inbox.dropped() == 100 - kept);
    while (auto const m = inbox.try_receive()) CHECK(m->payload().size() == 100);
    c.broker.publish("t", "room again", qos::at_most_once);
    CHECK(test::run(c.io, inbox.receive()).payload() == "room again");
    c.disconnect();
}

TEST_CASE("QoS 0 waits for the network beyond maximum_unwritten, and goes on when it has been written") {
    auto options = quick();
    options.maximum_unwritten = 1000;
    connected_session c(options);
    std::string const payload(100, 'x');
    int sent = 0;
    while (c.session.try_publish("t", payload)) ++sent;
    CHECK(sent == 10);
    task<publish_result> waiting(c.io, c.session.publish("t", payload));
    task<publish_result> waiting_too(c.io, c.session.publish("t", payload));
    CHECK_FALSE(c.session.try_publish("t", payload));
    CHECK(waiting.run() == reason_code::success);
    CHECK(waiting_too.run() == reason_code::success);
    CHECK(c.session.try_publish("t", payload));
    c.disconnect();
    CHECK(c.broker.counters().messages_received == 13);
}

TEST_CASE("messages wait in a queue of bounded size as long as there is no connection") {
    memory_fixture p;
    auto options = quick();
    options.maximum_queued = 1000;
    memory_session s(p.io.get_executor(), p.transport, options);
    std::string const payload(100, 'x');
    int queued = 0;
    while (s.try_publish("t", payload, {.qos = queued % 2 == 0 ? qos::at_least_once : qos::at_most_once})) ++queued;
    CHECK(queued == 9);
    task<publish_result> waiting(p.io, s.publish("t", payload, {.qos = qos::exactly_once}));
    task<publish_result> waiting_too(p.io, s.publish("t", payload));
    p.settle();
    CHECK_FALSE(waiting.done());
    task<void> running(p.io, s.run());
    CHECK(waiting.run() == reason_code::success);
    CHECK(waiting_too.run() == reason_code::success);
    test::run(p.io, s.disconnect());
    CHECK(p.broker.counters().messages_received == 11);
}

TEST_CASE("QoS 0 does not wait for the acknowledgements of other messages") {
    auto options = quick();
    options.maximum_queued = 1000;
    options.maximum_unwritten = 1000;
    connected_session c(options);
    c.broker.hold_acknowledgements(true);
    std::string const payload(100, 'x');
    while (c.session.try_publish("t", payload, {.qos = qos::at_least_once})) {
    }
    task<publish_result> blocked(c.io, c.session.publish("t", payload, {.qos = qos::at_least_once}));
    std::vector<std::unique_ptr<task<publish_result>>> flowing;
    for (int i = 0; i < 30; ++i)
        flowing.push_back(std::make_unique<task<publish_result>>(c.io, c.session.publish("t", payload)));
    c.settle();
    CHECK_FALSE(blocked.done());
    for (auto const& f : flowing) CHECK(f->done());
    c.broker.hold_acknowledgements(false);
    CHECK(blocked.run() == reason_code::success);
    c.disconnect();
}

TEST_CASE("a session subscribes anew where the server has lost its session, and only there") {
    connected_session c;
    auto inbox = c.subscribe("t");
    c.broker.drop_client("client");
    CHECK(test::wait_until(c.io, [&] { return c.session.counters().connections == 2; }));
    c.broker.publish("t", "kept");
    CHECK(test::run(c.io, inbox.receive()).payload() == "kept");
    c.disconnect();

    runnel::testing::broker other(c.io.get_executor());
    // All connections after the first go to a broker that knows nothing.
    asio::io_context& io = c.io;
    bool moved = false;
    runnel::memory_transport const moving(
        [&](runnel::memory_stream<> s) { (std::exchange(moved, true) ? other : c.broker).attach(std::move(s)); });
    memory_session s(io.get_executor(), moving, quick("mover"));
    task<void> running(io, s.run());
    auto moved_inbox = test::run(io, s.subscribe("t"));
    c.broker.drop_client("mover");
    CHECK(test::wait_until(io, [&] { return s.counters().connections == 2; }));
    CHECK(s.try_publish("t", "new"));
    CHECK(test::run(io, moved_inbox.receive()).payload() == "new");
    test::run(io, s.disconnect());
}

TEST_CASE("a subscription that the server refuses to renew ends with its reason") {
    auto options = quick();
    options.clean_start = true;
    connected_session c(options);
    auto inbox = c.subscribe("t");
    auto other = c.subscribe("other");
    c.broker.publish("t", "last");
    c.settle();
    task<mqtt::message> receiving(c.io, other.receive());
    c.broker.hooks().authorize_subscribe = [](auto const&, auto const&, auto const&) {
        return reason_code::unspecified_error;  // all that MQTT 3.1.1 can say
    };
    c.broker.drop_client("client");
    CHECK(receiving.run_for_error() == reason_code::unspecified_error);
    CHECK(test::run(c.io, inbox.receive()).payload() == "last");
    CHECK(test::error_of(c.io, inbox.receive()) == reason_code::unspecified_error);
    c.disconnect();
}

TEST_CASE("unsubscribing ends who waits for messages; those that have come can still be received") {
    connected_session c;
    auto inbox = c.subscribe("t");
    auto empty = c.subscribe("u");
    c.broker.publish("t", "waits", qos::at_least_once);
    c.settle();
    task<mqtt::message> receiving(c.io, empty.receive());
    c.settle();
    test::run(c.io, c.session.unsubscribe(inbox));
    test::run(c.io, c.session.unsubscribe(empty));
    CHECK(receiving.run_for_error() == errc::disconnected);
    CHECK(test::run(c.io, inbox.receive()).payload() == "waits");
    CHECK(test::error_of(c.io, inbox.receive()) == errc::disconnected);
    CHECK(c.broker.publish("t", "unheard") == 0);
    test::run(c.io, c.session.unsubscribe(inbox));  // once more: nothing to do
    c.disconnect();
}

TEST_CASE("messages left unread in a subscription that has gone do not hold up the acknowledgements of others") {
    connected_session c;
    auto stays = c.subscribe("stays");
    {
        auto goes = c.subscribe("goes");
        c.broker.publish("goes", "unread", qos::at_least_once);
        c.settle();
        test::run(c.io, c.session.unsubscribe(goes));
    }
    auto const sent = c.session.counters().bytes_sent;
    c.broker.publish("stays", "read", qos::at_least_once);
    CHECK(test::run(c.io, stays.receive()).payload() == "read");
    c.settle();
    CHECK(c.session.counters().bytes_sent >= sent + 4);
    c.disconnect();
}

TEST_CASE("of two subscriptions to one filter, one can end without the other") {
    connected_session c;
    auto one = c.subscribe("t");
    auto two = c.subscribe("t");
    test::run(c.io, c.session.unsubscribe(one));
    CHECK(c.broker.publish("t", "p") == 1);
    CHECK(test::run(c.io, two.receive()).payload() == "p");
    CHECK(one.size() == 0);
    test::run(c.io, c.session.unsubscribe(two));
    CHECK(c.broker.publish("t", "p") == 0);
    c.disconnect();
}

TEST_CASE(
    "subscribing anew while an UNSUBSCRIBE of the same filter is lost with the connection leaves a subscription") {
    connected_session c;
    auto old = c.subscribe("t");
    task<void> unsubscribing(c.io, c.session.unsubscribe(old));
    task<mqtt::basic_subscription<test::executor>> subscribing(c.io, c.session.subscribe("t"));
    while (unsubscribing.ended() == 0 && c.session.counters().writes < 3) c.io.poll_one();
    c.broker.drop_client("client");
    unsubscribing.run();
    auto inbox = subscribing.run();
    c.settle();
    CHECK(c.broker.publish("t", "p") == 1);
    CHECK(test::run(c.io, inbox.receive()).payload() == "p");
    c.disconnect();
}

TEST_CASE("events tell of every change of the connection") {
    memory_fixture p;
    std::vector<kind> kinds;
    std::vector<std::error_code> errors;
    auto options = quick();
    options.on_event = [&](mqtt::session_event const& e) {
        kinds.push_back(e.what);
        errors.push_back(e.error);
    };
    p.on_open = [&](auto&) {
        if (p.opened == 1) throw std::system_error(asio::error::connection_refused);
    };
    memory_session s(p.io.get_executor(), p.transport, options);
    task<void> running(p.io, s.run());
    test::run(p.io, s.connected());
    test::run(p.io, s.disconnect());
    CHECK(kinds == std::vector{kind::connecting, kind::disconnected, kind::waiting, kind::connecting, kind::connected,
                               kind::disconnected});
    CHECK(errors[1] == asio::error::connection_refused);
    CHECK(errors[2] == asio::error::connection_refused);
    CHECK_FALSE(errors[5]);
}

TEST_CASE("run gives up after as many failures in a row as the policy says") {
    memory_fixture p;
    p.on_open = [&](auto&) {
        if (p.opened != 2) throw std::system_error(asio::error::connection_refused);
    };
    auto options = quick();
    options.reconnect.attempts = 3;
    options.reconnect.stable_after = std::chrono::milliseconds(0);
    memory_session s(p.io.get_executor(), p.transport, options);
    task<void> running(p.io, s.run());
    test::run(p.io, s.connected());
    p.broker.drop_client("client");
    CHECK(running.run_for_error() == asio::error::connection_refused);
    CHECK(running.error_text() == p.transport.url() + ": Connection refused");
    CHECK(p.opened == 4);  // refused, connected and lost, refused, refused
}

TEST_CASE("credentials may be made anew for each attempt") {
    memory_fixture p;
    int made = 0;
    auto options = quick();
    options.make_credentials = [&] {
        ++made;
        return mqtt::credentials{"client", "user", "token" + std::to_string(made)};
    };
    std::string last;
    p.broker.hooks().on_connect = [&](runnel::testing::connect_attempt& r) {
        last = std::string(r.packet.password.value_or(""));
        return reason_code::success;
    };
    memory_session s(p.io.get_executor(), p.transport, options);
    task<void> running(p.io, s.run());
    test::run(p.io, s.connected());
    CHECK(last == "token1");
    p.broker.drop_client("client");
    CHECK(test::wait_until(p.io, [&] { return s.counters().connections == 2; }));
    CHECK(last == "token2");
    test::run(p.io, s.disconnect());
}

TEST_CASE("options that cannot be sent end run at once") {
    memory_fixture p;
    auto options = quick();
    options.will.emplace();
    options.will->topic = "will/#";
    memory_session s(p.io.get_executor(), p.transport, options);
    task<void> running(p.io, s.run());
    CHECK(running.run_for_error() == errc::wildcard_in_topic_name);
    CHECK(p.opened == 1);
}

TEST_CASE("a busy server is tried again, a refusal of who we are is not") {
    for (auto const version : test::versions) {
        memory_fixture p;
        p.broker.refuse_next(2, reason_code::server_unavailable);
        memory_session s(p.io.get_executor(), p.transport, quick("client", version));
        task<void> running(p.io, s.run());
        test::run(p.io, s.connected());
        CHECK(p.opened == 3);
        test::run(p.io, s.disconnect());
        for (auto const reason : {reason_code::bad_user_name_or_password, reason_code::not_authorized}) {
            p.broker.refuse_next(1, reason);
            p.opened = 0;
            task<void> again(p.io, s.run());
            CHECK(again.run_for_error() == reason);
            CHECK(p.opened == 1);
        }
    }
}

TEST_CASE("the client identifier that the server assigns is kept for the next connections") {
    connected_session c(quick("", mqtt::protocol_version::v5));
    auto inbox = c.subscribe("t");
    CHECK(c.broker.session_count() == 1);
    std::string name;
    c.broker.hooks().on_connect = [&](runnel::testing::connect_attempt& r) {
        name = r.packet.client_id;
        return reason_code::success;
    };
    c.broker.hooks().on_publish = [&](runnel::testing::client_info const& from, auto const&) { name = from.name; };
    c.publish("t", "p", qos::at_least_once);
    auto const assigned = name;
    CHECK_FALSE(assigned.empty());
    name.clear();
    CHECK(c.broker.drop_client(assigned));
    CHECK(test::wait_until(c.io, [&] { return c.session.counters().connections == 2; }));
    CHECK(name == assigned);
    CHECK(c.broker.session_count() == 1);
    c.disconnect();
}
