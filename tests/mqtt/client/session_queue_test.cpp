// What waits in a session, seen from outside: who owns it, how it is listed and dropped, and whose session it is.

#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <support/memory_sessions.hpp>
#include <support/memory_store.hpp>
#include <system_error>
#include <vector>

using namespace runnel::mqtt;
using test::quick;

TEST_CASE("the store of one device is not sent as another one's, though only the provider knows who it is") {
    auto const store = std::make_shared<test::memory_store>();
    std::string who = "A|securemode=2,timestamp=1|";
    auto options = quick();
    options.credentials = {};
    options.make_credentials = [&] { return credentials{.client_id = who, .user_name = {}, .password = {}}; };
    options.store = store;
    auto const run_until_connected = [&] {
        test::memory_fixture fixture;
        test::memory_session session(fixture.io.get_executor(), fixture.transport, options);
        test::task<void> running(fixture.io, session.run());
        session.try_publish("state", "x", {.qos = qos::at_least_once});
        if (!test::wait_until(fixture.io, [&] { return session.is_connected() || running.done(); }))
            return std::error_code();
        if (!running.done()) {
            test::run(fixture.io, session.disconnect());
            return std::error_code();
        }
        CHECK(session.counters().bytes_sent == 0);
        return running.run_for_error();
    };
    CHECK_FALSE(run_until_connected());
    who = "A|securemode=3,timestamp=2|";
    CHECK_FALSE(run_until_connected());
    who = "B|securemode=3,timestamp=3|";
    CHECK(run_until_connected() == store_errc::other_client);
}

TEST_CASE("what waits is listed, and can be dropped, and its caller and the store are told") {
    auto const store = std::make_shared<test::memory_store>();
    auto options = quick();
    options.store = store;
    {
        test::memory_fixture fixture;
        test::memory_session session(fixture.io.get_executor(), fixture.transport, options);
        test::task<publish_result> first(fixture.io, session.publish("first", "1", {.qos = qos::exactly_once}));
        fixture.settle();
        session.try_publish("second", "2", {.qos = qos::at_least_once});
        auto const all = session.queued();
        REQUIRE(all.size() == 2);
        CHECK(all[0].topic == "first");
        CHECK(all[0].qos == qos::exactly_once);
        CHECK_FALSE(all[0].sent);
        CHECK(all[1].topic == "second");
        session.save();
        CHECK(session.discard(all[0].number));
        CHECK_FALSE(session.discard(all[0].number));
        CHECK(session.queued().size() == 1);
        CHECK(first.run_for_error() == errc::message_discarded);
    }
    test::memory_fixture fixture;
    test::memory_session session(fixture.io.get_executor(), fixture.transport, options);
    CHECK(session.restored() == 1);
    CHECK(session.queued().at(0).topic == "second");
    CHECK_FALSE(session.queued().at(0).sent);  // as there has been no connection
}

TEST_CASE("a server's session that is not to be taken up is replaced, and then all goes on") {
    for (auto version : test::versions) {
        test::memory_fixture fixture;
        auto options = quick("client", version);
        {
            test::memory_session old(fixture.io.get_executor(), fixture.transport, options);
            test::task<void> running(fixture.io, old.run());
            test::run(fixture.io, old.connected());
            test::run(fixture.io, old.disconnect());
        }
        options.accept_unknown_session = false;
        std::vector<std::error_code> ends;
        bool present = true;
        options.on_event = [&](session_event const& e) {
            if (e.what == session_event::kind::disconnected && e.error) ends.push_back(e.error);
            if (e.what == session_event::kind::connected) present = e.session_present;
        };
        test::memory_session session(fixture.io.get_executor(), fixture.transport, options);
        test::task<void> running(fixture.io, session.run());
        test::run(fixture.io, session.connected());
        CHECK_FALSE(present);
        CHECK(ends.size() == (version == protocol_version::v5 ? 1 : 2));
        CHECK(ends[0] == errc::session_present_unexpected);
        if (ends.size() == 2) CHECK(ends[1] == errc::session_discarded);
        test::run(fixture.io, session.disconnect());
    }
}

TEST_CASE("room that a message leaves which has expired is for who waits, not only after the next attempt to connect") {
    test::memory_fixture fixture;
    auto options = quick("client", protocol_version::v5);
    options.maximum_queued = 1;
    options.reconnect.initial = options.reconnect.maximum = std::chrono::hours(1);
    fixture.on_open = [](auto&) { throw std::system_error(asio::error::connection_refused); };
    test::memory_session session(fixture.io.get_executor(), fixture.transport, options);
    test::task<void> running(fixture.io, session.run());
    fixture.settle();
    properties expiring;
    expiring.message_expiry_interval = 1;
    REQUIRE(session.try_publish("first", "1", {.props = &expiring}));
    test::task<publish_result> second(fixture.io, session.publish("second", "2"));
    fixture.settle();
    CHECK_FALSE(second.done());
    CHECK(second.run().what == publish_result::outcome::queued);
    running.cancel();
    CHECK(running.run_for_error());
}
