#include <runnel/mqtt/error.hpp>
#include <runnel/mqtt/reconnect.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <string>

namespace {

using namespace runnel;
using namespace runnel::mqtt;
using namespace std::chrono_literals;

template <class Change>
std::string refusal(Change change) {
    reconnect_policy p;
    change(p);
    try {
        check(p);
    } catch (std::out_of_range const& e) {
        return e.what();
    }
    return {};
}

}  // namespace

TEST_CASE("pauses double up to the maximum") {
    reconnect_policy p;
    p.jitter = 0;
    CHECK(pause_after(p, 1, 0.5) == 1s);
    CHECK(pause_after(p, 2, 0.5) == 2s);
    CHECK(pause_after(p, 6, 0.5) == 32s);
    CHECK(pause_after(p, 7, 0.5) == 60s);
    CHECK(pause_after(p, 1000, 0.5) == 60s);
    CHECK(pause_after(p, std::numeric_limits<std::uint32_t>::max(), 0.5) == 60s);
    p.multiplier = 1;
    CHECK(pause_after(p, 1000, 0.5) == 1s);
}

TEST_CASE("jitter makes a pause shorter or longer by its share, and never longer than the maximum") {
    reconnect_policy p;
    CHECK(pause_after(p, 1, 0) == 750ms);
    CHECK(pause_after(p, 1, 0.5) == 1s);
    CHECK(pause_after(p, 1, 0.999999) >= 1249ms);
    CHECK(pause_after(p, 100, 0.999999) == 60s);
    p.jitter = 1;
    CHECK(pause_after(p, 1, 0) == 0ms);
    CHECK(pause_after(p, 1, 0.999999) >= 1999ms);
}

TEST_CASE("a policy out of range is refused, with the range in the text") {
    CHECK(refusal([](auto&) {}).empty());
    CHECK(refusal([](auto& p) { p.initial = 0ms; }).find("1 ms or more") != std::string::npos);
    CHECK(refusal([](auto& p) { p.initial = 61s; }).find("not be less than reconnect.initial") != std::string::npos);
    CHECK(refusal([](auto& p) { p.multiplier = 0.9; }).find("1 or more") != std::string::npos);
    CHECK(refusal([](auto& p) { p.multiplier = std::numeric_limits<double>::quiet_NaN(); }) != "");
    CHECK(refusal([](auto& p) { p.jitter = -0.1; }).find("0 to 1") != std::string::npos);
    CHECK(refusal([](auto& p) { p.jitter = 1.1; }).find("0 to 1") != std::string::npos);
    CHECK(refusal([](auto& p) { p.jitter = std::numeric_limits<double>::quiet_NaN(); }) != "");
}

TEST_CASE("trying again is pointless where one side refuses who the other is or how it speaks") {
    for (auto const code : {reason_code::unsupported_protocol_version, reason_code::client_identifier_not_valid,
                            reason_code::bad_user_name_or_password, reason_code::not_authorized, reason_code::banned,
                            reason_code::bad_authentication_method})
        CHECK_FALSE(is_worth_retrying(code));
    for (auto const code : {transport_errc::certificate_untrusted, transport_errc::certificate_expired,
                            transport_errc::host_name_mismatch, transport_errc::own_certificate_refused,
                            transport_errc::no_common_protocol_version, transport_errc::file_unreadable})
        CHECK_FALSE(is_worth_retrying(code));
}

TEST_CASE("whatever time may mend is tried again") {
    for (auto const code : {reason_code::server_unavailable, reason_code::server_busy,
                            reason_code::server_shutting_down, reason_code::quota_exceeded})
        CHECK(is_worth_retrying(code));
    for (auto const code : {transport_errc::stream_truncated, transport_errc::stream_broken})
        CHECK(is_worth_retrying(code));
    CHECK(is_worth_retrying(errc::connect_timeout));
    CHECK(is_worth_retrying(errc::keep_alive_timeout));
    CHECK(is_worth_retrying(std::make_error_code(std::errc::connection_refused)));
}
