#pragma once

// All packets of MQTT. Each is a struct of views with the same functions beside it:
//
//   errc check(packet, version)                      whether it can be sent
//   std::size_t encoded_size(packet, version)        bytes of the whole packet
//   char* encode(char* out, packet, version)         writes them
//   errc decode(header, body, version, packet& out)  reads what `next_frame` found, and checks all of it
//   errc check_sender(packet, role)                  checks what a receiver must check besides, where there is anything

#include <runnel/mqtt/packet/acknowledgement.hpp>
#include <runnel/mqtt/packet/auth.hpp>
#include <runnel/mqtt/packet/connack.hpp>
#include <runnel/mqtt/packet/connect.hpp>
#include <runnel/mqtt/packet/disconnect.hpp>
#include <runnel/mqtt/packet/ping.hpp>
#include <runnel/mqtt/packet/publish.hpp>
#include <runnel/mqtt/packet/suback.hpp>
#include <runnel/mqtt/packet/subscribe.hpp>
#include <runnel/mqtt/packet/unsuback.hpp>
#include <runnel/mqtt/packet/unsubscribe.hpp>
