// Feeds bytes to permessage-deflate: as compressed messages, cut at bytes 0xFF, whole and byte by byte, and as a
// message to compress, which must come back.

#include <runnel/websocket/deflate.hpp>

#include "fuzz.hpp"
#include <cstddef>
#include <cstdint>
#include <string_view>

using namespace runnel::websocket;
using test::require;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    std::string_view rest(reinterpret_cast<char const*>(data), size);
    constexpr std::uint64_t limit = 10'000;

    permessage_deflate client;
    permessage_deflate chopped;
    permessage_deflate server;
    require(client.settle(role::client, "permessage-deflate", {}, limit) == errc::ok);
    require(chopped.settle(role::client, "permessage-deflate", {}, limit) == errc::ok);
    require(server.settle(role::server, "permessage-deflate", {}, 1 << 24) == errc::ok);
    require(server.inflate(client.deflate(rest), message_kind::binary, true) == errc::ok);
    require(server.inflated() == rest);

    while (!rest.empty()) {
        std::size_t const cut = rest.find('\xFF');
        std::string_view const message = rest.substr(0, cut);
        errc const whole = client.inflate(message, message_kind::text, true);
        errc byte_by_byte = errc::ok;
        for (std::size_t i = 0; i < message.size() && byte_by_byte == errc::ok; ++i)
            byte_by_byte = chopped.inflate(message.substr(i, 1), message_kind::text, false);
        if (byte_by_byte == errc::ok) byte_by_byte = chopped.inflate({}, message_kind::text, true);
        require((whole == errc::ok) == (byte_by_byte == errc::ok));  // whichever fault is found first
        if (whole != errc::ok) return 0;
        require(client.inflated().size() <= limit);
        require(client.inflated() == chopped.inflated());
        rest.remove_prefix(cut == std::string_view::npos ? rest.size() : cut + 1);
    }
    return 0;
}
