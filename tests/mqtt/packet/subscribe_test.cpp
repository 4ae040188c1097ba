#include <runnel/mqtt/packet/subscribe.hpp>
#include <runnel/mqtt/packet/unsubscribe.hpp>

#include <doctest/doctest.h>

#include "support/packets.hpp"
#include <string>
#include <string_view>
#include <vector>

using namespace runnel::mqtt;
using test::hex;

namespace {

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;

errc error_of(std::string_view body, protocol_version version) {
    return test::decode_error<subscribe>(test::packet(0x82, hex(body)), version);
}

errc unsubscribe_error_of(std::string_view body, protocol_version version) {
    return test::decode_error<unsubscribe>(test::packet(0xA2, hex(body)), version);
}

errc check_request(subscription_request const& request, protocol_version version) {
    return check(subscribe{.packet_id = 1, .requests = request}, version);
}

}  // namespace

TEST_CASE("SUBSCRIBE: the specification's example is read and written (3.8.3 in both)") {
    subscription_request const requests[] = {{.filter = "a/b", .maximum_qos = qos::at_least_once},
                                             {.filter = "c/d", .maximum_qos = qos::exactly_once}};
    subscribe const p{.packet_id = 10, .requests = requests};
    CHECK(test::encoded(p, v3) == hex("82 0E 00 0A 00 03 61 2F 62 01 00 03 63 2F 64 02"));
    auto const bytes = hex("82 0F 00 0A 00 00 03 61 2F 62 01 00 03 63 2F 64 02");
    CHECK(test::encoded(p, v5) == bytes);
    test::decoded<subscribe> const d(bytes, v5);
    CHECK(d.error == errc::ok);
    CHECK(d.packet == p);
    CHECK(d.packet.requests.size() == 2);
}

TEST_CASE("SUBSCRIBE: options are read and written; MQTT 3.1.1 has the QoS only") {
    subscription_request const request{.filter = "a",
                                       .maximum_qos = qos::at_least_once,
                                       .no_local = true,
                                       .retain_as_published = true,
                                       .handling = retain_handling::do_not_send};
    subscribe const p{.packet_id = 10, .requests = request};
    CHECK(test::encoded(p, v5) == hex("82 07 000A 00 0001 'a' 2D"));
    CHECK(test::encoded(p, v3) == hex("82 06 000A 0001 'a' 01"));
}

TEST_CASE(
    "SUBSCRIBE: it has a packet identifier and at least one topic filter [MQTT-2.2.1-3] [MQTT-3.8.3-2] "
    "[MQTT-2.3.1-1 of 3.1.1] [MQTT-3.8.3-3 of 3.1.1]") {
    CHECK(error_of("0000 0001 'a' 00", v3) == errc::packet_identifier_zero);
    CHECK(error_of("000A", v3) == errc::empty_list);
    CHECK(error_of("000A 00", v5) == errc::empty_list);
    CHECK(check(subscribe{.packet_id = 1}, v5) == errc::empty_list);
    CHECK(check(subscribe{.packet_id = 0}, v5) == errc::packet_identifier_zero);
}

