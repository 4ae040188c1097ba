// One process of tests/cluster/cluster.py: a session that publishes, or receives, numbered messages of QoS 1 through a
// cluster, whose nodes come and go. Its connections pass through proxies in this process, which read along: so what the
// cluster has lost is told apart from what the session has.
//
//     worker publish|consume --name NAME --messages N --version 3|5 --nodes PORT,PORT,... [--patience S]
//
// publish ends when all messages are acknowledged; consume when all have arrived, or none has for the time of
// --patience. Both print one line of JSON. A line "ready" says that the consumer has subscribed.
#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/failover.hpp>
#include <runnel/transport/tcp.hpp>

#include "chaos/fault_proxy.hpp"
#include "support/arrivals.hpp"
#include <array>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace {

namespace mqtt = runnel::mqtt;
using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;
using transport = runnel::failover<runnel::tcp>;
using session = mqtt::session<transport>;

struct settings {
    bool publishes = false;
    std::string name;
    std::uint64_t messages = 1000;
    mqtt::protocol_version version = mqtt::protocol_version::v5;
    std::vector<std::uint16_t> nodes;
    std::chrono::seconds patience{60};
};

std::uint64_t number_of(std::string_view text) {
    std::uint64_t number = 0;
    std::from_chars(text.data(), text.data() + text.size(), number);
    return number;
}

/// What the connections have carried.
class witness {
  public:
    witness(mqtt::protocol_version version, std::uint64_t messages) : version_(version), marks_(messages) {}

    /// `direction`: 0 from the client.
    void watch(std::uint64_t connection, std::size_t direction, std::string_view bytes) {
        auto& link = links_[connection];
        auto& pending = link.pending[direction];
        pending += bytes;
        std::string_view rest = pending;
        for (auto f = mqtt::next_frame(rest); f.status == mqtt::parse_status::complete; f = mqtt::next_frame(rest)) {
            if (f.header.type == mqtt::packet_type::publish) published(link, f);
            if (f.header.type == mqtt::packet_type::puback && direction == 1) acknowledged(link, f);
            rest.remove_prefix(f.total_size);
        }
        pending.erase(0, pending.size() - rest.size());
    }

    std::uint64_t carried = 0;    ///< different messages
    std::uint64_t confirmed = 0;  ///< of these, those for which a PUBACK has come

  private:
    struct connection_state {
        std::array<std::string, 2> pending;
        std::unordered_map<std::uint16_t, std::uint64_t> numbers;
    };

    void published(connection_state& l, mqtt::frame const& f) {
        mqtt::publish p;
        if (mqtt::decode(f.header, f.body, version_, p) != mqtt::errc::ok) return;
        auto const number = number_of(p.payload);
        l.numbers[p.packet_id] = number;
        mark(number, 1, carried);
    }
    void acknowledged(connection_state& l, mqtt::frame const& f) {
        mqtt::acknowledgement a;
        if (mqtt::decode(f.header, f.body, version_, a) != mqtt::errc::ok) return;
        if (auto const at = l.numbers.find(a.packet_id); at != l.numbers.end()) mark(at->second, 2, confirmed);
    }
    void mark(std::uint64_t number, char bit, std::uint64_t& count) {
        if (number >= marks_.size() || (marks_[number] & bit) != 0) return;
        marks_[number] = static_cast<char>(marks_[number] | bit);
        ++count;
    }

    mqtt::protocol_version version_;
    std::vector<char> marks_;
    std::map<std::uint64_t, connection_state> links_;
};

class worker {
  public:
    worker(asio::io_context& io, settings s)
        : io_(io),
          settings_(std::move(s)),
          witness_(settings_.version, settings_.messages),
          session_(io.get_executor(), through_proxies(), options()) {}

    asio::awaitable<void> run() {
        asio::co_spawn(io_, session_.run(), [](std::exception_ptr e) {
            if (e) std::rethrow_exception(e);
        });
        if (settings_.publishes)
            co_await publish();
        else
            co_await consume();
        try {
            co_await session_.disconnect();
        } catch (std::system_error const&) {
            // The node has gone first.
        }
    }

    void report() const {
        auto const c = session_.counters();
        std::printf(
            "{\"name\": \"%s\", \"accepted\": %ju, \"acknowledged\": %ju, \"resent\": %ju, \"connections\": %ju, "
            "\"arrived\": %ju, \"repeated\": %ju, \"overtaken\": %ju, \"carried\": %ju, \"confirmed\": %ju}\n",
            settings_.name.c_str(), std::uintmax_t{c.messages_published}, std::uintmax_t{c.messages_acknowledged},
            std::uintmax_t{c.messages_resent}, std::uintmax_t{c.connections},
            std::uintmax_t{arrivals_.next - arrivals_.missing.size()}, std::uintmax_t{arrivals_.repeated},
            std::uintmax_t{arrivals_.overtaken}, std::uintmax_t{witness_.carried}, std::uintmax_t{witness_.confirmed});
    }

