#include <runnel/mqtt/codec/error.hpp>
#include <runnel/mqtt/codec/reason_code.hpp>

#include <doctest/doctest.h>

#include "support/enumerators.hpp"
#include <ostream>  // doctest prints error codes
#include <set>
#include <string>
#include <system_error>

using namespace runnel::mqtt;

static_assert(is_error(reason_code::not_authorized) && !is_error(reason_code::no_matching_subscribers));

TEST_CASE("reason codes stand in the table in ascending order, each with a name and a text of its own") {
    std::set<std::string> names, texts;
    int last = -1;
    for (auto const& definition : reason_code_table) {
        CHECK(static_cast<int>(definition.code) > last);
        last = static_cast<int>(definition.code);
        names.insert(name(definition.code));
        texts.insert(describe(definition.code));
    }
    CHECK(reason_code_table.size() == 43);
    CHECK(names.size() == 43);
    CHECK(texts.size() == 43);
    CHECK(std::string(name(reason_code(0x7F))) == "unknown");
}

TEST_CASE("a broker's refusal is an error code of a category of its own") {
    std::error_code const refused = reason_code::not_authorized;
    CHECK(refused == reason_code::not_authorized);
    CHECK(refused != errc::not_connected);
    CHECK(std::string(refused.category().name()) == "runnel.mqtt.reason");
    CHECK(refused.message() == "not authorized");
    CHECK_FALSE(std::error_code(reason_code::success));
}

TEST_CASE("each error says what it means in words of its own") {
    std::set<std::string> texts;
    auto const all = test::enumerators<errc>();
    CHECK(all.back() == errc::topic_alias_cannot_wait);
    for (std::error_code const error : all) texts.insert(error.message());
    CHECK(texts.size() == all.size());
    CHECK(std::string(std::error_code(errc::queue_full).category().name()) == "runnel.mqtt");
    CHECK_FALSE(std::error_code(errc::ok));
}

TEST_CASE("a connection that ends over a violation ends with the reason for it (4.13)") {
    CHECK(reason_for(errc::truncated_packet) == reason_code::malformed_packet);
    CHECK(reason_for(errc::invalid_utf8) == reason_code::malformed_packet);
    CHECK(reason_for(errc::duplicate_property) == reason_code::protocol_error);
    CHECK(reason_for(errc::second_connect) == reason_code::protocol_error);
    // Found once the packet is parsed; 0x8F and 0x90 are for well-formed topics (2.4, table 2-6).
    CHECK(reason_for(errc::topic_empty) == reason_code::protocol_error);
    CHECK(reason_for(errc::wildcard_in_topic_name) == reason_code::protocol_error);
    CHECK(reason_for(errc::invalid_topic_filter) == reason_code::protocol_error);
    CHECK(reason_for(errc::packet_too_large) == reason_code::packet_too_large);
    CHECK(reason_for(errc::ok) == reason_code::success);
    // What a client may tell in DISCONNECT, and a server in CONNACK.
    for (auto const e : test::enumerators<errc>()) {
        CAPTURE(describe(e));
        auto const reason = reason_for(e);
        bool const tells = allowed_in(reason, packet_type::disconnect) || allowed_in(reason, packet_type::connack);
        CHECK(tells);
        CHECK((reason == reason_code::success) == (e == errc::ok || e == errc::disconnected));
    }
    CHECK(reason_for(errc::reserved_subscription_option) == reason_code::malformed_packet);
    CHECK(reason_for(errc::problem_information_unwanted) == reason_code::protocol_error);
    CHECK(reason_for(errc::message_discarded) == reason_code::unspecified_error);
    CHECK(reason_for(static_cast<errc>(10'000)) == reason_code::unspecified_error);
}

TEST_CASE("return codes of MQTT 3.1.1 and reason codes are translated there and back") {
    for (std::uint8_t code = 0; code <= 5; ++code)
        CHECK(to_connack_return_code(*from_connack_return_code(code)) == code);
    CHECK_FALSE(from_connack_return_code(6));
    CHECK(to_connack_return_code(reason_code::quota_exceeded) == 3);
}
