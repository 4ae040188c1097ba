#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/metric.hpp>
#include <runnel/mqtt/codec/types.hpp>
#include <runnel/mqtt/protocol/packet_scanner.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace runnel::mqtt {

/// What has gone in one direction over connections of MQTT.
struct traffic_in_one_direction {
    struct count {
        std::uint64_t packets = 0;
        std::uint64_t bytes = 0;  ///< of whole packets, fixed headers included
    };
    std::array<count, 16> by_type{};    ///< by the value of `packet_type`
    std::array<count, 3> by_quality{};  ///< PUBLISH, by QoS
    std::uint64_t duplicates = 0;       ///< PUBLISH with DUP
    std::uint64_t malformed = 0;        ///< flows in which a packet could not be found any more

    RUNNEL_COLD count const& of(packet_type type) const noexcept { return by_type[static_cast<std::size_t>(type)]; }
    RUNNEL_COLD count const& of(qos quality) const noexcept { return by_quality[static_cast<std::size_t>(quality)]; }

    /// Counts a packet.
    void add(scanned_packet const& p) noexcept {
        auto const add_to = [&](count& c) {
            ++c.packets;
            c.bytes += p.size();
        };
        add_to(by_type[static_cast<std::size_t>(p.header.type)]);
        if (p.header.type != packet_type::publish) return;
        add_to(by_quality[p.header.flags >> 1 & 3]);
        if ((p.header.flags & 8) != 0) ++duplicates;
    }
};

/// What has gone in both directions, as seen from this end.
struct traffic_counters {
    traffic_in_one_direction received{};
    traffic_in_one_direction sent{};
};

/// Counts the packets of one connection by looking on: bytes in pieces of any size, of which nothing is kept.
class traffic_scanner {
  public:
    /// `to` must outlive this.
    explicit traffic_scanner(traffic_counters& to) noexcept : to_(to) {}

    void received(std::string_view bytes) noexcept { feed(received_, to_.received, bytes); }
    void sent(std::string_view bytes) noexcept { feed(sent_, to_.sent, bytes); }

  private:
    static void feed(packet_scanner& scanner, traffic_in_one_direction& to, std::string_view bytes) noexcept {
        bool const was_well = scanner.error() == errc::ok;
        scanner.feed(bytes, [&](scanned_packet const& p) { to.add(p); });
        if (was_well && scanner.error() != errc::ok) ++to.malformed;
    }

    traffic_counters& to_;
    packet_scanner received_{};
    packet_scanner sent_{};
};

/// Adds the counters to a snapshot. All have the attribute `direction`: `receive` or `transmit`.
///
/// | name | unit | other attributes |
/// |---|---|---|
/// | `runnel.mqtt.packets` | `{packet}` | `packet`: "PUBLISH", ...; only those that there have been |
/// | `runnel.mqtt.packet.io` | `By` | the same |
/// | `runnel.mqtt.publish.packets` | `{packet}` | `qos`: 0, 1, 2 |
/// | `runnel.mqtt.publish.io` | `By` | the same |
/// | `runnel.mqtt.publish.duplicates` | `{packet}` | |
/// | `runnel.mqtt.malformed` | `{connection}` | |
RUNNEL_COLD inline void add_metrics(metric_list& to, traffic_counters const& c) {
    auto const add = [&](char const* name, char const* description, char const* unit, std::uint64_t value,
                         std::vector<metric_attribute> attributes) {
        to.add({name, description, unit, metric_kind::counter, static_cast<double>(value), std::move(attributes)});
    };
    for (auto const& [direction, side] : {std::pair("receive", &c.received), std::pair("transmit", &c.sent)}) {
        for (std::size_t type = 1; type < side->by_type.size(); ++type) {
            auto const& count = side->by_type[type];
            if (count.packets == 0) continue;
            auto const* const packet = name(static_cast<packet_type>(type));
            add("runnel.mqtt.packets", "Packets by type.", "{packet}", count.packets,
                {{"direction", direction}, {"packet", packet}});
            add("runnel.mqtt.packet.io", "Bytes of packets by type.", "By", count.bytes,
                {{"direction", direction}, {"packet", packet}});
        }
        for (std::size_t quality = 0; quality < side->by_quality.size(); ++quality) {
            auto const& count = side->by_quality[quality];
            add("runnel.mqtt.publish.packets", "PUBLISH packets by QoS.", "{packet}", count.packets,
                {{"direction", direction}, {"qos", std::to_string(quality)}});
            add("runnel.mqtt.publish.io", "Bytes of PUBLISH packets by QoS.", "By", count.bytes,
                {{"direction", direction}, {"qos", std::to_string(quality)}});
        }
        add("runnel.mqtt.publish.duplicates", "PUBLISH packets that may have been sent before.", "{packet}",
            side->duplicates, {{"direction", direction}});
        add("runnel.mqtt.malformed", "Connections on which what came was no MQTT any more.", "{connection}",
            side->malformed, {{"direction", direction}});
    }
}

}  // namespace runnel::mqtt
