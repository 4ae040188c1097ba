#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "interop/conversation.hpp"
#include <algorithm>
#include <array>
#include <map>

// What is new in MQTT 5, by sessions against mosquitto.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::protocol_version;
using mqtt::qos;
using session = mqtt::session<runnel::tcp>;
using namespace std::chrono_literals;

runnel::tcp to(test::mosquitto const& broker) { return test::way<runnel::tcp>::to(broker); }

mqtt::session_options options_for(std::string client_id) {
    return test::options_for(std::move(client_id), protocol_version::v5);
}

/// Runs a session beside the test.
struct running_session {
    running_session(asio::io_context& context, test::mosquitto const& broker, mqtt::session_options options)
        : io(context), s(io.get_executor(), to(broker), watched(std::move(options))) {
        begin();
    }

    void begin() { run.emplace(io, s.run()); }
    /// Ends the connection as a network failure does, without DISCONNECT.
    void cut() {
        run->cancel();
        CHECK(run->run_for_error() == asio::error::operation_aborted);
    }
    void leave() {
        test::run(io, s.disconnect());
        CHECK_FALSE(run->run_for_error());
    }
    /// Connects, or connects again, and tells whether the broker has kept the session.
    bool resumes() {
        if (!run || run->done()) begin();
        test::run(io, s.connected());
        return present;
    }
    mqtt::session_options watched(mqtt::session_options o) {
        o.on_event = [this](mqtt::session_event const& e) {
            if (e.what == mqtt::session_event::kind::connected) present = e.session_present;
        };
        return o;
    }

    asio::io_context& io;
    bool present = false;
    session s;
    std::optional<test::task<void>> run;
};

std::size_t count(std::string const& text, std::string_view part) {
    std::size_t n = 0;
    for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
    return n;
}

void publish(asio::io_context& io, session& s, std::string_view topic, std::string_view payload,
             mqtt::publish_options o = {.qos = qos::at_least_once}) {
    test::run(io, s.publish(topic, payload, o));
}

std::string next_payload(asio::io_context& io, session::subscription& inbox) {
    return std::string(test::run(io, inbox.receive()).payload());
}

}  // namespace

TEST_CASE("properties go to mosquitto and back, user properties in order with duplicates") {
    test::mosquitto broker;
    asio::io_context io;
    session s(io.get_executor(), to(broker), options_for("properties"));
    test::converse(io, s, test::exchange_properties(s));
}

TEST_CASE("a request is answered through mosquitto, by response topic and correlation data") {
    test::mosquitto broker;
    asio::io_context io;
    session s(io.get_executor(), to(broker), options_for("asker"));
    test::converse(io, s, test::ask_and_answer(s));
}

TEST_CASE("a session's request is answered by another session's response") {
    test::mosquitto broker;
    asio::io_context io;
    running_session asker(io, broker, options_for("asker")), answerer(io, broker, options_for("answerer"));
    auto questions = test::run(io, answerer.s.subscribe("runnel/questions"));
    for (int i = 0; i < 3; ++i) {
        auto const question = std::to_string(i);
        test::task<mqtt::message> asking(io, asker.s.request("runnel/questions", question, 10s));
        auto const asked = test::run(io, questions.receive());
        CHECK(asked.payload() == question);
        auto const answer = question + " answered";
        test::run(io, answerer.s.respond(asked.view(), answer, {.qos = qos::at_least_once}));
        CHECK(asking.run().payload() == answer);
    }
    CHECK(test::error_of(io, asker.s.request("runnel/nobody", "?", 200ms)) == mqtt::errc::response_timeout);
    asker.leave();
    answerer.leave();
}

TEST_CASE("the session abbreviates topics as far as mosquitto takes that, and every message has its topic") {
    test::mosquitto broker;  // takes 10 aliases
    asio::io_context io;
    running_session s(io, broker, options_for("brief"));
    auto inbox = test::run(io, s.s.subscribe("runnel/#"));
    std::string const first = "runnel/" + std::string(1000, 'a');
    for (int i = 0; i < 50; ++i) CHECK(s.s.try_publish(first, std::to_string(i)));
    for (int i = 0; i < 50; ++i) {
        auto const m = test::run(io, inbox.receive());
        CHECK(m.topic() == first);
        CHECK(m.payload() == std::to_string(i));
    }
    CHECK(s.s.counters().bytes_sent < 3000);
    // More topics than aliases, some of them often.
    auto const topic = [](int i) { return "runnel/" + std::to_string(i % 3 == 0 ? i % 30 : i % 2); };
    for (int i = 0; i < 90; ++i) CHECK(s.s.try_publish(topic(i), std::to_string(i), {.qos = static_cast<qos>(i % 3)}));
    std::map<int, std::string> got;
    for (int i = 0; i < 90; ++i) {
        auto const m = test::run(io, inbox.receive());
        got[std::stoi(std::string(m.payload()))] = m.topic();
    }
    for (int i = 0; i < 90; ++i) CHECK(got[i] == topic(i));
    CHECK(s.s.counters().connections == 1);
    s.leave();
}

