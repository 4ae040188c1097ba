#include <runnel/mqtt/client/scram_authenticator.hpp>
#include <runnel/testing/broker/scram.hpp>

#include <asio/post.hpp>
#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/memory_sessions.hpp"
#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::errc;
using mqtt::reason_code;
using mqtt::scram_credentials;
using mqtt::scram_errc;
using mqtt::scram_sha_1;
using mqtt::scram_sha_256;
using mqtt::scram_sha_512;
using test::memory_fixture;
using test::memory_session;
using test::task;

constexpr auto v5 = mqtt::protocol_version::v5;
constexpr std::string_view salt = "salt of sixteen.";

template <class M>
using scram = mqtt::scram_authenticator<M>;

// What a server keeps: made once.
template <class M>
mqtt::scram_verifier const& verifier(std::string_view password, std::uint32_t iterations) {
    static std::map<std::pair<std::string, std::uint32_t>, mqtt::scram_verifier> made;
    auto const [at, is_new] = made.try_emplace({std::string(password), iterations});
    if (is_new) at->second = mqtt::scram_verifier_from<M>(mqtt::derive_scram_keys<M>(password, salt, iterations));
    return at->second;
}

// A broker that has one user.
struct scram_fixture : memory_fixture {
    template <class M>
    void knows(std::string user, std::string_view password, std::uint32_t iterations = 4096) {
        auto const& kept = verifier<M>(password, iterations);
        broker.hooks().authenticate =
            [this, known = runnel::testing::scram_authentication<M>([user, &kept](auto const&, std::string_view name) {
                       return name == user ? std::optional(kept) : std::nullopt;
                   })](runnel::testing::authentication_attempt& a) {
                ++steps;
                auto const answer = known(a);
                if (change) change(a);
                return answer;
            };
    }

    int steps = 0;
    std::function<void(runnel::testing::authentication_attempt&)> change;  // what the broker replies
};

struct scram_session {
    template <class M>
    scram_session(scram_fixture& p, scram<M> a, mqtt::session_options o = test::quick("client", v5))
        : session(p.io.get_executor(), p.transport, std::move(o)) {
        session.set_authenticator(std::move(a));
        running.emplace(p.io, session.run());
    }
    memory_session session;
    std::optional<task<void>> running;
};

std::error_code end_of(scram_fixture& p, scram_credentials who) {
    scram_session s(p, scram<scram_sha_256>(std::move(who)));
    return s.running->run_for_error();
}

scram_credentials const user{.user_name = "user", .password = "pencil"};

static_assert(mqtt::authenticator<scram<scram_sha_256>, asio::any_io_executor>);

}  // namespace

TEST_CASE_TEMPLATE("a session authenticates by SCRAM, before each connection and again on the same one", M, scram_sha_1,
                   scram_sha_256, scram_sha_512) {
    scram_fixture p;
    p.knows<M>("a=b,c", "pencil");
    std::vector<mqtt::scram_keys> derived;
    scram_session s(p, scram<M>({.user_name = "a=b,c", .password = "pencil"}, {},
                                [&](mqtt::scram_keys const& keys) { derived.push_back(keys); }));
    test::run(p.io, s.session.connected());
    CHECK(p.steps == 2);
    test::run(p.io, s.session.reauthenticate());
    test::run(p.io, s.session.reauthenticate());
    CHECK(p.steps == 6);
    CHECK(s.session.counters().connections == 1);
    p.broker.drop_client("client");
    CHECK(test::wait_until(p.io, [&] { return s.session.counters().connections == 2; }));
    CHECK(p.steps == 8);
    test::run(p.io, s.session.publish("t", "m", {.qos = mqtt::qos::exactly_once}));
    test::run(p.io, s.session.disconnect());
    CHECK_FALSE(s.running->run_for_error());
    CHECK(p.broker.counters().protocol_errors == 0);
    REQUIRE(derived.size() == 1);  // for all of them
    CHECK(derived[0].salt == salt);

    // The next process has these keys, and no password.
    scram_session next(p, scram<M>({.user_name = "a=b,c", .keys = derived[0]}));
    test::run(p.io, next.session.connected());
    test::run(p.io, next.session.disconnect());
    CHECK_FALSE(next.running->run_for_error());
}

TEST_CASE("a server that does not know the user, or knows another password, refuses the session") {
    scram_fixture p;
    p.knows<scram_sha_256>("user", "pencil");
    int told = 0;
    scram_session wrong(
        p, scram<scram_sha_256>({.user_name = "user", .password = "pen"}, {}, [&](auto const&) { ++told; }));
    CHECK(wrong.running->run_for_error() == reason_code::not_authorized);
    CHECK(told == 0);  // of keys that nobody accepts
    CHECK(end_of(p, {.user_name = "other", .password = "pencil"}) == reason_code::not_authorized);
    p.knows<scram_sha_1>("user", "pencil");
    CHECK(end_of(p, user) == reason_code::bad_authentication_method);
}

