// Feeds bytes to permessage-deflate: as compressed messages, cut at bytes 0xFF, and as a message to compress, which
// must come back.

#include <runnel/websocket/deflate.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

using namespace runnel::websocket;

namespace {

void require(bool holds) {
    if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    std::string_view rest(reinterpret_cast<char const*>(data), size);
    constexpr std::uint64_t limit = 10'000;
    std::string_view out;

    permessage_deflate client;
    permessage_deflate server;
    require(client.settle(role::client, "permessage-deflate", {}, limit) == errc::ok);
    require(server.settle(role::server, "permessage-deflate", {}, 1 << 24) == errc::ok);
    require(server.inflate(client.deflate(rest), message_kind::binary, out) == errc::ok);
    require(out == rest);

    while (!rest.empty()) {
        std::size_t const cut = rest.find('\xFF');
        errc const e = client.inflate(rest.substr(0, cut), message_kind::text, out);
        if (e != errc::ok) return 0;
        require(out.size() <= limit);
        rest.remove_prefix(cut == std::string_view::npos ? rest.size() : cut + 1);
    }
    return 0;
}
