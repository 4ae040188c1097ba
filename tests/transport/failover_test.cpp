#include <runnel/coro/wait_list.hpp>
#include <runnel/transport/failover.hpp>
#include <runnel/transport/memory.hpp>
#include <runnel/transport/tcp.hpp>

#include <doctest/doctest.h>

#include "support/enumerators.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"
#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace {

using runnel::failover;
using runnel::failover_order;
using runnel::transport_errc;
using memory = runnel::memory_stream<>;
using namespace std::chrono_literals;
using several = failover<runnel::memory_transport>;

static_assert(runnel::reporting_transport<failover<runnel::tcp>>);
static_assert(runnel::reporting_transport<failover<runnel::basic_tcp<asio::io_context::executor_type>>>);
static_assert(!runnel::reporting_transport<runnel::tcp>);
static_assert(!runnel::network_transport<failover<runnel::tcp>>);

// Three endpoints, a, b and c, which accept connections or fail as told.
struct endpoints {
    runnel::memory_transport endpoint(std::string name) {
        runnel::memory_transport made([this, name](memory end) {
            tried += name;
            if (on_try) on_try();
            if (failing.contains(name)) throw std::system_error(failing[name], name);
            ends.push_back(std::move(end));
        });
        made.host = name;
        return made;
    }

    several all(failover_order order = failover_order::stay) {
        return several({endpoint("a"), endpoint("b"), endpoint("c")}, order);
    }

    // Opens; returns the names of the endpoints that were tried for it.
    std::string open(several& transport) {
        tried.clear();
        error = test::error_of(io, transport.open(io.get_executor()));
        return tried;
    }

    asio::io_context io;
    std::map<std::string, std::error_code> failing;
    std::function<void()> on_try;
    std::string tried;
    std::error_code error;
    std::vector<memory> ends;
};

std::error_code const refused = asio::error::connection_refused;

// A transport of a user's own, which knows nothing of budgets: opens, fails, or falls silent, as told.
struct plain_transport {
    using executor_type = asio::any_io_executor;
    using stream_type = memory;
    static constexpr bool secure = false;

    struct peer {
        std::string tried;
        std::string silent;   // those that do not answer
        std::string failing;  // those that refuse
        std::string slow;     // those that take `latency`
        std::chrono::milliseconds latency{};
        int ended = 0;  // of the silent ones
        std::vector<memory> ends;
    };
    std::string name;
    peer* to = nullptr;

    std::string url() const { return "plain://" + name; }
    asio::awaitable<memory> open(executor_type executor) const {
        to->tried += name;
        if (to->failing.find(name) != std::string::npos) throw std::system_error(refused, name);
        if (to->silent.find(name) != std::string::npos) {
            struct counter {
                int& n;
                ~counter() { ++n; }
            } const at_end{to->ended};
            runnel::wait_list<executor_type> waiters(executor);
            runnel::waiter<executor_type> w;
            co_await waiters.wait(w);
            if (w.result) throw std::system_error(w.result);
        }
        if (to->slow.find(name) != std::string::npos) {
            auto sleeping = runnel::sleep_for<executor_type>(executor, to->latency);
            co_await std::move(sleeping);
        }
        auto [mine, theirs] = memory::pair(executor);
        to->ends.push_back(std::move(theirs));
        co_return std::move(mine);
    }
    [[maybe_unused]] friend bool operator==(plain_transport const&, plain_transport const&) = default;
};

// Opening several such transports within a time.
struct limited {
    using transport_type = failover<plain_transport>;

    explicit limited(std::string const& names, failover_order order = failover_order::stay)
        : transport(all(names), order) {}

    std::vector<plain_transport> all(std::string const& names) {
        std::vector<plain_transport> made;
        for (char const c : names) made.push_back({std::string(1, c), &peer});
        return made;
    }

    // Opens within `limit`, which is seen to as a session does; returns who was tried.
    std::string open(std::chrono::milliseconds limit) {
        peer.tried.clear();
        auto const now = std::chrono::steady_clock::now();
        progress.begin({now, now + limit});
        test::task opening(io, transport.open(io.get_executor(), &progress));
        io.restart();
        while (!opening.done() && io.run_one_until(now + limit) != 0) {
        }
        opening.cancel();
        error = opening.run_for_error();
        text = opening.error_text();
        CHECK(opening.ended() == 1);
        return peer.tried;
    }

    asio::io_context io;
    plain_transport::peer peer;
    transport_type transport;
    runnel::connect_progress progress;
    std::error_code error;
    std::string text;
};

}  // namespace

