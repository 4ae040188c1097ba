#include <runnel/transport/detail/connect_race.hpp>
#include <runnel/transport/tcp.hpp>

#include <doctest/doctest.h>

#include "support/black_hole.hpp"
#include "support/run.hpp"
#include <chrono>
#include <memory>
#include <vector>

namespace {

using namespace std::chrono_literals;
using asio::ip::make_address;
using endpoint = asio::ip::tcp::endpoint;
using socket_type = asio::ip::tcp::socket;
using test::black_hole;
using race = runnel::detail::connect_race<asio::any_io_executor>;
using endpoints = std::vector<endpoint>;

endpoint at(char const* address, std::uint16_t port = 1) { return {make_address(address), port}; }

asio::ip::tcp::acceptor listening(asio::io_context& io, char const* address) {
    return asio::ip::tcp::acceptor(io, at(address, 0));
}

// A loopback address on whose port nobody listens.
endpoint refusing(char const* address = "127.0.0.2") {
    asio::io_context io;
    return listening(io, address).local_endpoint();
}

// Opens sockets, and remembers in which order and when attempts were started.
struct opener {
    std::vector<endpoint>* started;
    std::error_code operator()(socket_type& socket, endpoint const& where) const {
        started->push_back(where);
        runnel::asio_error_code error;
        socket.open(where.protocol(), error);
        return error;
    }
};

struct racing {
    asio::io_context io;
    std::vector<endpoint> started;
    race::duration delay = 50ms;

    asio::awaitable<socket_type> to(endpoints where, runnel::connect_progress* progress = nullptr) {
        return race::run(io.get_executor(), std::move(where), delay, opener{&started}, "connecting", progress);
    }
    endpoint winner(endpoints where) { return test::run(io, to(std::move(where))).remote_endpoint(); }
};

bool has_ipv6() {
    asio::io_context io;
    runnel::asio_error_code error;
    asio::ip::tcp::acceptor acceptor(io);
    acceptor.open(asio::ip::tcp::v6(), error);
    if (!error) acceptor.bind(at("::1", 0), error);
    return !error;
}

std::chrono::steady_clock::duration time_of(auto f) {
    auto const start = std::chrono::steady_clock::now();
    f();
    return std::chrono::steady_clock::now() - start;
}

}  // namespace

TEST_CASE("addresses are tried in turns of their families, beginning with the resolver's first") {
    auto const a = at("192.0.2.1"), b = at("192.0.2.2"), c = at("192.0.2.3");
    auto const x = at("2001:db8::1"), y = at("2001:db8::2");
    CHECK(runnel::detail::in_turns({x, y, a, b, c}) == endpoints{x, a, y, b, c});
    CHECK(runnel::detail::in_turns({a, b, c, x, y}) == endpoints{a, x, b, y, c});
    CHECK(runnel::detail::in_turns({a, x, b}) == endpoints{a, x, b});
    CHECK(runnel::detail::in_turns({a, b}) == endpoints{a, b});
    CHECK(runnel::detail::in_turns({}).empty());
    CHECK(runnel::detail::in_turns({a, a, x, b, a, x}) == endpoints{a, x, b});
}

TEST_CASE("the first address that answers is connected to, and later ones are not even tried") {
    racing r;
    auto const first = listening(r.io, "127.0.0.1");
    auto const second = listening(r.io, "127.0.0.2");
    CHECK(r.winner({first.local_endpoint(), second.local_endpoint()}) == first.local_endpoint());
    CHECK(r.started.size() == 1);
}

TEST_CASE("an address that refuses costs no time") {
    racing r;
    r.delay = 10s;
    auto const good = listening(r.io, "127.0.0.1");
    auto const bad = refusing();
    auto const took = time_of([&] { CHECK(r.winner({bad, bad, good.local_endpoint()}) == good.local_endpoint()); });
    CHECK(took < 5s);
    CHECK(r.started.size() == 3);
}

TEST_CASE("an address that does not answer is left behind after the delay") {
    racing r;
    black_hole const hole(r.io);
    auto const good = listening(r.io, "127.0.0.1");
    auto const took = time_of([&] { CHECK(r.winner({hole.where(), good.local_endpoint()}) == good.local_endpoint()); });
    CHECK(took >= 50ms);
    CHECK(took < 5s);
}

TEST_CASE("the other family is tried when the first one does not answer") {
    if (!has_ipv6()) return;
    racing r;
    SUBCASE("IPv4 does not answer, IPv6 does") {
        black_hole const hole(r.io);
        auto const good = listening(r.io, "::1");
        CHECK(r.winner({hole.where(), good.local_endpoint()}) == good.local_endpoint());
    }
    SUBCASE("IPv6 refuses, IPv4 answers") {
        auto const good = listening(r.io, "127.0.0.1");
        CHECK(r.winner({refusing("::1"), good.local_endpoint()}) == good.local_endpoint());
    }
}

