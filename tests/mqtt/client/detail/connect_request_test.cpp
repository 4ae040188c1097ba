#include <runnel/mqtt/client/detail/connect_request.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <optional>
#include <string_view>

namespace {

using namespace std::chrono_literals;
using runnel::mqtt::protocol_version;
using runnel::mqtt::session_options;
using runnel::mqtt::detail::connect_request;
using id = runnel::mqtt::property_id;

}  // namespace

TEST_CASE("CONNECT announces topic aliases if some are wanted") {
    for (std::uint16_t const aliases : {std::uint16_t{0}, std::uint16_t{7}}) {
        session_options o;
        o.version = protocol_version::v5;
        o.incoming_topic_aliases = aliases;
        connect_request const request(o, o.version, "", 10);
        auto const announced = request.packet().props.get<id::topic_alias_maximum>();
        CHECK(announced == (aliases == 0 ? std::nullopt : std::optional(aliases)));
        CHECK(request.own().topic_alias_maximum == aliases);
    }
}

TEST_CASE("a will has its delay, where the version knows one") {
    session_options o;
    o.will.emplace();
    o.will->topic = "gone";
    o.will->delay = 30s;
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        o.version = version;
        connect_request const request(o, o.version, "", 10);
        auto const packet = request.packet();
        REQUIRE(packet.will.has_value());
        CHECK(packet.will->topic == "gone");
        CHECK(packet.will->props.empty() == (version == protocol_version::v3_1_1));
        if (version == protocol_version::v5) CHECK(packet.will->props.get<id::will_delay_interval>() == 30);
    }
}

TEST_CASE("a client without an identifier asks for a new session, as the server cannot know an old one") {
    session_options o;
    for (auto const* mine : {"", "me"})
        for (auto const* assigned : {"", "given"}) {
            o.credentials.client_id = mine;
            connect_request const request(o, o.version, assigned, 10);
            std::string_view const expected = *mine != '\0' ? mine : assigned;
            CHECK(request.packet().client_id == expected);
            CHECK(request.packet().clean_start == expected.empty());
        }
    connect_request const anew(o, o.version, "", 10, true);
    CHECK(anew.packet().clean_start);
}
