#pragma once

// Everything, with TLS: needs OpenSSL 3.

#include <runnel/runnel.hpp>
#include <runnel/transport/tls/tls.hpp>

namespace runnel {

/// MQTT over TLS.
using mqtts = tls<tcp>;
/// WebSocket Secure.
using wss = websocket::over<tls<tcp>>;

}  // namespace runnel
