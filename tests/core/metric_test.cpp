#include <runnel/core/metric.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <vector>

using runnel::metric;
using runnel::metric_attribute;
using runnel::metric_kind;
using runnel::metric_list;
using runnel::prometheus_name;
using runnel::to_prometheus;

namespace {

std::string line_of(double value) {
    auto const text = to_prometheus(std::vector<metric>{{"a", "b", "", metric_kind::gauge, value}});
    return text.substr(text.rfind("a "));
}

}  // namespace

TEST_CASE("names follow Prometheus' conventions") {
    CHECK(prometheus_name({"runnel.mqtt.io", "", "By", metric_kind::counter}) == "runnel_mqtt_io_bytes_total");
    CHECK(prometheus_name({"a.queued", "", "By", metric_kind::up_down_counter}) == "a_queued_bytes");
    CHECK(prometheus_name({"a.round-trip", "", "s", metric_kind::gauge}) == "a_round_trip_seconds");
    CHECK(prometheus_name({"a.messages", "", "{message}", metric_kind::counter}) == "a_messages_total");
    CHECK(prometheus_name({"a_bytes_total", "", "", metric_kind::counter}) == "a_bytes_total");
    CHECK(prometheus_name({"a.bytes", "", "By", metric_kind::gauge}) == "a_bytes");
    CHECK(prometheus_name({"5.a", "", "", metric_kind::gauge}) == "_5_a");
    CHECK(prometheus_name({"", "", "", metric_kind::gauge}) == "_");
    CHECK(prometheus_name({"\xC3\xA4", "", "", metric_kind::gauge}) == "__");
}

TEST_CASE("metrics of one name are put together, with help and type once") {
    std::vector<metric> const metrics = {
        {"x.io", "Bytes.", "By", metric_kind::counter, 5, {{"direction", "receive"}}},
        {"x.up", "Whether it is up.", "", metric_kind::gauge, 1},
        {"x.io", "Bytes.", "By", metric_kind::counter, 7, {{"direction", "transmit"}}},
    };
    CHECK(to_prometheus(metrics) ==
          "# HELP x_io_bytes_total Bytes.\n"
          "# TYPE x_io_bytes_total counter\n"
          "x_io_bytes_total{direction=\"receive\"} 5\n"
          "x_io_bytes_total{direction=\"transmit\"} 7\n"
          "# HELP x_up Whether it is up.\n"
          "# TYPE x_up gauge\n"
          "x_up 1\n");
    std::vector<metric_attribute> const labels = {{"session", "a"}};
    auto const text = to_prometheus(metrics, labels);
    CHECK(text.find("x_io_bytes_total{session=\"a\",direction=\"receive\"} 5\n") != text.npos);
    CHECK(text.find("x_up{session=\"a\"} 1\n") != text.npos);
    CHECK(to_prometheus(std::vector<metric>{}) == "");
}

TEST_CASE("labels and help are escaped, and are UTF-8") {
    std::vector<metric> const metrics = {
        {"x", "a\\b\n\"c\"", "", metric_kind::gauge, 1, {{"l.1", "a\\b\n\"c\" \xE6\xB8\xA9 \xFF"}, {"1", ""}}}};
    CHECK(to_prometheus(metrics) ==
          "# HELP x a\\\\b\\n\"c\"\n"
          "# TYPE x gauge\n"
          "x{l_1=\"a\\\\b\\\\x0a\\\"c\\\" \xE6\xB8\xA9 \\\\xff\",_1=\"\"} 1\n");
    CHECK(to_prometheus(std::vector<metric>{{"x", "", "", metric_kind::gauge, 1, {{"l", "a\n"}}}})
              .find("{l=\"a\\n\"} 1\n") != std::string::npos);
}

TEST_CASE("numbers are written so that they are read as they were") {
    CHECK(line_of(0) == "a 0\n");
    CHECK(line_of(-3) == "a -3\n");
    CHECK(line_of(9'007'199'254'740'992.0) == "a 9007199254740992\n");
    CHECK(line_of(0.000123) == "a 0.000123\n");
    CHECK(std::stod(line_of(1.0 / 3).substr(2)) == 1.0 / 3);
    CHECK(std::stod(line_of(1e300).substr(2)) == 1e300);
    CHECK(line_of(std::numeric_limits<double>::infinity()) == "a +Inf\n");
    CHECK(line_of(-std::numeric_limits<double>::infinity()) == "a -Inf\n");
    CHECK(line_of(std::numeric_limits<double>::quiet_NaN()) == "a NaN\n");
}

TEST_CASE("what a list has for all of its metrics stands in front of their own") {
    metric_list list({{"session", "a"}});
    list.add({"x", "", "", metric_kind::gauge, 1, {{"k", "v"}}});
    metric_list other({{"session", "b"}});
    other.add({"x", "", "", metric_kind::gauge, 2, {}});
    list.add(other);
    CHECK(to_prometheus(list) == "# HELP x \n# TYPE x gauge\nx{session=\"a\",k=\"v\"} 1\nx{session=\"b\"} 2\n");
    CHECK(list.metrics().size() == 2);
}
