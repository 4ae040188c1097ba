#include <runnel/tls.hpp>

#include <asio/io_context.hpp>

#include <cstdio>

int main() {
    asio::io_context context;
    runnel::mqtt::session<runnel::wss> session{context.get_executor(), runnel::wss{.host = "broker.example"}, {}};
    std::puts("runnel " RUNNEL_VERSION_STRING);
}
