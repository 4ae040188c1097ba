// A crowd of sessions, over TCP, TLS, WebSocket and WebSocket Secure and in both versions, that send numbered messages
// to one another through the embedded broker for a long time, while the network and the broker fail at random.
//
//     soak [--sessions 1000] [--seconds 3600] [--interval 1000] [--faults 10] [--round 30] [--seed 1]
//
// --interval is the mean time between two messages of one session in ms; --faults is their number a second; after each
// round (s) comes a quiet point: nothing is published, no fault happens, and when all that was sent has arrived, memory
// and descriptors are counted. At the end no message may be lost, none of QoS 2 may have come twice, each QoS must have
// kept its order, no `run` may have given up, and neither memory nor descriptors may have grown.
#include <runnel/testing/broker/broker.hpp>
#include <runnel/testing/certificate.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/testing/over_websocket.hpp>
#include <runnel/transport/tcp.hpp>

#include "chaos/fault_proxy.hpp"
#include "client.hpp"
#include "interop/transports.hpp"
#include "resources.hpp"
#include "support/number_options.hpp"
#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <deque>
#include <memory>
#include <vector>

namespace soak {

using clock_type = std::chrono::steady_clock;

struct settings {
    std::uint64_t sessions = 1000;
    std::uint64_t seconds = 3600;
    std::uint64_t interval = 1000;
    std::uint64_t faults = 10;
    std::uint64_t round = 30;
    std::uint64_t seed = 1;
};

class crowd {
  public:
    crowd(asio::io_context& io, settings const& s)
        : settings_(s),
          fixture_{io, std::mt19937(static_cast<std::mt19937::result_type>(s.seed)),
                   std::chrono::milliseconds(s.interval)},
          broker_(io.get_executor()),
          context_(test::trusting(authority_)) {
        listen();
        for (std::size_t i = 0; i < s.sessions; ++i) add(i);
    }
    ~crowd() { broker_.close(); }

    asio::awaitable<void> run() {
        auto const begin = clock_type::now();
        auto const seconds = [&] { return std::chrono::duration<double>(clock_type::now() - begin).count(); };
        while (!all_connected()) co_await fixture_.sleep(20ms);
        std::printf("%zu sessions are connected: %.1f s\n", clients_.size(), seconds());
        do {
            co_await disturb();
            if (!co_await settle()) co_return;
            points_.push_back({resources::heap_bytes(), resources::descriptors()});
            tell(seconds());
        } while (seconds() < static_cast<double>(settings_.seconds));
        fixture_.stopping = true;
        for (auto const& c : clients_) co_await c->disconnect();
        completed_ = true;
    }

    bool report() const {
        std::uint64_t sent = 0, lost = 0, twice = 0, late = 0, again = 0, resent = 0, connections = 0;
        for (std::size_t i = 0; i < clients_.size(); ++i) {
            auto const& from = *clients_[i];
            auto const& to = *clients_[(i + 1) % clients_.size()];
            for (std::size_t q = 0; q < 2; ++q) {
                sent += from.sent[q];
                lost += to.received[q].lost(from.sent[q]);
                late += to.received[q].overtaken;
            }
            again += to.received[0].repeated;
            twice += to.received[1].repeated;
            resent += from.counters().messages_resent;
            connections += from.counters().connections;
        }
        std::printf("faults:");
        for (std::size_t i = 0; i < names.size(); ++i) std::printf(" %" PRIu64 " %s;", done_[i], names[i]);
        std::printf("\n%" PRIu64 " connections, %" PRIu64 " messages, %" PRIu64 " sent again: %" PRIu64
                    " lost, %" PRIu64 " late, %" PRIu64 " of QoS 2 twice, %" PRIu64 " of QoS 1 again; %" PRIu64
                    " runs given up\n",
                    connections, sent, resent, lost, late, twice, again, fixture_.unexpected);
        bool const good = completed_ && lost == 0 && late == 0 && twice == 0 && fixture_.unexpected == 0;
        return resources::is_steady(points_) && good;
    }

  private:
    static constexpr std::array names{
        "resets",        "truncations",           "stalls",      "throttlings",           "clients dropped",
        "clients ended", "acknowledgements held", "disconnects", "restarts of the broker"};
    static constexpr std::size_t behind_one_proxy = 20;

    void listen() {
        namespace testing = runnel::testing;
        ports_[0] = broker_.listen_tcp(ports_[0]);
        ports_[1] = broker_.listen(testing::over_tls(authority_), ports_[1]);
        ports_[2] = broker_.listen(testing::over_websocket(), ports_[2]);
        ports_[3] = broker_.listen(testing::over_websocket(testing::over_tls(authority_)), ports_[3]);
    }

    void add(std::size_t i) {
        std::size_t const kind = i % 4;
        if (i / 4 % behind_one_proxy == 0) proxies_.emplace_back(fixture_.io, ports_[kind]);
        auto const port = proxies_[i / 4 / behind_one_proxy * 4 + kind].port();
        test::with_transport(kind, port, context_, [&]<class Transport>(Transport to) {
            auto const next = (i + 1) % settings_.sessions;
            clients_.push_back(std::make_unique<client_over<Transport>>(fixture_, i, next, std::move(to)));
        });
    }

