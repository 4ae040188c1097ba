#pragma once

#include <runnel/mqtt/packet.hpp>
#include <runnel/mqtt/protocol/detail/received.hpp>

#include <cstdint>

namespace runnel::mqtt {

/// What `session_state::receive` tells its user; the defaults do nothing. A handler may call any function of the
/// session state but `connect`, `accept` and `receive`. The views it is given are valid until it returns.
struct session_handler {
    /// True: this end is always a client, so that there is no code for what servers receive.
    static constexpr bool is_client = false;
    /// True: messages may be received in pieces, by what `session_state::receive_pieces` asks of the handler.
    static constexpr bool takes_pieces = false;

    // At the client:
    /// Whether what has come behind CONNACK is to be left in the input for now.
    static constexpr bool is_held() noexcept { return false; }
    void on_connack(connack const&) {}                     ///< also a refusal
    void on_session_lost() noexcept {}                     ///< the server has none: before `on_connack`, if that comes
    void on_suback(void* /*owner*/, suback const&) {}      ///< SUBSCRIBE has been answered
    void on_unsuback(void* /*owner*/, unsuback const&) {}  ///< UNSUBSCRIBE has been answered (v3.1.1: no reasons)
    void on_pingresp() {}
    // At the server:
    void on_subscribe(subscribe const&) {}      ///< to be answered by `session_state::suback`
    void on_unsubscribe(unsubscribe const&) {}  ///< to be answered by `session_state::unsuback`
    // At both:
    /// To be acknowledged by `session_state::acknowledge`. If it throws, the message is given back.
    void on_message(publish const&, delivery) {}
    /// The lane of a message that was taken before a restart, and has come again: that of others of its topic, see
    /// `session_state::assign`.
    std::uint16_t lane_of(publish const&) { return 0; }
    void on_published(void* /*owner*/, acknowledgement const&) {}  ///< the QoS promise is fulfilled, or refused
    void on_sent(void* /*owner*/) {}  ///< a QoS 0 message that had to wait for its turn has left (`send_due`)
    void on_lost(void* /*owner*/) {}  ///< the peer has lost the session, and nobody can tell the message's fate
    /// A message that was queued before the connection is not sent, because the peer does not accept it: packet size,
    /// QoS or retain. `owner` is nullptr if nobody waits for it.
    void on_refused(void* /*owner*/, errc) {}
    void on_disconnect(disconnect const&) {}
    void on_auth(auth const&) {}
};

}  // namespace runnel::mqtt
