#include <runnel/mqtt/protocol/session_state.hpp>

#include <doctest/doctest.h>

#include "support/sample.hpp"
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <support/allocation_count.hpp>
#include <support/random_source.hpp>
#include <vector>

// A client and a server that publish to each other over a connection that is cut at any byte, again and again. All that
// happens is drawn from a random source whose seed is printed where a check fails. In MQTT 5 topics have aliases, and
// messages expire.

using namespace runnel::mqtt;
using runnel::send_buffer;

namespace {

constexpr std::size_t queue_limit = 600;

// One message published: what its owner has been told.
struct sent_message {
    unsigned number;
    int published = 0;
    int lost = 0;
    int expired = 0;              // before it was sent
    bool may_be_missing = false;  // its session was dropped by the server
};

// Topics that are long enough for aliases.
std::string topic_of(std::size_t number) { return "topic/" + std::to_string(number % 5); }

struct endpoint : session_handler {
    endpoint(role own, protocol_version version, std::uint16_t in_flight)
        : state(own, version, {.queued_bytes = queue_limit, .in_flight = in_flight}) {}

    void on_connack(connack const&) { connected_through = true; }
    void on_message(publish const& p, delivery d) {
        unsigned number = 0;
        for (char const digit : p.payload) number = number * 10 + static_cast<unsigned>(digit - '0');
        failures += p.topic == topic_of(number) ? 0 : 1;
        received[static_cast<std::size_t>(p.qos)].push_back(number);
        if (d.quality != qos::at_most_once) to_take.push_back(d);
        if (answer_at_once && d.quality != qos::at_most_once) {
            to_take.pop_back();
            state.acknowledge(out, d);
        }
    }
    void on_published(void* owner, acknowledgement const& a) {
        ++static_cast<sent_message*>(owner)->published;
        failures += is_error(a.reason) ? 1 : 0;
    }
    void on_lost(void* owner) { ++static_cast<sent_message*>(owner)->lost; }
    void on_refused(void* owner, errc why) {
        failures += why == errc::message_expired ? 0 : 1;
        if (owner != nullptr) ++static_cast<sent_message*>(owner)->expired;
    }

    session_state state;
    send_buffer out;
    std::string wire;   // on its way from here
    std::string input;  // arrived here, not yet handled
    bool connected_through = false;
    bool answer_at_once = false;
    int failures = 0;
    std::array<std::vector<unsigned>, 3> received;            // by QoS
    std::array<std::array<sent_message, 200>, 3> messages{};  // published here, by QoS
    std::array<std::size_t, 3> count{};
    std::vector<delivery> to_take;
};

class simulation {
  public:
    simulation(std::uint32_t seed, protocol_version v, bool server_forgets)
        : random_(seed),
          version_(v),
          server_forgets_(server_forgets),
          client_(role::client, v, random_.between<std::uint16_t>(1, 8)),
          server_(role::server, v, random_.between<std::uint16_t>(1, 8)) {}

    void run() {
        if (!server_forgets_) {
            reconnect();
            drain();
        }
        for (int steps = random_.between<int>(50, 150); steps > 0; --steps) step();
        drain();
        check_all();
    }

  private:
    void step() {
        auto& here = random_.one_in(2) ? client_ : server_;
        here.answer_at_once = random_.one_in(4);
        if (random_.one_in(4)) pass_time();
        switch (random_.between(0, 9)) {
            case 0:
            case 1:
            case 2: publish_from(here); break;
            case 3:
            case 4:
            case 5:
            case 6: move_bytes(random_.between(1, 40)); break;
            case 7: take_one(here); break;
            case 8:
                if (random_.one_in(3)) cut();
                break;
            default:
                if (!online_) reconnect();
        }
        for (auto* e : {&client_, &server_}) REQUIRE(e->state.queued_bytes() <= queue_limit);
    }

    void pass_time() {
        now_ += std::chrono::milliseconds(random_.between(0, 900));
        for (auto* e : {&client_, &server_}) {
            e->state.set_time(now_);
            if (random_.one_in(2)) e->state.expire(*e);
        }
    }

    void publish_from(endpoint& from) {
        auto const quality = random_.between(0, 2);
        auto& n = from.count[quality];
        if (n == from.messages[quality].size()) return;
        auto& message = from.messages[quality][n];
        message.number = static_cast<unsigned>(n);
        std::string const text = std::string(random_.between(0, 30), '0') + std::to_string(n);
        properties expiring;
        expiring.message_expiry_interval = random_.between<std::uint32_t>(0, 3);
        bool const expires = version_ == protocol_version::v5 && random_.one_in(3);
        auto const topic = topic_of(n);
        publish const packet{
            .topic = topic, .payload = text, .qos = static_cast<qos>(quality), .props = expires ? &expiring : nullptr};
        auto const begun = from.state.publish(from.out, packet, quality == 0 ? nullptr : &message);
        if (begun.error == errc::queue_full) return;
        REQUIRE(begun.error == errc::ok);
        ++n;
    }

