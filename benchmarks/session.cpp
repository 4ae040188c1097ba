// What messages cost through `runnel::mqtt::session` over TCP.

#include <runnel/transport/tcp.hpp>

#include "session_runnel.hpp"

int main(int argc, char** argv) {
    bench::options const o(argc, argv);
    bench::of_runnel::run(o, runnel::tcp{.host = "127.0.0.1", .port = o.port});
    return 0;
}