TEST_CASE("SUBSCRIBE: each topic filter is valid and followed by its options [MQTT-3.8.3-1] [MQTT-3.8.3-1 of 3.1.1]") {
    CHECK(error_of("000A 0001 'a'", v3) == errc::truncated_packet);
    CHECK(error_of("000A 0002 'a'", v3) == errc::truncated_packet);
    CHECK(error_of("000A 0001 'a' 00 00", v3) == errc::truncated_packet);
    CHECK(error_of("000A 0000 00", v3) == errc::topic_empty);
    CHECK(error_of("000A 0001 FF 00", v3) == errc::invalid_utf8);
    CHECK(error_of("000A 0002 'a#' 00", v3) == errc::invalid_topic_filter);
    CHECK(error_of("000A 00 0001 'a' 00 0003 '#/a' 00", v5) == errc::invalid_topic_filter);
    CHECK(error_of("000A 00 0007 '$share/' 00", v5) == errc::invalid_shared_subscription);
    CHECK(check_request({.filter = "a+"}, v5) == errc::invalid_topic_filter);
    CHECK(check_request({.filter = std::string(65'536, 'a')}, v5) == errc::string_too_long);
}

TEST_CASE("SUBSCRIBE: reserved bits of the options are 0 [MQTT-3.8.3-5] [MQTT-3.8.3-4 of 3.1.1]") {
    for (auto const* options : {"04", "08", "10", "20", "40", "80"})
        CHECK(error_of(std::string("000A 0001 'a' ") + options, v3) == errc::reserved_subscription_option);
    for (auto const* options : {"40", "80", "C2"})
        CHECK(error_of(std::string("000A 00 0001 'a' ") + options, v5) == errc::reserved_subscription_option);
}

TEST_CASE("SUBSCRIBE: QoS 3 and retain handling 3 do not exist [MQTT-3.8.3-4 of 3.1.1]") {
    CHECK(error_of("000A 0001 'a' 03", v3) == errc::invalid_qos);
    CHECK(error_of("000A 00 0001 'a' 03", v5) == errc::invalid_qos);
    CHECK(error_of("000A 00 0001 'a' 30", v5) == errc::invalid_retain_handling);
    CHECK(check_request({.filter = "a", .maximum_qos = qos(3)}, v5) == errc::invalid_qos);
    CHECK(check_request({.filter = "a", .handling = retain_handling(3)}, v5) == errc::invalid_retain_handling);
}

TEST_CASE("SUBSCRIBE: a shared subscription has not the option no local [MQTT-3.8.3-4]") {
    CHECK(error_of("000A 00 000A '$share/g/a' 04", v5) == errc::no_local_on_shared_subscription);
    CHECK(error_of("000A 00 000A '$share/g/a' 00", v5) == errc::ok);
    CHECK(check_request({.filter = "$share/g/a", .no_local = true}, v5) == errc::no_local_on_shared_subscription);
    CHECK(check_request({.filter = "a", .no_local = true}, v5) == errc::ok);
}

TEST_CASE("SUBSCRIBE: it has one subscription identifier at most, and not 0 (3.8.2.1.2)") {
    CHECK(error_of("000A 02 0B 01 0001 'a' 00", v5) == errc::ok);
    CHECK(error_of("000A 02 0B 00 0001 'a' 00", v5) == errc::property_value_out_of_range);
    CHECK(error_of("000A 04 0B 01 0B 01 0001 'a' 00", v5) == errc::duplicate_property);
    subscription_request const request{.filter = "a"};
    std::vector<std::uint32_t> const identifiers{1, 2};
    properties const two{.subscription_identifiers = identifiers};
    CHECK(check(subscribe{.packet_id = 1, .requests = request, .props = &two}, v5) == errc::duplicate_property);
    std::uint32_t const too_large = max_variable_integer + 1;
    properties const large{.subscription_identifiers = too_large};
    CHECK(check(subscribe{.packet_id = 1, .requests = request, .props = &large}, v5) ==
          errc::property_value_out_of_range);
}

TEST_CASE("UNSUBSCRIBE: the specification's example is read and written (3.10.3 in both)") {
    std::string_view const filters[] = {"a/b", "c/d"};
    unsubscribe const p{.packet_id = 10, .filters = filters};
    CHECK(test::encoded(p, v3) == hex("A2 0C 00 0A 00 03 61 2F 62 00 03 63 2F 64"));
    auto const bytes = hex("A2 0D 00 0A 00 00 03 61 2F 62 00 03 63 2F 64");
    CHECK(test::encoded(p, v5) == bytes);
    test::decoded<unsubscribe> const d(bytes, v5);
    CHECK(d.error == errc::ok);
    CHECK(d.packet == p);
}

TEST_CASE(
    "UNSUBSCRIBE: topic filters are valid, and there is at least one [MQTT-3.10.3-1] [MQTT-3.10.3-2] "
    "[MQTT-3.10.3-1 of 3.1.1] [MQTT-3.10.3-2 of 3.1.1]") {
    CHECK(unsubscribe_error_of("0000 0001 'a'", v3) == errc::packet_identifier_zero);
    CHECK(unsubscribe_error_of("000A", v3) == errc::empty_list);
    CHECK(unsubscribe_error_of("000A 00", v5) == errc::empty_list);
    CHECK(unsubscribe_error_of("000A 0001 FF", v3) == errc::invalid_utf8);
    CHECK(unsubscribe_error_of("000A 0002 'a#'", v3) == errc::invalid_topic_filter);
    CHECK(unsubscribe_error_of("000A 0001 'a' 00", v3) == errc::truncated_packet);
    std::string_view const wrong = "a#";
    CHECK(check(unsubscribe{.packet_id = 1, .filters = wrong}, v3) == errc::invalid_topic_filter);
    CHECK(check(unsubscribe{.packet_id = 1}, v3) == errc::empty_list);
}
