#pragma once

/// \file
/// Beside <runnel/src.hpp>, in the same file or in another one: the sessions over TLS.

#include <runnel/mqtt/client/session_source.hpp>
#include <runnel/tls.hpp>

template class runnel::mqtt::session<runnel::mqtts>;
template class runnel::mqtt::session<runnel::wss>;
