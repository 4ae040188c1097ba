#include <runnel/websocket/protocol/deflate_offer.hpp>

#include <doctest/doctest.h>

#include <ostream>
#include <string>

using namespace runnel::websocket;

namespace {

std::string chosen(std::string const& offers, deflate_options const& wanted = {}) {
    http_head head;
    head.write("GET / HTTP/1.1\r\nSec-WebSocket-Extensions: " + offers + "\r\n\r\n");
    return choose_deflate(head, wanted);
}

errc read(std::string const& reply, deflate_options const& wanted = {}) {
    deflate_agreement agreed;
    return read_deflate_reply(reply, wanted, agreed);
}

}  // namespace

TEST_CASE("a client's offer says what it wants, and that its window may be limited") {
    CHECK(offer_deflate({}) == "permessage-deflate; client_max_window_bits");
    CHECK(offer_deflate({.client_window_bits = 10,
                         .server_window_bits = 9,
                         .client_no_context_takeover = true,
                         .server_no_context_takeover = true}) ==
          "permessage-deflate; client_max_window_bits=10; server_max_window_bits=9; client_no_context_takeover; "
          "server_no_context_takeover");
}

TEST_CASE("a server takes the first offer that it can fulfil, as in RFC 7692 7.1.3") {
    CHECK(chosen("permessage-deflate") == "permessage-deflate");
    CHECK(chosen("permessage-deflate; client_max_window_bits; server_max_window_bits=10") ==
          "permessage-deflate; server_max_window_bits=10");
    CHECK(chosen("permessage-deflate; client_max_window_bits=11") == "permessage-deflate; client_max_window_bits=11");
    CHECK(chosen("permessage-deflate; server_no_context_takeover, permessage-deflate") ==
          "permessage-deflate; server_no_context_takeover");
    CHECK(chosen("x-other; a=b, permessage-deflate; client_no_context_takeover") ==
          "permessage-deflate; client_no_context_takeover");
    CHECK(chosen("permessage-deflate; unknown, permessage-deflate") == "permessage-deflate");
    CHECK(chosen("permessage-deflate; server_max_window_bits=\"12\"") ==
          "permessage-deflate; server_max_window_bits=12");
    CHECK(chosen("x-other") == "");
    CHECK(chosen("") == "");
}

TEST_CASE("offers with parameters that must not be are declined") {
    for (char const* bad : {"unknown", "server_max_window_bits", "server_max_window_bits=7",
                            "server_max_window_bits=16", "server_max_window_bits=010", "server_max_window_bits=1x",
                            "server_max_window_bits=", "client_max_window_bits=7", "client_no_context_takeover=1",
                            "server_no_context_takeover; server_no_context_takeover",
                            "client_max_window_bits; client_max_window_bits=10"})
        CHECK(chosen("permessage-deflate; " + std::string(bad)) == "");
}

TEST_CASE("a server's own wishes are in its choice; it limits a client's window only where that is understood") {
    deflate_options const wanted{
        .client_window_bits = 10, .server_window_bits = 11, .client_no_context_takeover = true};
    CHECK(chosen("permessage-deflate", wanted) ==
          "permessage-deflate; client_no_context_takeover; server_max_window_bits=11");
    CHECK(chosen("permessage-deflate; client_max_window_bits", wanted) ==
          "permessage-deflate; client_no_context_takeover; server_max_window_bits=11; client_max_window_bits=10");
    CHECK(chosen("permessage-deflate; client_max_window_bits=9; server_max_window_bits=15", wanted) ==
          "permessage-deflate; client_no_context_takeover; server_max_window_bits=11; client_max_window_bits=9");
}

TEST_CASE("a window that a client has asked for is always answered") {
    CHECK(chosen("permessage-deflate; server_max_window_bits=15") == "permessage-deflate; server_max_window_bits=15");
}

TEST_CASE("a client refuses a choice that does not answer its offer") {
    CHECK(read("permessage-deflate") == errc::ok);
    CHECK(read("permessage-deflate; server_max_window_bits=8; client_max_window_bits=8") == errc::ok);
    CHECK(read("permessage-deflate; client_max_window_bits") == errc::unexpected_extension);
    CHECK(read("permessage-deflate; unknown") == errc::unexpected_extension);
    CHECK(read("permessage-deflate, x-other") == errc::unexpected_extension);
    CHECK(read("x-webkit-deflate-frame") == errc::unexpected_extension);
    CHECK(read("permessage-deflate", {.server_window_bits = 10}) == errc::unexpected_extension);
    CHECK(read("permessage-deflate; server_max_window_bits=11", {.server_window_bits = 10}) ==
          errc::unexpected_extension);
    CHECK(read("permessage-deflate; server_max_window_bits=9", {.server_window_bits = 10}) == errc::ok);
    CHECK(read("permessage-deflate", {.server_no_context_takeover = true}) == errc::unexpected_extension);
}
