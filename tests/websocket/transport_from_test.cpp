#include <runnel/mqtt/client/session.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/testing/over_websocket.hpp>
#include <runnel/websocket/transport_from.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/run.hpp"
#include <stdexcept>
#include <string>
#include <string_view>

namespace {

using namespace runnel;
using ws = websocket::over<tcp>;
using wss = websocket::over<tls<tcp>>;

std::string refusal_of(std::string_view text) {
    try {
        transport_from(text);
    } catch (std::invalid_argument const& e) {
        return e.what();
    }
    return "none";
}

}  // namespace

TEST_CASE("a URL's scheme names the transport, and the rest its members") {
    CHECK(transport_from("mqtt://a") == any_transport(tcp{.host = "a"}));
    CHECK(transport_from("TCP://a:1884/") == any_transport(tcp{.host = "a", .port = 1884}));
    for (auto const* const text : {"mqtts://[::1]:8884", "tls://[::1]:8884", "ssl://[::1]:8884/"}) {
        auto const to = transport_from(text);
        REQUIRE(to.target<tls<tcp>>() != nullptr);
        CHECK(to.url() == "tls://[::1]:8884");
        CHECK(to.is_secure());
    }
    CHECK(transport_from("ws://a").url() == "ws://a:80/mqtt");
    CHECK(transport_from("ws://a:8080/?x=1").target<ws>()->path == "/?x=1");
    CHECK(transport_from("wss://a/b%20c").target<wss>()->path == "/b%20c");
    CHECK(transport_from("wss://a").url() == "wss://a:443/mqtt");
    CHECK(transport_from("unix:///run/a%20b") == any_transport(unix_socket{.path = "/run/a b"}));
    CHECK(transport_from("mqtt://user:word@a") == any_transport(tcp{.host = "a"}));  // that is for the session
}

TEST_CASE("a URL that names no transport is refused, and what is wrong with it is named") {
    CHECK(refusal_of("http://a") == "URL: http:// is none of mqtt, tcp, mqtts, tls, ssl, ws, wss and unix");
    CHECK(refusal_of("mqtt://") == "URL: mqtt:// needs a host");
    CHECK(refusal_of("wss:///mqtt") == "URL: wss:// needs a host");
    CHECK(refusal_of("mqtt://a/topic") == "URL: mqtt:// has no path: /topic");
    CHECK(refusal_of("mqtts://a/topic") == "URL: mqtts:// has no path: /topic");
    CHECK(refusal_of("mqtt://a:x") == "URL: port \"x\" is no number from 1 to 65535");
    std::string const unix_path = "URL: unix:// is followed by the socket's path alone, as in unix:///run/broker";
    for (auto const* const text : {"unix://", "unix://run", "unix://a/b", "unix://:1/b", "unix:///a?b"})
        CHECK(refusal_of(text) == unix_path);
    CHECK(refusal_of("unix:///a%2") == "URL: '%' in the path without two hexadecimal digits behind it");
}

TEST_CASE("a session goes where its URL says, over TCP, TLS, WebSocket and WebSocket Secure") {
    asio::io_context io;
    testing::certificate_authority const authority;
    testing::broker broker(io.get_executor());
    auto const port = [](std::uint16_t number) { return std::to_string(number); };
    testing::over_tls const secure(authority);
    tls_options trust;
    trust.ca_pem = authority.certificate_pem();
    tls_context const context(trust);
    for (auto const& text :
         {"mqtt://localhost:" + port(broker.listen_tcp()), "mqtts://localhost:" + port(broker.listen(secure)),
          "ws://localhost:" + port(broker.listen(testing::over_websocket())) + "/any",
          "wss://localhost:" + port(broker.listen(testing::over_websocket(secure)))}) {
        CAPTURE(text);
        mqtt::session<any_transport> session(io.get_executor(), transport_from(text, context), test::quick());
        test::task running(io, session.run());
        std::string received;
        test::run(io, session.subscribe("t", [&](mqtt::publish const& p) { received = p.payload; },
                                        {.maximum_qos = mqtt::qos::exactly_once}));
        auto const large = std::string(100'000, 'x');
        test::run(io, session.publish("t", large, {.qos = mqtt::qos::exactly_once}));
        CHECK(test::wait_until(io, [&] { return received == large; }));
        test::run(io, session.disconnect());
        CHECK_FALSE(running.run_for_error());
    }
    broker.close();
}
