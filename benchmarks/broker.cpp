// The broker of <runnel/testing/broker/broker.hpp> as a process of its own: prints its port, and runs until its
// standard input ends.

#include <runnel/testing/broker/broker.hpp>

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>

#include <cstdio>
#include <unistd.h>

int main() {
    asio::io_context io(1);
    runnel::testing::broker broker(io.get_executor());
    std::printf("%d\n", broker.listen_tcp());
    std::fflush(stdout);
    asio::posix::stream_descriptor input(io, STDIN_FILENO);
    input.async_wait(asio::posix::stream_descriptor::wait_read, [&](auto const&) { io.stop(); });
    io.run();
    return 0;
}