    bool all_connected() const {
        return std::all_of(clients_.begin(), clients_.end(), [](auto const& c) { return c->is_connected(); });
    }
    bool all_arrived() const {
        for (std::size_t i = 0; i < clients_.size(); ++i)
            for (std::size_t q = 0; q < 2; ++q)
                if (clients_[(i + 1) % clients_.size()]->received[q].lost(clients_[i]->sent[q]) != 0) return false;
        return true;
    }

    /// A round of messages and faults.
    asio::awaitable<void> disturb() {
        fixture_.on = true;
        auto const end = clock_type::now() + std::chrono::seconds(settings_.round);
        while (clock_type::now() < end) {
            if (settings_.faults == 0) {
                co_await fixture_.sleep(100ms);
                continue;
            }
            auto const longest = 2000 / static_cast<std::size_t>(settings_.faults);
            co_await fixture_.sleep(std::chrono::milliseconds(fixture_.between(0, longest)));
            co_await fault();
        }
        fixture_.on = false;
    }

    asio::awaitable<void> fault() {
        auto const drawn = fixture_.between(0, 999);
        auto& proxy = proxies_[fixture_.between(0, proxies_.size() - 1)];
        auto& whom = *clients_[fixture_.between(0, clients_.size() - 1)];
        auto const name = "soak-" + std::to_string(fixture_.between(0, clients_.size() - 1));
        std::size_t const kind = drawn == 0 ? 8 : drawn % 8;
        if (kind == 0) proxy.reset();
        if (kind == 1) proxy.truncate(fixture_.between(0, 1), fixture_.between(0, 300));
        if (kind == 2)
            proxy.stall(std::chrono::milliseconds(fixture_.between(10, fixture_.between(0, 19) == 0 ? 8000 : 500)));
        if (kind == 3) proxy.throttle(std::chrono::milliseconds(fixture_.between(50, 500)), fixture_.between(1, 2000));
        if (kind == 4) broker_.drop_client(name);
        if (kind == 5) broker_.disconnect_client(name, runnel::mqtt::reason_code::server_shutting_down);
        if (kind == 6) {
            broker_.hold_acknowledgements(true);
            co_await fixture_.sleep(std::chrono::milliseconds(fixture_.between(1, 300)));
            broker_.hold_acknowledgements(false);
        }
        if (kind == 7) co_await whom.disconnect();
        if (kind == 8) {
            broker_.close();
            co_await fixture_.sleep(std::chrono::milliseconds(fixture_.between(0, 2000)));
            listen();
        }
        ++done_[kind];
    }

    /// Until all that was sent has arrived, all are connected, and what ended connections have left is gone.
    asio::awaitable<bool> settle() {
        auto const patience = clock_type::now() + 300s;
        while (!all_arrived() || !all_connected() ||
               (!points_.empty() && resources::descriptors() > points_.front().descriptors)) {
            if (clock_type::now() > patience) {
                std::printf("STUCK: %zu descriptors\n", resources::descriptors());
                co_return false;
            }
            co_await fixture_.sleep(100ms);
        }
        co_await fixture_.sleep(3s);
        co_return true;
    }

    void tell(double seconds) const {
        std::uint64_t sent = 0;
        for (auto const& c : clients_) sent += c->sent[0] + c->sent[1];
        std::printf("%6.0f s: %" PRIu64 " messages arrived, %.2f MiB on the heap, %.2f MiB resident, %zu descriptors\n",
                    seconds, sent, static_cast<double>(points_.back().heap) / 1048576,
                    static_cast<double>(resources::resident_bytes()) / 1048576, points_.back().descriptors);
        std::fflush(stdout);
    }

    settings settings_;
    fixture fixture_;
    runnel::testing::certificate_authority authority_;
    runnel::testing::broker broker_;
    runnel::tls_context context_;
    std::array<std::uint16_t, 4> ports_{};
    std::deque<test::fault_proxy> proxies_;
    std::vector<std::unique_ptr<client>> clients_;
    std::array<std::uint64_t, names.size()> done_{};
    std::vector<resources::point> points_;
    bool completed_ = false;
};

settings read(int argc, char** argv) {
    settings s;
    test::read_options(argc, argv,
                       {
                           {"--sessions", &s.sessions},
                           {"--seconds", &s.seconds},
                           {"--interval", &s.interval},
                           {"--faults", &s.faults},
                           {"--round", &s.round},
                           {"--seed", &s.seed},
                       });
    return s;
}

}  // namespace soak

int main(int argc, char** argv) {
    auto const chosen = soak::read(argc, argv);
    soak::resources::raise_descriptors(chosen.sessions * 4 + 1000);
    asio::io_context io(1);
    soak::crowd all(io, chosen);
    asio::co_spawn(io, all.run(), [&](std::exception_ptr e) {
        io.stop();
        if (e) std::rethrow_exception(e);
    });
    io.run();
    bool const good = all.report();
    std::puts(good ? "good" : "BAD");
    return good ? 0 : 1;
}
