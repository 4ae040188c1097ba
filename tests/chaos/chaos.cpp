// Sends numbered messages from one session to another through a real broker while everything between them fails at
// random, and checks that none is lost, none of QoS 2 comes twice, and each QoS keeps its order.
//
//     chaos [--messages 20000] [--faults 40] [--seed 1] [--version 5] [--size 60]
//
// Mosquitto itself sends some messages of QoS 2 twice: Debian's 2.0.11 forgets that it has sent PUBREL when it is
// started again, or when two connections fail in a row, and then sends PUBLISH again [MQTT-4.3.3-6]. Nothing tells the
// receiver that this is not a new message. So both connections are watched, such messages are counted apart, and the
// sender is held to the same rule.
//
// The faults: mosquitto is ended and started again, and a proxy before each session resets, truncates, stalls and
// throttles the connections. Mosquitto is ended by SIGTERM, upon which it saves its sessions; it acknowledges messages
// before it saves them, so that after SIGKILL some are gone, whatever a client does.

#include <runnel/coro/race.hpp>
#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/tcp.hpp>

#include "chaos/fault_proxy.hpp"
#include "interop/mosquitto.hpp"
#include "support/arrivals.hpp"
#include "support/number_options.hpp"
#include <algorithm>
#include <array>
#include <chrono>
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>

namespace {

namespace mqtt = runnel::mqtt;
using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;
using session = mqtt::session<runnel::tcp>;

struct settings {
    std::uint64_t messages = 20'000;
    std::uint64_t faults = 40;
    std::uint64_t seed = 1;
    std::uint64_t version = 5;  // 5, or 3 for 3.1.1
    std::uint64_t size = 60;    // bytes of a payload, at least
};

/// Watches one direction of a session's connections for messages of QoS 2 that are sent again when PUBREL has released
/// them, or under another packet identifier: what a sender must not do, and what makes a message arrive twice.
class witness {
  public:
    explicit witness(mqtt::protocol_version version) : version_(version) {}

    void watch(std::uint64_t connection, std::string_view bytes) {
        if (connection != connection_) {
            pending_.clear();
            latest_ = {};
        }
        connection_ = connection;
        pending_ += bytes;
        std::string_view rest = pending_;
        for (auto f = mqtt::next_frame(rest); f.status == mqtt::parse_status::complete; f = mqtt::next_frame(rest)) {
            if (f.header.type == mqtt::packet_type::publish) published(f);
            if (f.header.type == mqtt::packet_type::pubrel) released(f);
            rest.remove_prefix(f.total_size);
        }
        pending_.erase(0, pending_.size() - rest.size());
    }

    bool sent_again(std::uint64_t number) const { return again_.contains(number); }
    std::size_t sent_again() const { return again_.size(); }
    /// Messages sent behind a later one of the same QoS on one connection.
    bool sent_late(std::uint64_t number, bool exactly_once) const { return late_[exactly_once].contains(number); }
    std::size_t sent_late() const { return late_[0].size() + late_[1].size(); }

  private:
    struct sending {
        std::uint16_t identifier = 0;
        bool released = false;
    };

    void published(mqtt::frame const& f) {
        mqtt::publish p;
        if (mqtt::decode(f.header, f.body, version_, p) != mqtt::errc::ok) return;
        std::uint64_t const number = std::strtoull(std::string(p.payload).c_str(), nullptr, 10);
        bool const exactly_once = p.qos == mqtt::qos::exactly_once;
        if (number < latest_[exactly_once]) late_[exactly_once].insert(number);
        latest_[exactly_once] = std::max(latest_[exactly_once], number);
        if (!exactly_once) return;
        auto const [at, first] = sent_.try_emplace(number, sending{p.packet_id, false});
        if (!first && (at->second.released || at->second.identifier != p.packet_id)) again_.insert(number);
        number_of_[p.packet_id] = number;
    }

    void released(mqtt::frame const& f) {
        mqtt::acknowledgement ack;
        if (mqtt::decode(f.header, f.body, version_, ack) != mqtt::errc::ok) return;
        if (auto const at = number_of_.find(ack.packet_id); at != number_of_.end()) sent_[at->second].released = true;
    }

