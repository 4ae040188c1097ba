#include <runnel/transport/failover.hpp>
#include <runnel/transport/proxy/http.hpp>
#include <runnel/transport/proxy/socks5.hpp>
#include <runnel/transport/tls/tls.hpp>
#include <runnel/websocket/transport.hpp>

#include <doctest/doctest.h>

#include "support/addresses.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"
#include "support/tls_pair.hpp"
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// An attempt to connect has one budget: who is silent at a step, whichever it is, is left for the next address or
// server while there is time. The handshakes of a transport are written as letters, the lowest first: h and s ask an
// HTTP or a SOCKS5 proxy, t is TLS, w WebSocket.

namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using clock_type = std::chrono::steady_clock;
using runnel::connect_progress;
using runnel::connect_step;
using runnel::failover;
using runnel::http_proxy;
using runnel::proxy_errc;
using runnel::socks5_proxy;
using runnel::tls;
using runnel::transport_errc;
using runnel::websocket::over;
using test::addresses;
using socket_stream = addresses::stream_type;

// Reads on: silent from now on.
template <runnel::stream S>
asio::awaitable<void> stay(S s) {
    auto reading = test::read_to_end(s);
    co_await std::move(reading);
}

template <runnel::stream S>
asio::awaitable<void> accept_websocket(S s) {
    runnel::websocket::server_options options;
    options.subprotocols = "mqtt";
    auto accepting = runnel::websocket::stream<S>::accept(std::move(s), options);
    auto opened = co_await std::move(accepting);
    auto staying = stay(std::move(opened));
    co_await std::move(staying);
}

asio::awaitable<void> accept_tls(socket_stream s, bool websocket) {
    static runnel::tls_context const context(test::server_options());
    runnel::tls_stream opened(std::move(s), context, runnel::tls_role::server);
    auto shaking_hands = opened.handshake();
    co_await std::move(shaking_hands);
    auto going_on = websocket ? accept_websocket(std::move(opened)) : stay(std::move(opened));
    co_await std::move(going_on);
}

// Does its part of `steps` and is silent then.
asio::awaitable<void> serve(socket_stream s, std::string_view steps) {
    for (; steps.starts_with('h') || steps.starts_with('s'); steps.remove_prefix(1)) {
        bool const socks = steps[0] == 's';
        char room[1024];
        co_await s.read_some(asio::buffer(room));
        if (socks) {
            auto choosing = test::write_text(s, "\5\0"s);
            co_await std::move(choosing);
            co_await s.read_some(asio::buffer(room));
        }
        auto answering = test::write_text(s, socks ? "\5\0\0\1\0\0\0\0\0\0"s : "HTTP/1.1 200 OK\r\n\r\n"s);
        co_await std::move(answering);
    }
    auto going_on = steps.starts_with('t')   ? accept_tls(std::move(s), steps.ends_with('w'))
                    : steps.starts_with('w') ? accept_websocket(std::move(s))
                                             : stay(std::move(s));
    co_await std::move(going_on);
}

// Servers on this machine, each at an address of its own.
struct servers {
    explicit servers(asio::io_context& c) : io(c) {}

    asio::ip::tcp::endpoint listen(std::string const& address, std::string steps,
                                   std::chrono::milliseconds delay = 0ms) {
        asio::ip::tcp::acceptor acceptor(io, {asio::ip::make_address(address), 0});
        auto const where = acceptor.local_endpoint();
        tasks.push_back(std::make_unique<test::task<void>>(io, accept(std::move(acceptor), std::move(steps), delay)));
        return where;
    }

    asio::awaitable<void> accept(asio::ip::tcp::acceptor acceptor, std::string steps, std::chrono::milliseconds delay) {
        for (;;) {
            auto socket = co_await acceptor.async_accept(asio::use_awaitable);
            ++connections;
            socket_stream s{addresses::socket_type(std::move(socket))};
            tasks.push_back(std::make_unique<test::task<void>>(io, serve_late(std::move(s), steps, delay)));
        }
    }

