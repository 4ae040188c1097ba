// The codec benchmark with async_mqtt: a packet made and its buffers gathered, and a packet made of received bytes, of
// which it keeps a view.

#include "codec_peer.hpp"
#include <async_mqtt/all.hpp>

namespace {

namespace am = async_mqtt;

// `Packet` is the PUBLISH of one version, made with `more` behind its options.
template <class Packet, class... More>
void add(peer_codec::cases& all, std::string const& name, am::protocol_version version, std::size_t size,
         More const&... more) {
    auto const make = [payload = std::string(size, 'x'), more...] {
        return Packet{peer_codec::topic, payload, am::qos::at_most_once, more...};
    };
    all.add("encode/" + name, [make] {
        auto const packet = make();
        benchmark::DoNotOptimize(packet.const_buffer_sequence());
    });
    std::string bytes;
    auto const packet = make();
    for (auto const& part : packet.const_buffer_sequence())
        bytes.append(static_cast<char const*>(part.data()), part.size());
    all.add("decode/" + name, [bytes, version] {
        am::error_code error;
        auto const decoded = am::buffer_to_packet_variant(am::buffer{std::string_view(bytes)}, version, error);
        if (!decoded || error) std::exit(1);
        benchmark::DoNotOptimize(decoded);
    });
}

template <class Packet>
void add_sizes(peer_codec::cases& all, std::string const& name, am::protocol_version version) {
    add<Packet>(all, "publish_64" + name, version, 64);
    add<Packet>(all, "publish_1KiB" + name, version, 1024);
    add<Packet>(all, "publish_64KiB" + name, version, 64 * 1024);
}

}  // namespace

int main(int argc, char** argv) {
    peer_codec::cases all(argc, argv);
    add_sizes<am::v3_1_1::publish_packet>(all, "/3.1.1", am::protocol_version::v3_1_1);
    add_sizes<am::v5::publish_packet>(all, "/5", am::protocol_version::v5);
    am::properties props;
    for (auto const& [name, value] : peer_codec::user_properties)
        props.push_back(am::property::user_property{name, value});
    add<am::v5::publish_packet>(all, "publish_256_three_user_properties/5", am::protocol_version::v5, 256, props);
    return all.run();
}