TEST_CASE("failover opens the first endpoint, and the next ones at once when it fails") {
    endpoints e;
    auto transport = e.all();
    CHECK(transport.url() == "memory://a:0");
    CHECK(e.open(transport) == "a");
    CHECK_FALSE(e.error);
    e.failing["a"] = refused;
    CHECK(e.open(transport) == "ab");
    CHECK_FALSE(e.error);
    CHECK(transport.url() == "memory://b:0");
    CHECK(transport.current_index() == 1);
    e.failing["b"] = refused;
    CHECK(e.open(transport) == "bc");
    e.failing.clear();
    CHECK(e.open(transport) == "c");
    e.failing["c"] = refused;
    CHECK(e.open(transport) == "ca");
}

TEST_CASE("failover goes back to the first endpoint where that is preferred") {
    endpoints e;
    auto transport = e.all(failover_order::prefer_first);
    e.failing["a"] = refused;
    CHECK(e.open(transport) == "ab");
    CHECK(e.open(transport) == "ab");
    transport.report(true);
    e.failing.clear();
    CHECK(e.open(transport) == "a");
}

TEST_CASE("a report in the middle changes nothing of who has a turn") {
    endpoints e;
    auto transport = e.all();
    for (auto const* const name : {"a", "b", "c"}) e.failing[name] = refused;
    for (bool const well : {false, true}) {
        e.on_try = [&, reported = false]() mutable {
            if (!std::exchange(reported, true)) transport.report(well);
        };
        CHECK(e.open(transport) == "abc");
        transport = e.all();
    }
}

TEST_CASE("an endpoint that is reported to have failed is left for the one behind it") {
    for (auto const order : {failover_order::stay, failover_order::prefer_first}) {
        endpoints e;
        auto transport = e.all(order);
        CHECK(e.open(transport) == "a");
        transport.report(false);
        CHECK(e.open(transport) == "b");
        transport.report(false);
        CHECK(e.open(transport) == "c");
        transport.report(false);
        CHECK(e.open(transport) == "a");
        transport.report(false);
        transport.report(true);  // the last one counts
        CHECK(e.open(transport) == "a");
        transport.report(true);
        transport.report(false);  // well at first, but lost soon
        CHECK(e.open(transport) == "b");
        transport.report(true);
        CHECK(e.open(transport) == (order == failover_order::stay ? "b" : "a"));
    }
}

TEST_CASE("when all endpoints fail, the error has what each has thrown") {
    endpoints e;
    e.failing = {{"a", refused}, {"b", asio::error::timed_out}, {"c", asio::error::host_unreachable}};
    auto transport = e.all();
    test::task opening(e.io, transport.open(e.io.get_executor()));
    CHECK(opening.run_for_error() == asio::error::host_unreachable);
    auto const text = opening.error_text();
    CHECK(text.starts_with("none of 3 endpoints opened (a: Connection refused; b: Connection timed out; c: "));
    CHECK(e.tried == "abc");
    CHECK(e.open(transport) == "abc");
}

TEST_CASE("an endpoint that may come back hides one that will not") {
    endpoints e;
    e.failing = {
        {"a", transport_errc::certificate_self_signed}, {"b", refused}, {"c", transport_errc::host_name_mismatch}};
    auto transport = e.all();
    e.open(transport);
    CHECK(e.error == refused);
    e.failing["b"] = transport_errc::certificate_untrusted;
    e.open(transport);
    CHECK(e.error == transport_errc::host_name_mismatch);
}

TEST_CASE("a single endpoint's error is thrown as it is") {
    asio::io_context io;
    failover<runnel::tcp> const transport({runnel::tcp{.host = "127.0.0.1", .port = 1}});
    CHECK_THROWS_AS(test::run(io, transport.open(io.get_executor())), runnel::connect_failed);
    CHECK_THROWS_AS(several(std::vector<runnel::memory_transport>{}), std::invalid_argument);
}

TEST_CASE("opening several endpoints can be cancelled after any number of steps, and ends once") {
    bool completed = false;
    for (int steps = 0; !completed && steps < 100; ++steps) {
        CAPTURE(steps);
        asio::io_context io;
        asio::ip::tcp::acceptor acceptor(io, {asio::ip::make_address("127.0.0.1"), 0});
        failover<runnel::tcp> const transport(
            {runnel::tcp{.host = "127.0.0.1", .port = 1},
             runnel::tcp{.host = "127.0.0.1", .port = acceptor.local_endpoint().port()}});
        test::task opening(io, transport.open(io.get_executor()));
        for (int i = 0; i < steps; ++i) io.poll_one();
        completed = opening.done();
        opening.cancel();
        auto const error = opening.run_for_error();
        CHECK((!error || error == asio::error::operation_aborted));
        if (steps < 2) CHECK(error == asio::error::operation_aborted);
        CHECK(opening.ended() == 1);
    }
    CHECK(completed);
}

