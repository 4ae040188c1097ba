// Feeds bytes to the WebSocket handshake's parser, whole and byte by byte: as a request and as a reply, with what each
// side makes of the headers.

#include <runnel/websocket/protocol/deflate_offer.hpp>
#include <runnel/websocket/protocol/handshake.hpp>

#include "fuzz.hpp"
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

using namespace runnel::websocket;
using test::require;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    std::string_view const bytes(reinterpret_cast<char const*>(data), size);
    http_limits const limits{.max_bytes = 2000, .max_headers = 20};
    http_head head(limits);
    std::size_t const used = head.write(bytes);
    require(used <= bytes.size());

    http_head chopped(limits);
    std::size_t one_by_one = 0;
    while (one_by_one < bytes.size() && !chopped.complete() && chopped.error() == errc::ok)
        one_by_one += chopped.write(bytes.substr(one_by_one, 1));
    // What is found first may depend on the pieces, but not whether there is a fault.
    require((head.error() == errc::ok) == (chopped.error() == errc::ok));
    if (!head.complete() || head.error() != errc::ok) return 0;
    require(chopped.complete() && one_by_one == used);

    server_request const request(head);
    if (request.check() == errc::ok) {
        require(is_target(request.target()));
        std::string reply;
        std::string_view const chosen = request.choose_subprotocol("mqtt, chat");
        require(chosen.empty() || chosen == "mqtt" || chosen == "chat");
        std::string const extensions = choose_deflate(head, {});
        require(encode_agreement(request.key(), chosen, extensions, {}, reply) == errc::ok);
        http_head back;
        require(back.write(reply) == reply.size() && back.complete() && back.error() == errc::ok);
        deflate_agreement agreed;
        require(extensions.empty() || read_deflate_reply(extensions, {}, agreed) == errc::ok);
    }
    handshake_key key{};
    for (std::size_t i = 0; i < key.size(); ++i) key[i] = "dGhlIHNhbXBsZSBub25jZQ=="[i];
    errc const verdict = judge(head, key, {.subprotocols = "mqtt"});
    require(verdict != errc::ok ||
            (status_of(head.start_line()) == 101 && head.value("Sec-WebSocket-Protocol") == "mqtt"));
    return 0;
}
