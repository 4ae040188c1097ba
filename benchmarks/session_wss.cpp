// What messages cost through `runnel::mqtt::session` over WebSocket Secure.

#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/tls.hpp>
#include <runnel/websocket/transport.hpp>

#include "session_runnel.hpp"

int main(int argc, char** argv) {
    bench::options const o(argc, argv);
    runnel::tls_options trusting;
    trusting.verify = runnel::tls_verify::none_insecure;
    runnel::websocket::over<runnel::tls<runnel::tcp>> wss{.host = "127.0.0.1", .port = o.port};
    wss.next.context = runnel::tls_context(trusting);
    bench::of_runnel::client c(o, wss);
    c.run();
    return 0;
}
