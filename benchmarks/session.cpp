// What messages cost through `runnel::mqtt::session` over TCP.

#include <runnel/transport/tcp.hpp>

#include "session_runnel.hpp"
#include <memory>
#include <vector>

namespace {

using namespace bench::of_runnel;
using session = mqtt::session<runnel::tcp>;

// Many sessions that only ping: MESSAGES is their number.
void idle(bench::options const& o) {
    using namespace std::chrono_literals;
    asio::io_context io(1);
    std::vector<std::unique_ptr<session>> all;
    std::size_t lost = 0, connected = 0;
    double const before = bench::heap_bytes();
    for (std::size_t i = 0; i < o.messages; ++i) {
        auto options = options_for("runnel-" + std::to_string(i));
        options.keep_alive = 8s;
        options.on_event = [&](mqtt::session_event const& e) {
            if (e.what == mqtt::session_event::kind::connected) ++connected;
            if (e.what == mqtt::session_event::kind::disconnected) ++lost;
        };
        all.push_back(std::make_unique<session>(io.get_executor(), runnel::tcp{.host = "127.0.0.1", .port = o.port},
                                                std::move(options)));
        asio::co_spawn(io, all.back()->run(), [](std::exception_ptr) {});
        io.poll();
    }
    io.restart();
    io.run_for(25s);
    report::figure("session", "idle", who, "bytes/session",
                   (bench::heap_bytes() - before) / static_cast<double>(o.messages));
    report::figure("session", "idle_lost", who, "sessions",
                   static_cast<double>(lost + o.messages - std::min(connected, o.messages)));
    std::fflush(stdout);
    std::_Exit(0);
}

}  // namespace

int main(int argc, char** argv) {
    bench::options const o(argc, argv);
    if (o.is("idle")) {
        idle(o);
    } else {
        client c(o, runnel::tcp{.host = "127.0.0.1", .port = o.port});
        c.run();
    }
    return 0;
}
