#include <runnel/mqtt/client/reconnect.hpp>
#include <runnel/mqtt/codec/error.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <limits>
#include <optional>
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
    CHECK(pause_after(p, 100, 0) == 36s);
    CHECK(pause_after(p, 100, 0.5) == 48s);
    CHECK(pause_after(p, 100, 0.999999) == 60s);
    p.jitter = 1;
    CHECK(pause_after(p, 1, 0) == 0ms);
    CHECK(pause_after(p, 1, 0.999999) >= 1999ms);
    CHECK(pause_after(p, 100, 0) == 0ms);
}

TEST_CASE("clients that have waited for long are as spread as at the beginning") {
    reconnect_policy p;
    for (double const jitter : {0.1, 0.25, 1.0})
        for (std::uint32_t const failures : {1u, 6u, 7u, 20u, 1000u}) {
            p.jitter = jitter;
            int in_last_tenth = 0, longest = 0;
            auto const least = pause_after(p, failures, 0), most = pause_after(p, failures, 0.999999);
            for (int i = 0; i < 1000; ++i) {
                auto const pause = pause_after(p, failures, i / 1000.0);
                CHECK(pause <= p.maximum);
                in_last_tenth += pause > most - (most - least) / 10;
                longest += pause == p.maximum;
            }
            CHECK(in_last_tenth <= 101);
            CHECK(longest <= 2);
        }
    p.initial = p.maximum = 1ms;
    CHECK(pause_after(p, 1, 0.25) == 1ms);
}

TEST_CASE("a policy out of range is refused, with the range in the text") {
    CHECK(refusal([](auto&) {}).empty());
    CHECK(refusal([](auto& p) { p.initial = 0ms; }).find("1 ms or more") != std::string::npos);
    CHECK(refusal([](auto& p) { p.initial = 61s; }).find("not be less than reconnect.initial") != std::string::npos);
    CHECK(refusal([](auto& p) { p.total = -1ms; }).find("0 ms or more") != std::string::npos);
    CHECK(refusal([](auto& p) { p.classify = nullptr; }).find("callable") != std::string::npos);
    CHECK(refusal([](auto& p) { p.multiplier = 0.9; }).find("1 or more") != std::string::npos);
    CHECK(refusal([](auto& p) { p.multiplier = std::numeric_limits<double>::quiet_NaN(); }) != "");
    CHECK(refusal([](auto& p) { p.jitter = -0.1; }).find("0 to 1") != std::string::npos);
    CHECK(refusal([](auto& p) { p.jitter = 1.1; }).find("0 to 1") != std::string::npos);
    CHECK(refusal([](auto& p) { p.jitter = std::numeric_limits<double>::quiet_NaN(); }) != "");
}

TEST_CASE("trying again is pointless where one side refuses who the other is or how it speaks") {
    for (auto const code : {reason_code::unsupported_protocol_version, reason_code::client_identifier_not_valid,
                            reason_code::banned, reason_code::bad_authentication_method})
        CHECK(recovery_from(code) == recovery::give_up);
    for (auto const code : {transport_errc::certificate_untrusted, transport_errc::certificate_without_names,
                            transport_errc::host_name_mismatch, transport_errc::own_certificate_refused,
                            transport_errc::no_common_protocol_version, transport_errc::file_unreadable})
        CHECK(recovery_from(code) == recovery::give_up);
}

TEST_CASE("refused credentials may be renewed") {
    for (auto const code : {reason_code::bad_user_name_or_password, reason_code::not_authorized})
        CHECK(recovery_from(code) == recovery::renew_credentials);
}

TEST_CASE("whatever time may mend is tried again") {
    for (auto const code : {reason_code::server_unavailable, reason_code::server_busy,
                            reason_code::server_shutting_down, reason_code::quota_exceeded})
        CHECK(recovery_from(code) == recovery::retry);
    for (auto const code : {transport_errc::stream_truncated, transport_errc::certificate_expired,
                            transport_errc::certificate_not_yet_valid, transport_errc::stream_broken})
        CHECK(recovery_from(code) == recovery::retry);
    CHECK(recovery_from(errc::connect_timeout) == recovery::retry);
    CHECK(recovery_from(errc::keep_alive_timeout) == recovery::retry);
    CHECK(recovery_from(std::make_error_code(std::errc::connection_refused)) == recovery::retry);
    // A firewall's refusal, which is the operating system's.
    CHECK(recovery_from({EACCES, std::system_category()}) == recovery::retry);
}

namespace {

constexpr reconnect_schedule::time_point start{1h};
constexpr auto none = std::nullopt;

struct scheduled {
    explicit scheduled(bool renewable = false) : schedule(policy, renewable, start) {}
    reconnect_policy policy;
    reconnect_schedule schedule;
    reconnect_schedule::time_point now = start;

    auto fail(std::error_code why, std::optional<std::chrono::steady_clock::duration> lasted = none,
              bool thrown_out = false) {
        return schedule.after({why, lasted, thrown_out}, now, 0.5);
    }
};

}  // namespace