TEST_CASE("mosquitto resumes a session until it expires") {
    test::mosquitto broker;
    asio::io_context io;
    auto options = options_for("lasting");
    options.clean_start = false;
    options.session_expiry = 100s;
    running_session lasting(io, broker, options);
    auto inbox = test::run(io, lasting.s.subscribe("runnel/lasting"));
    lasting.cut();
    test::run(io, test::pause(2500ms));
    CHECK(lasting.resumes());
    publish(io, lasting.s, "runnel/lasting", "after resuming");
    CHECK(next_payload(io, inbox) == "after resuming");
    lasting.leave();

    options.credentials.client_id = "brief";
    options.session_expiry = 1s;
    running_session brief(io, broker, options);
    auto other_inbox = test::run(io, brief.s.subscribe("runnel/brief"));
    brief.cut();
    CHECK(brief.resumes());
    brief.cut();
    test::run(io, test::pause(3000ms));
    CHECK_FALSE(brief.resumes());
    // The session has subscribed again by itself.
    publish(io, brief.s, "runnel/brief", "in a new session");
    CHECK(next_payload(io, other_inbox) == "in a new session");
    brief.leave();
}

TEST_CASE("messages expire while their receiver is away, and mosquitto counts their time down") {
    test::mosquitto broker;
    asio::io_context io;
    auto options = options_for("away");
    options.clean_start = false;
    running_session away(io, broker, options), sender(io, broker, options_for("sender"));
    auto inbox = test::run(io, away.s.subscribe("runnel/expiring"));
    away.cut();
    mqtt::properties brief, lasting;
    brief.message_expiry_interval = 1;
    lasting.message_expiry_interval = 100;
    publish(io, sender.s, "runnel/expiring", "brief", {.qos = qos::at_least_once, .props = &brief});
    publish(io, sender.s, "runnel/expiring", "lasting", {.qos = qos::at_least_once, .props = &lasting});
    test::run(io, test::pause(2500ms));
    CHECK(away.resumes());
    auto const m = test::run(io, inbox.receive());
    CHECK(m.payload() == "lasting");
    auto const left = m.props().get<mqtt::property_id::message_expiry_interval>();
    CHECK(left.value_or(0) <= 98);
    CHECK(left.value_or(0) >= 90);
    away.leave();
    sender.leave();
}

TEST_CASE("mosquitto shares a subscription's messages out, each to one of the sessions") {
    test::mosquitto broker;
    asio::io_context io;
    running_session first(io, broker, options_for("first")), second(io, broker, options_for("second"));
    running_session sender(io, broker, options_for("sender"));
    auto one = test::run(io, first.s.subscribe("$share/group/runnel/jobs/+"));
    auto two = test::run(io, second.s.subscribe("$share/group/runnel/jobs/+"));
    std::map<std::string, int> done;
    for (int i = 0; i < 40; ++i) publish(io, sender.s, "runnel/jobs/" + std::to_string(i), std::to_string(i));
    auto const end = std::chrono::steady_clock::now() + 10s;
    std::array<int, 2> shares{};
    while (shares[0] + shares[1] < 40 && std::chrono::steady_clock::now() < end) {
        while (auto m = one.try_receive()) ++done[std::string(m->payload())], ++shares[0];
        while (auto m = two.try_receive()) ++done[std::string(m->payload())], ++shares[1];
        test::run(io, test::pause(1ms));
    }
    CHECK(done.size() == 40);
    CHECK(shares[0] + shares[1] == 40);
    CHECK(shares[0] > 0);
    CHECK(shares[1] > 0);
    first.leave();
    second.leave();
    sender.leave();
}

TEST_CASE("mosquitto delays a will, and forgets it when the session resumes in time") {
    test::mosquitto broker;
    asio::io_context io;
    running_session heir(io, broker, options_for("heir"));
    auto inbox = test::run(io, heir.s.subscribe("runnel/wills"));
    auto options = options_for("mortal");
    options.clean_start = false;
    options.will.emplace();
    options.will->topic = "runnel/wills";
    options.will->payload = "gone";
    options.will->qos = qos::at_least_once;
    options.will->delay = 2s;
    running_session mortal(io, broker, options);
    CHECK_FALSE(mortal.resumes());

    mortal.cut();
    test::run(io, test::pause(500ms));
    CHECK(mortal.resumes());
    test::run(io, test::pause(3000ms));
    CHECK(inbox.size() == 0);

    auto const cut_at = std::chrono::steady_clock::now();
    mortal.cut();
    CHECK(next_payload(io, inbox) == "gone");
    CHECK(std::chrono::steady_clock::now() - cut_at > 1s);  // mosquitto counts whole seconds
    heir.leave();
}

