// Feeds a stream of bytes to the decoders of one version. What is accepted must be a packet that can be sent, and
// encoded and decoded again it must be the same.

#include "support/any_packet.hpp"
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#ifndef RUNNEL_FUZZ_VERSION
#error "RUNNEL_FUZZ_VERSION is the version to decode: v3_1_1 or v5"
#endif

using namespace runnel::mqtt;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    constexpr auto version = protocol_version::RUNNEL_FUZZ_VERSION;
    std::string_view input(reinterpret_cast<char const*>(data), size);
    std::vector<char> again;
    while (true) {
        auto const next = next_frame(input, 1 << 20);
        if (next.status != parse_status::complete) break;
        errc const error = test::decode_any(next, version, [&]<class Packet>(Packet const& packet) {
            if (check(packet, version) != errc::ok) std::abort();
            again.resize(encoded_size(packet, version));
            if (again.size() > next.total_size) std::abort();
            if (encode(again.data(), packet, version) != again.data() + again.size()) std::abort();
            auto const copy = next_frame({again.data(), again.size()});
            Packet back;
            if (copy.status != parse_status::complete || copy.total_size != again.size()) std::abort();
            if (decode(copy.header, copy.body, version, back) != errc::ok || back != packet) std::abort();
        });
        if (error != errc::ok) break;
        input.remove_prefix(next.total_size);
    }
    return 0;
}
