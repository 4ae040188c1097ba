// The other side of the session benchmarks, as a process of its own: prints its port, and runs until its standard
// input ends.

#include "peer_server.hpp"
#include <cstdio>
#include <unistd.h>

int main() {
    peer::server server;
    server.watch(STDIN_FILENO);
    std::printf("%d\n", server.port());
    std::fflush(stdout);
    while (server.turn(500)) {
    }
    return 0;
}