TEST_CASE("a server that does not prove that it knows the user gets no message") {
    scram_fixture p;
    p.knows<scram_sha_256>("user", "pencil");
    std::size_t messages = 0;
    p.broker.hooks().on_publish = [&](auto const&, auto const&) { ++messages; };
    scram_errc expected{};
    auto const proves_nothing = [&](std::optional<std::string> last, scram_errc e) {
        p.change = [last](runnel::testing::authentication_attempt& a) {
            if (a.step == 1) a.reply = last;
        };
        expected = e;
        scram_session s(p, scram<scram_sha_256>(user));
        CHECK(s.session.try_publish("t", "m"));
        CHECK(s.running->run_for_error() == expected);
        p.settle();
    };
    proves_nothing("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", scram_errc::signature_wrong);
    proves_nothing("", scram_errc::signature_missing);
    proves_nothing(std::nullopt, scram_errc::signature_missing);
    proves_nothing("e=other-error", scram_errc::refused);
    CHECK(messages == 0);
}

TEST_CASE("a server that accepts without a challenge gets no message") {
    scram_fixture p;
    p.broker.hooks().authenticate = [](auto&) { return reason_code::success; };
    CHECK(end_of(p, user) == scram_errc::signature_missing);
}

TEST_CASE("a server's first message that is not right ends run") {
    scram_fixture p;
    p.knows<scram_sha_256>("user", "pencil");
    auto const said = [&](std::string (*change)(std::string)) {
        p.change = [change](runnel::testing::authentication_attempt& a) {
            if (a.step == 0) a.reply = change(*a.reply);
        };
        return end_of(p, user);
    };
    CHECK(said([](std::string s) { return s.replace(2, 1, "\x7e"); }) == scram_errc::nonce_wrong);
    CHECK(said([](std::string s) { return s.replace(s.find(",i="), 7, ",i=4095"); }) == scram_errc::too_few_iterations);
    CHECK(said([](std::string s) { return s + "000"; }) == scram_errc::too_many_iterations);
    CHECK(said([](std::string s) { return "m=x," + s; }) == scram_errc::extension_required);
}

TEST_CASE("a server's refusal is told in its words, made fit for a terminal") {
    scram_fixture p;
    p.knows<scram_sha_256>("user", "pencil");
    scram_session s(p, scram<scram_sha_256>(user));
    test::run(p.io, s.session.connected());
    p.change = [](runnel::testing::authentication_attempt& a) { a.reply = "e=no\x1b[2Jresources"; };
    task<void> again(p.io, s.session.reauthenticate());
    CHECK(again.run_for_error() == scram_errc::refused);
    CHECK(again.error_text() == "no\\x1b[2Jresources: the server has refused the authentication");
    CHECK(s.running->run_for_error() == scram_errc::refused);
    CHECK(s.running->error_text().find('\x1b') == std::string::npos);
}

TEST_CASE("a server whose messages are none of SCRAM is tried again") {
    scram_fixture p;
    p.knows<scram_sha_256>("user", "pencil");
    p.change = [&](runnel::testing::authentication_attempt& a) {
        if (p.steps < 4) a.reply = "hello";
    };
    scram_session s(p, scram<scram_sha_256>(user));
    test::run(p.io, s.session.connected());
    CHECK(p.opened > 2);
    test::run(p.io, s.session.disconnect());
}

TEST_CASE("the connection ends when the server's new proof is wrong [MQTT-4.12.1-2]") {
    scram_fixture p;
    p.knows<scram_sha_256>("user", "pencil");
    std::vector<std::error_code> lost;
    auto options = test::quick("client", v5);
    options.on_event = [&](mqtt::session_event const& e) {
        if (e.what == mqtt::session_event::kind::disconnected) lost.push_back(e.error);
    };
    scram_session s(p, scram<scram_sha_256>(user), options);
    test::run(p.io, s.session.connected());
    p.change = [](runnel::testing::authentication_attempt& a) {
        if (a.again && a.step == 1) a.reply->at(4) ^= 1;
    };
    auto const e = test::error_of(p.io, s.session.reauthenticate());
    CHECK((e == scram_errc::signature_wrong || e == scram_errc::message_malformed));
    CHECK(test::wait_until(p.io, [&] { return s.session.counters().connections == 2; }));
    CHECK(lost == std::vector<std::error_code>{errc::authentication_failed});
    p.change = {};
    test::run(p.io, s.session.reauthenticate());
    test::run(p.io, s.session.disconnect());
}

