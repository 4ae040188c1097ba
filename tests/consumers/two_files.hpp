#pragma once

#include <runnel/mqtt/client/session.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/transport/tcp.hpp>

#ifndef RUNNEL_SEPARATE_COMPILATION
#error "this is about sessions that are compiled once"
#endif

using session = runnel::mqtt::session<runnel::tcp>;

asio::awaitable<void> say(session& s, std::string what);