    // Some bytes set out, some arrive, some are handled.
    void move_bytes(std::size_t most) {
        if (!online_) return;
        move_from(client_, server_, random_.between(0, most));
        move_from(server_, client_, random_.between(0, most));
    }

    void move_from(endpoint& from, endpoint& to, std::size_t n) {
        from.wire.append(from.out.view());
        from.out.clear();
        n = std::min(n, from.wire.size());
        to.input.append(from.wire, 0, n);
        from.wire.erase(0, n);
        std::string_view rest = to.input;
        errc const error = to.state.receive(rest, to.out, to);
        REQUIRE(describe(error) == describe(errc::ok));
        to.input.erase(0, to.input.size() - rest.size());
        if (client_.connected_through) server_has_session_ = true;
    }

    void take_one(endpoint& at) {
        if (at.to_take.empty()) return;
        auto const i = random_.between(0, at.to_take.size() - 1);
        at.state.acknowledge(at.out, at.to_take[i]);
        if (random_.one_in(5)) return;  // and once more later on
        at.to_take[i] = at.to_take.back();
        at.to_take.pop_back();
    }

    void cut() {
        if (!online_) return;
        online_ = false;
        answer_missed_ = answer_missed_ || !client_.connected_through;
        for (auto* e : {&client_, &server_}) {
            e->state.connection_lost();
            e->out.clear();
            e->wire.clear();
            e->input.clear();
        }
        if (!server_forgets_ || !random_.one_in(3)) return;
        server_has_session_ = false;
    }

    void reconnect() {
        online_ = true;
        connect packet;
        packet.client_id = "c";
        packet.clean_start = false;
        capabilities of_client, of_server;
        properties announced;
        if (version_ == protocol_version::v5) {
            of_client.receive_maximum = random_.between<std::uint16_t>(1, 10);
            of_server.receive_maximum = random_.between<std::uint16_t>(1, 10);
            announced.receive_maximum = of_server.receive_maximum;
            of_client.topic_alias_maximum = random_.between<std::uint16_t>(0, 4);
            of_server.topic_alias_maximum = random_.between<std::uint16_t>(0, 4);
            announced.topic_alias_maximum = of_server.topic_alias_maximum;
        }
        client_.connected_through = false;
        REQUIRE(client_.state.connect(client_.out, packet, of_client) == errc::ok);
        client_.out.clear();
        if (!server_has_session_)
            for (auto& of_qos : server_.messages)
                for (auto& m : of_qos) m.may_be_missing = true;  // also those to come: numbers only tell them apart
        connack const answer{server_has_session_, reason_code::success,
                             version_ == protocol_version::v5 ? &announced : nullptr};
        server_.state.accept(server_.out, answer, version_, of_server, of_client, server_);
    }

    // At last all is delivered and taken.
    void drain() {
        if (!online_) reconnect();
        for (int quiet = 0; quiet < 2; ++quiet) {
            move_from(client_, server_, std::string::npos);
            move_from(server_, client_, std::string::npos);
            for (auto* e : {&client_, &server_})
                while (!e->to_take.empty()) {
                    take_one(*e);
                    quiet = -1;
                }
            if (!client_.out.empty() || !server_.out.empty()) quiet = -1;
        }
    }

    void check_all() {
        check_direction(client_, server_);
        check_direction(server_, client_);
        for (auto* e : {&client_, &server_}) {
            CHECK(e->state.queued_bytes() == 0);
            CHECK(e->state.unacknowledged() == 0);
            CHECK(e->failures == 0);
        }
    }

    void check_direction(endpoint& from, endpoint& to) {
        check_qos0(from, to);
        check_kept(from, to, 1);
        check_kept(from, to, 2);
    }

    // QoS 0: at most once, in order.
    void check_qos0(endpoint& from, endpoint& to) {
        auto const& got = to.received[0];
        for (std::size_t i = 0; i < got.size(); ++i) {
            REQUIRE(got[i] < from.count[0]);
            if (i > 0) REQUIRE(got[i - 1] < got[i]);
        }
    }

