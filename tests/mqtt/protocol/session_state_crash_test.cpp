#include <runnel/mqtt/store/session_journal.hpp>

#include <doctest/doctest.h>

#include "support/memory_store.hpp"
#include "support/random_source.hpp"
#include "support/sample.hpp"
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// A client and a server with durable sessions that publish to each other, while their processes end at any moment and
// begin anew with what their stores hold. All that happens is drawn from a random source whose seed is printed where a
// check fails.

using namespace runnel::mqtt;
using runnel::send_buffer;

namespace {

// Where a process ends: around the write of what has gathered.
enum class moment { before_commit, after_commit, after_write };
constexpr moment moments[] = {moment::before_commit, moment::after_commit, moment::after_write};

// The messages of one direction are numbered; the number decides about the QoS.
qos quality_of(std::uint64_t number) { return number * 7 % 5 < 2 ? qos::at_least_once : qos::exactly_once; }

// One process: a session, and an application that writes down what it takes, in the transaction of its session's store.
struct process : session_handler {
    process(role own, protocol_version version, std::uint16_t in_flight, std::shared_ptr<test::memory_store> store)
        : state(own, version, {.queued_bytes = 600, .in_flight = in_flight}),
          journal(std::move(store), std::chrono::milliseconds(1'700'000'000'000)) {
        auto const error = journal.load(state, "client");
        REQUIRE(error.message() == "Success");
    }

    void on_connack(connack const&) { connected_through = true; }
    void on_message(publish const& p, delivery d) { arrived.push_back({std::stoull(std::string(p.payload)), d}); }
    void on_refused(void*, errc) { FAIL("refused"); }

    struct message {
        std::uint64_t number;
        delivery token;
    };
    session_state state;
    session_journal journal;
    send_buffer out;
    std::string wire;   // on its way from here
    std::string input;  // arrived here, not yet handled
    bool connected_through = false;
    std::vector<message> arrived;      // not yet taken
    std::vector<std::uint64_t> taken;  // not yet committed
};

// One end: what survives its processes.
struct endpoint {
    endpoint(role own, protocol_version v, std::uint16_t in_flight) : as(own), version(v), window(in_flight) {
        start();
    }

    void start() {
        running.reset();
        store->failure = {};
        running.emplace(as, version, window, store);
    }
    process* operator->() { return &*running; }

    // False: the store has failed.
    bool commit() {
        if (running->journal.commit(running->state)) return false;
        for (auto const number : running->taken)
            taken[quality_of(number) == qos::at_least_once ? 0 : 1].push_back(number);
        running->taken.clear();
        return true;
    }

    role as;
    protocol_version version;
    std::uint16_t window;
    std::shared_ptr<test::memory_store> store = std::make_shared<test::memory_store>();
    std::optional<process> running;
    std::array<std::vector<std::uint64_t>, 2> taken;  // by the application, committed; QoS 1 and QoS 2
    std::array<std::vector<std::uint64_t>, 2> first;  // order of arrival
    std::size_t writes = 0;
};

constexpr std::uint64_t taken_key = std::uint64_t{1} << 62;  // of QoS 2 messages that have been taken, in a store

class simulation {
  public:
    // `unknown`: the server has the session of an older client, of which the client knows nothing.
    simulation(std::uint32_t seed, protocol_version v, bool unknown = false)
        : random_(seed),
          version_(v),
          unknown_(unknown),
          client_(role::client, v, random_.between<std::uint16_t>(1, 8)),
          server_(role::server, v, random_.between<std::uint16_t>(1, 8)) {
        if (unknown) begin_unknown();
        reconnect();
        if (!unknown) drain();
    }

    void run() {
        crash_at_.reset();
        for (int steps = random_.between<int>(50, 200); steps > 0; --steps) step();
        finish();
    }

    // A fixed exchange, in which the process of one end ends at a given write.
    void run_to(bool client, std::size_t write, moment when) {
        auto& at = client ? client_ : server_;
        crash_at_ = {&at, at.writes + write, when};
        for (int i = 0; i < 4; ++i)
            for (auto* e : {&client_, &server_}) publish_from(*e);
        drain();
        for (auto* e : {&client_, &server_}) publish_from(*e);
        finish();
    }

    std::size_t crashes() const noexcept { return crashes_; }
    std::size_t rounds() const noexcept { return rounds_; }

  private:
    // An older client has left all packet identifiers taken at the server. What this one has stored is unsent.
    void begin_unknown() {
        auto& records = server_.store->records;
        records[0] = std::string({1, version_ == protocol_version::v5 ? char(5) : char(4), 1}) + std::string(16, '\0');
        for (std::uint64_t id = 1; id <= 300; ++id) records[taken_key + id] = std::string(1, '\0');
        server_.start();
        has_session_ = true;
        for (int i = random_.between<int>(0, 5); i > 0; --i) publish_from(client_);
        client_.commit();
        if (random_.one_in(2)) client_.start();
    }

