// What messages cost through `runnel::mqtt::session` over WebSocket Secure, and idle sessions over that and over TLS.

#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/tls.hpp>
#include <runnel/websocket/transport.hpp>

#include "openssl_memory.hpp"
#include "session_runnel.hpp"

int main(int argc, char** argv) {
    bench::options const o(argc, argv);
    bench::tell_openssl_apart();
    runnel::tls_options trusting;
    trusting.verify = runnel::tls_verify::none_insecure;
    runnel::tls<runnel::tcp> tls;
    tls.host = "127.0.0.1";
    tls.port = o.port;
    tls.context = runnel::tls_context(trusting);
    runnel::websocket::over<runnel::tls<runnel::tcp>> const wss{.host = tls.host, .port = tls.port, .next = tls};
    o.group == "tls" ? bench::of_runnel::run(o, tls) : bench::of_runnel::run(o, wss);
    return 0;
}
