#pragma once

#include <runnel/core/bytes.hpp>
#include <runnel/core/send_buffer.hpp>
#include <runnel/core/to_size.hpp>
#include <runnel/mqtt/codec/fixed_header.hpp>
#include <runnel/mqtt/packet/publish.hpp>

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

namespace runnel::mqtt {

/// Stand-ins for payloads that are not in memory. A message that is published in pieces waits in the session as a
/// PUBLISH whose payload is a ticket, so that all rules hold for it that hold for others: order, packet identifiers,
/// the receive maximum, repetition. Where it is to be written, it is found by the ticket, and the payload takes its
/// place: no ticket leaves the process. It begins with random bytes that only the session knows, so that no payload is
/// one.
class piece_tickets {
  public:
    static constexpr std::size_t secret_size = 16;
    using ticket = std::array<char, secret_size + 8>;

    explicit piece_tickets(std::array<char, secret_size> secret) noexcept : secret_(secret) {}

    /// The ticket of a message that goes by this number.
    ticket make(std::uint64_t number) const noexcept {
        ticket t;
        std::memcpy(t.data(), secret_.data(), secret_size);
        write_big_endian(t.data() + secret_size, number);
        return t;
    }

    /// A PUBLISH with a ticket.
    struct found {
        std::size_t position;     ///< where it begins
        std::string_view packet;  ///< all of it
        std::uint64_t number;     ///< of the message
    };
    /// The first one among whole packets.
    std::optional<found> find(std::string_view packets) const noexcept {
        for (auto rest = packets; !rest.empty();) {
            frame const f = next_frame(rest);
            assert(f.status == parse_status::complete);
            if (f.status != parse_status::complete) break;
            auto const packet = rest.substr(0, f.total_size);
            if (auto const number = number_in(f, packet))
                return found{static_cast<std::size_t>(rest.data() - packets.data()), packet, *number};
            rest.remove_prefix(f.total_size);
        }
        return std::nullopt;
    }

    /// Bytes that follow the fixed header of `packet` once its ticket has been exchanged for `size` bytes, at most
    /// `max_variable_integer`.
    static constexpr std::uint64_t remaining_length(std::string_view packet, std::uint64_t size) noexcept {
        assert(size <= max_variable_integer);
        return next_frame(packet).header.remaining_length - sizeof(ticket) + size;
    }
    /// Appends `packet` up to its ticket, as the beginning of one with `size` bytes of payload.
    static void append_head(send_buffer& out, std::string_view packet, std::uint64_t size) {
        fixed_header const header = next_frame(packet).header;
        auto const head = packet.substr(header.size, header.remaining_length - sizeof(ticket));
        char* const begin = out.prepare(5 + head.size());
        char* const end = write_bytes(
            write_fixed_header(begin, header.type, header.flags, to_size(remaining_length(packet, size))), head);
        out.commit(static_cast<std::size_t>(end - begin));
    }

    /// What a packet says besides the payload: its identifier, and whether it gives its topic an alias.
    static publish head_of(std::string_view packet, protocol_version version) noexcept {
        publish message;
        frame const f = next_frame(packet);
        [[maybe_unused]] errc const e = decode(f.header, f.body, version, message);
        assert(e == errc::ok);
        return message;
    }
    static bool gives_alias(publish const& message) noexcept {
        return !message.topic.empty() && message.props.get<property_id::topic_alias>().has_value();
    }

  private:
    std::optional<std::uint64_t> number_in(frame const& f, std::string_view packet) const noexcept {
        if (f.header.type != packet_type::publish || f.header.remaining_length < sizeof(ticket)) return std::nullopt;
        char const* const at = packet.data() + packet.size() - sizeof(ticket);
        if (std::memcmp(at, secret_.data(), secret_size) != 0) return std::nullopt;
        return read_big_endian<std::uint64_t>(at + secret_size);
    }

    std::array<char, secret_size> secret_;
};

}  // namespace runnel::mqtt
