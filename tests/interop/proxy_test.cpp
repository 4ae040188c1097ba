#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/proxy/http.hpp>
#include <runnel/transport/proxy/socks5.hpp>

#include <doctest/doctest.h>

#include "interop/transports.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"

// Sessions through Debian's proxies, tinyproxy (HTTP CONNECT) and microsocks (SOCKS5), to mosquitto: over TCP, TLS,
// WebSocket and WebSocket Secure.

namespace {

namespace mqtt = runnel::mqtt;
using runnel::http_proxy;
using runnel::proxy_errc;
using runnel::socks5_proxy;

test::skip_unless const ready(
    [] {
        return !test::child_process::find("tinyproxy").empty() && !test::child_process::find("microsocks").empty() &&
               test::mosquitto::available();
    },
    "tinyproxy, microsocks or mosquitto is not installed");

/// A proxy on a free loopback port, an unprivileged process.
class proxy_process {
  public:
    std::uint16_t port() const noexcept { return port_; }
    std::string log() const { return directory_.read("log"); }

  protected:
    template <class Command>
    void start(Command command) {
        // Somebody else may take a port between its choice and its use.
        for (int attempt = 0; attempt < 5; ++attempt) {
            port_ = test::free_port();
            process_.emplace(command(), (directory_.path() / "log").string());
            if (test::wait_until_ready(*process_, {port_})) return;
        }
        throw std::runtime_error("the proxy does not start:\n" + log());
    }

    test::scratch_directory directory_;
    std::uint16_t port_ = 0;
    std::optional<test::child_process> process_;
};

struct tinyproxy : proxy_process {
    explicit tinyproxy(std::string const& more = {}) {
        start([&] {
            auto const configuration = "Port " + std::to_string(port_) +
                                       "\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 60\nMaxClients 50\n"
                                       "LogLevel Connect\n" +
                                       more;
            return std::vector<std::string>{"tinyproxy", "-d", "-c", directory_.write("conf", configuration)};
        });
    }

    template <class Next>
    void reach(http_proxy<Next>& transport) const {
        transport.proxy.host = "127.0.0.1";
        transport.proxy.port = port_;
    }
};

struct microsocks : proxy_process {
    explicit microsocks(std::vector<std::string> const& more = {}) {
        start([&] {
            std::vector<std::string> command{"microsocks", "-i", "127.0.0.1", "-p", std::to_string(port_)};
            command.insert(command.end(), more.begin(), more.end());
            return command;
        });
    }

    template <class Next>
    void reach(socks5_proxy<Next>& transport) const {
        transport.proxy.host = "127.0.0.1";
        transport.proxy.port = port_;
    }
};

template <class Transport>
asio::awaitable<void> exchange(mqtt::session<Transport>& s, std::string topic) {
    auto inbox = co_await s.subscribe(topic);
    for (int i = 0; i < 20; ++i) {
        std::string const payload(static_cast<std::size_t>(i) * 100, static_cast<char>('a' + i));
        co_await s.publish(topic, payload, {.qos = mqtt::qos::exactly_once});
        auto const m = co_await inbox.receive();
        CHECK(m.payload() == payload);
    }
    co_await s.disconnect();
}

// Runs a session to its end; the error of `run`.
template <class Transport>
std::error_code talk(Transport const& transport) {
    asio::io_context io;
    mqtt::session_options options;
    options.credentials.client_id = "through-a-proxy";
    options.reconnect.attempts = 1;
    mqtt::session<Transport> s(io.get_executor(), transport, options);
    test::task<void> running(io, s.run());
    test::task<void> exchanging(io, exchange(s, "runnel/proxy"));
    auto const error = running.run_for_error();
    CHECK(static_cast<bool>(exchanging.run_for_error()) == static_cast<bool>(error));
    return error;
}

// Talks to the broker over all four transports through a proxy that `configure` sets. The broker is reached by a name,
// which the proxy resolves.
template <template <class> class Proxy, class Configure>
void talk_over_all(test::mosquitto const& broker, Configure configure) {
    using tunnel = Proxy<runnel::tcp>;
    tunnel plain;
    configure(plain);
    auto const context = test::trusting(broker.authority());

    auto tcp = plain;
    tcp.host = "localhost";
    tcp.port = broker.port_tcp();
    CHECK_FALSE(talk(tcp));

    runnel::tls<tunnel> tls;
    tls.host = "localhost";
    tls.port = broker.port_tls();
    tls.context = context;
    tls.next = plain;
    CHECK_FALSE(talk(tls));

    runnel::websocket::over<tunnel> ws;
    ws.host = "localhost";
    ws.port = broker.port_ws();
    ws.next = plain;
    CHECK_FALSE(talk(ws));

    runnel::websocket::over<runnel::tls<tunnel>> wss;
    wss.host = "localhost";
    wss.port = broker.port_wss();
    wss.next.context = context;
    wss.next.next = plain;
    CHECK_FALSE(talk(wss));
}

template <class Transport>
std::error_code error_of_opening(Transport const& transport) {
    asio::io_context io;
    return test::error_of(io, transport.open(io.get_executor()));
}

// Nobody listens on this loopback port.
std::uint16_t closed_port() { return test::free_port(); }

}  // namespace

