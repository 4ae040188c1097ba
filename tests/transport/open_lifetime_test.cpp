#include <runnel/transport/detail/connect_race.hpp>
#include <runnel/transport/failover.hpp>
#include <runnel/transport/memory.hpp>
#include <runnel/transport/proxy/error.hpp>
#include <runnel/transport/proxy/http.hpp>
#include <runnel/transport/proxy/socks5.hpp>
#include <runnel/transport/tcp.hpp>

#include <doctest/doctest.h>

#include "support/addresses.hpp"
#include "support/black_hole.hpp"
#include "support/open_life.hpp"
#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace {

using namespace std::string_literals;
using runnel::failover;
using runnel::http_proxy;
using runnel::proxy_errc;
using runnel::socks5_proxy;
using test::open_life;
using test::scripted_servers;
using test::server_script;
using ending = server_script::ending;
using endpoint = asio::ip::tcp::endpoint;

// What a proxy hears and says of the target h:1.
std::vector<server_script::step> const http_steps{
    {"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n"s.size(), "HTTP/1.1 200 Established\r\n\r\nfirst bytes"}};
std::vector<server_script::step> const socks_steps{{3, "\5\0"s}, {8, "\5\0\0\1\0\0\0\0\0\0"s}};

template <template <class> class Proxy, class Next>
Proxy<Next> proxy_behind(Next way) {
    Proxy<Next> made{.host = "h", .port = 1};
    made.proxy = std::move(way);
    return made;
}

// Whether opening ends as it must when the server does this, and how it ends if it is interrupted.
template <class Transport>
void try_all(open_life<Transport> life, server_script const& script, bool opens) {
    CAPTURE(script.steps.size());
    CAPTURE(static_cast<int>(script.then));
    if (!opens && script.then == ending::falls_silent) return life.run_all_silent();
    auto const error = life.run_all();
    if (script.then == ending::resets)
        CHECK(((opens && !error) || life.is_reset(error)));
    else
        CHECK(error == (opens ? std::error_code() : make_error_code(proxy_errc::closed_early)));
}

template <template <class> class Proxy>
void try_proxy(std::vector<server_script::step> const& steps) {
    for (auto const& script : test::cut_scripts(steps)) {
        bool const opens = script.steps.size() == steps.size();
        auto const in_memory = [&](scripted_servers& there) { return proxy_behind<Proxy>(there.memory(script)); };
        try_all(open_life<Proxy<runnel::memory_transport>>(in_memory), script, opens);
        auto const by_tcp = [&](scripted_servers& there) { return proxy_behind<Proxy>(there.tcp(script)); };
        try_all(open_life<Proxy<runnel::tcp>>(by_tcp), script, opens);
    }
}

// Addresses that are connected to side by side, or the name of a host.
struct racing {
    using executor_type = test::executor;
    using stream_type = runnel::tcp::stream_type;
    static constexpr bool secure = false;

    std::vector<endpoint> where;
    std::string host = {};

    std::string url() const { return "race://"; }
    asio::awaitable<stream_type> open(executor_type executor, runnel::connect_progress* progress) const {
        using race = runnel::detail::connect_race<executor_type>;
        auto const target = host.empty() ? race::target(where) : race::target(host, where.front().port());
        auto const open = [](runnel::tcp::socket_type& socket, endpoint const& to) {
            runnel::asio_error_code error;
            socket.open(to.protocol(), error);
            return error;
        };
        return race::run<stream_type>(executor, target, std::chrono::milliseconds(1), open, "connecting", progress);
    }
    asio::awaitable<stream_type> open(executor_type executor) const { return open(std::move(executor), nullptr); }
    [[maybe_unused]] friend bool operator==(racing const&, racing const&) = default;
};

// An address where nobody listens.
endpoint refusing() {
    asio::io_context io;
    return asio::ip::tcp::acceptor(io, {asio::ip::make_address("127.0.0.2"), 0}).local_endpoint();
}

}  // namespace

TEST_CASE("opening through an HTTP proxy may be interrupted at each point, whatever the proxy does") {
    try_proxy<http_proxy>(http_steps);
}

TEST_CASE("opening through a SOCKS5 proxy may be interrupted at each point, whatever the proxy does") {
    try_proxy<socks5_proxy>(socks_steps);
}

TEST_CASE("opening through a proxy that is given up in time may be interrupted at each point") {
    for (std::size_t n = 0; n != 2; ++n) {
        server_script const script{{socks_steps.begin(), socks_steps.begin() + static_cast<std::ptrdiff_t>(n)}};
        open_life<socks5_proxy<runnel::memory_transport>> life([&](scripted_servers& there) {
            auto made = proxy_behind<socks5_proxy>(there.memory(script));
            made.handshake_timeout = std::chrono::milliseconds(5);
            return made;
        });
        CHECK(life.run_all() == proxy_errc::handshake_timeout);
    }
}

