// Feeds bytes to both sides of the proxies' protocols, whole and byte by byte: what comes of them must not depend on
// how they are chopped, and no byte behind a handshake may be taken.

#include <runnel/transport/proxy/protocol/http_connect.hpp>
#include <runnel/transport/proxy/protocol/socks5.hpp>

#include "fuzz.hpp"
#include <cstddef>
#include <cstdint>
#include <string_view>

using namespace runnel;
using test::require;

namespace {

// Gives `bytes` to `side` in pieces; returns how many were taken.
template <class Side>
std::size_t feed(Side& side, std::string_view bytes, std::size_t piece) {
    std::size_t taken = 0;
    while (taken < bytes.size()) {
        std::size_t const n = side.receive(bytes.substr(taken, piece));
        require(n <= piece);
        taken += n;
        if (n == 0 || side.done() || side.error() != proxy_errc::ok) break;
    }
    return taken;
}

template <class Side>
Side same_either_way(Side const& fresh, std::string_view bytes) {
    Side whole = fresh;
    Side chopped = fresh;
    std::size_t const used = feed(whole, bytes, bytes.size() + 1);
    std::size_t const used_chopped = feed(chopped, bytes, 1);
    require(whole.done() == chopped.done());
    require((whole.error() == proxy_errc::ok) == (chopped.error() == proxy_errc::ok));
    if (whole.done()) require(used == used_chopped);
    return whole;
}

socks5_server::event serve(socks5_server& server, std::string_view bytes, std::size_t piece) {
    auto seen = socks5_server::event::needs_input;
    while (!bytes.empty() && seen != socks5_server::event::failed && seen != socks5_server::event::request) {
        std::size_t used = 0;
        seen = server.receive(bytes.substr(0, piece), used);
        require(used > 0);
        bytes.remove_prefix(used);
        if (seen == socks5_server::event::credentials) server.judge(true);
    }
    return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    if (size == 0) return 0;
    bool const known = (data[0] & 1) != 0;
    std::string_view const bytes(reinterpret_cast<char const*>(data) + 1, size - 1);
    char const* const user = known ? "user" : "";

    auto const http = same_either_way(http_connect_client("host", 1, user, user), bytes);
    require(http.done() == (http.status() / 100 == 2));
    same_either_way(http_connect_server(), bytes);
    same_either_way(socks5_client("host", 1, user, user), bytes);

    socks5_server whole(known);
    socks5_server chopped(known);
    require(serve(whole, bytes, bytes.size() + 1) == serve(chopped, bytes, 1));
    require(whole.host() == chopped.host() && whole.take_output() == chopped.take_output());

    parse_ipv6(bytes);
    parse_ipv4(bytes);
    return 0;
}