TEST_CASE("a session talks to mosquitto through tinyproxy, over every transport") {
    test::mosquitto const broker;
    tinyproxy const proxy;
    talk_over_all<http_proxy>(broker, [&](auto& transport) { proxy.reach(transport); });
    auto const log = proxy.log();
    CHECK(log.find("CONNECT localhost:" + std::to_string(broker.port_wss())) != std::string::npos);
}

TEST_CASE("tinyproxy lets a session through that knows the user name and the password, and nobody else") {
    test::mosquitto const broker;
    tinyproxy const proxy("BasicAuth user pass\n");
    talk_over_all<http_proxy>(broker, [&](auto& transport) {
        proxy.reach(transport);
        transport.user_name = "user";
        transport.password = "pass";
    });
    http_proxy<runnel::tcp> transport{.host = "localhost", .port = broker.port_tcp()};
    proxy.reach(transport);
    CHECK(error_of_opening(transport) == proxy_errc::credentials_required);
    transport.user_name = "user";
    transport.password = "wrong";
    CHECK(error_of_opening(transport) == proxy_errc::credentials_refused);
    CHECK(talk(transport) == proxy_errc::credentials_refused);
}

TEST_CASE("what tinyproxy answers in place of connecting is told with its status") {
    tinyproxy const proxy("ConnectPort 443\n");
    http_proxy<runnel::tcp> transport{.host = "localhost", .port = 8883};
    proxy.reach(transport);
    asio::io_context io;
    test::task opening(io, transport.open(io.get_executor()));
    CHECK(opening.run_for_error() == proxy_errc::refused);
    CHECK(opening.error_text().find("(HTTP status 403 ") != std::string::npos);

    tinyproxy const open;
    open.reach(transport);
    transport.port = closed_port();
    test::task refused(io, transport.open(io.get_executor()));
    CHECK(refused.run_for_error() == proxy_errc::refused);
    CHECK(refused.error_text().find("(HTTP status 5") != std::string::npos);
}

TEST_CASE("a session talks to mosquitto through microsocks, over every transport") {
    test::mosquitto const broker;
    microsocks const proxy;
    talk_over_all<socks5_proxy>(broker, [&](auto& transport) { proxy.reach(transport); });
}

TEST_CASE("microsocks lets a session through that knows the user name and the password, and nobody else") {
    test::mosquitto const broker;
    microsocks const proxy({"-u", "user", "-P", "pass"});
    talk_over_all<socks5_proxy>(broker, [&](auto& transport) {
        proxy.reach(transport);
        transport.user_name = "user";
        transport.password = "pass";
    });
    socks5_proxy<runnel::tcp> transport{.host = "localhost", .port = broker.port_tcp()};
    proxy.reach(transport);
    CHECK(error_of_opening(transport) == proxy_errc::credentials_required);
    transport.user_name = "user";
    transport.password = "wrong";
    CHECK(error_of_opening(transport) == proxy_errc::credentials_refused);
}

TEST_CASE("microsocks connects to addresses as well, and says why it cannot") {
    test::mosquitto const broker;
    microsocks const proxy;
    socks5_proxy<runnel::tcp> transport{.host = "127.0.0.1", .port = broker.port_tcp()};
    proxy.reach(transport);
    CHECK_FALSE(talk(transport));
    transport.port = closed_port();
    CHECK(error_of_opening(transport) == proxy_errc::connection_refused);
}

TEST_CASE("a proxy may be reached through another one") {
    test::mosquitto const broker;
    tinyproxy const outer;
    microsocks const inner;
    http_proxy<socks5_proxy<runnel::tcp>> transport{.host = "localhost", .port = broker.port_tcp()};
    transport.proxy.host = "127.0.0.1";
    transport.proxy.port = outer.port();
    inner.reach(transport.proxy);
    CHECK_FALSE(talk(transport));
}

TEST_CASE("one kind of proxy is told from the other") {
    tinyproxy const http;
    microsocks const socks;
    http_proxy<runnel::tcp> h{.host = "localhost", .port = 1};
    h.proxy = {.host = "127.0.0.1", .port = socks.port()};
    auto const error = error_of_opening(h);
    CHECK(
        (error == proxy_errc::not_http || error == proxy_errc::closed_early || error == asio::error::connection_reset));
    socks5_proxy<runnel::tcp> s{.host = "localhost", .port = 1, .handshake_timeout = std::chrono::seconds(2)};
    s.proxy = {.host = "127.0.0.1", .port = http.port()};
    auto const other = error_of_opening(s);
    CHECK((other == proxy_errc::not_socks5 || other == proxy_errc::handshake_timeout ||
           other == proxy_errc::closed_early));
}
