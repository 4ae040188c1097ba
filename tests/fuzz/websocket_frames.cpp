// Feeds bytes to a WebSocket connection, whole, cut into pieces and as a stream of bytes: the outcome must be the same,
// and limits must hold. The first byte of the input chooses role, settings and the size of the pieces.

#include <runnel/websocket/protocol/protocol.hpp>

#include "fuzz.hpp"
#include <cstddef>
#include <cstdint>
#include <string>

using namespace runnel::websocket;
using test::require;

namespace {

constexpr std::uint64_t max_message = 300;

struct outcome {
    std::string payload;  // of all messages, each ended by its kind
    errc error = errc::ok;
    std::string answers;
    friend bool operator==(outcome const&, outcome const&) = default;
};

outcome feed(protocol_settings const& settings, std::string bytes, std::size_t chop) {
    protocol end(settings);
    outcome result;
    std::uint64_t message = 0;
    for (std::size_t at = 0; at < bytes.size() && result.error == errc::ok; at += chop) {
        std::size_t const piece = std::min(chop, bytes.size() - at);
        for (std::size_t used = 0; used < piece && result.error == errc::ok;) {
            auto const found = end.feed(bytes.data() + at + used, piece - used);
            require(found.consumed <= piece - used);
            require(found.consumed != 0 || found.error != errc::ok);
            result.payload += found.payload;
            used += found.consumed;
            result.error = found.error;
            message += found.payload.size();
            require(message <= max_message);
            if (!found.message_end) continue;
            result.payload += end.kind() == message_kind::text ? "<text>" : "<binary>";
            message = 0;
        }
    }
    require((result.error != errc::ok) == (end.failure() != errc::ok));
    require(result.error == errc::ok || end.close_sent());
    require(!end.close_received() || end.close_sent());
    runnel::send_buffer out;
    end.take_pending(out);
    result.answers = std::to_string(out.size());  // a client's answers are masked, each time in another way
    if (settings.side == role::server) result.answers = out.view();
    return result;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    if (size == 0) return 0;
    protocol_settings settings;
    settings.side = (data[0] & 1) != 0 ? role::server : role::client;
    settings.accept_text = (data[0] & 2) == 0;
    settings.accept_compressed = (data[0] & 4) != 0;
    settings.max_message = max_message;
    std::string const bytes(reinterpret_cast<char const*>(data + 1), size - 1);

    outcome const whole = feed(settings, bytes, bytes.size() + 1);
    outcome chopped = feed(settings, bytes, 1 + (data[0] >> 4));
    // Text is refused with its first wrong byte: chopped, the bytes before that have been given already.
    if (whole.error == errc::invalid_utf8 && chopped.error == errc::invalid_utf8) {
        require(chopped.payload.starts_with(whole.payload));
        chopped.payload = whole.payload;
    }
    require(whole == chopped);

    protocol stream(settings);
    std::string raw = bytes;
    std::size_t const n = stream.unframe(raw.data(), raw.size());
    require(n <= raw.size());
    require(stream.failure() == whole.error);
    return 0;
}
