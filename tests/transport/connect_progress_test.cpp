#include <runnel/transport/connect_progress.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <system_error>

namespace {

using runnel::connect_budget;
using runnel::connect_progress;
using runnel::connect_step;
using namespace std::chrono_literals;
using time_point = connect_budget::time_point;

constexpr time_point start{1000s};

constexpr connect_budget of(connect_budget::duration whole) { return {start, start + whole}; }

}  // namespace

TEST_CASE("each of those that are tried one after another gets as much of what is left as the others") {
    auto const whole = of(12s);
    CHECK(whole.share(start, 1).left(start) == 12s);
    CHECK(whole.share(start, 2).left(start) == 6s);
    CHECK(whole.share(start, 3).left(start) == 4s);
    CHECK(whole.share(start + 4s, 2).left(start + 4s) == 4s);
    CHECK(whole.share(start + 1s, 2).left(start + 1s) == 5500ms);  // the first has failed soon
    CHECK(whole.share(start + 11s, 1).left(start + 11s) == 1s);
}

TEST_CASE("no share is less than a quarter of the whole, nor more than what is left") {
    auto const whole = of(12s);
    CHECK(whole.share(start, 4).left(start) == 3s);
    CHECK(whole.share(start, 5).left(start) == 3s);
    CHECK(whole.share(start, std::numeric_limits<std::size_t>::max()).left(start) == 3s);
    CHECK(whole.share(start + 9s, 17).left(start + 9s) == 3s);
    CHECK(whole.share(start + 10s, 16).left(start + 10s) == 2s);
    CHECK(whole.share(start + 12s, 15).left(start + 12s) == 0s);
    CHECK(whole.share(start + 13s, 15).is_over(start + 13s));
    CHECK(whole.share(start, 0).left(start) == 12s);
}

TEST_CASE("a share is divided as the whole is") {
    auto const share = of(16s).share(start, 2);
    CHECK(share.share(start, 2).left(start) == 4s);
    CHECK(share.share(start, 100).left(start) == 2s);
}

TEST_CASE("a budget has its limits at the least and the greatest") {
    CHECK(of(0s).is_over(start));
    CHECK(of(-1s).share(start, 3).is_over(start));
    CHECK(of(1ns).share(start, 7).left(start) == 0ns);
    CHECK(of(4ms).share(start, 7).left(start) == 1ms);

    connect_budget const unlimited;
    CHECK_FALSE(unlimited.is_limited());
    CHECK_FALSE(unlimited.is_over(start));
    CHECK_FALSE(unlimited.share(start, 3).is_limited());
    CHECK(unlimited.spacing(start, 3, 250ms) == 250ms);
    CHECK_FALSE(connect_budget(start, time_point::max()).is_limited());

    connect_budget const longest(start, time_point::max() - 1ns);
    CHECK(longest.is_limited());
    CHECK(longest.share(start, 2).left(start) > 24h * 365 * 100);
    CHECK(longest.share(start, 9).left(start) > 24h * 365 * 50);
    CHECK(longest.spacing(start, 2, 250ms) == 250ms);
}

TEST_CASE("all that are tried side by side have begun when half of the time is over") {
    CHECK(of(30s).spacing(start, 2, 250ms) == 250ms);
    CHECK(of(30s).spacing(start, 150, 250ms) == 100ms);
    CHECK(of(100ms).spacing(start, 2, 250ms) == 25ms);
    CHECK(of(100ms).spacing(start + 60ms, 2, 250ms) == 10ms);
    CHECK(of(0s).spacing(start, 2, 250ms) == 0s);
    CHECK(of(30s).spacing(start, 0, 250ms) == 250ms);
}

TEST_CASE("what was being done is told by the error's text, where it has one") {
    connect_progress p;
    CHECK(p.step() == connect_step::none);
    p.begin(of(1s));
    CHECK(p.step() == connect_step::open);
    CHECK(p.doing().empty());
    p.at(connect_step::tls, "TLS handshake with tls://a:1");
    p.fail(std::system_error(std::make_error_code(std::errc::connection_reset)));
    CHECK(p.doing() == "TLS handshake with tls://a:1");
    p.fail(std::system_error(std::make_error_code(std::errc::connection_reset), "TLS handshake (an alert)"));
    CHECK(p.doing() == "TLS handshake (an alert)");
    CHECK(p.step() == connect_step::tls);
    p.begin(of(1s));
    CHECK(p.doing().empty());
}