    // QoS 1 and 2: each at least once, for the first time in order; QoS 2 once, as long as the session is kept.
    void check_kept(endpoint& from, endpoint& to, std::size_t quality) {
        std::vector<int> times(from.count[quality]);
        unsigned next = 0;
        for (unsigned const number : to.received[quality]) {
            REQUIRE(number < times.size());
            if (times[number]++ > 0) continue;
            REQUIRE(number >= next);
            next = number + 1;
        }
        for (std::size_t i = 0; i < times.size(); ++i) {
            auto const& m = from.messages[quality][i];
            CAPTURE(quality);
            CAPTURE(i);
            REQUIRE(m.published + m.lost + m.expired == 1);
            if (m.expired > 0) {
                REQUIRE(times[i] == 0);
                continue;
            }
            if (!m.may_be_missing) REQUIRE(times[i] >= 1);
            if (quality == 2 && !server_forgets_) REQUIRE(times[i] == 1);
            // A client that has missed an answer cannot know of PUBCOMP 0x92 whether the session was lost meanwhile.
            bool const in_doubt = answer_missed_ && quality == 2 && &from == &client_;
            if (!server_forgets_ && !in_doubt) REQUIRE(m.lost == 0);
        }
    }

    test::random_source random_;
    protocol_version version_;
    bool server_forgets_;
    endpoint client_;
    endpoint server_;
    std::chrono::milliseconds now_{0};
    bool online_ = false;
    bool server_has_session_ = false;
    bool answer_missed_ = false;  // a CONNACK was lost with its connection
};

void run_schedules(protocol_version version, bool server_forgets, std::uint32_t schedules) {
    for (std::uint32_t seed = 0; seed < schedules / test::every(4); ++seed) {
        CAPTURE(seed);
        simulation(seed, version, server_forgets).run();
    }
}

constexpr std::uint32_t schedules = 2500;

}  // namespace

TEST_CASE("over cut connections QoS 1 comes at least once, QoS 2 exactly once, all in order (MQTT 3.1.1)") {
    run_schedules(protocol_version::v3_1_1, false, schedules);
}

TEST_CASE("over cut connections QoS 1 comes at least once, QoS 2 exactly once, all in order (MQTT 5)") {
    run_schedules(protocol_version::v5, false, schedules);
}

TEST_CASE("where the server forgets the session every message still comes to an end (MQTT 3.1.1)") {
    run_schedules(protocol_version::v3_1_1, true, schedules);
}

TEST_CASE("where the server forgets the session every message still comes to an end (MQTT 5)") {
    run_schedules(protocol_version::v5, true, schedules);
}

TEST_CASE("in steady state a session allocates nothing") {
    struct taker : session_handler {
        session_state* state;
        send_buffer* out;
        std::array<delivery, 8> held{};
        std::size_t count = 0;
        void on_message(publish const&, delivery d) {
            held[count++] = d;
            if (count < held.size()) return;
            while (count > 0) state->acknowledge(*out, held[--count]);  // the last first
        }
    };
    for (auto version : {protocol_version::v3_1_1, protocol_version::v5}) {
        session_state client(role::client, version), server(role::server, version);
        send_buffer from_client, from_server;
        taker at_client, at_server;
        at_client.state = &client;
        at_client.out = &from_client;
        at_server.state = &server;
        at_server.out = &from_server;
        auto const exchange = [&] {
            while (!from_client.empty() || !from_server.empty()) {
                auto input = from_client.view();
                REQUIRE(server.receive(input, from_server, at_server) == errc::ok);
                from_client.clear();
                input = from_server.view();
                REQUIRE(client.receive(input, from_client, at_client) == errc::ok);
                from_server.clear();
            }
        };
        connect packet;
        packet.client_id = "c";
        REQUIRE(client.connect(from_client, packet, {}) == errc::ok);
        from_client.clear();
        server.accept(from_server, {}, version, {}, {});
        exchange();

        int owner = 0;
        std::size_t before = 0;
        for (int round = 0; round < 3000; ++round) {
            if (round == 1000) before = runnel::testing::allocation_count();
            auto const quality = static_cast<qos>(round % 3);
            publish const message{.topic = "some/topic", .payload = "a payload of some length", .qos = quality};
            for (int i = 0; i < 10; ++i) {
                REQUIRE(client.publish(from_client, message, &owner).error == errc::ok);
                REQUIRE(server.publish(from_server, message, &owner).error == errc::ok);
            }
            exchange();
        }
        CHECK(runnel::testing::allocation_count() == before);
        CHECK(client.queued_bytes() <= 10 * 50);
    }
}
