#pragma once

/// \file
/// To be included in one file of a program that is compiled with RUNNEL_SEPARATE_COMPILATION: the sessions over all
/// transports that need no OpenSSL are compiled there, and nowhere else. <runnel/src_tls.hpp> has those over TLS. The
/// macro must be the same in all files.

#include <runnel/mqtt/client/session_source.hpp>
#include <runnel/runnel.hpp>
#include <runnel/transport/any_transport.hpp>
#include <runnel/transport/unix_socket.hpp>

template class runnel::mqtt::session<runnel::tcp>;
template class runnel::mqtt::session<runnel::ws>;
#if RUNNEL_HAS_LOCAL_SOCKETS
template class runnel::mqtt::session<runnel::unix_socket>;
#endif
template class runnel::mqtt::session<runnel::any_transport>;