TEST_CASE("others go on while the keys are derived") {
    scram_fixture p;
    p.knows<scram_sha_256>("user", "pencil", 20'000);
    scram_session s(p, scram<scram_sha_256>(user));
    int turns = 0;
    std::function<void()> const count = [&] {
        if (s.session.is_connected()) return;
        ++turns;
        asio::post(p.io, count);
    };
    asio::post(p.io, count);
    test::run(p.io, s.session.connected());
    CHECK(turns > 20'000 / 512);
    test::run(p.io, s.session.disconnect());
}

TEST_CASE("a session can be cancelled, and can go, at any turn while the keys are derived") {
    for (bool const cancels : {true, false}) {
        for (int turns = 0; turns < 60; ++turns) {
            CAPTURE(turns);
            scram_fixture p;
            p.knows<scram_sha_1>("user", "pencil");
            std::optional<scram_session> s(std::in_place, p, scram<scram_sha_1>(user));
            p.io.restart();
            for (int i = 0; i < turns && p.io.poll_one() != 0; ++i) continue;
            if (cancels) {
                s->running->cancel();
                s->running->run_for_error();
                CHECK(s->running->ended() == 1);
            }
            s.reset();
            p.settle();
        }
    }
}

TEST_CASE("what has been derived of the keys before a connection is lost serves the next one") {
    scram_fixture p;
    constexpr std::uint32_t iterations = 300'000;
    p.knows<scram_sha_1>("user", "pencil", 4096);
    p.change = [](runnel::testing::authentication_attempt& a) {
        if (a.step == 0) a.reply = a.reply->substr(0, a.reply->find(",i=")) + ",i=" + std::to_string(iterations);
    };
    // The proof is for other iterations than the server's, which refuses it: all that matters here is when.
    auto options = test::quick("client", v5);
    options.connect_timeout = std::chrono::milliseconds(20);
    scram_session s(p, scram<scram_sha_1>(user), options);
    CHECK(s.running->run_for_error(std::chrono::minutes(2)) == reason_code::not_authorized);
    CHECK(p.opened > 1);
}

TEST_CASE("prepared keys that the server does not ask for, and no password, end run") {
    scram_fixture p;
    p.knows<scram_sha_256>("user", "pencil");
    CHECK(end_of(p, {.user_name = "user", .keys = mqtt::derive_scram_keys<scram_sha_256>("pencil", "another salt")}) ==
          scram_errc::keys_of_another_salt);
    // With a password they are made anew.
    scram_session s(p,
                    scram<scram_sha_256>({.user_name = "user",
                                          .password = "pencil",
                                          .keys = mqtt::derive_scram_keys<scram_sha_256>("pencil", "another salt")}));
    test::run(p.io, s.session.connected());
    test::run(p.io, s.session.disconnect());
}

TEST_CASE("what the handler of keys throws ends run") {
    scram_fixture p;
    p.knows<scram_sha_256>("user", "pencil");
    scram_session s(p, scram<scram_sha_256>(user, {}, [](auto const&) { throw std::runtime_error("disk full"); }));
    CHECK_THROWS_WITH_AS(s.running->run(), "disk full", std::runtime_error);
}

TEST_CASE("credentials and limits that cannot be used are refused at once") {
    CHECK_THROWS_AS(scram<scram_sha_256>({.user_name = "user"}), std::system_error);
    CHECK_THROWS_AS(scram<scram_sha_256>(user, {.least = 1}), std::out_of_range);
}

TEST_CASE("neither the password nor the keys are left behind in memory") {
    std::string const password = "a password of more than fifteen bytes";
    auto const keys = mqtt::derive_scram_keys<scram_sha_256>(password, salt);
    auto const kept = mqtt::scram_verifier_from<scram_sha_256>(keys);
    for (std::string const& secret : {password, std::string(keys.client_key), std::string(keys.server_key)}) {
        REQUIRE(secret.find('\0') == std::string::npos);
        scram_fixture p;
        p.knows<scram_sha_256>("user", password);
        runnel::testing::freed_memory_search const search(secret.c_str());
        {
            scram_session s(p,
                            scram<scram_sha_256>({.user_name = "user", .password = runnel::secret_string(password)}));
            test::run(p.io, s.session.connected());
            test::run(p.io, s.session.reauthenticate());
            test::run(p.io, s.session.disconnect());
            CHECK_FALSE(s.running->run_for_error());
        }
        CHECK(search.found() == 0);
    }
}
