#pragma once

#include <runnel/websocket/protocol/protocol.hpp>

#include <string_view>

namespace runnel::websocket {

/// A whole message as `stream::read_message` gives it.
struct message {
    message_kind kind = message_kind::binary;
    /// Valid until the next read, or until the stream is closed or destroyed.
    std::string_view data{};
};

/// No compression: messages cross the wire as they are. `permessage_deflate` is the other model.
struct no_compression {
    static constexpr bool enabled = false;
    struct options {
        friend bool operator==(options const&, options const&) = default;
    };
};

}  // namespace runnel::websocket
