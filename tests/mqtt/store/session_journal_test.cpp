#include <runnel/mqtt/store/session_journal.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/memory_store.hpp"
#include "support/packets.hpp"
#include "support/random_source.hpp"
#include <array>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

using namespace runnel::mqtt;
namespace mqtt = runnel::mqtt;
using runnel::send_buffer;
using std::chrono::milliseconds;

namespace {

constexpr protocol_version versions[] = {protocol_version::v3_1_1, protocol_version::v5};

// A client with a journal.
struct client {
    explicit client(std::shared_ptr<test::memory_store> const& store, protocol_version v = protocol_version::v3_1_1,
                    milliseconds epoch = {})
        : state(role::client, v), journal(store, epoch) {}

    std::error_code load(std::string_view id = "client") { return journal.load(state, id); }
    std::error_code commit() { return journal.commit(state); }
    errc publish(std::string_view payload, qos quality, properties const* props = nullptr) {
        return state.publish(out, {.topic = "t", .payload = payload, .qos = quality, .props = props}).error;
    }
    void connect() {
        mqtt::connect packet;
        packet.client_id = "client";
        packet.clean_start = false;
        REQUIRE(state.connect(out, packet, {}) == errc::ok);
        receive(connack{state.has_session(), reason_code::success, {}});
    }
    template <class Packet, class Handler>
    void receive(Packet const& packet, Handler& handler) {
        send_buffer bytes;
        runnel::mqtt::detail::append(bytes, packet, state.version());
        auto input = bytes.view();
        REQUIRE(state.receive(input, out, handler) == errc::ok);
    }
    template <class Packet>
    void receive(Packet const& packet) {
        session_handler nothing;
        receive(packet, nothing);
    }

    // Receives a QoS 2 message, which is taken with `reason`.
    void take(std::uint16_t packet_id, reason_code reason = reason_code::success) {
        struct : session_handler {
            delivery token;
            void on_message(mqtt::publish const&, delivery d) { token = d; }
        } taker;
        mqtt::publish const message{.topic = "t", .payload = "in", .qos = qos::exactly_once, .packet_id = packet_id};
        receive(message, taker);
        state.acknowledge(out, taker.token, reason);
    }

    session_state state;
    session_journal journal;
    send_buffer out;
};

// What has been written behind CONNECT.
std::string_view behind_connect(client const& c) {
    auto bytes = c.out.view();
    bytes.remove_prefix(next_frame(bytes).total_size);
    return bytes;
}
// The message with which that begins.
mqtt::publish message_in(std::string_view bytes, protocol_version v) {
    auto const f = next_frame(bytes);
    mqtt::publish message;
    REQUIRE(decode(f.header, f.body, v, message) == errc::ok);
    return message;
}

std::shared_ptr<test::memory_store> new_store() { return std::make_shared<test::memory_store>(); }

// A store with a message, a released one, and a taken one.
std::shared_ptr<test::memory_store> filled_store(protocol_version v) {
    auto const store = new_store();
    client c(store, v);
    REQUIRE_FALSE(c.load());
    REQUIRE(c.publish("one", qos::at_least_once) == errc::ok);
    REQUIRE(c.publish("two", qos::exactly_once) == errc::ok);
    c.connect();
    c.receive(acknowledgement{packet_type::pubrec, 2, {}, {}});
    c.take(9);
    REQUIRE_FALSE(c.commit());
    CHECK(store->records.size() == 5);
    return store;
}

}  // namespace

TEST_CASE("a journal without a store keeps nothing and needs no time") {
    session_journal none;
    session_state state(role::client, protocol_version::v5);
    send_buffer out;
    CHECK_FALSE(none);
    CHECK(state.publish(out, {.topic = "t", .payload = "p", .qos = qos::at_least_once}).error == errc::ok);
    CHECK_FALSE(none.commit(state));
    CHECK(none.commits() == 0);
    CHECK(state.accepted() == 1);
}

TEST_CASE("what is not acknowledged is put back with its number, its bytes and what has become of it") {
    for (auto const v : versions) {
        auto const store = filled_store(v);
        client c(store, v);
        REQUIRE_FALSE(c.load());
        CHECK(c.journal.restored() == 2);
        CHECK(c.state.accepted() == 2);
        CHECK(c.state.next_number() == 2);
        CHECK_FALSE(c.state.has_changes());
        c.connect();
        auto bytes = behind_connect(c);
        auto const message = message_in(bytes, v);
        CHECK(message.payload == "one");
        CHECK(message.packet_id == 1);
        CHECK(message.dup);
        bytes.remove_prefix(next_frame(bytes).total_size);
        CHECK(next_frame(bytes).header.type == packet_type::pubrel);

        // The message that has been taken is not taken again.
        struct : session_handler {
            int count = 0;
            void on_message(mqtt::publish const&, delivery) { ++count; }
        } taker;
        mqtt::publish const again{.topic = "t", .payload = "in", .qos = qos::exactly_once, .dup = true, .packet_id = 9};
        c.receive(again, taker);
        CHECK(taker.count == 0);
    }
}

