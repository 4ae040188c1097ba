// How the cost of a message grows with the number of subscriptions, of sessions, and of messages in flight: at best not
// at all. The other side is session_peer.cpp.
//
//     benchmark-fleet PORT

#include <runnel/mqtt/client/session.hpp>
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

std::string const payload(64, 'x');

// Counts messages, and stops the context after the last.
struct stage {
    stage(char const* what, std::size_t n, std::size_t messages)
        : name(std::string(what) + '_' + std::to_string(n)), total(messages + messages / 4), measured(messages) {}

    std::string name;
    std::size_t total;
    std::size_t measured;
    std::size_t done = 0;
    std::int64_t cpu = 0;
    asio::io_context io{1};

    void count(std::size_t n = 1) {
        bool const before = done < total - measured;
        done += n;
        if (before && done >= total - measured) cpu = bench::now(CLOCK_PROCESS_CPUTIME_ID);
        if (done < total || io.stopped()) return;
        cpu = bench::now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        report::figure("fleet", name, "runnel", "ns CPU/message",
                       static_cast<double>(cpu) / static_cast<double>(measured));
        io.stop();
    }

    void spawn(task<void> t) {
        asio::co_spawn(io, std::move(t), [](std::exception_ptr e) {
            if (e) std::rethrow_exception(e);
        });
    }

    std::unique_ptr<session> connect(std::uint16_t port, std::size_t number) {
        mqtt::session_options o;
        o.credentials.client_id = "fleet-" + std::to_string(number);
        auto s = std::make_unique<session>(io.get_executor(), runnel::tcp{.host = "127.0.0.1", .port = port}, o);
        spawn(s->run());
        return s;
    }
};

task<void> publish(session& s, stage& all) {
    while (all.done < all.total) {
        co_await s.publish(bench::topic, payload, {.qos = mqtt::qos::at_least_once});
        all.count();
    }
}

// One message after the other from many coroutines of one session.
void in_flight(std::uint16_t port, std::size_t n) {
    stage all("in_flight", n, n == 1 ? 20'000 : 400'000);
    auto const s = all.connect(port, 0);
    for (std::size_t i = 0; i < n; ++i) all.spawn(publish(*s, all));
    all.io.run();
}

task<void> publish_packs(session& s, stage& all) {
    constexpr std::size_t pack = 20;
    while (all.done < all.total) {
        for (std::size_t i = 1; i < pack; ++i) s.try_publish(bench::topic, payload, {.qos = mqtt::qos::at_least_once});
        co_await s.publish(bench::topic, payload, {.qos = mqtt::qos::at_least_once});
        all.count(pack);
    }
}

// Messages in packs of 20 from each of many sessions.
void sessions(std::uint16_t port, std::size_t n) {
    stage all("sessions", n, std::max<std::size_t>(400'000, n * 100));
    std::vector<std::unique_ptr<session>> clients;
    for (std::size_t i = 0; i < n; ++i) {
        clients.push_back(all.connect(port, i));
        all.io.poll();
    }
    all.io.restart();
    std::size_t connected = 0;
    auto const wait = [&](session& s) -> task<void> {
        co_await s.connected();
        if (++connected < n) co_return;
        for (auto const& c : clients) all.spawn(publish_packs(*c, all));
    };
    for (auto const& c : clients) all.spawn(wait(*c));
    all.io.run();
}

task<void> subscribe(session& s, stage& all, std::size_t n) {
    auto const ignore = [](mqtt::publish const&) {};
    auto const count = [&](mqtt::publish const&) { all.count(); };
    for (std::size_t i = 1; i < n; ++i) {
        auto const filter = "rooms/" + std::to_string(i) + "/+/temperature";
        co_await s.subscribe(filter, ignore);
    }
    co_await s.subscribe(bench::filter, count);
}

// Messages for one of many subscriptions of one session.
void subscriptions(std::uint16_t port, std::size_t n) {
    stage all("subscriptions", n, 2'000'000);
    auto const s = all.connect(port, 0);
    all.spawn(subscribe(*s, all, n));
    all.io.run();
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s PORT\n", argv[0]);
        return 2;
    }
    auto const port = static_cast<std::uint16_t>(std::atoi(argv[1]));
    for (std::size_t const n : {1, 100, 10'000}) subscriptions(port, n);
    for (std::size_t const n : {1, 20, 100, 1'000, 10'000}) in_flight(port, n);
    for (std::size_t const n : {1, 100, 10'000}) sessions(port, n);
    std::fflush(stdout);
    std::_Exit(0);
}