    static asio::awaitable<void> serve_late(socket_stream s, std::string_view steps, std::chrono::milliseconds delay) {
        auto sleeping = runnel::sleep_for<test::executor>(s.get_executor(), delay);
        co_await std::move(sleeping);
        auto serving = serve(std::move(s), steps);
        co_await std::move(serving);
    }

    asio::io_context& io;
    std::vector<std::unique_ptr<test::task<void>>> tasks;
    int connections = 0;
};

// An attempt by some transport, whose time is seen to as a session does.
struct attempt {
    template <class Transport>
    attempt(asio::io_context& io, std::shared_ptr<connect_progress> p, Transport transport,
            std::chrono::milliseconds limit)
        : progress(std::move(p)), task(begin(io, *this, std::move(transport), limit)) {}

    template <class Transport>
    static std::unique_ptr<test::task<void>> begin(asio::io_context& io, attempt& self, Transport transport,
                                                   std::chrono::milliseconds limit) {
        auto const now = clock_type::now();
        self.progress->begin({now, now + limit});
        return std::make_unique<test::task<void>>(io, run(self.progress, std::move(transport), limit));
    }
    template <class Transport>
    static asio::awaitable<void> run(std::shared_ptr<connect_progress> p, Transport transport,
                                     std::chrono::milliseconds limit) {
        auto opening = transport.open(co_await asio::this_coro::executor, p.get());
        auto limited = runnel::within(limit, std::move(opening), make_error_code(std::errc::timed_out));
        auto opened = co_await std::move(limited);
    }

    std::shared_ptr<connect_progress> progress;
    std::unique_ptr<test::task<void>> task;
};

template <class Transport>
Transport with_context(Transport transport) {
    static runnel::tls_context const context(test::client_options());
    if constexpr (requires { transport.context; }) transport.context = context;
    if constexpr (requires { transport.next; }) transport.next = with_context(transport.next);
    if constexpr (requires { transport.proxy; }) transport.proxy.host = "localhost";
    return transport;
}
template <class Transport>
addresses& lowest(Transport& transport) {
    if constexpr (std::same_as<Transport, addresses>)
        return transport;
    else if constexpr (requires { transport.next; })
        return lowest(transport.next);
    else
        return lowest(transport.proxy);
}
template <class Transport>
Transport to(std::vector<asio::ip::tcp::endpoint> endpoints) {
    auto made = with_context(Transport{.host = "localhost"});
    lowest(made).endpoints = std::move(endpoints);
    return made;
}

// Calls `f.template operator()<Transport>(steps)` for each kind of transport.
template <class F>
void for_each_transport(F f) {
    f.template operator()<over<addresses>>("w");
    f.template operator()<http_proxy<addresses>>("h");
    f.template operator()<socks5_proxy<addresses>>("s");
    f.template operator()<tls<addresses>>("t");
    f.template operator()<over<tls<addresses>>>("tw");
    f.template operator()<over<http_proxy<addresses>>>("hw");
    f.template operator()<tls<socks5_proxy<addresses>>>("st");
    f.template operator()<over<tls<http_proxy<addresses>>>>("htw");
    f.template operator()<over<tls<socks5_proxy<http_proxy<addresses>>>>>("hstw");
}

struct step_name {
    connect_step step;
    std::string text;
};
step_name name_of(char step) {
    switch (step) {
        case 't': return {connect_step::tls, "TLS handshake with "};
        case 'w': return {connect_step::websocket, "WebSocket handshake with "};
        default: return {connect_step::proxy, "asking for tcp://"};
    }
}

constexpr auto whole = 1600ms;

}  // namespace

TEST_CASE("an address that is silent at any step is left for the host's next one in the same attempt") {
    asio::io_context io;
    servers all(io);
    struct expected {
        std::unique_ptr<attempt> trying;
        char silent_at;
    };
    std::vector<expected> attempts;
    for_each_transport([&]<class Transport>(std::string steps) {
        for (std::size_t i = 0; i < steps.size(); ++i) {
            auto transport =
                to<Transport>({all.listen("127.0.0.2", steps.substr(0, i)), all.listen("127.0.0.3", steps)});
            attempts.push_back(
                {std::make_unique<attempt>(io, std::make_shared<connect_progress>(), transport, whole), steps[i]});
        }
    });
    auto const begin = clock_type::now();
    for (auto const& [trying, silent_at] : attempts) {
        CAPTURE(silent_at);
        CHECK_FALSE(trying->task->run_for_error());
        auto const& told = trying->progress->passed_over;
        CAPTURE(told);
        CHECK(told.find(name_of(silent_at).text) != std::string::npos);
        CHECK(told.ends_with(" (127.0.0.2)"));
        CHECK(told.find("; ") == std::string::npos);
    }
    CHECK(clock_type::now() - begin >= whole / 2);
}