TEST_CASE("one commit serves any number of messages, and what has not changed costs none") {
    auto const store = new_store();
    client c(store);
    REQUIRE_FALSE(c.load());
    for (int i = 0; i < 100; ++i) REQUIRE(c.publish("p", qos::at_least_once) == errc::ok);
    CHECK_FALSE(c.commit());
    CHECK(store->applies == 1);
    CHECK(store->changes == 102);  // the header, the client identifier, and 100 messages
    CHECK_FALSE(c.commit());
    CHECK(store->applies == 1);
    CHECK(c.journal.commits() == 1);
}

TEST_CASE("a client identifier that is the same as before costs no commit, and one that changes does") {
    auto const store = new_store();
    client c(store);
    REQUIRE_FALSE(c.load());
    REQUIRE_FALSE(c.commit());
    c.journal.set_client_id("client");
    REQUIRE_FALSE(c.commit());
    CHECK(c.journal.commits() == 1);
    c.journal.set_client_id("another");
    REQUIRE_FALSE(c.commit());
    CHECK(c.journal.commits() == 2);
    CHECK(store->records[1] == "another");
}

TEST_CASE("what the user has begun in the store is stored though nothing of the session has changed") {
    struct shared_store : test::memory_store {
        bool pending() const { return has_begun; }
        bool has_begun = false;
    };
    auto const store = std::make_shared<shared_store>();
    session_state state(role::client, protocol_version::v5);
    session_journal journal{any_session_store(store)};
    REQUIRE_FALSE(journal.load(state, "client"));
    REQUIRE_FALSE(journal.commit(state));
    CHECK(store->applies == 1);
    REQUIRE_FALSE(journal.commit(state));
    CHECK(store->applies == 1);
    store->has_begun = true;
    REQUIRE_FALSE(journal.commit(state));
    CHECK(store->applies == 2);
    CHECK(store->changes == 2);  // the header and the client identifier, by the first
}

TEST_CASE("in steady state messages that expire are stored without allocating") {
    struct no_store {
        std::error_code load(store_reader&) { return {}; }
        std::error_code apply(std::span<store_change const>) { return {}; }
    };
    session_state state(role::client, protocol_version::v5);
    session_journal journal{any_session_store(std::make_shared<no_store>())};
    REQUIRE_FALSE(journal.load(state, "client"));
    send_buffer out;
    properties props;
    props.message_expiry_interval = 10;
    auto const store_one = [&] {
        auto const begun = state.publish(out, {.topic = "t", .qos = qos::at_least_once, .props = &props});
        REQUIRE(begun.error == errc::ok);
        REQUIRE_FALSE(journal.commit(state));
        REQUIRE(state.withdraw(begun.number));
        REQUIRE_FALSE(journal.commit(state));
    };
    for (int i = 0; i < 1000; ++i) store_one();
    auto const before = runnel::testing::allocation_count();
    for (int i = 0; i < 1000; ++i) store_one();
    CHECK(runnel::testing::allocation_count() == before);
}

TEST_CASE("a QoS 2 message that was taken with another reason is answered by that after a restart too") {
    auto const store = filled_store(protocol_version::v5);
    store->records[(std::uint64_t{1} << 62) + 10] = static_cast<char>(reason_code::no_matching_subscribers);
    {
        // As written by a session itself.
        client c(store, protocol_version::v5);
        REQUIRE_FALSE(c.load());
        c.connect();
        c.take(11, reason_code::no_matching_subscribers);
        REQUIRE_FALSE(c.commit());
    }
    CHECK(store->records[(std::uint64_t{1} << 62) + 11] == store->records[(std::uint64_t{1} << 62) + 10]);
    for (std::uint16_t packet_id = 10; packet_id <= 11; ++packet_id) {
        client c(store, protocol_version::v5);
        REQUIRE_FALSE(c.load());
        c.connect();
        c.out.clear();
        c.receive(mqtt::publish{
            .topic = "t", .payload = "in", .qos = qos::exactly_once, .dup = true, .packet_id = packet_id});
        auto const f = next_frame(c.out.view());
        acknowledgement answer;
        REQUIRE(decode(f.header, f.body, protocol_version::v5, answer) == errc::ok);
        CHECK(answer.type == packet_type::pubrec);
        CHECK(answer.reason == reason_code::no_matching_subscribers);
    }
}

