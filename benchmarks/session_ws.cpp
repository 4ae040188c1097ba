// What messages cost through `runnel::mqtt::session` over WebSocket.

#include <runnel/transport/tcp.hpp>
#include <runnel/websocket/transport.hpp>

#include "session_runnel.hpp"

int main(int argc, char** argv) {
    bench::options const o(argc, argv);
    bench::of_runnel::run(o, runnel::websocket::over<runnel::tcp>{.host = "127.0.0.1", .port = o.port});
    return 0;
}
