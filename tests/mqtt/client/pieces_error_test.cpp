#include <runnel/mqtt/client/pieces_error.hpp>
#include <runnel/transport/reconnect.hpp>

#include <doctest/doctest.h>

#include "support/enumerators.hpp"

using namespace runnel;
using namespace runnel::mqtt;

TEST_CASE("errors of messages in pieces have texts, and stay wrong until the program is changed") {
    std::error_code const e = pieces_errc::source_ended_early;
    CHECK(std::string_view(e.category().name()) == "runnel.pieces");
    CHECK(e == std::errc::invalid_argument);
    CHECK(std::error_code(pieces_errc::ok) != std::errc::invalid_argument);
    for (int i = 0; i <= static_cast<int>(pieces_errc::source_too_long); ++i)
        CHECK(std::error_code(static_cast<pieces_errc>(i)).message() != "unknown pieces error");
    CHECK(std::string_view(describe(static_cast<pieces_errc>(99))) == "unknown pieces error");
    CHECK(usual_recovery(e) == recovery::give_up);
}