TEST_CASE("a server that is silent at any step, at each of its addresses, is left for the next one of a failover") {
    asio::io_context io;
    servers all(io);
    std::vector<std::unique_ptr<attempt>> attempts;
    std::vector<char> silent_at;
    for_each_transport([&]<class Transport>(std::string steps) {
        for (std::size_t i = 0; i < steps.size(); ++i) {
            auto const silent = steps.substr(0, i);
            auto const first = to<Transport>({all.listen("127.0.0.2", silent), all.listen("127.0.0.3", silent)});
            auto const second = to<Transport>({all.listen("127.0.0.4", steps)});
            attempts.push_back(std::make_unique<attempt>(io, std::make_shared<connect_progress>(),
                                                         failover(std::vector{first, second}), 2 * whole));
            silent_at.push_back(steps[i]);
        }
    });
    for (std::size_t i = 0; i < attempts.size(); ++i) {
        CAPTURE(silent_at[i]);
        CHECK_FALSE(attempts[i]->task->run_for_error());
        auto const& told = attempts[i]->progress->passed_over;
        CAPTURE(told);
        auto const second = told.find("; ");
        REQUIRE(second != std::string::npos);
        CHECK(told.substr(0, second).find(name_of(silent_at[i]).text) != std::string::npos);
        CHECK(told.substr(second).find(name_of(silent_at[i]).text) != std::string::npos);
        CHECK(told.find("(127.0.0.2)") < second);
    }
}

TEST_CASE("when all addresses are silent, the attempt ends by its time, at the step at which the last one was silent") {
    asio::io_context io;
    servers all(io);
    std::vector<std::unique_ptr<attempt>> attempts;
    std::vector<char> silent_at;
    for_each_transport([&]<class Transport>(std::string steps) {
        auto const silent = steps.substr(0, steps.size() - 1);
        auto const transport = to<Transport>({all.listen("127.0.0.2", silent), all.listen("127.0.0.3", silent)});
        attempts.push_back(std::make_unique<attempt>(io, std::make_shared<connect_progress>(), transport, whole));
        silent_at.push_back(steps.back());
    });
    for (std::size_t i = 0; i < attempts.size(); ++i) {
        CAPTURE(silent_at[i]);
        CHECK(attempts[i]->task->run_for_error() == std::errc::timed_out);
        auto const& progress = *attempts[i]->progress;
        CHECK(progress.step() == name_of(silent_at[i]).step);
        CHECK(progress.describe().find("; before: ") != std::string::npos);
    }
}

TEST_CASE("an address that has led to nothing has all of the time when its turn comes again, as it may be slow") {
    asio::io_context io;
    servers all(io);
    auto const a = all.listen("127.0.0.2", "w", 3 * whole / 4), b = all.listen("127.0.0.3", "");
    auto const transport = to<over<addresses>>({a, b});
    auto const progress = std::make_shared<connect_progress>();
    attempt first(io, progress, transport, whole);
    CHECK(first.task->run_for_error() == std::errc::timed_out);
    progress->leave_address();
    attempt second(io, progress, transport, whole);
    CHECK_FALSE(second.task->run_for_error());
    CHECK(all.connections == 3);
    CHECK(progress->passed_over.empty());
}