TEST_CASE("an address that answers late still wins if the later ones fail") {
    racing r;
    r.delay = 20ms;
    black_hole hole(r.io);
    test::task opening(r.io, r.to({hole.where(), refusing()}));
    while (r.started.size() < 2 && r.io.run_one_for(20s) != 0) {
    }
    CHECK_FALSE(opening.done());
    hole.answer();  // to the client's next SYN, a second after the first
    CHECK(opening.run().remote_endpoint() == hole.where());
}

TEST_CASE("when all addresses fail, each is named with its error") {
    racing r;
    auto const a = refusing("127.0.0.2");
    auto const b = refusing("127.0.0.3");
    try {
        test::run(r.io, r.to({a, b}));
        FAIL("connected");
    } catch (runnel::connect_failed const& e) {
        CHECK(e.code() == asio::error::connection_refused);
        REQUIRE(e.attempts().size() == 2);
        CHECK(e.attempts()[0].endpoint == a);
        CHECK(e.attempts()[1].endpoint == b);
        CHECK(e.attempts()[1].error == asio::error::connection_refused);
        std::string const text = e.what();
        CHECK(text.starts_with("connecting (127.0.0.2: Connection refused; 127.0.0.3: Connection refused)"));
    }
}

TEST_CASE("an address that cannot be reached at all does not hide why the others failed") {
    std::error_code const refused = asio::error::connection_refused;
    std::error_code const unreachable = asio::error::network_unreachable;
    auto const a = at("127.0.0.1"), b = at("::1");
    CHECK(runnel::connect_failed("", {{a, refused}, {b, unreachable}}).code() == refused);
    CHECK(runnel::connect_failed("", {{b, unreachable}, {a, refused}}).code() == refused);
    CHECK(runnel::connect_failed("", {{b, unreachable}}).code() == unreachable);
    CHECK(runnel::connect_failed("", {}).code() == asio::error::host_not_found);
}

TEST_CASE("a socket that cannot be opened is a failure of its address only") {
    asio::io_context io;
    auto const good = listening(io, "127.0.0.1");
    auto const open = [](socket_type& socket, endpoint const& where) -> std::error_code {
        if (where.port() == 1) return asio::error::address_family_not_supported;
        runnel::asio_error_code error;
        socket.open(where.protocol(), error);
        return error;
    };
    auto const run = [&](endpoints where) {
        return race::run(io.get_executor(), std::move(where), 10s, open, "connecting");
    };
    CHECK(test::run(io, run({at("::1"), good.local_endpoint()})).is_open());
    CHECK(test::error_of(io, run({at("::1"), at("::1")})) == asio::error::address_family_not_supported);
}

TEST_CASE("a race can be cancelled after any number of steps, and ends once") {
    bool completed = false;
    for (int steps = 0; !completed && steps < 100; ++steps) {
        CAPTURE(steps);
        racing r;
        r.delay = 0ms;
        black_hole const hole(r.io);
        auto const good = listening(r.io, "127.0.0.1");
        test::task opening(r.io, r.to({hole.where(), refusing(), good.local_endpoint()}));
        for (int i = 0; i < steps && !opening.done(); ++i) r.io.run_one_for(1s);
        completed = opening.done();
        opening.cancel();
        auto const error = opening.run_for_error(5s);
        CHECK((!error || error == asio::error::operation_aborted));
        if (steps < 2) CHECK(error == asio::error::operation_aborted);
        CHECK(opening.ended() == 1);
    }
    CHECK(completed);
}

TEST_CASE("nothing is left behind when the context ends while addresses are being tried") {
    auto const witness = std::make_shared<int>(0);
    {
        racing r;
        black_hole const hole(r.io);
        auto const hold = [](asio::awaitable<socket_type> what, std::shared_ptr<int>) -> asio::awaitable<void> {
            co_await std::move(what);
        };
        asio::co_spawn(r.io, hold(r.to({hole.where(), hole.where()}), witness), [](std::exception_ptr) {});
        r.io.run_for(80ms);
        CHECK(r.started.size() == 2);
        CHECK(witness.use_count() == 2);
    }
    CHECK(witness.use_count() == 1);
}