    mqtt::protocol_version version_;
    std::uint64_t connection_ = 0;
    std::string pending_;
    std::unordered_map<std::uint64_t, sending> sent_;
    std::unordered_map<std::uint16_t, std::uint64_t> number_of_;
    std::set<std::uint64_t> again_;
    std::array<std::uint64_t, 2> latest_{};
    std::array<std::set<std::uint64_t>, 2> late_{};
};

class chaos {
  public:
    chaos(asio::io_context& io, settings const& s)
        : settings_(s),
          io_(io),
          random_(static_cast<std::mt19937::result_type>(s.seed)),
          broker_(broker_options()),
          proxies_{test::fault_proxy(io, broker_.port_tcp()), test::fault_proxy(io, broker_.port_tcp())},
          sender_(io.get_executor(), {.host = "127.0.0.1", .port = proxies_[0].port()}, options("chaos-sender")),
          receiver_(io.get_executor(), {.host = "127.0.0.1", .port = proxies_[1].port()}, options("chaos-receiver")),
          by_sender_(options("").version),
          by_broker_(options("").version) {
        proxies_[0].on_bytes = [this](std::uint64_t connection, std::size_t direction, std::string_view bytes) {
            if (direction == 0) by_sender_.watch(connection, bytes);
        };
        proxies_[1].on_bytes = [this](std::uint64_t connection, std::size_t direction, std::string_view bytes) {
            if (direction == 1) by_broker_.watch(connection, bytes);
        };
    }

    asio::awaitable<void> run() {
        auto receiving = receiver_.subscribe("chaos/#", [this](mqtt::publish const& p) { receive(p); },
                                             {.maximum_qos = mqtt::qos::exactly_once});
        auto const subscription = co_await std::move(receiving);
        asio::co_spawn(io_, harm(), rethrow);
        co_await send();
        while (received() < settings_.messages && !stuck()) co_await sleep(5ms);
        co_await sleep(200ms);  // for what may come twice
        stopping_ = true;
        co_await sender_.disconnect();
        co_await receiver_.disconnect();
    }

    static void rethrow(std::exception_ptr e) {
        if (e) std::rethrow_exception(e);
    }

    session& sender() { return sender_; }
    session& receiver() { return receiver_; }

    bool report(double seconds) const {
        auto const& [once, exactly] = streams_;
        std::uint64_t faults = 0;
        std::printf("faults:");
        for (std::size_t i = 0; i < names.size(); ++i) {
            std::printf(" %" PRIu64 " %s%s", done_[i], names[i], i + 1 == names.size() ? "" : ",");
            faults += done_[i];
        }
        auto const sent = sender_.counters();
        std::printf("\nconnections: %" PRIu64 " of the sender, %" PRIu64 " of the receiver; sent again: %" PRIu64 "\n",
                    sent.connections, receiver_.counters().connections, sent.messages_resent);
        std::uint64_t const half = settings_.messages / 2;
        std::uint64_t const lost = once.lost(settings_.messages - half) + exactly.lost(half);
        bool const good = lost == 0 && late_ == 0 && twice_ == 0 && by_sender_.sent_again() == 0 &&
                          by_sender_.sent_late() == 0 && faults >= settings_.faults;
        std::printf("QoS 2 sent again after PUBREL: %zu by the sender, %zu by mosquitto, which is why %" PRIu64
                    " came twice\n",
                    by_sender_.sent_again(), by_broker_.sent_again(), exactly.repeated - twice_);
        std::printf("sent behind a later one: %zu by the sender, %zu by mosquitto, which is why %" PRIu64
                    " came late\n",
                    by_sender_.sent_late(), by_broker_.sent_late(), once.overtaken + exactly.overtaken - late_);
        std::printf("%" PRIu64 " messages, %" PRIu64 " faults, seed %" PRIu64 ", MQTT %s, %.1f s: %" PRIu64
                    " lost, %" PRIu64 " late, %" PRIu64 " of QoS 2 twice, %" PRIu64 " of QoS 1 again: %s\n",
                    settings_.messages, faults, settings_.seed, settings_.version == 5 ? "5" : "3.1.1", seconds, lost,
                    late_, twice_, once.repeated, good ? "good" : "BAD");
        return good;
    }

  private:
    static constexpr std::array names{"restarts of the broker", "resets", "truncations", "stalls", "throttlings"};

    static test::mosquitto_options broker_options() {
        test::mosquitto_options o;
        o.persistence = true;
        o.log_packets = false;
        return o;
    }

    mqtt::session_options options(char const* client_id) const {
        mqtt::session_options o;
        o.credentials.client_id = client_id;
        o.version = settings_.version == 5 ? mqtt::protocol_version::v5 : mqtt::protocol_version::v3_1_1;
        o.connect_timeout = 3s;
        o.response_timeout = 1s;
        o.keep_alive = 5s;
        // Mosquitto forgets the client's maximum when it is started again (2.0.11 with max_inflight_messages 0).
        o.receive_maximum = 65'535;
        o.maximum_in_flight = 500;
        o.reconnect.initial = 1ms;
        o.reconnect.maximum = 100ms;
        return o;
    }

    std::uint64_t received() const { return streams_[0].next + streams_[1].next; }

