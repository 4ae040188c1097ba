// Makes packets of the input that can be sent, each value of a field being chosen by the input: encoded, they must take
// the size that was said, ask for more while they are cut short, and be the same when decoded. The first byte chooses
// the version.

#include "fuzz.hpp"
#include "support/any_packet.hpp"
#include "support/random_packets.hpp"
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

using namespace runnel::mqtt;
using test::require;

namespace {

template <class Packet>
void go_there_and_back(Packet const& packet, protocol_version version) {
    require(check(packet, version) == errc::ok);
    std::string bytes(encoded_size(packet, version), '\0');
    require(encode(bytes.data(), packet, version) == bytes.data() + bytes.size());
    std::string_view const whole = bytes;
    for (std::size_t cut = 0; cut < whole.size(); cut += 1 + cut / 8)
        require(next_frame(whole.substr(0, cut)).status == parse_status::need_more);
    auto const frame = next_frame(whole);
    require(frame.status == parse_status::complete && frame.total_size == whole.size());
    bool same = false;
    errc const error = test::decode_any(frame, version, [&]<class Decoded>(Decoded const& decoded) {
        if constexpr (std::is_same_v<Decoded, Packet>) same = decoded == packet;
    });
    require(error == errc::ok && same);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    if (size == 0) return 0;
    auto const version = (data[0] & 1) != 0 ? protocol_version::v5 : protocol_version::v3_1_1;
    test::random_source choices({reinterpret_cast<char const*>(data + 1), size - 1});
    test::random_packets packets(choices, version);
    packets.next([&](auto const& packet) { go_there_and_back(packet, version); });
    return 0;
}