TEST_CASE("copies of a failover go through the list each for itself, and stay equal") {
    endpoints e;
    auto one = e.all();
    auto other = one;
    e.open(one);
    one.report(false);
    CHECK(e.open(one) == "b");
    CHECK(e.open(other) == "a");
    CHECK(one == other);
    CHECK_FALSE(one == several(one.endpoints(), failover_order::prefer_first));
    CHECK_FALSE(one == several({e.endpoint("a")}));
}

TEST_CASE("errors that only new settings mend are told from those that pass, each of them") {
    using runnel::is_lasting;
    using runnel::is_lasting_error;
    using runnel::proxy_errc;
    auto const lasting = [](auto const& all) {
        std::size_t n = 0;
        for (auto const e : all) {
            CHECK(is_lasting_error(e) == is_lasting(e));
            n += is_lasting(e);
        }
        return n;
    };
    CHECK(lasting(test::enumerators<transport_errc>()) == 26);
    CHECK(lasting(test::enumerators<proxy_errc>()) == 4);
    for (std::error_code const e :
         {make_error_code(transport_errc::file_unreadable), make_error_code(transport_errc::certificate_revoked),
          make_error_code(transport_errc::pre_shared_key_refused), make_error_code(transport_errc::handshake_refused),
          make_error_code(transport_errc::key_not_pinned), make_error_code(transport_errc::revocation_list_missing),
          make_error_code(transport_errc::certificate_status_invalid), make_error_code(proxy_errc::target_invalid),
          make_error_code(proxy_errc::credentials_refused)})
        CHECK(is_lasting_error(e));
    for (std::error_code const e :
         {refused, std::error_code(), make_error_code(transport_errc::not_tls), make_error_code(transport_errc::ok),
          make_error_code(transport_errc::certificate_expired),
          make_error_code(transport_errc::revocation_list_expired),
          make_error_code(transport_errc::certificate_status_missing),
          make_error_code(transport_errc::certificate_status_expired),
          make_error_code(transport_errc::certificate_not_yet_valid), make_error_code(transport_errc::stream_broken),
          make_error_code(proxy_errc::refused), make_error_code(proxy_errc::host_unreachable),
          make_error_code(static_cast<transport_errc>(10'000)), make_error_code(static_cast<proxy_errc>(10'000))})
        CHECK_FALSE(is_lasting_error(e));
}

TEST_CASE("a silent endpoint is left for the next one when its share of the time is over") {
    limited l("abc");
    l.peer.silent = "a";
    auto const start = std::chrono::steady_clock::now();
    CHECK(l.open(300ms) == "ab");
    CHECK_FALSE(l.error);
    auto const took = std::chrono::steady_clock::now() - start;
    CHECK(took >= 100ms);
    CHECK(took < 300ms);
    CHECK(l.peer.ended == 1);
    CHECK(l.transport.url() == "plain://b");
    CHECK(l.progress.passed_over == "opening plain://a: connecting took longer than its share of the time");
    CHECK(l.progress.budget.left(start) >= 300ms);  // the whole again
    CHECK(l.open(300ms) == "b");
    CHECK(l.progress.passed_over.empty());
}

TEST_CASE("when the time is over while an endpoint has its turn, the next attempt begins behind it") {
    for (auto const order : {failover_order::stay, failover_order::prefer_first}) {
        limited l("abcdefgh", order);
        l.peer.silent = "abcdefg";
        CHECK(l.open(80ms).starts_with("abcd"));  // a quarter of the time is the least share
        CHECK(l.error);
        CHECK(l.peer.tried.size() <= 5);
        auto const behind = l.transport.next().name;
        CHECK(behind == std::string(1, static_cast<char>(l.peer.tried.back() + 1)));
        CHECK(l.open(80ms).starts_with(behind));
        CHECK(l.peer.tried.back() == 'h');
        CHECK_FALSE(l.error);
        CHECK(l.peer.ended == 7);
        l.transport.report(true);
        CHECK(l.transport.next().name == (order == failover_order::stay ? "h" : "a"));
    }
}

TEST_CASE("a list of one has all of the time, and nobody cuts it but who has set the limit") {
    limited l("a");
    l.peer.silent = "a";
    CHECK(l.open(20ms) == "a");
    CHECK(l.error == asio::error::operation_aborted);
    CHECK(l.peer.ended == 1);
    CHECK(l.transport.next().name == "a");
}