    void step() {
        auto& here = random_.one_in(2) ? client_ : server_;
        here.store->failure = {};
        switch (random_.between(0, 10)) {
            case 0:
            case 1:
            case 2: publish_from(here); break;
            case 3:
            case 4:
            case 5:
            case 6: move_bytes(random_.between(1, 60)); break;
            case 7: take_one(here); break;
            case 8:
                if (random_.one_in(3)) crash(here);
                break;
            case 9:
                if (random_.one_in(2)) here.store->failure = std::make_error_code(std::errc::no_space_on_device);
                if (random_.one_in(2)) here.commit();
                break;
            default:
                if (!online_)
                    reconnect();
                else if (unknown_)
                    go_around();
        }
    }

    // As after 65,535 exchanges: the client's next ones have identifiers that others have had.
    void go_around() {
        if (random_.one_in(4)) drain();
        if (client_->state.holds_messages() || !client_.commit()) return;
        auto const next = (client_->state.next_number() / 65535 + 1) * 65535 + random_.between(0, 5);
        client_->state.restore_counts(next, client_->state.accepted(), client_->state.has_session(), version_);
        ++rounds_;
    }

    void publish_from(endpoint& from) {
        auto const number = from->state.accepted();
        std::string const payload = std::string(random_.between(0, 20), '0') + std::to_string(number);
        properties lasting;
        lasting.message_expiry_interval = 1'000'000;
        publish message{.topic = "t", .payload = payload, .qos = quality_of(number)};
        if (version_ == protocol_version::v5 && number % 3 == 0) message.props = &lasting;
        auto const begun = from->state.publish(from->out, message);
        if (begun.error == errc::queue_full) return;
        REQUIRE(begun.error == errc::ok);
        REQUIRE(from->state.accepted() == number + 1);
    }

    void move_bytes(std::size_t most) {
        if (online_) move_from(client_, server_, random_.between(0, most));
        if (online_) move_from(server_, client_, random_.between(0, most));
    }

    void move_from(endpoint& from, endpoint& to, std::size_t n) {
        if (!write(from)) return;
        n = std::min(n, from->wire.size());
        to->input.append(from->wire, 0, n);
        from->wire.erase(0, n);
        std::string_view rest = to->input;
        std::size_t const before = to->arrived.size();
        errc const error = to->state.receive(rest, to->out, *to.running);
        REQUIRE(std::string(describe(error)) == "success");
        to->input.erase(0, to->input.size() - rest.size());
        for (std::size_t i = before; i < to->arrived.size(); ++i) note_arrival(to, to->arrived[i].number);
    }

    static void note_arrival(endpoint& at, std::uint64_t number) {
        auto& all = at.first[quality_of(number) == qos::at_least_once ? 0 : 1];
        if (all.empty() || number > all.back()) {
            all.push_back(number);
            return;
        }
        REQUIRE(std::binary_search(all.begin(), all.end(), number));  // it has come before
    }

    // What has gathered is written, behind a commit. False: the process has ended, or its store has failed.
    bool write(endpoint& from) {
        if (from->out.empty()) return true;
        auto const this_write = from.writes++;
        auto const ends = [&](moment m) {
            bool const now = crash_at_
                                 ? crash_at_->at == &from && crash_at_->write == this_write && crash_at_->when == m
                                 : random_.one_in(60);
            if (now) crash(from);
            return now;
        };
        if (ends(moment::before_commit)) return false;
        if (!from.commit()) return false;
        if (ends(moment::after_commit)) return false;
        from->wire.append(from->out.view());
        from->out.clear();
        return !ends(moment::after_write);
    }

    void take_one(endpoint& at) {
        if (at->arrived.empty()) return;
        auto const i = random_.between(0, at->arrived.size() - 1);
        at->taken.push_back(at->arrived[i].number);
        at->state.acknowledge(at->out, at->arrived[i].token);
        at->arrived.erase(at->arrived.begin() + static_cast<std::ptrdiff_t>(i));
    }

    // The process ends, and another one begins. What has been written may still arrive.
    void crash(endpoint& at) {
        ++crashes_;
        auto& other = &at == &client_ ? server_ : client_;
        if (online_ && random_.one_in(2)) deliver_rest(at, other);
        at.start();
        if (!online_) return;
        online_ = false;
        other->state.connection_lost();
        other->out.clear();
        other->wire.clear();
        other->input.clear();
    }

    void deliver_rest(endpoint& from, endpoint& to) {
        to->input += from->wire;
        std::string_view rest = to->input;
        std::size_t const before = to->arrived.size();
        REQUIRE(to->state.receive(rest, to->out, *to.running) == errc::ok);
        for (std::size_t i = before; i < to->arrived.size(); ++i) note_arrival(to, to->arrived[i].number);
        // Some of it is taken at once.
        while (!to->arrived.empty() && random_.one_in(2)) take_one(to);
    }