TEST_CASE("pauses grow with each failure, and begin anew after a stable connection") {
    scheduled s;
    CHECK(s.fail(errc::connect_timeout).pause == 1s);
    CHECK(s.fail(errc::connect_timeout).pause == 2s);
    CHECK(s.fail(errc::keep_alive_timeout, 9s).pause == 4s);
    CHECK(s.fail(errc::keep_alive_timeout, 10s).pause == 1s);
    CHECK(s.fail(errc::connect_timeout).again);
}

TEST_CASE("a schedule gives up after so many attempts, or so much time without a connection") {
    scheduled s;
    s.policy.attempts = 3;
    CHECK(s.fail(errc::connect_timeout).again);
    CHECK(s.fail(errc::connect_timeout).again);
    CHECK_FALSE(s.fail(errc::connect_timeout).again);

    scheduled t;
    t.policy.total = 60s;
    t.now = start + 59s;
    CHECK(t.fail(errc::connect_timeout).again);
    CHECK(t.fail(errc::keep_alive_timeout, 1s).again);
    t.now = start + 118s;
    CHECK(t.fail(errc::connect_timeout).again);
    t.now = start + 119s;
    CHECK_FALSE(t.fail(errc::connect_timeout).again);
}

TEST_CASE("credentials that cannot be renewed are not offered again; others are, so many times in a row") {
    scheduled s;
    CHECK_FALSE(s.fail(reason_code::bad_user_name_or_password).again);
    scheduled renewing(true);
    CHECK(renewing.fail(reason_code::bad_user_name_or_password).again);
    CHECK(renewing.fail(reason_code::not_authorized).again);
    CHECK(renewing.fail(errc::keep_alive_timeout, 1s).again);
    CHECK(renewing.fail(reason_code::not_authorized).again);
    CHECK(renewing.fail(reason_code::not_authorized).again);
    CHECK_FALSE(renewing.fail(reason_code::not_authorized).again);
}

TEST_CASE("the policy may know better") {
    scheduled s;
    s.policy.classify = [](std::error_code why) {
        return why == reason_code::banned ? recovery::retry : recovery::give_up;
    };
    CHECK(s.fail(reason_code::banned).again);
    CHECK_FALSE(s.fail(errc::connect_timeout).again);
}

TEST_CASE("a setting that cannot work is given up, a system call's error is not") {
    CHECK(recovery_from(std::make_error_code(std::errc::invalid_argument)) == recovery::give_up);
    std::error_code const of_the_system(EINVAL, std::system_category());
    CHECK(recovery_from(of_the_system) == recovery::retry);
}

TEST_CASE("a client that is thrown out again and again slows down, however long its connections last") {
    scheduled s;
    auto const thrown_out = [&](auto after) {
        s.now += after;
        return s.fail(reason_code::session_taken_over, after, true);
    };
    CHECK(thrown_out(100s).pause == 1s);
    auto const second = thrown_out(100s);
    CHECK(second.pause == 2s);
    CHECK_FALSE(second.twin_suspected);  // once may be chance
    auto const third = thrown_out(100s);
    CHECK(third.pause == 4s);
    CHECK(third.twin_suspected);
    // It has had its peace for a while.
    auto const later = thrown_out(400s);
    CHECK(later.pause == 1s);
    CHECK_FALSE(later.twin_suspected);
}

TEST_CASE("a server that ends a connection now and then is not taken for a twin") {
    scheduled s;
    for (int i = 0; i < 10; ++i) {
        s.now += 301s;
        auto const next = s.fail(errc::disconnected, 301s, true);
        CHECK(next.pause == 1s);
        CHECK_FALSE(next.twin_suspected);
    }
}

TEST_CASE("a policy at the ends of its ranges never pauses longer than its maximum, and never less than nothing") {
    constexpr auto longest = std::chrono::milliseconds::max();
    for (auto const initial : {1ms, longest})
        for (double const multiplier : {1.0, 1e308, std::numeric_limits<double>::infinity()})
            for (double const jitter : {0.0, 1.0}) {
                reconnect_policy p;
                p.initial = initial;
                p.maximum = p.total = p.stable_after = p.twin_window = longest;
                p.multiplier = multiplier;
                p.jitter = jitter;
                p.attempts = p.renewals = std::numeric_limits<std::uint32_t>::max();
                check(p);
                reconnect_schedule schedule(p, true, {});
                for (int i = 0; i < 5; ++i)
                    for (double const random : {0.0, 0.999999}) {
                        auto const next = schedule.after({.why = reason_code::server_busy,
                                                          .lasted = std::chrono::steady_clock::duration::max(),
                                                          .thrown_out = true},
                                                         std::chrono::steady_clock::time_point::max(), random);
                        CHECK(next.again);
                        CHECK(next.pause >= 0ms);
                        CHECK(next.pause <= longest);
                    }
            }
    reconnect_policy p;
    p.stable_after = -1ms;
    CHECK_THROWS_AS(check(p), std::out_of_range);
    p = {};
    p.twin_window = std::chrono::milliseconds::min();
    CHECK_THROWS_AS(check(p), std::out_of_range);
}
