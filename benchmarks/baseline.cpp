// The rows of sessions over TCP and over WebSocket: see baseline.hpp.

#include "baseline.hpp"

#include <runnel/websocket/transport.hpp>

int main(int argc, char** argv) {
    return bench::counted::main(argc, argv, [](bench::options const& o, runnel::tcp const& tcp, auto run) {
        if (o.group == "ws")
            run(runnel::websocket::over<runnel::tcp>{.host = tcp.host, .port = tcp.port});
        else
            run(tcp);
    });
}
