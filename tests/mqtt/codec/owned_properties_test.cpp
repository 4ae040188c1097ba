#include <runnel/mqtt/codec/owned_properties.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <system_error>
#include <utility>

using namespace runnel::mqtt;

namespace {

// What it was made of has changed by the time when it is returned.
owned_properties made(int copies) {
    std::string text[] = {"text/plain", "to", "which", "name", "value"};
    std::array<user_property, 2> const pairs = {user_property{text[3], text[4]}, user_property{text[3], text[3]}};
    std::array<std::uint32_t, 2> ids = {7, 8};
    properties p;
    p.payload_format_indicator = std::uint8_t{1};
    p.message_expiry_interval = 9;
    p.content_type = text[0];
    p.response_topic = text[1];
    p.correlation_data = text[2];
    p.reason_string = "";
    p.user_properties = pairs;
    p.subscription_identifiers = ids;
    owned_properties all(&p);
    if (copies == 1) {
        auto const copy = all;
        all = owned_properties(copy);
    }
    if (copies == 2) all = owned_properties(std::move(all));
    for (auto& t : text) std::ranges::fill(t, '?');
    ids = {};
    return all;
}

}  // namespace

TEST_CASE("owned properties keep what they were made of, copied and moved, too") {
    for (int const copies : {0, 1, 2}) {
        auto const all = made(copies);
        auto const& p = *all.get();
        CHECK(p.payload_format_indicator == std::uint8_t{1});
        CHECK(p.message_expiry_interval == 9u);
        CHECK(p.content_type == "text/plain");
        CHECK(p.response_topic == "to");
        CHECK(p.correlation_data == "which");
        CHECK(p.reason_string == "");
        CHECK_FALSE(p.server_reference);
        CHECK(all.size() == 10 + 2 + 5 + (5 + 4 + 5) + (5 + 4 + 4) + 2 * 4);
        CHECK(user_properties(p.user_properties) == user_properties({{"name", "value"}, {"name", "name"}}));
        CHECK(std::ranges::equal(p.subscription_identifiers, std::array<std::uint32_t, 2>{7, 8}));
    }
}

TEST_CASE("of no properties there are none") {
    CHECK(owned_properties().get() == nullptr);
    CHECK(owned_properties().size() == 0);
    CHECK(owned_properties(nullptr).get() == nullptr);
    properties const none;
    CHECK(*owned_properties(&none).get() == none);
}

TEST_CASE("user properties that cannot be sent are refused") {
    std::string const text(65'536, 'x');
    user_property const pair{"name", text};
    properties p;
    p.user_properties = pair;
    CHECK_THROWS_AS(owned_properties{&p}, std::system_error);
}