TEST_CASE("opening through a proxy behind a proxy may be interrupted at each point") {
    auto steps = http_steps;
    steps[0].hears = "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n"s.size();
    steps[0].says = "HTTP/1.1 200 Established\r\n\r\n";
    steps.insert(steps.end(), socks_steps.begin(), socks_steps.end());
    for (auto const& script : test::cut_scripts(steps)) {
        open_life<socks5_proxy<http_proxy<runnel::memory_transport>>> life([&](scripted_servers& there) {
            return proxy_behind<socks5_proxy>(proxy_behind<http_proxy>(there.memory(script)));
        });
        try_all(life, script, script.steps.size() == steps.size());
    }
}

TEST_CASE("going through several servers may be interrupted at each point, whatever each does") {
    using proxied = http_proxy<runnel::memory_transport>;
    using several = failover<proxied>;
    // Of each server: s is silent, r resets, c closes early, a answers.
    for (std::string const names : {"a", "s", "r", "sa", "ra", "rc", "ss", "cs", "sr", "rca", "as", "sca"})
        for (auto const limit : {std::chrono::milliseconds(0), std::chrono::milliseconds(8)}) {
            CAPTURE(names);
            CAPTURE(limit.count());
            open_life<several> life([&](scripted_servers& there) {
                std::vector<proxied> made;
                for (char const c : names) {
                    server_script script;
                    if (c == 'a') script.steps = http_steps;
                    if (c == 'r') script.then = ending::resets;
                    if (c == 'c') script = {{{10, "HTTP/1.1 2"}}, ending::closes};
                    made.push_back(proxy_behind<http_proxy>(there.memory(script)));
                }
                return several(made);
            });
            life.budget = limit;
            // The last one has all of the time that is left, to which whoever opens it must see.
            bool const ends = limit.count() != 0 ? !names.ends_with('s') : names.find('s') >= names.find('a');
            if (ends)
                life.run_all();
            else
                life.run_all_silent();
        }
}

TEST_CASE("a race to connect may be interrupted at each point, whatever the addresses do") {
    // Of each host: s does not answer, x refuses, r accepts and resets, a accepts.
    for (std::string const addresses : {"a", "s", "x", "r", "sa", "xa", "sxa", "ssr", "xx", "sx", "as", "aa"})
        for (auto const limit : {std::chrono::milliseconds(0), std::chrono::milliseconds(8)}) {
            CAPTURE(addresses);
            asio::io_context elsewhere;
            std::vector<std::unique_ptr<test::black_hole>> holes;
            for (char const c : addresses)
                if (c == 's') holes.push_back(std::make_unique<test::black_hole>(elsewhere));
            open_life<racing> life([&](scripted_servers& there) {
                racing made;
                std::size_t hole = 0;
                for (char const c : addresses)
                    made.where.push_back(c == 's'   ? holes[hole++]->where()
                                         : c == 'x' ? refusing()
                                         : c == 'r' ? there.listen({{}, ending::resets})
                                                    : there.listen({}));
                return made;
            });
            life.budget = limit;
            if (addresses.find_first_of("ar") == std::string::npos && addresses.find('s') != std::string::npos) {
                life.run_all_silent();
                continue;
            }
            auto const error = life.run_all();
            CHECK(error == (addresses.find_first_not_of('x') == std::string::npos
                                ? std::error_code(asio::error::connection_refused)
                                : std::error_code()));
        }
}

TEST_CASE("going from address to address of a host may be interrupted at each point") {
    using proxied = http_proxy<test::addresses>;
    // Of each address: s is silent, r resets, a answers.
    for (std::string const addresses : {"sa", "ssa", "ss", "sr"}) {
        CAPTURE(addresses);
        open_life<proxied> life([&](scripted_servers& there) {
            auto made = proxy_behind<http_proxy>(test::addresses());
            for (char const c : addresses) {
                server_script script;
                if (c == 'a') script.steps = http_steps;
                if (c == 'r') script.then = ending::resets;
                made.proxy.endpoints.push_back(there.listen(script));
            }
            return made;
        });
        life.budget = std::chrono::milliseconds(12);
        if (addresses.ends_with('s')) {
            life.run_all_silent();
            continue;
        }
        auto const error = life.run_all();  // on a slow machine the budget may be over
        CHECK((error == proxy_errc::handshake_timeout || (addresses.ends_with('r') ? life.is_reset(error) : !error)));
    }
}

TEST_CASE("resolving a name may be interrupted at each point") {
    open_life<racing> known([](scripted_servers& there) { return racing{{there.listen({})}, "localhost"}; });
    CHECK_FALSE(known.run_all());
    open_life<racing> unknown([](scripted_servers&) { return racing{{endpoint()}, "no such host"}; });
    CHECK(unknown.run_all());
}

TEST_CASE("TCP may be interrupted at each point of opening, and as one of several servers") {
    using several = failover<runnel::tcp>;
    open_life<several> life([](scripted_servers& there) {
        auto const nobody = refusing();
        runnel::tcp const first{.host = nobody.address().to_string(), .port = nobody.port()};
        return several({first, there.tcp({})});
    });
    CHECK_FALSE(life.run_all());
}
