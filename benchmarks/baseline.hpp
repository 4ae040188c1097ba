#pragma once

// What messages cost through `runnel::mqtt::session`, counted the same each time: the other side is in this thread, and
// does its part when there is nothing to do for the client. See baseline.py.
//
//     benchmark-baseline CASE MESSAGES

#include <runnel/transport/tcp.hpp>

#include "peer_server.hpp"
#include "session_runnel.hpp"
#include <array>
#include <cstddef>
#include <cstdlib>
#include <string>

namespace bench::counted {

// By this name callgrind is told to leave out what the other side does.
template <class Next>
[[gnu::noinline]] void other_side_turn(peer::server& server, Next next) {
    auto const allocated = ::allocations();
    auto const called = ::system_calls();
    server.turn(0);
    next();
    bench::apart.allocations += ::allocations() - allocated;
    bench::apart.system_calls += ::system_calls() - called;
}

/// Runs the case over a transport: `choose` is called with the options, a transport to the other side, and a function
/// that takes what is to be used.
template <class Choose>
int main(int argc, char** argv, Choose choose) {
    // As many as are received, warming up included, so that each run counts the same.
    peer::server server((argc > 2 ? static_cast<std::size_t>(std::atoll(argv[2])) : 0) * 6 / 5 / 1000);
    std::string port = std::to_string(server.port());
    std::array arguments{argv[0], port.data(), argc > 1 ? argv[1] : nullptr, argc > 2 ? argv[2] : nullptr};
    bench::options const o(argc + 1, arguments.data());
    choose(o, runnel::tcp{.host = "127.0.0.1", .port = o.port}, [&](auto const& transport) {
        bench::of_runnel::client client(o, transport);
        client.run_beside([&](auto next) { other_side_turn(server, next); });
    });
    return 0;
}

}  // namespace bench::counted
