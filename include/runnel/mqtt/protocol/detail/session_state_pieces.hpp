#pragma once

// What a session does with messages that are received in pieces: a part of session_state.hpp, for those who want it.

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/protocol/incoming_pieces.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>

#include <array>
#include <cstdint>
#include <string_view>

namespace runnel::mqtt {

// Takes payload of a message in pieces, or the head of the next one, from the input. What is not for it is left to
// `receive`.
template <class Handler>
session_state::piece_step session_state::receive_pieces(std::string_view& input, send_buffer& out, Handler& handler) {
    using enum piece_step::what;
    auto& pieces = handler.pieces();
    if (pieces.in_payload()) {
        input.remove_prefix(pieces.feed(input));
        handler.on_piece();
        return {pieces.in_payload() ? stop : again};
    }
    if (!pieces.is_wanted() || phase_ == phase::connecting) return {go_on};
    frame const f = next_frame(input, own_.maximum_packet_size);
    if (f.status == parse_status::malformed || f.total_size == 0 || f.header.type != packet_type::publish)
        return {go_on};
    auto const body = input.substr(f.header.size, f.header.remaining_length);
    auto const head_size = publish_head_size(f.header, body, version_);
    bool const is_whole = f.status == parse_status::complete;
    if (head_size && *head_size > incoming_pieces::max_head) return {go_on};
    if (!head_size || *head_size > body.size()) {
        if (is_whole) return {go_on};  // to find out what is wrong with it
        expected_ = 0;
        return {stop};
    }
    mqtt::publish message;
    if (errc const e = decode(f.header, body.substr(0, *head_size), version_, message); e != errc::ok) return {e};
    if (errc const e = check_received(message); e != errc::ok) return {e};
    if (errc const e = resolve_alias(message); e != errc::ok) return {e};
    auto* const who = pieces.find(message.topic);
    if (who == nullptr) return {go_on};
    expected_ = 0;
    if (pieces.is_busy()) {
        pieces.hold();
        return {stop};
    }
    std::uint64_t const size = f.header.remaining_length - *head_size;
    errc const e = begin_pieces(who, message, size, out, handler);
    input.remove_prefix(f.header.size + *head_size);
    return {again, e};
}

template <class Handler>
errc session_state::begin_pieces(void* who, mqtt::publish const& message, std::uint64_t size, send_buffer& out,
                                 Handler& handler) {
    auto& pieces = handler.pieces();
    if (message.qos == qos::at_most_once) {
        pieces.begin(who, message, size, delivery{});
        handler.on_pieces();
        return errc::ok;
    }
    if (version_ == protocol_version::v5 && received_.unacknowledged() >= own_.receive_maximum)
        return errc::receive_maximum_exceeded;  // [MQTT-3.3.4-7], [MQTT-3.3.4-9]
    bool const is_full = received_.waiting() >= limits_.not_taken || leaves_out_;
    if (is_full && leaves_out()) {
        pieces.skip(size);
        return errc::ok;
    }
    std::array<char, 8> text;
    auto const mark = incoming_pieces::marked(message, size, text);
    auto const arrival = received_.arrive(mark);
    if (!arrival.is_new) {
        if (arrival.lane_unknown) received_.place_restored(arrival.token, handler.lane_of(message));
        pieces.skip(size);
        send_acknowledgements(out);  // the application may have taken it the first time [MQTT-4.3.3-10]
        return errc::ok;
    }
    RUNNEL_TRY {
        received_.assign(arrival.token, handler.lane_of(message));
        pieces.begin(who, message, size, arrival.token);
    }
    RUNNEL_CATCH_ALL {
        received_.give_back(arrival.token, &mark);
        RUNNEL_RETHROW;
    }
    received_.keep(arrival.token, mark);
    handler.on_pieces();
    return errc::ok;
}

// The packet with this identifier has been taken out of the send buffer, unsent: nobody is told.
RUNNEL_COLD inline bool session_state::take_back_unsent(send_buffer& out, std::uint16_t packet_id) {
    if (!outgoing_.take_back_unsent(packet_id)) return false;
    if (outgoing_.holds_unsent()) send_queued(out);
    return true;
}

}  // namespace runnel::mqtt
