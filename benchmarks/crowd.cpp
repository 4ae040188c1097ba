// Many sessions in one process and one thread: see crowd.hpp.

#include "crowd.hpp"

#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <memory>
#include <vector>

int main(int argc, char** argv) {
    namespace mqtt = runnel::mqtt;
    using session = mqtt::session<runnel::tcp>;
    bench::crowd all(argc, argv, "runnel");
    asio::io_context io(1);
    std::vector<std::unique_ptr<session>> sessions;
    sessions.reserve(all.size);
    auto const begin = [&](std::size_t number) {
        mqtt::session_options o;
        o.credentials.client_id = "crowd-" + std::to_string(number);
        o.clean_start = true;
        o.keep_alive = std::chrono::seconds(all.keep_alive);
        o.on_event = [&all](mqtt::session_event const& e) {
            using kind = mqtt::session_event::kind;
            if (e.what == kind::connected) all.connected();
            // And not an attempt.
            if (e.what == kind::disconnected && e.step == runnel::connect_step::none) all.lost();
        };
        sessions.push_back(std::make_unique<session>(io.get_executor(),
                                                     runnel::tcp{.host = "127.0.0.1", .port = all.port}, std::move(o)));
        asio::co_spawn(io, sessions.back()->run(), [](std::exception_ptr e) {
            if (e) std::rethrow_exception(e);
        });
    };
    all.run(begin, [&] {
        io.run_one_for(std::chrono::milliseconds(100));
        io.poll();
    });
    std::_Exit(0);
}