TEST_CASE("endpoints that fail at once leave their time to the others, and the error names each") {
    limited l("abc");
    l.peer.failing = "ac";
    l.peer.silent = "b";
    CHECK(l.open(100ms) == "abc");
    CHECK(l.error == refused);
    CHECK(
        l.text.starts_with("none of 3 endpoints opened (a: Connection refused; opening plain://b: connecting took "
                           "longer than its share of the time; c: Connection refused)"));
    CHECK(l.transport.next().name == "a");
}

TEST_CASE("the error names the endpoints that had their turn, and counts those that had none") {
    limited l("abcdefg");
    l.peer.failing = "a";
    l.peer.silent = "bcdefg";
    auto const now = std::chrono::steady_clock::now();
    l.progress.begin({now, now + 40ms});
    l.progress.pass_over(std::system_error(refused, "something before"));
    test::task opening(l.io, l.transport.open(l.io.get_executor(), &l.progress));
    CHECK(opening.run_for_error() == transport_errc::connect_timeout);
    auto const tried = l.peer.tried.size();
    REQUIRE(tried < 7);
    CHECK(opening.error_text().starts_with("none of " + std::to_string(tried) +
                                           " endpoints opened (a: Connection refused; o"));
    CHECK(opening.error_text().find("), and " + std::to_string(7 - tried) + " had no turn: ") != std::string::npos);
    CHECK(l.progress.passed_over == "something before: Connection refused");
}

TEST_CASE("shares hold with the least time and without a limit") {
    limited l("abc");
    l.peer.silent = "ab";
    l.open(0ms);
    CHECK(l.error);
    for (int i = 0; i < 20 && l.transport.next().name != "c"; ++i) l.open(1ms);
    CHECK(l.transport.next().name == "c");

    limited none("ab");
    none.peer.silent = "a";
    none.progress.begin({});
    test::task opening(none.io, none.transport.open(none.io.get_executor(), &none.progress));
    none.io.run_for(20ms);
    CHECK_FALSE(opening.done());
    opening.cancel();
    CHECK(opening.run_for_error() == asio::error::operation_aborted);
    CHECK(none.transport.next().name == "b");
}

TEST_CASE("a slow endpoint has more than its share, where that was too little") {
    for (std::string const names : {"ab", "abcd", "abcdefghi"}) {
        CAPTURE(names);
        limited l(names);
        l.peer.silent = names.substr(0, names.size() - 1);
        l.peer.slow = names.back();
        l.peer.latency = 35ms;
        std::size_t attempts = 0;
        do ++attempts;
        while (l.open(50ms), l.error && attempts < 100);
        CHECK_FALSE(l.error);
        CHECK(attempts <= 2 * names.size());
        l.transport.report(true);
        l.peer.slow.clear();
        CHECK(l.open(50ms) == names.substr(names.size() - 1));
    }
}

TEST_CASE("a failover of failovers divides each share again") {
    asio::io_context io;
    plain_transport::peer peer;
    auto const pair = [&](char const* a, char const* b) { return failover<plain_transport>({{a, &peer}, {b, &peer}}); };
    failover const all(std::vector{pair("a", "b"), pair("c", "d")});
    peer.silent = "abc";
    runnel::connect_progress progress;
    auto const now = std::chrono::steady_clock::now();
    progress.begin({now, now + 400ms});
    test::task opening(io, all.open(io.get_executor(), &progress));
    CHECK_FALSE(opening.run_for_error());
    CHECK(peer.tried == "abcd");
    CHECK(std::chrono::steady_clock::now() - now < 400ms);
    CHECK(all.url() == "plain://d");
}

TEST_CASE("an attempt that is cut off at any time, by its share or from outside, ends once and leaves nothing behind") {
    for (auto const limit : {0ms, 1ms, 2ms, 3ms, 4ms, 8ms})
        for (int after = 0; after < 40; ++after) {
            CAPTURE(limit.count());
            CAPTURE(after);
            limited l("abc");
            l.peer.silent = "abc";
            auto const now = std::chrono::steady_clock::now();
            l.progress.begin({now, now + limit});
            test::task opening(l.io, l.transport.open(l.io.get_executor(), &l.progress));
            for (int i = 0; i < after && !opening.done(); ++i) l.io.run_one_for(1ms);
            opening.cancel();
            CHECK(opening.run_for_error());
            CHECK(opening.ended() == 1);
            CHECK(l.peer.ended == static_cast<int>(l.peer.tried.size()));
        }
}

TEST_CASE("after a good connection the time is divided from the beginning") {
    limited l("ab");
    for (int i = 0; i < 2; ++i) CHECK(l.open(400ms) == "a");
    l.transport.report(true);
    l.peer.silent = "a";
    CHECK(l.open(400ms) == "ab");
    CHECK_FALSE(l.error);
}
