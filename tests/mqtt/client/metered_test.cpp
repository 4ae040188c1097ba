#include <runnel/mqtt/client/metered.hpp>
#include <runnel/mqtt/client/session_meter.hpp>
#include <runnel/transport/any_transport.hpp>
#include <runnel/transport/failover.hpp>
#include <runnel/transport/tcp.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/run.hpp"
#include <string>

namespace mqtt = runnel::mqtt;

namespace {

using metered_memory = mqtt::metered<runnel::memory_transport>;
static_assert(runnel::transport<metered_memory>);
static_assert(runnel::transport<mqtt::metered<runnel::any_transport>>);
static_assert(runnel::reporting_transport<mqtt::metered<runnel::failover<runnel::tcp>>>);

}  // namespace

TEST_CASE("what a session sends and receives is counted by type and QoS, over all connections") {
    test::memory_fixture f;
    metered_memory const to(f.transport);
    mqtt::session_meter meter;
    auto o = test::quick();
    o.on_event = [&](auto const& event) { meter.on_event(event); };
    mqtt::session<metered_memory> session(f.io.get_executor(), to, o);
    test::task<void> running(f.io, session.run());
    test::run(f.io, session.connected());
    auto subscription = test::run(f.io, session.subscribe("a"));
    test::run(f.io, session.publish("a", "x", {.qos = mqtt::qos::at_least_once}));
    f.broker.drop_client("client");
    CHECK(test::wait_until(f.io, [&] { return session.counters().connections == 2; }));
    test::run(f.io, session.publish("b", "y", {.qos = mqtt::qos::exactly_once}));
    test::run(f.io, session.publish("b", "z", {}));
    test::run(f.io, session.disconnect());
    CHECK_FALSE(running.run_for_error());

    auto const& t = to.traffic();
    CHECK(t.sent.of(mqtt::packet_type::connect).packets == 2);
    CHECK(t.received.of(mqtt::packet_type::connack).packets == 2);
    CHECK(t.sent.of(mqtt::qos::at_most_once).packets == 1);
    CHECK(t.sent.of(mqtt::qos::at_least_once).packets == 1);
    CHECK(t.sent.of(mqtt::qos::exactly_once).packets == 1);
    std::uint64_t sent = 0, received = 0;
    for (auto const& c : t.sent.by_type) sent += c.bytes;
    for (auto const& c : t.received.by_type) received += c.bytes;
    CHECK(sent == session.counters().bytes_sent);
    CHECK(received == session.counters().bytes_received);

    runnel::metric_list list{{"session", "s"}};
    add_metrics(list, session.counters());
    add_metrics(list, t);
    meter.add_metrics(list);
    auto const text = to_prometheus(list);
    CHECK(text.find("runnel_mqtt_connections_total{session=\"s\"} 2\n") != text.npos);
    CHECK(text.find("runnel_mqtt_session_events_total{session=\"s\",event=\"connected\"} 2\n") != text.npos);
    CHECK(text.find("runnel_mqtt_connection_losses_total{session=\"s\",error_type=") != text.npos);
    CHECK(text.find("runnel_mqtt_packets_total{session=\"s\",direction=\"transmit\",packet=\"CONNECT\"} 2\n") !=
          text.npos);
    CHECK(text.find("runnel_mqtt_connected{session=\"s\"} 0\n") != text.npos);
}

TEST_CASE("copies count together, and so does where a server points to") {
    mqtt::metered<runnel::tcp> const to({.host = "a.example", .port = 1});
    auto const copy = to;
    CHECK(copy == to);
    CHECK(&copy.traffic() == &to.traffic());
    CHECK(to != mqtt::metered<runnel::tcp>({.host = "a.example", .port = 1}));
    auto const other = runnel::redirected(to, "b.example");
    REQUIRE(other);
    CHECK(other->url() == "tcp://b.example:1");
    CHECK(other->next().host == "b.example");
    CHECK(&other->traffic() == &to.traffic());
    CHECK(!runnel::redirected(to, ""));
    runnel::any_transport const within = to;
    mqtt::metered const any(within);
    auto const elsewhere = runnel::redirected(any, "b.example");
    REQUIRE(elsewhere);
    CHECK(elsewhere->url() == "tcp://b.example:1");
    CHECK(&elsewhere->traffic() == &any.traffic());
    CHECK(runnel::any_transport(any).target<mqtt::metered<runnel::any_transport>>() != nullptr);
    mqtt::metered several(runnel::failover<runnel::tcp>({to.next(), other->next()}));
    several.report(false);
    CHECK(several.next().next().host == "b.example");
}