TEST_CASE("QoS 0 messages are not stored") {
    auto const store = new_store();
    client c(store);
    REQUIRE_FALSE(c.load());
    REQUIRE_FALSE(c.commit());
    CHECK(c.publish("p", qos::at_most_once) == errc::ok);
    CHECK_FALSE(c.commit());
    CHECK(store->applies == 1);
    CHECK(c.state.accepted() == 0);
}

TEST_CASE("a message that ends before it has been stored is never stored, but counted") {
    auto const store = new_store();
    {
        client c(store);
        REQUIRE_FALSE(c.load());
        REQUIRE(c.state.withdraw(c.state.publish(c.out, {.topic = "t", .qos = qos::at_least_once}).number));
        CHECK_FALSE(c.commit());
        CHECK(store->records.size() == 2);
    }
    client c(store);
    REQUIRE_FALSE(c.load());
    CHECK(c.state.accepted() == 1);
}

TEST_CASE("what could not be stored is stored by the next commit") {
    auto const store = new_store();
    {
        client c(store);
        REQUIRE_FALSE(c.load());
        REQUIRE(c.publish("one", qos::at_least_once) == errc::ok);
        store->failure = std::make_error_code(std::errc::no_space_on_device);
        CHECK(c.commit() == std::errc::no_space_on_device);
        CHECK(store->records.empty());
        REQUIRE(c.publish("two", qos::at_least_once) == errc::ok);
        CHECK(c.commit() == std::errc::no_space_on_device);
        store->failure = {};
        CHECK_FALSE(c.commit());
    }
    client c(store);
    REQUIRE_FALSE(c.load());
    CHECK(c.journal.restored() == 2);
}

TEST_CASE("a store is used by one session at a time") {
    auto const store = new_store();
    any_session_store shared = store;
    session_state first(role::client, protocol_version::v5), second(role::client, protocol_version::v5);
    session_journal other(shared);
    {
        session_journal journal(shared);
        CHECK_FALSE(journal.load(first, "client"));
        CHECK(other.load(second, "client") == store_errc::in_use);
    }
    CHECK_FALSE(other.load(second, "client"));
}

TEST_CASE("the store of another client identifier is refused, and an assigned one is kept") {
    auto const store = new_store();
    {
        client c(store);
        REQUIRE_FALSE(c.load(""));
        c.journal.set_client_id("assigned");
        REQUIRE_FALSE(c.commit());
    }
    {
        client c(store);
        CHECK_FALSE(c.load(""));
        CHECK(c.journal.client_id() == "assigned");
    }
    {
        client c(store);
        CHECK(c.load("another") == store_errc::other_client);
    }
    client c(store);
    CHECK_FALSE(c.load("assigned"));
}

TEST_CASE("messages are rewritten when the session goes on in another version of the protocol") {
    auto const store = filled_store(protocol_version::v5);
    {
        client c(store, protocol_version::v3_1_1);
        REQUIRE_FALSE(c.load());
        CHECK(c.state.has_changes());
        REQUIRE_FALSE(c.commit());
    }
    client c(store, protocol_version::v3_1_1);
    REQUIRE_FALSE(c.load());
    CHECK_FALSE(c.state.has_changes());
    c.connect();
    auto const message = message_in(behind_connect(c), protocol_version::v3_1_1);
    CHECK(message.payload == "one");
}

TEST_CASE("what waits in an automatic session is stored as MQTT 5, whatever the connection speaks") {
    auto const store = new_store();
    {
        client c(store, protocol_version::automatic);
        REQUIRE_FALSE(c.load());
        REQUIRE(c.publish("one", qos::at_least_once) == errc::ok);
        c.state.speak(protocol_version::v3_1_1);
        c.connect();
        REQUIRE_FALSE(c.commit());
    }
    client c(store, protocol_version::v5);
    REQUIRE_FALSE(c.load());
    c.connect();
    auto const message = message_in(behind_connect(c), protocol_version::v5);
    CHECK(message.payload == "one");
}

TEST_CASE("a message whose interval MQTT 3.1.1 cannot tell expires all the same, and is sent as it is before") {
    auto const store = new_store();
    properties props;
    props.message_expiry_interval = 10;
    std::string const payload(20, '\xAA');
    {
        client c(store, protocol_version::v5);
        REQUIRE_FALSE(c.load());
        REQUIRE(c.publish(payload, qos::at_least_once, &props) == errc::ok);
        REQUIRE_FALSE(c.commit());
    }
    for (bool const in_time : {true, false}) {
        auto const copy = std::make_shared<test::memory_store>();
        copy->records = store->records;
        client c(copy, protocol_version::v3_1_1);
        REQUIRE_FALSE(c.load());
        c.state.set_time(milliseconds(in_time ? 9'999 : 10'001));
        c.connect();
        CHECK(behind_connect(c) == (in_time ? std::string("\x32\x19\0\1t\0\1", 7) + payload : std::string()));
    }
}

