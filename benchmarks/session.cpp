// What messages cost through `runnel::mqtt::session` over TCP; see session_client.hpp, and session_peer.cpp for the
// other side.

#include <runnel/mqtt/session.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include "session_client.hpp"
#include <memory>

namespace {

namespace mqtt = runnel::mqtt;
using session = mqtt::session<runnel::tcp>;
template <class T>
using task = asio::awaitable<T>;

char const* const who = "runnel";

mqtt::session_options options_for(std::string client_id) {
    mqtt::session_options o;
    o.credentials.client_id = std::move(client_id);
    return o;
}

struct client {
    bench::options const& o;
    asio::io_context io{1};
    session s{io.get_executor(), runnel::tcp{.host = "127.0.0.1", .port = o.port}, options_for("runnel")};
    bench::meter meter{o, who};
    std::size_t begun = 0;

    mqtt::publish_options how() const { return {.qos = static_cast<mqtt::qos>(o.qos())}; }

    task<void> confirm() { co_await s.publish(bench::topic, bench::payload, {.qos = mqtt::qos::at_least_once}); }

    // QoS 0: the end is what the server has acknowledged.
    task<void> publish_at_most_once() {
        bool const tries = o.is("publish_qos0_try");
        for (std::size_t i = 0; i < meter.total() + 1; ++i) {
            if (i == meter.total() - o.messages) {
                co_await confirm();
                meter.start();
            }
            if (!tries || !s.try_publish(bench::topic, bench::payload))
                co_await s.publish(bench::topic, bench::payload);
        }
        co_await confirm();
        meter.stop();
        co_await s.disconnect();
    }

    task<void> publish_with_acknowledgement() {
        while (begun < meter.total()) {
            ++begun;
            co_await s.publish(bench::topic, bench::payload, how());
            if (meter.count()) co_await s.disconnect();
        }
    }

    task<void> receive() {
        auto inbox = co_await s.subscribe(bench::filter);
        bool last = false;
        while (!last) {
            auto const m = co_await inbox.receive();
            last = m.payload().size() == bench::payload.size() && meter.count();
        }
        co_await s.disconnect();
    }

    task<void> receive_by_view() {
        bool last = false;
        auto const handler = [&](mqtt::publish const& m) {
            if (last || m.payload.size() != bench::payload.size() || !meter.count()) return;
            last = true;
            asio::co_spawn(io, s.disconnect(), [](std::exception_ptr) {});
        };
        co_await s.subscribe(bench::filter, handler);
    }

    task<void> round_trips() {
        bench::trips all(o.messages);
        for (std::size_t i = 0; i < o.messages; ++i) {
            all.begin();
            co_await confirm();
            all.end();
        }
        all.report(who);
        co_await s.disconnect();
    }

    void spawn(task<void> t) {
        asio::co_spawn(io, std::move(t), [](std::exception_ptr e) {
            if (e) std::rethrow_exception(e);
        });
    }

    void run() {
        spawn(s.run());
        if (o.is("publish_qos0")) {
            spawn(publish_at_most_once());
        } else if (o.is("publish")) {
            for (std::size_t i = 0; i < o.window(); ++i) spawn(publish_with_acknowledgement());
        } else if (o.is("receive_qos0_view")) {
            spawn(receive_by_view());
        } else if (o.is("receive")) {
            spawn(receive());
        } else {
            spawn(round_trips());
        }
        io.run();
    }
};

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
        client c{o};
        c.run();
    }
    return 0;
}
