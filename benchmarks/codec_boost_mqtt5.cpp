// The codec benchmark with Boost.MQTT5, which speaks MQTT 5 only: its packets stand beside both versions of ours. By
// the functions that its client calls, which are not meant for users.

#include "codec_peer.hpp"
#include <boost/mqtt5/impl/codecs/message_decoders.hpp>
#include <boost/mqtt5/impl/codecs/message_encoders.hpp>
#include <boost/mqtt5/types.hpp>

namespace {

namespace mqtt5 = boost::mqtt5;

void add(peer_codec::cases& all, std::string const& name, std::size_t size, mqtt5::publish_props const& props) {
    auto const encode = [payload = std::string(size, 'x'), props] {
        return mqtt5::encoders::encode_publish(0, peer_codec::topic, payload, mqtt5::qos_e::at_most_once,
                                               mqtt5::retain_e::no, mqtt5::dup_e::no, props);
    };
    all.add("encode/" + name, [encode] { benchmark::DoNotOptimize(encode()); });
    all.add("decode/" + name, [bytes = encode()] {
        mqtt5::decoders::byte_citer at = bytes.begin();
        auto const header = mqtt5::decoders::decode_fixed_header(at, bytes.end());
        auto packet = mqtt5::decoders::decode_publish(std::get<0>(*header), std::get<1>(*header), at);
        if (!packet) std::exit(1);
        benchmark::DoNotOptimize(packet);
    });
}

}  // namespace

int main(int argc, char** argv) {
    peer_codec::cases all(argc, argv);
    for (std::string const version : {"/3.1.1", "/5"}) {
        add(all, "publish_64" + version, 64, {});
        add(all, "publish_1KiB" + version, 1024, {});
        add(all, "publish_64KiB" + version, 64 * 1024, {});
    }
    mqtt5::publish_props props;
    for (auto const& [name, value] : peer_codec::user_properties)
        props[mqtt5::prop::user_property].emplace_back(name, value);
    add(all, "publish_256_three_user_properties/5", 256, props);
    return all.run();
}