    void reconnect() {
        online_ = true;
        connect packet;
        packet.client_id = "client";
        packet.clean_start = false;
        capabilities of_client, of_server;
        properties announced, asked;
        if (version_ == protocol_version::v5) {
            of_client.receive_maximum = random_.between<std::uint16_t>(1, 10);
            of_server.receive_maximum = random_.between<std::uint16_t>(1, 10);
            announced.receive_maximum = of_server.receive_maximum;
            asked.session_expiry_interval = 3600;
            packet.props = &asked;
        }
        REQUIRE(client_->state.connect(client_->out, packet, of_client) == errc::ok);
        client_->out.clear();
        connack answer{has_session_, reason_code::success, {}};
        if (version_ == protocol_version::v5) answer.props = &announced;
        has_session_ = true;
        server_->state.accept(server_->out, answer, version_, of_server, of_client, *server_.running);
    }

    // At last all is delivered and taken.
    void drain() {
        for (int quiet = 0; quiet < 2; ++quiet) {
            client_.store->failure = server_.store->failure = {};
            if (!online_) reconnect();
            move_from(client_, server_, std::string::npos);
            if (online_) move_from(server_, client_, std::string::npos);
            for (auto* e : {&client_, &server_})
                while (!(*e)->arrived.empty()) take_one(*e);
            if (!online_ || !client_->out.empty() || !server_->out.empty()) quiet = -1;
        }
    }

    void finish() {
        drain();
        for (auto* e : {&client_, &server_}) {
            REQUIRE(e->commit());
            // Once more from the stores: there is nothing left.
            CHECK((*e)->state.queued_bytes() == 0);
            auto const is_left = [](auto const& record) { return record.first < taken_key; };
            CHECK(std::count_if(e->store->records.begin(), e->store->records.end(), is_left) == 2);
            auto const accepted = (*e)->state.accepted();
            e->start();
            CHECK((*e)->journal.restored() == 0);
            CHECK((*e)->state.accepted() == accepted);
        }
        check_direction(client_, server_);
        check_direction(server_, client_);
    }

    static void check_direction(endpoint& from, endpoint& to) {
        std::array<std::vector<std::uint64_t>, 2> expected;
        for (std::uint64_t n = 0; n < from->state.accepted(); ++n)
            expected[quality_of(n) == qos::at_least_once ? 0 : 1].push_back(n);
        for (auto& all : to.taken) std::sort(all.begin(), all.end());
        CHECK((to.first == expected));  // all, in order
        CHECK((to.taken[1] == expected[1]));
        auto& once = to.taken[0];
        once.erase(std::unique(once.begin(), once.end()), once.end());
        CHECK((once == expected[0]));
    }

    struct crash_point {
        endpoint* at = nullptr;
        std::size_t write = 0;
        moment when{};
    };

    test::random_source random_;
    protocol_version version_;
    bool unknown_;
    endpoint client_;
    endpoint server_;
    std::optional<crash_point> crash_at_ = crash_point{};  // none: at random
    bool online_ = false;
    bool has_session_ = false;
    std::size_t crashes_ = 0;
    std::size_t rounds_ = 0;
};

}  // namespace

TEST_CASE("over processes that end at any moment QoS 1 comes at least once, QoS 2 exactly once, all in order") {
    std::size_t crashes = 0;
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        for (std::uint32_t seed = 0; seed < 2500 / test::every(5); ++seed) {
            CAPTURE(seed);
            simulation s(seed, version);
            s.run();
            crashes += s.crashes();
        }
    }
    MESSAGE(crashes << " ends of processes");
    CHECK(crashes > 10'000 / test::every(5));
}

TEST_CASE("the same in a session that an older client has left behind, with all its packet identifiers taken") {
    std::size_t crashes = 0, rounds = 0;
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        for (std::uint32_t seed = 0; seed < 1000 / test::every(5); ++seed) {
            CAPTURE(seed);
            simulation s(seed, version, true);
            s.run();
            crashes += s.crashes();
            rounds += s.rounds();
        }
    }
    CHECK(crashes > 4'000 / test::every(5));
    CHECK(rounds > 2'000 / test::every(5));
}

TEST_CASE("where a process ends around any of its writes nothing is lost and nothing comes twice at QoS 2") {
    std::size_t crashes = 0;
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        for (bool const client : {true, false}) {
            for (auto const when : moments) {
                bool more = true;
                for (std::size_t write = 0; more; ++write) {
                    CAPTURE(client);
                    CAPTURE(write);
                    simulation s(1, version);
                    s.run_to(client, write, when);
                    more = s.crashes() != 0;
                    crashes += s.crashes();
                }
            }
        }
    }
    MESSAGE(crashes << " ends of processes");
    CHECK(crashes > 50);
}
