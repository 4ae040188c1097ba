#include <runnel/transport/error.hpp>
#include <runnel/transport/reconnect.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <chrono>
#include <stdexcept>
#include <system_error>

namespace {

using namespace runnel;
using namespace std::chrono_literals;

recovery always_again(std::error_code) noexcept { return recovery::retry; }
using policy = basic_reconnect_policy<usual_recovery>;

}  // namespace

// How the schedule grows and gives up: tests/mqtt/client/reconnect_test.cpp.

TEST_CASE("what to do about an error that no layer above knows") {
    CHECK(usual_recovery(transport_errc::host_name_mismatch) == recovery::give_up);
    CHECK(usual_recovery(transport_errc::connect_timeout) == recovery::retry);
    CHECK(usual_recovery(std::make_error_code(std::errc::invalid_argument)) == recovery::give_up);
    CHECK(usual_recovery(std::make_error_code(std::errc::permission_denied)) == recovery::renew_credentials);
    CHECK(usual_recovery(std::make_error_code(std::errc::connection_refused)) == recovery::retry);
    // The system's own are about this machine and the network, and may pass.
    CHECK(usual_recovery({EACCES, std::system_category()}) == recovery::retry);
    CHECK(usual_recovery({EINVAL, std::system_category()}) == recovery::retry);
}

TEST_CASE("a policy classifies as its type says, unless the user knows better") {
    auto const lasting = make_error_code(transport_errc::host_name_mismatch);
    policy usual;
    basic_reconnect_policy<always_again> other;
    CHECK_FALSE(basic_reconnect_schedule<policy>(usual, false, {}).after({.why = lasting}, {}, 0.5).again);
    CHECK(basic_reconnect_schedule<decltype(other)>(other, false, {}).after({.why = lasting}, {}, 0.5).again);
    usual.classify = always_again;
    CHECK(basic_reconnect_schedule<policy>(usual, false, {}).after({.why = lasting}, {}, 0.5).again);
}

TEST_CASE("refused credentials are renewed only where they can be") {
    auto const refused = std::make_error_code(std::errc::permission_denied);
    policy const p;
    CHECK_FALSE(basic_reconnect_schedule<policy>(p, false, {}).after({.why = refused}, {}, 0.5).again);
    basic_reconnect_schedule<policy> renewing(p, true, {});
    CHECK(renewing.after({.why = refused}, {}, 0.5).again);
    CHECK(renewing.after({.why = refused}, {}, 0.5).again);
    CHECK_FALSE(renewing.after({.why = refused}, {}, 0.5).again);
}

TEST_CASE("a policy that is not possible is refused") {
    policy p;
    check(p);
    p.initial = 0ms;
    CHECK_THROWS_AS(check(p), std::out_of_range);
}
