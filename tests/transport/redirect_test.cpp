#include <runnel/transport/failover.hpp>
#include <runnel/transport/proxy/http.hpp>
#include <runnel/transport/redirect.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/tls.hpp>
#include <runnel/websocket/transport.hpp>

#include <doctest/doctest.h>

#include <string>

namespace {

using runnel::parse_server_reference;
using runnel::redirected;
using runnel::server_reference;

}  // namespace

TEST_CASE("server references are read in all their forms") {
    CHECK(parse_server_reference("other.example") == server_reference{"other.example", 0});
    CHECK(parse_server_reference("other.example:8884") == server_reference{"other.example", 8884});
    CHECK(parse_server_reference("192.0.2.1:1") == server_reference{"192.0.2.1", 1});
    CHECK(parse_server_reference("[2001:db8::1]:8883") == server_reference{"2001:db8::1", 8883});
    CHECK(parse_server_reference("[2001:db8::1]") == server_reference{"2001:db8::1", 0});
    CHECK(parse_server_reference("2001:db8::1") == server_reference{"2001:db8::1", 0});
    CHECK(parse_server_reference(" first:1 second:2") == server_reference{"first", 1});
    for (auto text : {"", " ", ":1", "a:", "a:0", "a:65536", "a:123456", "a:000080", "a:1x", "[a", "[]:1", "[a]b",
                      "[a]:", "a/b", "user@a", "mqtt://a", "a\nb", "b\xC3\xBCro.example"}) {
        CAPTURE(text);
        CHECK_FALSE(parse_server_reference(text));
    }
    CHECK_FALSE(parse_server_reference(std::string(256, 'a')));
}

TEST_CASE("a redirected transport connects to the other host, and all that was said of the old one is forgotten") {
    runnel::websocket::over<runnel::tls<runnel::tcp>> wss;
    wss.host = "old.example";
    wss.port = 444;
    wss.authority = "old.example";
    wss.next.host = "192.0.2.1";
    wss.next.server_name = "certificate.of.old.example";
    wss.next.next.port = 555;
    wss.next.next.keep_alive = true;
    auto moved = redirected(wss, "new.example:8443");
    REQUIRE(moved);
    CHECK(moved->url() == "wss://new.example:8443/mqtt");
    CHECK(moved->authority.empty());
    CHECK(moved->next.host.empty());
    CHECK(moved->next.port == 0);
    CHECK(moved->next.server_name.empty());
    CHECK(moved->next.next.port == 0);
    CHECK(moved->next.next.keep_alive);
    CHECK(moved->next.context == wss.next.context);
    moved = redirected(wss, "new.example");
    CHECK(moved->port == 444);
    CHECK(moved->next.next.port == 555);
    CHECK_FALSE(redirected(wss, "not/a/host"));
}

TEST_CASE("a redirected transport goes through the same proxy") {
    runnel::tls<runnel::http_proxy<runnel::tcp>> tls;
    tls.host = "old.example";
    tls.next.proxy.host = "proxy.example";
    tls.next.proxy.port = 3128;
    tls.next.user_name = "user";
    auto const moved = redirected(tls, "new.example:8884");
    REQUIRE(moved);
    CHECK(moved->url() == "tls://new.example:8884");
    CHECK(moved->next.proxy == tls.next.proxy);
    CHECK(moved->next.user_name == "user");
}

TEST_CASE("of several endpoints, the one in use is redirected") {
    runnel::failover<runnel::tcp> const both({{.host = "a.example", .keep_alive = true}, {.host = "b.example"}});
    auto const moved = redirected(both, "new.example:99");
    REQUIRE(moved);
    REQUIRE(moved->endpoints().size() == 1);
    CHECK(moved->url() == "tcp://new.example:99");
    CHECK(moved->current().keep_alive);
}
