#pragma once

/// \file
/// What a session does, for programs that are compiled with RUNNEL_SEPARATE_COMPILATION: there
/// <runnel/mqtt/client/session.hpp> only says what it looks like. <runnel/src.hpp> and <runnel/src_tls.hpp> have the
/// sessions over runnel's own transports; one file of the program has the others:
///
///     #include <runnel/mqtt/client/session_source.hpp>
///     template class runnel::mqtt::session<my_transport>;

#include <runnel/mqtt/client/detail/operations.hpp>
#include <runnel/mqtt/client/detail/run.hpp>
#include <runnel/mqtt/client/session.hpp>