TEST_CASE("with a receive maximum of 1, mosquitto sends the next message when the last has been let go of") {
    test::mosquitto broker;
    asio::io_context io;
    auto options = options_for("slow");
    options.receive_maximum = 1;
    running_session slow(io, broker, options), sender(io, broker, options_for("sender"));
    auto inbox = test::run(io, slow.s.subscribe("runnel/one"));
    for (int i = 0; i < 6; ++i)
        publish(io, sender.s, "runnel/one", std::to_string(i), {.qos = static_cast<qos>(1 + i % 2)});
    for (int i = 0; i < 6; ++i) {
        auto const m = test::run(io, inbox.receive());
        CHECK(m.payload() == std::to_string(i));
        test::run(io, test::pause(100ms));
        CHECK(inbox.size() == 0);
    }
    slow.leave();
    sender.leave();
}

TEST_CASE("the session keeps to mosquitto's receive maximum of 1") {
    test::mosquitto_options one;
    one.max_inflight_messages = 1;
    test::mosquitto broker(one);
    asio::io_context io;
    running_session s(io, broker, options_for("eager"));
    CHECK_FALSE(s.resumes());
    for (int i = 0; i < 20; ++i) CHECK(s.s.try_publish("runnel/eager", "", {.qos = static_cast<qos>(1 + i % 2)}));
    publish(io, s.s, "runnel/eager", "last");
    s.leave();
    // Each message is answered before the next.
    auto const log = broker.log();
    std::size_t unanswered = 0, most = 0, received = 0;
    std::istringstream lines(log);
    for (std::string line; std::getline(lines, line);) {
        if (line.find("Received PUBLISH from eager") != std::string::npos) {
            ++received;
            most = std::max(most, ++unanswered);
        }
        if (line.find("Sending PUBACK to eager") != std::string::npos ||
            line.find("Sending PUBCOMP to eager") != std::string::npos)
            --unanswered;
    }
    CHECK(received == 21);
    CHECK(most == 1);
}

TEST_CASE("what mosquitto does not take is refused here: retained or too large") {
    test::mosquitto_options limited;
    limited.configuration = "retain_available false\nmax_packet_size 1000\n";
    test::mosquitto broker(limited);
    asio::io_context io;
    running_session s(io, broker, options_for("limited"));
    CHECK_FALSE(s.resumes());
    auto const error_of = [&](std::string const& payload, mqtt::publish_options o) {
        return test::error_of(
            io, [](session& t, std::string const& p, mqtt::publish_options with) -> asio::awaitable<void> {
                co_await t.publish("runnel/limited", p, with);
            }(s.s, payload, o));
    };
    CHECK(error_of("kept?", {.qos = qos::at_least_once, .retain = true}) == mqtt::errc::retain_not_available);
    CHECK(error_of(std::string(1000, 'x'), {.qos = qos::at_least_once}) == mqtt::errc::packet_too_large);
    CHECK_FALSE(error_of(std::string(900, 'x'), {.qos = qos::at_least_once}));
    CHECK(s.s.counters().connections == 1);
    s.leave();
    CHECK(count(broker.log(), "Received PUBLISH from limited") == 1);
}

TEST_CASE("mosquitto chooses a client identifier, by which the session comes back") {
    test::mosquitto broker;
    asio::io_context io;
    running_session s(io, broker, options_for(""));
    CHECK_FALSE(s.resumes());
    s.cut();
    CHECK_FALSE(s.resumes());
    s.leave();
    auto const log = broker.log();
    std::string const chosen = log.substr(log.find(" as auto-") + 4, 41);
    CHECK(count(log, " as auto-") == 2);
    CHECK(count(log, " as " + chosen) == 2);
}

TEST_CASE("mosquitto keeps a session's own messages from it, sends retained ones as asked, and keeps their flag") {
    test::mosquitto broker;
    asio::io_context io;
    running_session s(io, broker, options_for("options")), other(io, broker, options_for("other"));
    publish(io, other.s, "runnel/kept", "old", {.qos = qos::at_least_once, .retain = true});
    auto not_own = test::run(io, s.s.subscribe("runnel/talk", {.no_local = true}));
    auto flagged = test::run(io, s.s.subscribe("runnel/kept", {.retain_as_published = true,
                                                               .handling = mqtt::retain_handling::do_not_send}));
    publish(io, s.s, "runnel/talk", "own");
    publish(io, other.s, "runnel/talk", "other's");
    CHECK(next_payload(io, not_own) == "other's");
    publish(io, other.s, "runnel/kept", "new", {.qos = qos::at_least_once, .retain = true});
    auto const m = test::run(io, flagged.receive());
    CHECK(m.payload() == "new");  // not the old one
    CHECK(m.retain());
    s.leave();
    other.leave();
}

TEST_CASE("mosquitto says that nobody has subscribed to what is published") {
    test::mosquitto broker;
    asio::io_context io;
    running_session s(io, broker, options_for("alone"));
    auto const reason = test::run(io, s.s.publish("runnel/nobody", "", {.qos = qos::at_least_once}));
    CHECK(reason == mqtt::reason_code::no_matching_subscribers);
    s.leave();
}
