#include <runnel/mqtt/client/session_meter.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <set>
#include <string>
#include <string_view>
#include <system_error>

using namespace std::chrono_literals;
using runnel::connect_step;
using runnel::metric;
using runnel::metric_kind;
using runnel::metric_list;
using runnel::mqtt::add_metrics;
using runnel::mqtt::session_counters;
using runnel::mqtt::session_event;
using runnel::mqtt::session_meter;
using enum session_event::kind;

namespace {

std::string text_of(session_meter const& meter) {
    metric_list list;
    meter.add_metrics(list);
    return to_prometheus(list);
}

bool has(std::string const& text, std::string_view line) { return text.find(std::string(line) + '\n') != text.npos; }

std::error_code error(std::errc e) { return make_error_code(e); }

// Whose errors have the texts that they are to have, on each system.
class category_of_texts : public std::error_category {
  public:
    explicit category_of_texts(bool numbered) : numbered_(numbered) {}
    char const* name() const noexcept override { return "texts"; }
    std::string message(int number) const override { return numbered_ ? "cause " + std::to_string(number) : "a cause"; }

  private:
    bool numbered_;
};

}  // namespace

TEST_CASE("each of a session's counters is a metric of its own") {
    session_counters c;
    std::uint64_t n = 0;
    for (auto* const field :
         {&c.connections, &c.bytes_received, &c.bytes_sent, &c.writes, &c.messages_published, &c.messages_acknowledged,
          &c.messages_dropped, &c.messages_resent, &c.commits, &c.messages_received, &c.messages_unrouted})
        *field = ++n;
    c.queued_bytes = 12;
    c.in_flight = 13;
    c.round_trip = 14'000us;
    metric_list list({{"session", "s"}});
    add_metrics(list, c);
    CHECK(list.metrics().size() == 14);
    auto const text = to_prometheus(list);
    for (auto const* line :
         {"runnel_mqtt_connections_total{session=\"s\"} 1",
          "runnel_mqtt_io_bytes_total{session=\"s\",direction=\"receive\"} 2",
          "runnel_mqtt_io_bytes_total{session=\"s\",direction=\"transmit\"} 3",
          "runnel_mqtt_writes_total{session=\"s\"} 4", "runnel_mqtt_messages_published_total{session=\"s\"} 5",
          "runnel_mqtt_messages_acknowledged_total{session=\"s\"} 6",
          "runnel_mqtt_messages_dropped_total{session=\"s\"} 7", "runnel_mqtt_messages_resent_total{session=\"s\"} 8",
          "runnel_mqtt_store_commits_total{session=\"s\"} 9", "runnel_mqtt_messages_received_total{session=\"s\"} 10",
          "runnel_mqtt_messages_unrouted_total{session=\"s\"} 11", "runnel_mqtt_queued_bytes{session=\"s\"} 12",
          "runnel_mqtt_messages_in_flight{session=\"s\"} 13", "runnel_mqtt_round_trip_seconds{session=\"s\"} 0.014",
          "# TYPE runnel_mqtt_queued_bytes gauge", "# TYPE runnel_mqtt_io_bytes_total counter"}) {
        CAPTURE(line);
        CHECK(has(text, line));
    }
    for (auto const& m : list) CHECK(!m.description.empty());
}

TEST_CASE("a round trip that has not been is no metric") {
    metric_list list;
    add_metrics(list, session_counters{});
    for (auto const& m : list) CHECK(m.name != "runnel.mqtt.round_trip");
    CHECK(list.metrics().size() == 13);
}

TEST_CASE("events are counted by kind, and say whether there is a connection") {
    session_meter meter;
    CHECK(has(text_of(meter), "runnel_mqtt_connected 0"));
    meter.on_event({.what = connecting});
    meter.on_event({.what = connected});
    CHECK(meter.is_connected());
    auto const text = text_of(meter);
    CHECK(has(text, "runnel_mqtt_connected 1"));
    CHECK(has(text, "runnel_mqtt_session_events_total{event=\"connecting\"} 1"));
    CHECK(has(text, "runnel_mqtt_session_events_total{event=\"not_running\"} 0"));
    meter.on_event({.what = disconnected});
    CHECK(!meter.is_connected());
    CHECK(meter.count_of(disconnected) == 1);
    CHECK(text_of(meter).find("error_type") == std::string::npos);  // as it was asked to
}

TEST_CASE("failures are counted by step and cause, and losses by cause") {
    session_meter meter;
    auto const failed = [&](connect_step step, std::errc e) {
        meter.on_event({.what = disconnected, .error = error(e), .detail = "text of the server's", .step = step});
    };
    failed(connect_step::connect, std::errc::connection_refused);
    failed(connect_step::connect, std::errc::connection_refused);
    failed(connect_step::tls, std::errc::connection_refused);
    failed(connect_step::none, std::errc::connection_reset);
    auto const text = text_of(meter);
    auto const refused = error(std::errc::connection_refused).message();
    auto const reset = error(std::errc::connection_reset).message();
    CHECK(has(text, "runnel_mqtt_connect_failures_total{step=\"connect\",error_type=\"" + refused + "\"} 2"));
    CHECK(has(text, "runnel_mqtt_connect_failures_total{step=\"tls\",error_type=\"" + refused + "\"} 1"));
    CHECK(has(text, "runnel_mqtt_connection_losses_total{error_type=\"" + reset + "\"} 1"));
    CHECK(text.find("server's") == text.npos);
}

TEST_CASE("a peer cannot make more than so many causes") {
    session_meter meter;
    static category_of_texts const numbered(true);
    for (int i = 1; i <= 1000; ++i)
        meter.on_event({.what = disconnected,
                        .error = {i, numbered},
                        .step = i % 2 == 0 ? connect_step::accept : connect_step::none});
    metric_list list;
    meter.add_metrics(list);
    double sum = 0;
    std::size_t causes = 0;
    for (auto const& m : list) {
        if (m.name != "runnel.mqtt.connect.failures" && m.name != "runnel.mqtt.connection.losses") continue;
        sum += m.value;
        ++causes;
    }
    CHECK(sum == 1000);
    CHECK(causes == session_meter::maximum_causes + 2);
    auto const text = to_prometheus(list);
    CHECK(has(text, "runnel_mqtt_connect_failures_total{step=\"accept\",error_type=\"other\"} 468"));
    CHECK(has(text, "runnel_mqtt_connection_losses_total{error_type=\"other\"} 468"));
}

TEST_CASE("causes of several categories with one message are one metric") {
    session_meter meter;
    static category_of_texts const one(false), other(false);
    for (auto const* const category : {&one, &other})
        meter.on_event({.what = disconnected, .error = {1, *category}, .step = connect_step::connect});
    CHECK(has(text_of(meter), R"(runnel_mqtt_connect_failures_total{step="connect",error_type="a cause"} 2)"));
}

TEST_CASE("kinds and steps have names, each another") {
    std::set<std::string> names;
    for (int i = 0; i <= static_cast<int>(not_running); ++i) names.insert(name(static_cast<session_event::kind>(i)));
    CHECK(names.size() == static_cast<std::size_t>(not_running) + 1);
    CHECK(!names.contains("unknown"));
    names.clear();
    for (int i = 0; i <= static_cast<int>(connect_step::accept); ++i) names.insert(name(static_cast<connect_step>(i)));
    CHECK(names.size() == static_cast<std::size_t>(connect_step::accept) + 1);
    CHECK(!names.contains("unknown"));
    CHECK(name(static_cast<session_event::kind>(99)) == std::string("unknown"));
    CHECK(name(static_cast<connect_step>(99)) == std::string("unknown"));
}