    void receive(mqtt::publish const& p) {
        last_progress_ = clock_type::now();
        std::uint64_t const number = std::strtoull(std::string(p.payload).c_str(), nullptr, 10);
        bool const exactly = p.qos == mqtt::qos::exactly_once;
        auto& stream = streams_[exactly ? 1 : 0];
        if (stream.missing.contains(number)) {
            late_ += by_broker_.sent_late(number, exactly) ? 0 : 1;
        } else if (exactly && number < stream.next) {
            twice_ += by_broker_.sent_again(number) ? 0 : 1;
        }
        stream.add(number);
    }

    // Even messages of QoS 1, odd ones of QoS 2, in this order; not so far ahead of the receiver that only the broker's
    // queue is tried.
    asio::awaitable<void> send() {
        std::string const rest(settings_.size, '.');
        for (std::uint64_t i = 0; i < settings_.messages; ++i) {
            auto const payload = std::to_string(i / 2) + rest;
            bool const odd = i % 2 != 0;
            mqtt::publish_options const o{.qos = odd ? mqtt::qos::exactly_once : mqtt::qos::at_least_once};
            while (i > received() + 3000 || !sender_.try_publish(odd ? "chaos/2" : "chaos/1", payload, o)) {
                if (stuck()) co_return;
                co_await sleep(1ms);
            }
            sent_ = i + 1;
            if (i % 64 == 63) co_await sleep(0ms);
        }
    }

    bool stuck() const { return clock_type::now() - last_progress_ > 60s; }

    // The faults, spread over the messages.
    asio::awaitable<void> harm() {
        for (std::uint64_t i = 0; i < settings_.faults && !stopping_; ++i) {
            std::uint64_t const share = settings_.messages / (settings_.faults + 1);
            std::uint64_t const when = share * i + between(0, share);
            while (sent_ < when && !stopping_) co_await sleep(1ms);
            co_await sleep(std::chrono::milliseconds(between(0, 20)));
            auto const what = between(0, 99);
            std::size_t const kind = what < 15 ? 0 : what < 45 ? 1 : what < 75 ? 2 : what < 90 ? 3 : 4;
            auto& proxy = proxies_[between(0, 1)];
            if (kind == 0) co_await restart();
            if (kind == 1) proxy.reset();
            if (kind == 2) proxy.truncate(between(0, 1), between(0, 300));
            if (kind == 3) proxy.stall(std::chrono::milliseconds(between(10, between(0, 9) == 0 ? 8000 : 300)));
            if (kind == 4) proxy.throttle(std::chrono::milliseconds(between(50, 500)), between(1, 2000));
            ++done_[kind];
        }
    }

    asio::awaitable<void> restart() {
        ::kill(broker_.pid(), SIGTERM);
        while (broker_.running()) co_await sleep(1ms);
        co_await sleep(std::chrono::milliseconds(between(0, 200)));
        broker_.start();
    }

    std::size_t between(std::size_t low, std::size_t high) { return low + random_() % (high - low + 1); }

    asio::awaitable<void> sleep(std::chrono::milliseconds duration) {
        asio::steady_timer timer(io_, duration);
        co_await timer.async_wait(asio::use_awaitable);
    }

    settings settings_;
    asio::io_context& io_;
    std::mt19937 random_;
    test::mosquitto broker_;
    std::array<test::fault_proxy, 2> proxies_;
    session sender_, receiver_;
    witness by_sender_, by_broker_;
    std::array<test::arrivals, 2> streams_{};
    std::uint64_t twice_ = 0;  // of QoS 2, and not because the broker has sent them again
    std::uint64_t late_ = 0;   // behind a later one, and not because the broker has sent them so
    std::array<std::uint64_t, names.size()> done_{};
    std::uint64_t sent_ = 0;
    clock_type::time_point last_progress_ = clock_type::now();
    bool stopping_ = false;
};

settings read(int argc, char** argv) {
    settings s;
    test::read_options(argc, argv,
                       {
                           {"--messages", &s.messages},
                           {"--faults", &s.faults},
                           {"--seed", &s.seed},
                           {"--version", &s.version},
                           {"--size", &s.size},
                       });
    return s;
}

}  // namespace

int main(int argc, char** argv) {
    auto const chosen = read(argc, argv);
    if (!test::mosquitto::available()) {
        std::puts("skipped: mosquitto is not installed");
        return 77;
    }
    asio::io_context io;
    chaos all(io, chosen);
    auto const begin = clock_type::now();
    asio::co_spawn(io, all.sender().run(), chaos::rethrow);
    asio::co_spawn(io, all.receiver().run(), chaos::rethrow);
    asio::co_spawn(io, all.run(), [&](std::exception_ptr e) {
        io.stop();
        chaos::rethrow(e);
    });
    try {
        io.run();
    } catch (std::exception const& e) {
        std::printf("a session has ended: %s\n", e.what());
        all.report(std::chrono::duration<double>(clock_type::now() - begin).count());
        return 1;
    }
    return all.report(std::chrono::duration<double>(clock_type::now() - begin).count()) ? 0 : 1;
}
