#include <runnel/websocket/error.hpp>

#include <doctest/doctest.h>

#include <ostream>
#include <set>
#include <string>

using namespace runnel::websocket;

TEST_CASE("every WebSocket error has a description of its own") {
    std::set<std::string> seen;
    int const last = static_cast<int>(errc::origin_refused);
    for (int i = 0; i <= last; ++i) CHECK(seen.insert(make_error_code(static_cast<errc>(i)).message()).second);
    CHECK_FALSE(seen.contains(describe(static_cast<errc>(last + 1))));
    CHECK(make_error_code(errc::invalid_utf8).category().name() == std::string("runnel.websocket"));
    CHECK_FALSE(std::error_code(errc::ok));
}

TEST_CASE("close codes that may be sent are those of RFC 6455 7.4 and of the registry") {
    for (unsigned code = 0; code < 65536; ++code) {
        bool const allowed =
            (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code < 5000);
        CHECK(may_be_sent(static_cast<close_code>(code)) == allowed);
    }
}

TEST_CASE("violations map to the close codes of RFC 6455 7.4.1") {
    CHECK(close_code_for(errc::reserved_opcode) == close_code::protocol_error);
    CHECK(close_code_for(errc::masked_by_server) == close_code::protocol_error);
    CHECK(close_code_for(errc::text_not_accepted) == close_code::unsupported_data);
    CHECK(close_code_for(errc::invalid_utf8) == close_code::invalid_payload);
    CHECK(close_code_for(errc::message_too_big) == close_code::message_too_big);
    CHECK(close_code_for(errc::frame_too_big) == close_code::message_too_big);
}

TEST_CASE("layers that do not know WebSockets can tell what trying again cannot mend") {
    CHECK(std::error_code(errc::unauthorized) == std::errc::permission_denied);
    CHECK(std::error_code(errc::not_found) == std::errc::no_such_file_or_directory);
    CHECK(std::error_code(errc::invalid_target) == std::errc::invalid_argument);
    CHECK(std::error_code(errc::unavailable) == std::errc::resource_unavailable_try_again);
    CHECK(std::error_code(errc::handshake_timeout) == std::errc::timed_out);
    CHECK(std::error_code(errc::refused) != std::errc::permission_denied);
    CHECK(std::error_code(errc::refused).default_error_condition() == std::error_code(errc::refused));
}
