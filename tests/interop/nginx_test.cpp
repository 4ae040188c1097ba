#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "interop/transports.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"
#include "support/streams.hpp"

// A session through Debian's nginx, which ends TLS and passes the WebSocket on to mosquitto; and what nginx says where
// it does not.

namespace {

namespace mqtt = runnel::mqtt;
namespace websocket = runnel::websocket;
using mqtt::qos;
using session = mqtt::session<test::wss>;

test::skip_unless const ready(
    [] { return !test::child_process::find("nginx").empty() && test::mosquitto::available(); },
    "nginx or mosquitto is not installed");

/// nginx on a free loopback port: TLS with a certificate for localhost, unprivileged, its configuration made on the
/// spot.
class nginx {
  public:
    explicit nginx(std::uint16_t broker_port) {
        auto const own = authority_.issue_server();
        directory_.write("server.crt", own.certificate_pem);
        directory_.write("server.key", own.private_key_pem);
        // Somebody else may take a port between its choice and its use.
        for (int attempt = 0; attempt < 5; ++attempt) {
            port_ = test::free_port();
            directory_.write("nginx.conf", configuration(broker_port));
            process_.emplace(std::vector<std::string>{"nginx", "-e", "stderr", "-p", directory_.path().string(), "-c",
                                                      (directory_.path() / "nginx.conf").string()},
                             (directory_.path() / "log").string());
            if (test::wait_until_ready(*process_, {port_})) return;
        }
        throw std::runtime_error("nginx does not start:\n" + directory_.read("log"));
    }

    /// How to reach what is at `path`.
    test::wss at(std::string path) const {
        test::wss transport;
        transport.host = "localhost";
        transport.port = port_;
        transport.path = std::move(path);
        transport.next.context = test::trusting(authority_);
        return transport;
    }

    std::string log() const { return directory_.read("log"); }

  private:
    std::string configuration(std::uint16_t broker_port) const {
        auto const to = [](std::uint16_t port) {
            return "{ proxy_pass http://127.0.0.1:" + std::to_string(port) +
                   "/mqtt; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
                   "proxy_set_header Connection upgrade; }\n";
        };
        std::string text =
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr info;\n"
            "events {}\nhttp {\naccess_log off;\n";
        for (char const* const kind : {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"})
            text += std::string(kind) + "_temp_path " + kind + "_temp;\n";
        text += "server {\nlisten 127.0.0.1:" + std::to_string(port_) + " ssl;\n";
        text += "ssl_certificate server.crt;\nssl_certificate_key server.key;\n";
        text += "location = /mqtt " + to(broker_port);
        text += "location = /secret { if ($http_authorization != \"Bearer good\") { return 403 \"not you\\n\"; }\n" +
                to(broker_port).substr(1);
        text += "location = /moved { return 302 https://elsewhere.example/mqtt; }\n";
        text += "location = /down " + to(1);  // nobody listens on port 1
        return text + "}\n}\n";
    }

    runnel::testing::certificate_authority authority_;
    test::scratch_directory directory_;
    std::uint16_t port_ = 0;
    std::optional<test::child_process> process_;
};

mqtt::session_options options_for(std::string client_id, mqtt::protocol_version version) {
    mqtt::session_options o;
    o.credentials.client_id = std::move(client_id);
    o.version = version;
    o.reconnect.initial = std::chrono::milliseconds(1);
    o.reconnect.maximum = std::chrono::milliseconds(50);
    return o;
}

asio::awaitable<void> exchange(session& s, std::string topic, int messages) {
    auto inbox = co_await s.subscribe(topic);
    for (int i = 0; i < messages; ++i) {
        std::string const payload = std::to_string(i) + test::noise(static_cast<std::size_t>(i) * 100);
        for (qos const quality : {qos::at_most_once, qos::at_least_once, qos::exactly_once}) {
            co_await s.publish(topic, payload, {.qos = quality});
            auto const m = co_await inbox.receive();
            CHECK(m.qos() == quality);
            CHECK(m.payload() == payload);
        }
    }
    co_await s.disconnect();
}

struct refusal {
    std::error_code code;
    int status = 0;
    std::string location;
    std::string body;
};

asio::awaitable<refusal> refused(test::wss transport) {
    refusal seen;
    try {
        auto opening = transport.open(co_await asio::this_coro::executor);
        co_await std::move(opening);
    } catch (websocket::handshake_refused const& error) {
        seen.code = error.code();
        seen.status = error.status();
        seen.location = error.location();
        seen.body = error.body();
    }
    co_return std::move(seen);
}

}  // namespace

TEST_CASE("a session talks to mosquitto through nginx, in both versions of MQTT") {
    test::mosquitto const broker;
    nginx const proxy(broker.port_ws());
    for (auto const version : {mqtt::protocol_version::v3_1_1, mqtt::protocol_version::v5}) {
        asio::io_context io;
        session s(io.get_executor(), proxy.at("/mqtt"), options_for("through-nginx", version));
        test::task<void> running(io, s.run());
        INFO(proxy.log());
        CHECK_FALSE(test::error_of(io, exchange(s, "runnel/nginx", 10)));
        CHECK_FALSE(running.run_for_error());
    }
    CHECK(broker.log().find("through-nginx") != std::string::npos);
}

TEST_CASE("a header of the user's own lets a session through where nginx asks for it") {
    test::mosquitto const broker;
    nginx const proxy(broker.port_ws());
    auto transport = proxy.at("/secret");
    transport.headers = {{"Authorization", "Bearer good"}};
    asio::io_context io;
    session s(io.get_executor(), transport, options_for("bearer", mqtt::protocol_version::v5));
    test::task<void> running(io, s.run());
    CHECK_FALSE(test::error_of(io, exchange(s, "runnel/secret", 1)));
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("what nginx replies in place of opening a WebSocket is told: status, location and body") {
    test::mosquitto const broker;
    nginx const proxy(broker.port_ws());
    asio::io_context io;

    auto seen = test::run(io, refused(proxy.at("/secret")));
    CHECK(seen.code == websocket::errc::unauthorized);
    CHECK(seen.status == 403);
    CHECK(seen.body == "not you\n");

    seen = test::run(io, refused(proxy.at("/moved")));
    CHECK(seen.code == websocket::errc::redirected);
    CHECK(seen.status == 302);
    CHECK(seen.location == "https://elsewhere.example/mqtt");

    seen = test::run(io, refused(proxy.at("/down")));
    CHECK(seen.code == websocket::errc::unavailable);
    CHECK(seen.status == 502);
    CHECK(seen.body.find("502 Bad Gateway") != std::string::npos);

    seen = test::run(io, refused(proxy.at("/nowhere")));
    CHECK(seen.code == websocket::errc::not_found);
    CHECK(seen.status == 404);
}

TEST_CASE("a session ends with nginx's refusal where trying again is not wanted") {
    test::mosquitto const broker;
    nginx const proxy(broker.port_ws());
    for (auto const& [path, code] :
         {std::pair("/secret", websocket::errc::unauthorized), std::pair("/down", websocket::errc::unavailable)}) {
        asio::io_context io;
        auto options = options_for("refused", mqtt::protocol_version::v3_1_1);
        options.reconnect.attempts = 1;
        session s(io.get_executor(), proxy.at(path), options);
        test::task<void> running(io, s.run());
        CHECK(running.run_for_error() == code);
    }
}