TEST_CASE("where there is little time, all addresses are tried in half of it") {
    racing r;
    r.delay = 10s;
    std::vector<std::unique_ptr<black_hole>> holes;
    endpoints where;
    for (int i = 0; i < 5; ++i) where.push_back(holes.emplace_back(std::make_unique<black_hole>(r.io))->where());
    auto const good = listening(r.io, "127.0.0.1");
    where.push_back(good.local_endpoint());
    runnel::connect_progress progress;
    auto const now = std::chrono::steady_clock::now();
    progress.begin({now, now + 600ms});
    auto const took =
        time_of([&] { CHECK(test::run(r.io, r.to(where, &progress)).remote_endpoint() == good.local_endpoint()); });
    CHECK(took < 600ms);
    CHECK(r.started == where);
    CHECK(progress.step() == runnel::connect_step::connect);
    CHECK(progress.doing() == "connecting");
}

TEST_CASE("addresses that were of no use come last, in a later attempt that which was tried longest ago") {
    racing r;
    auto const a = listening(r.io, "127.0.0.1"), b = listening(r.io, "127.0.0.2"), c = listening(r.io, "127.0.0.4");
    endpoints const where{a.local_endpoint(), b.local_endpoint(), c.local_endpoint()};
    runnel::connect_progress progress;
    auto const next = [&] {
        progress.begin({});
        auto const to = test::run(r.io, r.to(where, &progress)).remote_endpoint();
        progress.leave_address();
        return to;
    };
    for (int round = 0; round < 2; ++round)
        for (auto const& endpoint : where) CHECK(next() == endpoint);
    progress.begin({});
    CHECK(test::run(r.io, r.to(where, &progress)).remote_endpoint() == where[0]);
    progress.begin({});  // nothing was wrong with that
    CHECK(test::run(r.io, r.to(where, &progress)).remote_endpoint() == where[0]);
}

TEST_CASE("an address that was of no use is tried beside others that do not answer") {
    racing r;
    r.delay = 20ms;
    black_hole hole(r.io);
    auto const only = listening(r.io, "127.0.0.1");
    runnel::connect_progress progress;
    for (int round = 0; round < 2; ++round) {
        progress.begin({});
        auto const took = time_of([&] {
            CHECK(test::run(r.io, r.to({hole.where(), only.local_endpoint()}, &progress)).remote_endpoint() ==
                  only.local_endpoint());
        });
        CHECK(took >= (round == 0 ? 20ms : 80ms));
        progress.leave_address();
    }
}

TEST_CASE("an address that is named twice counts once, and those that have failed not at all") {
    racing r;
    auto const good = listening(r.io, "127.0.0.1"), other = listening(r.io, "127.0.0.4");
    auto const bad = refusing(), here = good.local_endpoint();
    auto const divides = [&](endpoints where) {
        runnel::connect_progress progress;
        auto const now = std::chrono::steady_clock::now();
        progress.begin({now, now + 1h});
        CHECK(test::run(r.io, r.to(std::move(where), &progress)).remote_endpoint() == here);
        return progress.handshake_time(0ms, now).count() != 0;
    };
    CHECK_FALSE(divides({bad, bad, here}));
    CHECK_FALSE(divides({bad, here, here}));
    CHECK(divides({bad, bad, here, here, other.local_endpoint()}));
}

TEST_CASE("an address that was of no use, and wins all the same, has all of the time") {
    racing r;
    r.delay = 1ms;
    black_hole hole(r.io);
    auto const good = listening(r.io, "127.0.0.1");
    auto const here = good.local_endpoint();
    runnel::connect_progress progress;
    progress.begin({});
    CHECK(test::run(r.io, r.to({here}, &progress)).remote_endpoint() == here);
    progress.leave_address();
    auto const now = std::chrono::steady_clock::now();
    progress.begin({now, now + 1h});
    CHECK(test::run(r.io, r.to({hole.where(), here}, &progress)).remote_endpoint() == here);
    CHECK(progress.handshake_time(0ms, now).count() == 0);
}

TEST_CASE("an address that fails beside one that does not answer is followed by the next at once") {
    for (bool const opens : {true, false}) {
        CAPTURE(opens);
        asio::io_context io;
        black_hole hole(io);
        auto const good = listening(io, "127.0.0.1");
        auto const bad = refusing();
        endpoints started;
        auto const open = [&](socket_type& socket, endpoint const& where) -> std::error_code {
            started.push_back(where);
            if (where == bad && !opens) return asio::error::access_denied;
            runnel::asio_error_code error;
            socket.open(where.protocol(), error);
            return error;
        };
        endpoints where{hole.where(), bad, good.local_endpoint()};
        test::task racing(io, race::run(io.get_executor(), std::move(where), 100ms, open, "connecting", nullptr));
        while (started.size() < 2) io.run_one();
        while (io.poll() != 0) {
        }
        CHECK(started.size() == 3);
        CHECK(racing.run().remote_endpoint() == good.local_endpoint());
    }
}
