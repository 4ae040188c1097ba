// A program of two files that both use a session, which is compiled in neither (RUNNEL_SEPARATE_COMPILATION).
#include "two_files.hpp"

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>

asio::awaitable<void> talk(session& s) {
    auto inbox = co_await s.subscribe("t");
    co_await say(s, "hello");
    auto const m = co_await inbox.receive();
    std::printf("%.*s\n", static_cast<int>(m.payload().size()), m.payload().data());
    co_await s.disconnect();
}

int main() {
    asio::io_context io;
    runnel::testing::broker broker(io.get_executor());
    session s(io.get_executor(), runnel::tcp{.host = "127.0.0.1", .port = broker.listen_tcp()});
    auto const end = [&](std::exception_ptr error) {
        if (error) std::rethrow_exception(error);
    };
    asio::co_spawn(io, s.run(), [&](std::exception_ptr error) {
        broker.close();
        end(error);
    });
    asio::co_spawn(io, talk(s), end);
    io.run();
}