TEST_CASE("an address that refuses, or is tried without a limit, or is the only one, does not divide the time") {
    asio::io_context io;
    servers all(io);
    auto const refusing = [&] {
        return asio::ip::tcp::acceptor(io, {asio::ip::make_address("127.0.0.2"), 0}).local_endpoint();
    };
    auto const slow = all.listen("127.0.0.3", "w", 3 * whole / 4), silent = all.listen("127.0.0.4", "");
    attempt refused(io, std::make_shared<connect_progress>(), to<over<addresses>>({refusing(), slow}), whole);
    attempt single(io, std::make_shared<connect_progress>(), to<over<addresses>>({slow}), whole);
    connect_progress unlimited;
    auto const both = to<over<addresses>>({slow, silent});
    test::task opening(io, both.open(io.get_executor(), &unlimited));
    CHECK_FALSE(refused.task->run_for_error());
    CHECK_FALSE(single.task->run_for_error());
    CHECK_FALSE(opening.run_for_error());
    CHECK(unlimited.passed_over.empty());
}

TEST_CASE("a handshake ends with its own time, if that is sooner, and then the next address is tried as well") {
    asio::io_context io;
    servers all(io);
    auto const silent = all.listen("127.0.0.2", ""), silent_too = all.listen("127.0.0.3", "");
    auto ws = to<over<addresses>>({silent, all.listen("127.0.0.4", "w")});
    ws.handshake_timeout = 50ms;
    auto proxied = to<http_proxy<addresses>>({silent, all.listen("127.0.0.4", "h")});
    proxied.handshake_timeout = 50ms;
    auto in_vain = to<over<addresses>>({silent, silent_too});
    in_vain.handshake_timeout = 50ms;
    auto const begin = clock_type::now();
    attempt a(io, std::make_shared<connect_progress>(), ws, 20s),
        b(io, std::make_shared<connect_progress>(), proxied, 20s),
        c(io, std::make_shared<connect_progress>(), in_vain, 20s);
    CHECK_FALSE(a.task->run_for_error());
    CHECK(a.progress->passed_over.find("the handshake took too long") != std::string::npos);
    CHECK_FALSE(b.task->run_for_error());
    CHECK(b.progress->passed_over.find("the proxy took too long to answer") != std::string::npos);
    CHECK(c.task->run_for_error() == runnel::websocket::errc::handshake_timeout);
    CHECK(c.progress->passed_over.ends_with("(127.0.0.2)"));
    CHECK(clock_type::now() - begin < 5s);
}

TEST_CASE("a host of more silent addresses than are remembered is not tried for ever at once") {
    asio::io_context io;
    servers all(io);
    std::vector<asio::ip::tcp::endpoint> many;
    for (int i = 2; i < 14; ++i) many.push_back(all.listen("127.0.0." + std::to_string(i), ""));
    auto transport = to<over<addresses>>(many);
    transport.handshake_timeout = 5ms;
    attempt trying(io, std::make_shared<connect_progress>(), transport, 20s);
    CHECK(trying.task->run_for_error() == runnel::websocket::errc::handshake_timeout);
    CHECK(all.connections == 9);
}

TEST_CASE("an attempt that goes from address to address can be cancelled at any time, and ends once") {
    for_each_transport([]<class Transport>(std::string steps) {
        CAPTURE(steps);
        if (steps.size() > 2) return;
        for (auto const after : {0ms, 5ms, 20ms, 40ms, 41ms, 42ms, 60ms, 79ms, 80ms}) {
            CAPTURE(after.count());
            asio::io_context io;
            servers all(io);
            auto const transport = to<Transport>(
                {all.listen("127.0.0.2", ""), all.listen("127.0.0.3", steps.substr(1)), all.listen("127.0.0.4", "")});
            attempt trying(io, std::make_shared<connect_progress>(), transport, 80ms);
            io.run_for(after);
            trying.task->cancel();
            trying.task->run_for_error();
            CHECK(trying.task->ended() == 1);
        }
    });
}

TEST_CASE("an address that answers otherwise than it should is not left for the next one: that is told") {
    asio::io_context io;
    servers all(io);
    auto transport = to<tls<addresses>>({all.listen("127.0.0.2", "w"), all.listen("127.0.0.3", "t")});
    attempt trying(io, std::make_shared<connect_progress>(), transport, 20s);
    auto const error = trying.task->run_for_error();
    CHECK(error);
    CHECK(error != transport_errc::connect_timeout);
    CHECK(all.connections == 1);
}