  private:
    transport through_proxies() {
        std::vector<runnel::tcp> nodes;
        for (auto const port : settings_.nodes) {
            auto const which = proxies_.size() << 32;
            proxies_.emplace_back(io_, port);
            proxies_.back().on_bytes = [this, which](std::uint64_t connection, std::size_t direction,
                                                     std::string_view bytes) {
                witness_.watch(which + connection, direction, bytes);
            };
            nodes.push_back({.host = "127.0.0.1", .port = proxies_.back().port()});
        }
        return transport(std::move(nodes));
    }

    mqtt::session_options options() const {
        mqtt::session_options o;
        o.credentials.client_id = "cluster-" + settings_.name + (settings_.publishes ? "-p" : "-c");
        o.credentials.user_name = "guest";
        o.credentials.password = "guest";
        o.version = settings_.version;
        o.keep_alive = 10s;
        o.response_timeout = 10s;
        o.maximum_in_flight = 200;
        o.reconnect.initial = 100ms;
        o.reconnect.maximum = 2s;
        return o;
    }
    std::string topic() const { return "cluster/" + settings_.name; }

    asio::awaitable<void> publish() {
        asio::steady_timer timer(io_);
        auto const where = topic();
        for (std::uint64_t i = 0; i < settings_.messages;) {
            auto const payload = std::to_string(i) + ' ' + std::string(60, '.');
            if (session_.counters().in_flight < 150 &&
                session_.try_publish(where, payload, {.qos = mqtt::qos::at_least_once})) {
                ++i;
                continue;
            }
            timer.expires_after(1ms);
            co_await timer.async_wait(asio::use_awaitable);
        }
        co_await session_.drained();
    }

    asio::awaitable<void> consume() {
        mqtt::subscribe_options const o{.maximum_qos = mqtt::qos::at_least_once};
        auto last = clock_type::now();
        auto const handler = [&](mqtt::publish const& p) {
            arrivals_.add(number_of(p.payload));
            last = clock_type::now();
        };
        auto subscribing = session_.subscribe(topic(), handler, o);
        auto const subscription = co_await std::move(subscribing);
        std::puts("ready");
        std::fflush(stdout);
        asio::steady_timer timer(io_);
        // A while longer than to the last one, for what may come twice.
        while (clock_type::now() - last < (arrivals_.lost(settings_.messages) == 0 ? 3s : settings_.patience)) {
            timer.expires_after(100ms);
            co_await timer.async_wait(asio::use_awaitable);
            if (arrivals_.next == 0) last = clock_type::now();
        }
    }

    asio::io_context& io_;
    settings settings_;
    witness witness_;
    std::deque<test::fault_proxy> proxies_;
    session session_;
    test::arrivals arrivals_;
};

settings read(int argc, char** argv) {
    settings s;
    auto const fail = [] {
        std::fputs(
            "usage: worker publish|consume --name NAME --messages N --version 3|5 --nodes PORT,... [--patience S]\n",
            stderr);
        std::exit(2);
    };
    if (argc < 2 || argc % 2 != 0) fail();
    s.publishes = argv[1] == std::string_view("publish");
    for (int i = 2; i < argc; i += 2) {
        std::string_view const name = argv[i];
        std::string_view value = argv[i + 1];
        if (name == "--name") s.name = value;
        if (name == "--messages") s.messages = number_of(value);
        if (name == "--version") s.version = value == "3" ? mqtt::protocol_version::v3_1_1 : mqtt::protocol_version::v5;
        if (name == "--patience") s.patience = std::chrono::seconds(number_of(value));
        while (name == "--nodes" && !value.empty()) {
            s.nodes.push_back(static_cast<std::uint16_t>(number_of(value)));
            auto const comma = value.find(',');
            value = comma == value.npos ? std::string_view() : value.substr(comma + 1);
        }
    }
    if (s.name.empty() || s.nodes.empty()) fail();
    return s;
}

}  // namespace

int main(int argc, char** argv) {
    asio::io_context io(1);
    worker all(io, read(argc, argv));
    asio::co_spawn(io, all.run(), [&](std::exception_ptr e) {
        io.stop();
        if (e) std::rethrow_exception(e);
    });
    io.run();
    all.report();
}
