#pragma once

// Everything that needs no OpenSSL: MQTT sessions over TCP, WebSocket and streams of your own, and what Aliyun's IoT
// Platform asks of a device. <runnel/tls.hpp> adds TLS. A program that counts compile time includes only the headers
// that it uses.

#include <runnel/aliyun/client/device_session.hpp>
#include <runnel/aliyun/client/registration.hpp>
#include <runnel/aliyun/connect.hpp>
#include <runnel/aliyun/device.hpp>
#include <runnel/aliyun/endpoint.hpp>
#include <runnel/aliyun/extended_parameters.hpp>
#include <runnel/aliyun/limits.hpp>
#include <runnel/aliyun/signer.hpp>
#include <runnel/aliyun/topics.hpp>
#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/asio_stream.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/transport/transport_factory.hpp>
#include <runnel/version.hpp>
#include <runnel/websocket/transport.hpp>

namespace runnel {

/// WebSocket without encryption.
using ws = websocket::over<tcp>;

}  // namespace runnel