TEST_CASE("what has been stored of received messages is not stored again") {
    auto const store = filled_store(protocol_version::v5);
    client c(store, protocol_version::v5);
    REQUIRE_FALSE(c.load());
    c.connect();
    c.take(10);
    CHECK(c.state.has_changes());
    REQUIRE_FALSE(c.commit());
    CHECK_FALSE(c.state.has_changes());
    auto const before = store->changes;
    REQUIRE(c.publish("three", qos::at_least_once) == errc::ok);
    REQUIRE_FALSE(c.commit());
    CHECK(store->changes == before + 2);  // the header and the message
}

TEST_CASE("the time at which a message expires is kept by the calendar") {
    auto const store = new_store();
    {
        client c(store, protocol_version::v5, milliseconds(1'000'000));
        REQUIRE_FALSE(c.load());
        c.state.set_time(milliseconds(500));
        properties props;
        props.message_expiry_interval = 10;
        REQUIRE(c.publish("p", qos::at_least_once, &props) == errc::ok);
        REQUIRE_FALSE(c.commit());
    }
    // Four seconds later by the calendar, while the clock of this process has begun at 0.
    client c(store, protocol_version::v5, milliseconds(1'004'500));
    REQUIRE_FALSE(c.load());
    c.state.set_time(milliseconds(0));
    c.connect();
    auto const message = message_in(behind_connect(c), protocol_version::v5);
    CHECK(message.props.get<property_id::message_expiry_interval>() == 6);
}

namespace {

// The payloads of the messages that have not expired by then.
std::string left(client& c, milliseconds at) {
    c.state.set_time(at);
    c.state.expire(session_handler{});
    std::string all;
    c.state.for_each_queued([&](queued_view const& m) { all.append(m.topic).append(" "); });
    return all;
}

}  // namespace