TEST_CASE("addresses that were of no use are remembered, each once, the oldest forgotten first") {
    connect_progress p;
    auto const leave = [&](std::uint64_t address) {
        p.connected_to(address);
        p.leave_address();
    };
    auto const all = [&] {
        std::string text;
        for (auto const a : p.useless()) text += std::to_string(a) + ' ';
        return text;
    };
    p.leave_address();
    CHECK(all() == "0 0 0 0 0 0 0 0 ");
    leave(1);
    p.leave_address();
    leave(2);
    CHECK(all() == "0 0 0 0 0 0 1 2 ");
    leave(1);
    CHECK(all() == "0 0 0 0 0 0 2 1 ");
    for (std::uint64_t address = 3; address <= 9; ++address) leave(address);
    CHECK(all() == "1 3 4 5 6 7 8 9 ");
    leave(1);
    CHECK(all() == "3 4 5 6 7 8 9 1 ");
    p.begin(of(1s));
    CHECK(all() == "3 4 5 6 7 8 9 1 ");  // they outlast the attempt
    p.connected_to(2);
    p.begin(of(1s));
    p.leave_address();  // before there is a connection to blame
    CHECK(all() == "3 4 5 6 7 8 9 1 ");
}

TEST_CASE("the handshakes over an address have its share of the time while the host has others, and their own limits") {
    connect_progress p;
    p.begin(of(12s));
    p.connected_to(1);
    CHECK(p.handshake_time(0s, start) == 0s);
    CHECK(p.handshake_time(15s, start) == 15s);
    p.share_with_addresses(2, "192.0.2.1", start);
    CHECK(p.handshake_time(0s, start) == 4s);
    CHECK(p.handshake_time(15s, start + 1s) == 3s);
    CHECK(p.handshake_time(2s, start + 1s) == 2s);
    CHECK(p.handshake_time(0s, start + 3999500us) == 1ms);
    CHECK(p.handshake_time(15s, start + 20s) == 1ms);  // 0 would be without limit
    p.connected_to(2);
    CHECK(p.handshake_time(0s, start) == 0s);
}

TEST_CASE("after a late handshake the next address is tried, while there is time and the host has others") {
    connect_progress p;
    std::system_error const late(std::make_error_code(std::errc::timed_out));
    auto const why = late.code().message();
    p.begin(of(12s));
    p.at(connect_step::tls, "TLS handshake with tls://a:1");
    p.connected_to(1);
    CHECK_FALSE(p.try_next_address(late, start));
    p.share_with_addresses(1, "192.0.2.1", start);
    CHECK_FALSE(p.try_next_address(late, start + 12s));
    CHECK(p.passed_over.empty());
    CHECK(p.try_next_address(late, start + 6s));
    CHECK(p.passed_over == "TLS handshake with tls://a:1: " + why + " (192.0.2.1)");
    CHECK(p.useless().back() == 1);
    CHECK_FALSE(p.try_next_address(late, start + 6s));
    p.connected_to(2);
    p.pass_over(std::system_error(late.code(), "TLS"));
    CHECK(p.passed_over == "TLS handshake with tls://a:1: " + why + " (192.0.2.1); TLS: " + why);

    connect_progress unlimited;
    unlimited.begin({});
    unlimited.connected_to(1);
    unlimited.share_with_addresses(1, "192.0.2.1", start);
    CHECK(unlimited.handshake_time(0s, start) == 0s);
    CHECK_FALSE(unlimited.try_next_address(late, start));
}

TEST_CASE(
    "no more addresses of a server have a share than are remembered, and shares bear the least and the greatest") {
    connect_progress p;
    p.begin(of(12s));
    for (std::uint64_t i = 1; i <= connect_progress::remembered + 1; ++i) {
        p.connected_to(i);
        p.share_with_addresses(std::numeric_limits<std::size_t>::max(), "192.0.2.1", start);
        CHECK(p.handshake_time(0s, start) == (i <= connect_progress::remembered ? 3s : 0s));
    }
    p.begin_server({start, time_point::max() - 1ns}, "another");
    p.share_with_addresses(1, "192.0.2.1", start);
    CHECK(p.handshake_time(0s, start) > 24h * 365 * 100);
    p.begin_server(of(0s), "another");
    p.share_with_addresses(1, "192.0.2.1", start);
    CHECK(p.handshake_time(0s, start) == 1ms);
}