TEST_CASE("a clock that is set changes neither how long a message lives nor when one of an earlier process expires") {
    auto const store = new_store();
    properties props;
    props.message_expiry_interval = 10;
    auto const publish = [&](client& c, std::string_view topic) {
        REQUIRE(c.state.publish(c.out, {.topic = topic, .qos = qos::at_least_once, .props = &props}).error == errc::ok);
    };
    for (bool const ahead : {true, false}) {
        store->records.clear();
        {
            client c(store, protocol_version::v5, milliseconds(1'000'000));
            REQUIRE_FALSE(c.load());
            publish(c, "old");  // until 1,010,000 by the calendar
            REQUIRE_FALSE(c.commit());
        }
        client c(store, protocol_version::v5, milliseconds(1'000'000));
        REQUIRE_FALSE(c.load());
        publish(c, "own");
        REQUIRE_FALSE(c.commit());
        c.journal.set_epoch(c.state, milliseconds(1'000'999));
        CHECK_FALSE(c.state.has_changes());
        c.journal.set_epoch(c.state, milliseconds(ahead ? 1'005'000 : 995'000));
        CHECK(c.state.has_changes());
        publish(c, "new");
        REQUIRE_FALSE(c.commit());
        auto const copy = std::make_shared<test::memory_store>();
        copy->records = store->records;
        CHECK(left(c, milliseconds(4'000)) == "old own new ");
        CHECK(left(c, milliseconds(6'000)) == (ahead ? "own new " : "old own new "));
        CHECK(left(c, milliseconds(11'000)) == (ahead ? "" : "old "));
        // The next process, with the time of day as it has been set.
        client next(copy, protocol_version::v5, milliseconds(0));
        REQUIRE_FALSE(next.load());
        milliseconds const own_end(ahead ? 1'015'000 : 1'005'000), old_end(1'010'000);
        CHECK(left(next, std::min(own_end, old_end) - milliseconds(1)) == "old own new ");
        CHECK(left(next, std::min(own_end, old_end) + milliseconds(1)) == (ahead ? "own new " : "old "));
        CHECK(left(next, std::max(own_end, old_end) + milliseconds(1)) == "");
    }
}

TEST_CASE("numbers go on behind those of the earlier process, so that packet identifiers are not confused") {
    auto const store = new_store();
    for (std::uint64_t round = 0; round < 2; ++round) {
        client c(store);
        REQUIRE_FALSE(c.load());
        CHECK(c.state.next_number() == round * 30'000);
        CHECK(c.journal.restored() == round);
        for (int i = 0; i < 30'000; ++i) {
            auto const begun = c.state.publish(c.out, {.topic = "t", .qos = qos::at_least_once});
            REQUIRE(begun.error == errc::ok);
            if (i != 0) REQUIRE(c.state.withdraw(begun.number));
        }
        REQUIRE_FALSE(c.commit());
    }
    // The two that are left keep nothing but their own identifiers.
    client c(store);
    REQUIRE_FALSE(c.load());
    CHECK(c.journal.restored() == 2);
    for (int i = 0; i < 65'500; ++i) {
        auto const begun = c.state.publish(c.out, {.topic = "t", .qos = qos::at_least_once});
        REQUIRE(begun.error == errc::ok);
        REQUIRE(begun.number % 65535 != 0);
        REQUIRE(begun.number % 65535 != 30'000);
    }
    while (c.publish("p", qos::at_least_once) == errc::ok) {
    }
    CHECK(c.publish("p", qos::at_least_once) == errc::no_packet_identifier);
}

TEST_CASE("messages that were left behind long ago are stored, put back in order, and ended") {
    auto const store = new_store();
    {
        client c(store);
        REQUIRE_FALSE(c.load());
        c.connect();
        REQUIRE(c.publish("first", qos::at_least_once) == errc::ok);
        REQUIRE(c.publish("second", qos::exactly_once) == errc::ok);
        c.receive(acknowledgement{packet_type::pubrec, 2, {}, {}});
        for (int i = 0; i < 70'000; ++i) {
            c.out.clear();
            REQUIRE(c.publish("p", qos::at_least_once) == errc::ok);
            auto const packet = c.out.view();
            c.receive(acknowledgement{packet_type::puback,
                                      static_cast<std::uint16_t>(static_cast<unsigned char>(packet[5]) << 8 |
                                                                 static_cast<unsigned char>(packet[6])),
                                      {},
                                      {}});
            if (i % 1000 == 0) REQUIRE_FALSE(c.commit());
        }
        REQUIRE(c.publish("third", qos::at_least_once) == errc::ok);
        REQUIRE_FALSE(c.commit());
        CHECK(store->records.size() == 5);
    }
    {
        client c(store);
        REQUIRE_FALSE(c.load());
        CHECK(c.journal.restored() == 3);
        c.connect();
        auto const bytes = std::string(c.out.view());
        CHECK(bytes.find("first") < bytes.find("third"));
        c.receive(acknowledgement{packet_type::puback, 1, {}, {}});
        c.receive(acknowledgement{packet_type::pubcomp, 2, {}, {}});
        REQUIRE_FALSE(c.commit());
        CHECK(store->records.size() == 3);
    }
    client c(store);
    REQUIRE_FALSE(c.load());
    CHECK(c.journal.restored() == 1);
}

TEST_CASE("what is withdrawn, expires or is dropped is to be stored at once") {
    auto const withdrawn = [](auto act) {
        auto const store = new_store();
        {
            client c(store, protocol_version::v5);
            REQUIRE_FALSE(c.load());
            properties props;
            props.message_expiry_interval = 1;
            REQUIRE(c.publish("message", qos::at_least_once, &props) == errc::ok);
            REQUIRE_FALSE(c.commit());
            CHECK(store->records.size() == 3);
            CHECK_FALSE(c.state.has_changes());
            act(c);
            CHECK(c.state.has_changes());
            REQUIRE_FALSE(c.commit());
            CHECK(store->records.size() == 2);
        }
        client c(store, protocol_version::v5);
        REQUIRE_FALSE(c.load());
        CHECK(c.journal.restored() == 0);
    };
    withdrawn([](client& c) { CHECK(c.state.withdraw(0)); });
    withdrawn([](client& c) {
        c.state.set_time(milliseconds(1001));
        c.state.expire(session_handler{});
    });
    withdrawn([](client& c) { CHECK(c.state.discard(0, errc::message_discarded, session_handler{})); });
    withdrawn([](client& c) { c.state.reject(0, errc::message_rejected, session_handler{}); });
}

TEST_CASE("a message that expired while the process was down is not sent, and QoS 2 identifiers are freed") {
    auto const store = new_store();
    properties props;
    props.message_expiry_interval = 10;
    {
        client c(store, protocol_version::v5, milliseconds(1'000'000));
        REQUIRE_FALSE(c.load());
        REQUIRE(c.publish("one", qos::at_least_once, &props) == errc::ok);
        REQUIRE(c.publish("two", qos::exactly_once, &props) == errc::ok);
        REQUIRE(c.publish("lasting", qos::at_least_once) == errc::ok);
        c.connect();
        REQUIRE_FALSE(c.commit());
    }
    for (bool const in_time : {true, false}) {
        auto const copy = std::make_shared<test::memory_store>();
        copy->records = store->records;
        client c(copy, protocol_version::v5, milliseconds(1'000'000));
        REQUIRE_FALSE(c.load());
        c.state.set_time(milliseconds(in_time ? 9'999 : 10'001));
        c.connect();
        auto const bytes = std::string(c.out.view());
        CHECK((bytes.find("one") != bytes.npos) == in_time);
        CHECK((bytes.find("two") != bytes.npos) == in_time);
        CHECK(bytes.find("lasting") != bytes.npos);
        bool const releases = bytes.find(std::string("\x62\x02\x00\x02", 4)) != bytes.npos;
        CHECK(releases == !in_time);
        REQUIRE_FALSE(c.commit());
        c.receive(acknowledgement{packet_type::puback, 3, {}, {}});
        if (in_time) {
            c.receive(acknowledgement{packet_type::puback, 1, {}, {}});
            c.receive(acknowledgement{packet_type::pubrec, 2, {}, {}});
        }
        c.receive(acknowledgement{packet_type::pubcomp, 2, {}, {}});
        REQUIRE_FALSE(c.commit());
        CHECK(copy->records.size() == 2);
    }
}

namespace {

// The server has a session of which this end knows nothing.
void connect_to_unknown_session(client& c) {
    mqtt::connect packet;
    packet.client_id = "client";
    packet.clean_start = false;
    REQUIRE(c.state.connect(c.out, packet, {}) == errc::ok);
    c.receive(connack{true, reason_code::success, {}});
}

std::string pubrel_of(std::uint16_t packet_id) {
    return test::encoded(acknowledgement{packet_type::pubrel, packet_id, {}, {}}, protocol_version::v3_1_1);
}

}  // namespace

TEST_CASE("that the server may hold identifiers of an older session is known to the next process") {
    auto const store = new_store();
    {
        client c(store);
        REQUIRE_FALSE(c.load());
        connect_to_unknown_session(c);
        CHECK(c.state.has_unknown_identifiers());
        REQUIRE_FALSE(c.commit());
    }
    auto const before = store->records[0];
    CHECK(before.size() == 27);
    CHECK(before.ends_with(std::string_view("\x00\x00\x00\x00\x00\x00\xFF\xFF", 8)));
    {
        client c(store);
        REQUIRE_FALSE(c.load());
        CHECK(c.state.has_unknown_identifiers());
        c.connect();
        c.out.clear();
        REQUIRE(c.publish("p", qos::exactly_once) == errc::ok);
        CHECK(c.out.view() == pubrel_of(1));
        c.receive(acknowledgement{packet_type::pubcomp, 1, {}, {}});
        c.receive(acknowledgement{packet_type::pubrec, 1, {}, {}});
        c.receive(acknowledgement{packet_type::pubcomp, 1, {}, {}});
        REQUIRE_FALSE(c.commit());
    }
    store->records[0].insert(store->records[0].size() - 8, 1, 'x');
    CHECK(client(store).load() == store_errc::corrupt);
    // Of an earlier version of the library, with the number that it went by.
    store->records[0] = before;
    store->records[0].back() = 0;
    {
        client c(store);
        REQUIRE_FALSE(c.load());
        CHECK(c.state.has_unknown_identifiers());
        // The server has lost the session: nothing is unknown any more, nor to the next process.
        mqtt::connect packet;
        packet.client_id = "client";
        packet.clean_start = false;
        REQUIRE(c.state.connect(c.out, packet, {}) == errc::ok);
        c.receive(connack{false, reason_code::success, {}});
        c.out.clear();
        REQUIRE(c.publish("p", qos::exactly_once) == errc::ok);
        CHECK(next_frame(c.out.view()).header.type == packet_type::publish);
        REQUIRE_FALSE(c.commit());
        CHECK(store->records[0].size() == 19);
    }
    client c(store);
    REQUIRE_FALSE(c.load());
    CHECK_FALSE(c.state.has_unknown_identifiers());
}

TEST_CASE("the next process frees identifiers before it sends what no earlier one has sent") {
    std::string const pubrel = pubrel_of(1);
    // What the client sends on a connection that finds a session: nothing but this PUBREL, and behind PUBCOMP the rest.
    auto const sent = [](client& c) {
        c.out.clear();
        mqtt::connect packet;
        packet.client_id = "client";
        packet.clean_start = false;
        REQUIRE(c.state.connect(c.out, packet, {}) == errc::ok);
        c.out.clear();
        c.receive(connack{true, reason_code::success, {}});
        std::string const bytes(c.out.view());
        c.out.clear();
        return bytes;
    };
    properties expiring;
    expiring.message_expiry_interval = 10;
    for (auto const v : versions) {
        bool const expires = v == protocol_version::v5;
        auto const* const props = expires ? &expiring : nullptr;
        auto const store = new_store();
        {
            client c(store, v);  // without any connection
            REQUIRE_FALSE(c.load());
            REQUIRE(c.publish("text", qos::exactly_once, props) == errc::ok);
            REQUIRE_FALSE(c.commit());
        }
        {
            client c(store, v);
            REQUIRE_FALSE(c.load());
            CHECK(sent(c) == pubrel);
            REQUIRE_FALSE(c.commit());
        }
        auto const before = store->records;
        for (int i = 0; i < 2; ++i) {  // with one, and none
            client c(store, v);
            REQUIRE_FALSE(c.load());
            CHECK(c.journal.restored() == 1);
            CHECK_FALSE(c.state.has_changes());
            CHECK(c.state.next_expiry().has_value() == expires);
            CHECK(sent(c) == pubrel);
            CHECK_FALSE(c.state.has_changes());
            c.receive(acknowledgement{packet_type::pubcomp, 1, {}, {}});
            CHECK(next_frame(c.out.view()).header.type == packet_type::publish);
            CHECK((c.out.view()[0] & 8) == 0);
            CHECK(c.out.view().find("text") != std::string::npos);
            CHECK(c.state.has_changes());
            if (i == 1) REQUIRE_FALSE(c.commit());
        }
        CHECK(before.size() == store->records.size());
        {
            client c(store, v);  // it may have been sent
            REQUIRE_FALSE(c.load());
            auto const bytes = sent(c);
            CHECK(next_frame(bytes).header.type == packet_type::publish);
            CHECK((bytes[0] & 8) != 0);
        }
        // Of an earlier version of the library, which did not tell.
        store->records = before;
        auto& record = store->records[std::uint64_t{1} << 61];
        CHECK(record[0] == 1);
        record.erase(0, 1);
        client old(store, v);
        REQUIRE_FALSE(old.load());
        CHECK(next_frame(sent(old)).header.type == packet_type::publish);
        // And such as make no sense.
        auto const qos_at = expires ? 10u : 1u;
        store->records = before;
        auto& wrong = store->records[std::uint64_t{1} << 61];
        wrong[qos_at] = static_cast<char>(wrong[qos_at] & ~6) | 2;
        CHECK(client(store, v).load() == store_errc::corrupt);
        wrong = "\1";
        CHECK(client(store, v).load() == store_errc::corrupt);
        wrong = "\1\1";
        CHECK(client(store, v).load() == store_errc::corrupt);
    }
}

TEST_CASE("an identifier is freed for a message that has waited longer than all others took") {
    auto const store = new_store();
    {
        client c(store);
        REQUIRE_FALSE(c.load());
        connect_to_unknown_session(c);
        REQUIRE(c.publish("late", qos::exactly_once) == errc::ok);
        for (int i = 0; i < 65535 + 10; ++i) {
            auto const begun = c.state.publish(c.out, {.topic = "t", .qos = qos::at_least_once});
            REQUIRE(begun.error == errc::ok);
            c.out.clear();
            c.receive(acknowledgement{packet_type::puback, detail::in_flight::identifier_of(begun.number), {}, {}});
        }
        CHECK(c.state.next_number() > 65535 + 10);
        REQUIRE_FALSE(c.commit());
    }
    CHECK(store->records[0].size() == 27);
    auto const earlier = std::make_shared<test::memory_store>(*store);
    earlier->records[0].resize(19);  // which told of the message only
    for (auto const& from : {store, earlier}) {
        client c(from);
        REQUIRE_FALSE(c.load());
        c.connect();
        CHECK(c.out.view().ends_with(pubrel_of(1)));
        c.receive(acknowledgement{packet_type::pubcomp, 1, {}, {}});
        CHECK(c.out.view().find("late") != std::string::npos);
        // So is one that only messages of QoS 1 have had.
        auto const id = detail::in_flight::identifier_of(c.state.next_number());
        CHECK(id == 13);
        c.out.clear();
        REQUIRE(c.publish("p", qos::exactly_once) == errc::ok);
        CHECK(c.out.view() == pubrel_of(id));
    }
}

TEST_CASE("a store with records that make no sense is refused") {
    std::uint64_t const exchange = std::uint64_t{1} << 61, taken = std::uint64_t{1} << 62;
    auto const error_with = [](auto change) {
        auto const store = filled_store(protocol_version::v5);
        change(store->records);
        return client(store, protocol_version::v5).load();
    };
    CHECK_FALSE(error_with([](auto&) {}));
    CHECK(error_with([](auto& r) { r[0][0] = 2; }) == store_errc::unsupported_format);
    CHECK(error_with([](auto& r) { r[0].clear(); }) == store_errc::corrupt);
    CHECK(error_with([](auto& r) { r[0].pop_back(); }) == store_errc::corrupt);
    CHECK(error_with([](auto& r) { r[0][1] = 3; }) == store_errc::corrupt);
    CHECK(error_with([](auto& r) { r[0][2] = 2; }) == store_errc::corrupt);
    CHECK(error_with([](auto& r) { r[0][3] = static_cast<char>(0xFF); }) == store_errc::corrupt);
    CHECK(error_with([](auto& r) { r.erase(0); }) == store_errc::corrupt);
    CHECK(error_with([](auto& r) { r[5] = "x"; }) == store_errc::corrupt);
    CHECK(error_with([&](auto& r) { r[exchange + 2] = r[exchange]; }) == store_errc::corrupt);
    CHECK(error_with([&](auto& r) { r[exchange] = "x"; }) == store_errc::corrupt);
    CHECK(error_with([&](auto& r) { r[exchange] += 'x'; }) == store_errc::corrupt);
    CHECK(error_with([&](auto& r) { r[exchange].insert(0, std::string(5, '\0')); }) == store_errc::corrupt);
    CHECK(error_with([&](auto& r) { r[taken] = std::string(1, '\0'); }) == store_errc::corrupt);
    CHECK(error_with([&](auto& r) { r[taken + 65536] = std::string(1, '\0'); }) == store_errc::corrupt);
    CHECK(error_with([&](auto& r) { r[taken + 9].clear(); }) == store_errc::corrupt);
    CHECK(error_with([&](auto& r) { r[taken + 9] = "\x01"; }) == store_errc::corrupt);
    CHECK_FALSE(error_with([&](auto& r) { r[taken + 65535] = std::string(1, '\0'); }));
    // A released message whose number is still to be given.
    CHECK_FALSE(error_with([&](auto& r) { r[exchange].clear(); }));
    CHECK(error_with([&](auto& r) { r[exchange + 2].clear(); }) == store_errc::corrupt);
    // Two exchanges with one packet identifier, numbers of which have been given.
    auto const all_given = [](std::string& header) { header[8] = 2; };
    CHECK_FALSE(error_with([&](auto& r) { all_given(r[0]); }));
    CHECK(error_with([&](auto& r) {
              all_given(r[0]);
              r[exchange + 65535] = r[exchange];
          }) == store_errc::corrupt);
    // Packets that are not the exchange's: of another identifier, and SUBSCRIBE.
    CHECK(error_with([&](auto& r) { r[exchange][6] = 7; }) == store_errc::corrupt);
    CHECK(error_with([&](auto& r) { r[exchange][0] = static_cast<char>(0x82); }) == store_errc::corrupt);
    // Deadlines that are cut, before 1970, and beyond any calendar.
    auto const error_with_deadline = [&](std::string_view deadline) {
        return error_with([&](auto& r) { r[exchange].insert(0, std::string(1, '\0').append(deadline)); });
    };
    CHECK_FALSE(error_with_deadline({"\0\0\1\0\0\0\0\0", 8}));
    CHECK(error_with_deadline({"\xFF\0\1\0\0\0\0\0", 8}) == store_errc::corrupt);
    CHECK(error_with_deadline({"\0\1\0\0\0\0\0\0", 8}) == store_errc::corrupt);
    CHECK(error_with([&](auto& r) { r[exchange] = std::string(8, '\0'); }) == store_errc::corrupt);
    auto const store = filled_store(protocol_version::v5);
    store->failure = std::make_error_code(std::errc::io_error);
    CHECK(client(store, protocol_version::v5).load() == std::errc::io_error);
}

TEST_CASE("any damage of any record is refused or does no harm") {
    test::random_source random(1);
    int refused = 0;
    for (int round = 0; round < 3000; ++round) {
        auto const version = versions[round % 2];
        auto const store = filled_store(version);
        for (auto& [key, value] : store->records)
            if (!value.empty() && random.one_in(2))
                value[random.between(0, value.size() - 1)] = random.between<char>(0, 255);
        client c(store, version);
        if (c.load("")) {
            ++refused;
            continue;
        }
        c.connect();
        CHECK_FALSE(c.commit());
    }
    CHECK(refused > 500);
    CHECK(refused < 2900);
}
