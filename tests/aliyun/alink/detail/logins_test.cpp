#include <runnel/aliyun/alink/gateway.hpp>
#include <runnel/aliyun/client/device_session.hpp>

#include <doctest/doctest.h>

#include "support/alink_fixture.hpp"
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

// Sub-devices that are logged in and out while answers are late or refused and connections are lost: the last word
// counts, and what a gateway says of them is what the platform has.

namespace {

using namespace std::chrono_literals;
using test::json;
using test::task;
namespace aliyun = test::aliyun;
namespace alink = test::alink;
namespace mqtt = test::mqtt;
using alink::errc;

constexpr aliyun::device hub{"a1B2c3D4e5F", "gateway-1", "the gateway's secret"};
constexpr aliyun::device sensor{"b2C3d4E5f6G", "sensor-1", "the sensor's secret"};
constexpr aliyun::device other{"b2C3d4E5f6G", "sensor-2", "the other sensor's secret"};
constexpr std::array subs = {sensor, other};

using session_type = aliyun::device_session<runnel::memory_transport>;
using gateway_type = alink::gateway<session_type>;
using sub_device_type = alink::sub_device<session_type>;

// A gateway that runs with two sub-devices, which belong to it and whose `run` runs as well.
struct fixture {
    explicit fixture(std::chrono::milliseconds timeout = 10s,
                     aliyun::pace limits = {.qos_0 = 0, .qos_1 = 0, .connects = 0})
        : cloud(io.get_executor()),
          session(io.get_executor(), hub, transport(), session_options(), limits),
          gateway(session, hub, options(timeout)) {
        for (auto const& d : {hub, sensor, other}) cloud.add_device(d);
        cloud.on_message = [this](auto const&, mqtt::publish const& m) {
            if (m.topic.starts_with("/ext/session/")) requests.emplace_back(m.topic.substr(m.topic.rfind('/') + 1));
        };
        session_running.emplace(io, session.run());
        gateway_running.emplace(io, gateway.run());
        test::run(io, session.connected());
        for (int tries = 0; tries < 50 && test::error_of(io, gateway.add(subs)) == errc::timed_out; ++tries) {
        }
        auto sub_options = sub_device_type::usual_options();
        sub_options.timeout = timeout;
        for (std::size_t i = 0; i < 2; ++i) sub[i] = std::make_unique<sub_device_type>(gateway, subs[i], sub_options);
    }

    runnel::memory_transport transport() {
        return runnel::memory_transport([this](runnel::memory_stream<> s) {
            if (down) throw std::system_error(asio::error::connection_refused);
            cloud.attach(std::move(s));
        });
    }
    static mqtt::session_options session_options() {
        auto o = aliyun::session_options<runnel::memory_transport>(hub);
        o.reconnect.initial = o.reconnect.maximum = 1ms;
        return o;
    }
    alink::options options(std::chrono::milliseconds timeout) {
        alink::options o;
        o.timeout = timeout;
        o.login_pause = 2ms;
        o.on_fault = [this](alink::fault const& f) {
            faults.push_back(f.why);
            details.emplace_back(f.detail);
        };
        return o;
    }
    template <class T>
    T run(asio::awaitable<T> operation) {
        return test::run(io, std::move(operation));
    }
    void wait(std::chrono::milliseconds time) {
        run(runnel::sleep_for(asio::any_io_executor(io.get_executor()), time));
    }
    void reconnect() {
        auto const before = session.counters().connections;
        REQUIRE(cloud.drop_device(hub));
        run(session.connected(before));
    }
    sub_device_type& first() { return *sub[0]; }

    asio::io_context io;
    bool down = false;
    std::vector<std::error_code> faults;
    std::vector<std::string> details, requests;
    runnel::testing::aliyun_cloud cloud;
    std::optional<task<void>> session_running, gateway_running;
    session_type session;
    gateway_type gateway;
    std::array<std::unique_ptr<sub_device_type>, 2> sub;
};

json const values = {{"Humidity", 41}};

}  // namespace

TEST_CASE("a logout while the login is under way has the last word") {
    fixture p;
    p.cloud.delay_answers(20ms);
    task<void> login(p.io, p.first().login());
    test::settle(p.io);
    REQUIRE(p.cloud.logged_in(sensor));
    p.run(p.first().logout());
    CHECK(login.run_for_error() == errc::overtaken);
    CHECK_FALSE(p.first().is_logged_in());
    CHECK_FALSE(p.cloud.logged_in(sensor));
    p.wait(50ms);
    CHECK_FALSE(p.first().is_logged_in());
    CHECK(p.requests == std::vector<std::string>{"login", "logout"});
    p.run(p.first().login());
    p.run(p.first().post_properties(values));
    CHECK(p.cloud.thing(sensor).properties == values);
}

TEST_CASE("a login before the logout has been sent has the last word, too") {
    fixture p;
    p.cloud.delay_answers(20ms);
    task<void> login(p.io, p.first().login());
    test::settle(p.io);
    task<json> logout(p.io, p.first().logout());
    p.run(p.first().login());
    CHECK(logout.run_for_error() == errc::overtaken);
    CHECK_FALSE(login.run_for_error());
    CHECK(p.first().is_logged_in());
    CHECK(p.requests == std::vector<std::string>{"login"});
}

TEST_CASE("a login while the logout is under way is made behind it") {
    fixture p;
    p.run(p.first().login());
    p.cloud.delay_answers(20ms);
    task<json> logout(p.io, p.first().logout());
    test::settle(p.io);
    REQUIRE_FALSE(p.cloud.logged_in(sensor));
    p.run(p.first().login());
    CHECK(logout.done());
    CHECK_FALSE(logout.run_for_error());
    CHECK(p.first().is_logged_in());
    CHECK(p.cloud.logged_in(sensor));
}

TEST_CASE("a logout that was called off, or not answered, is made all the same") {
    for (bool const cancelled : {true, false}) {
        fixture p(50ms);
        p.run(p.first().login());
        p.cloud.drop_next(1);
        task<json> logout(p.io, p.first().logout());
        test::settle(p.io);
        if (cancelled) logout.cancel();
        CHECK(logout.run_for_error() ==
              (cancelled ? make_error_code(asio::error::operation_aborted) : make_error_code(errc::timed_out)));
        CHECK_FALSE(p.first().is_logged_in());
        CHECK(test::wait_until(p.io, [&] { return !p.cloud.logged_in(sensor); }));
        p.wait(20ms);
        CHECK(p.requests == std::vector<std::string>{"login", "logout", "logout"});
    }
}

TEST_CASE("a logout that is refused leaves the sub-device logged in, says so, and is made later") {
    fixture p;
    p.run(p.first().login());
    p.cloud.answer_next(1, {.code = 429});
    CHECK(test::error_of(p.io, p.first().logout()) == errc::throttled);
    CHECK(p.first().is_logged_in());
    CHECK(p.cloud.logged_in(sensor));
    CHECK(test::wait_until(p.io, [&] { return !p.cloud.logged_in(sensor); }));
    CHECK(test::wait_until(p.io, [&] { return !p.first().is_logged_in(); }));
}

TEST_CASE("a sub-device that only listens gets its login back when the platform was busy, and that is told") {
    fixture p;
    p.first().on_properties([](json) -> asio::awaitable<void> { co_return; });
    task<void> running(p.io, p.first().run());
    p.run(p.first().start());
    p.cloud.answer_next(3, {.code = 429});
    p.reconnect();
    CHECK(test::wait_until(p.io, [&] { return p.first().is_logged_in(); }));
    CHECK(p.cloud.logged_in(sensor));
    CHECK(p.faults == std::vector<std::error_code>(3, make_error_code(errc::throttled)));
    CHECK(p.details[0].starts_with("b2C3d4E5f6G/sensor-1: "));
    CHECK(p.run(p.cloud.set_properties(sensor, values))["code"] == 200);
    CHECK_FALSE(running.done());
}

TEST_CASE("a login that is refused for good after a reconnect is told, and not tried again") {
    fixture p;
    p.run(p.first().login());
    p.cloud.thing(sensor).disabled = true;
    p.reconnect();
    CHECK(test::wait_until(p.io, [&] { return !p.faults.empty(); }));
    CHECK(p.faults == std::vector<std::error_code>{make_error_code(errc::session_device_disabled)});
    auto const asked = p.requests.size();
    p.wait(20ms);
    CHECK(p.requests.size() == asked);
    CHECK_FALSE(p.first().is_logged_in());
}

TEST_CASE("a sub-device's request waits for the connection and the login, and ends in time") {
    fixture p(5s);
    p.run(p.first().login());
    p.down = true;
    REQUIRE(p.cloud.drop_device(hub));
    CHECK(test::wait_until(p.io, [&] { return !p.session.is_connected(); }));
    CHECK_FALSE(p.first().is_logged_in());
    CHECK(test::error_of(p.io, p.first().post_properties(values, {.timeout = 10ms})) == errc::timed_out);
    json const later = {{"Humidity", 42}};
    task<json> post(p.io, p.first().post_properties(later));
    p.wait(20ms);
    CHECK_FALSE(post.done());
    p.down = false;
    post.run();
    CHECK(p.cloud.thing(sensor).properties == later);
    CHECK(p.first().is_logged_in());
}

TEST_CASE("without a connection nobody is logged in: a logout has nothing to do") {
    fixture p(5s);
    p.run(p.first().login());
    p.down = true;
    REQUIRE(p.cloud.drop_device(hub));
    CHECK(test::wait_until(p.io, [&] { return !p.session.is_connected(); }));
    CHECK(p.run(p.first().logout()).is_null());
    p.down = false;
    p.run(p.session.connected());
    p.wait(20ms);
    CHECK_FALSE(p.cloud.logged_in(sensor));
    CHECK(p.requests == std::vector<std::string>{"login"});
}

TEST_CASE("a reconnect while a login or a logout is under way does not wait for its answer") {
    for (bool const in : {true, false}) {
        fixture p;
        if (!in) p.run(p.first().login());
        p.cloud.drop_next(1);
        task<void> changing(p.io, in ? p.first().login() : test::only(p.first().logout()));
        test::settle(p.io);
        REQUIRE_FALSE(changing.done());
        p.reconnect();
        changing.run(1s);
        p.wait(20ms);
        CHECK(p.cloud.logged_in(sensor) == in);
        CHECK(p.first().is_logged_in() == in);
    }
}

TEST_CASE("two logouts at the same time, and one of many, are each answered once") {
    fixture p;
    p.run(p.first().login());
    p.run(p.sub[1]->login());
    p.cloud.delay_answers(5ms);
    std::vector<alink::device_id> const both = {alink::id_of(sensor), alink::id_of(other)};
    task<json> one(p.io, p.first().logout()), two(p.io, p.first().logout());
    task<void> all(p.io, p.gateway.logout(both));
    CHECK_FALSE(one.run_for_error());
    CHECK(two.run_for_error() == errc::session_missing);
    CHECK(all.run_for_error() == errc::session_missing);  // all of them or none
    CHECK(test::wait_until(p.io, [&] { return !p.cloud.logged_in(other); }));
    CHECK(test::wait_until(p.io, [&] { return !p.sub[1]->is_logged_in(); }));
}

TEST_CASE("a login of several whose answer nobody can read may have been made: the last word counts for each") {
    for (runnel::testing::wrong_answer const wrong :
         {runnel::testing::wrong_answer{.garbage = true}, {.wrong_id = true}}) {
        for (bool const in : {true, false}) {
            fixture p(30ms);
            p.cloud.answer_next(1, wrong);
            task<void> one(p.io, p.first().login()), two(p.io, p.sub[1]->login());
            CHECK(test::wait_until(p.io, [&] { return p.requests.size() == 1; }));
            REQUIRE(p.requests[0] == "batch_login");
            REQUIRE(p.cloud.logged_in(sensor));
            // On a slow machine the login's own time is over before, and the logout is made behind the next one.
            auto const logout = in ? std::error_code() : test::error_of(p.io, p.first().logout());
            CHECK((!logout || logout == errc::timed_out));
            CHECK(test::wait_until(p.io, [&] { return p.sub[1]->is_logged_in(); }));
            CHECK(test::wait_until(p.io, [&] { return p.cloud.logged_in(sensor) == in; }));
            CHECK(test::wait_until(p.io, [&] { return p.first().is_logged_in() == in; }));
            CHECK(p.cloud.logged_in(other));
            CHECK(one.run_for_error() == (in ? std::error_code() : make_error_code(errc::overtaken)));
            CHECK_FALSE(two.run_for_error());
        }
    }
}

TEST_CASE("a login of several that is refused for the sake of one is made for each alone, with pauses") {
    fixture p;
    p.cloud.thing(sensor).disabled = true;
    task<void> one(p.io, p.first().login()), two(p.io, p.sub[1]->login());
    CHECK(one.run_for_error() == errc::session_device_disabled);
    CHECK_FALSE(two.run_for_error());
    CHECK(p.requests == std::vector<std::string>{"batch_login", "login", "login"});
    p.wait(10ms);
    CHECK(p.requests.size() == 3);
}

TEST_CASE("a request and then a logout, in one turn or at any later time, leave the sub-device logged out") {
    for (int const turns : {0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30}) {
        fixture p;
        task<json> post(p.io, p.first().post_properties(values));
        for (int i = 0; i < turns; ++i) p.io.poll_one();
        auto const logout = test::error_of(p.io, p.first().logout());
        CHECK((!logout || logout == errc::session_missing));
        auto const error = post.run_for_error();
        CHECK((!error || error == errc::overtaken));
        p.wait(5ms);
        CHECK_FALSE(p.cloud.logged_in(sensor));
        CHECK_FALSE(p.first().is_logged_in());
    }
}

TEST_CASE("a request decides when it is called, and not again when it is awaited, or when its turn comes") {
    fixture p;
    p.run(p.first().login());
    auto posting = p.first().post_properties(values);
    p.run(p.first().logout());
    task<json> post(p.io, std::move(posting));
    CHECK(post.run_for_error() == errc::overtaken);

    auto with_shadow = sub_device_type::usual_options();
    with_shadow.features = with_shadow.features | alink::feature::shadow;
    sub_device_type sub(p.gateway, other, with_shadow);
    p.run(sub.login());
    p.cloud.delay_answers(20ms);
    task<void> one(p.io, test::only(sub.get_shadow()));
    test::settle(p.io);
    task<void> two(p.io, test::only(sub.get_shadow()));
    test::settle(p.io);
    p.run(sub.logout());
    CHECK_FALSE(one.run_for_error());
    CHECK(two.run_for_error() == errc::overtaken);
    p.wait(30ms);
    CHECK_FALSE(p.cloud.logged_in(other));
}

TEST_CASE("what waits for its turn when the connection is lost follows the login on the next one") {
    fixture p(5s, {.qos_0 = 6, .qos_1 = 6, .span = 20ms, .connects = 0});
    p.run(p.first().login());
    std::vector<std::unique_ptr<task<json>>> posts;
    for (int i = 0; i < 30; ++i) {
        json const value = {{"n", i}};
        posts.push_back(std::make_unique<task<json>>(p.io, p.first().post_properties(value)));
    }
    task<json> cancelled(p.io, p.first().post_properties({{"cancelled", true}}));
    p.wait(15ms);
    cancelled.cancel();
    CHECK(cancelled.run_for_error() == asio::error::operation_aborted);
    for (int i = 0; i < 2; ++i) {
        p.reconnect();
        p.wait(30ms);
    }
    // But those that had left, and whose answers were lost.
    int lost = 0;
    for (auto& t : posts) lost += !t->done() && t->run_for_error(6s) == errc::timed_out;
    CHECK(lost <= 12);
    CHECK(p.cloud.thing(sensor).properties["n"] == 29);
    CHECK_FALSE(p.cloud.thing(sensor).properties.contains("cancelled"));
    CHECK(p.session.counters().queued_bytes == 0);
}

TEST_CASE("a sub-device that is taken out of the topology is not logged in any more, and can come back") {
    fixture p;
    p.run(p.first().login());
    std::array const ids = {alink::id_of(sensor)};
    p.run(p.gateway.remove(ids));
    CHECK_FALSE(p.first().is_logged_in());
    CHECK(test::error_of(p.io, p.first().post_properties(values)) == errc::topology_missing);
    p.run(p.gateway.add(subs));
    p.run(p.first().post_properties(values));
    CHECK(p.first().is_logged_in());
}

TEST_CASE("a sub-device that was perhaps taken out of the topology is logged in again, if it can be") {
    for (bool const removed : {true, false}) {
        fixture p(30ms);
        p.run(p.first().login());
        p.cloud.answer_next(1, {.silent = !removed, .garbage = removed});
        std::array const ids = {alink::id_of(sensor)};
        CHECK(test::error_of(p.io, p.gateway.remove(ids)) == errc::timed_out);
        auto const is_settled = [&] {
            return removed ? p.faults.size() == 2 : p.requests.size() == 2 && p.first().is_logged_in();
        };
        CHECK(test::wait_until(p.io, is_settled));
        CHECK(p.first().is_logged_in() != removed);
        CHECK(p.cloud.logged_in(sensor) != removed);
        if (removed) CHECK(p.faults.back() == errc::topology_missing);
    }
}

TEST_CASE("the first request of a sub-device ends with the session, as the later ones do") {
    fixture p;
    p.run(p.first().login());
    p.cloud.drop_next(1);
    task<json> post(p.io, p.first().post_properties(values));
    p.wait(10ms);
    p.run(p.session.disconnect());
    CHECK(post.run_for_error() == errc::disconnected);
    CHECK_FALSE(p.gateway_running->run_for_error());
    CHECK_FALSE(p.session_running->run_for_error());
    // And it is logged in again when all of it runs again.
    p.session_running.emplace(p.io, p.session.run());
    p.gateway_running.emplace(p.io, p.gateway.run());
    p.run(p.first().post_properties(values));
}

TEST_CASE("the longest timeouts are longer than any clock, and no error") {
    constexpr auto longest = std::chrono::milliseconds::max();
    fixture p(longest);
    p.run(p.first().login());
    p.run(p.first().post_properties(values, {.timeout = longest}));
    p.run(p.first().post_properties(values, {.timeout = std::chrono::hours(24 * 365 * 290)}));
    p.run(test::only(p.gateway.get_shadow()));
    p.run(p.first().logout());
}

// --- at random

namespace {

// Two sub-devices and a shadow, with everything that can happen to them, in an order that `seed` decides.
struct random_run {
    explicit random_run(unsigned seed)
        : random(seed),
          p(60ms, seed % 3 == 0 ? aliyun::pace{.qos_0 = 6, .qos_1 = 6, .span = 4ms, .connects = 0}
                                : aliyun::pace{.qos_0 = 0, .qos_1 = 0, .connects = 0}) {
        for (std::size_t i = 0; i < 2; ++i) running[i].emplace(p.io, p.sub[i]->run());
        p.cloud.on_message = [this](auto const&, mqtt::publish const& m) {
            note_shadow();
            if (m.topic.find("/thing/event/property/post") != m.topic.npos)
                posted.insert(json::parse(m.payload)["params"]["n"].template get<int>());
        };
    }

    enum class kind { login, logout, post, shadow };
    // What has been asked for, and what has come of it.
    struct asked {
        asked(kind k, std::size_t w, int n) : what(k), who(w), number(n) {}
        kind what;
        std::size_t who;
        int number;
        std::uint64_t version = 0, connection = 0, last_connection = 0;
        std::optional<task<void>> operation;
    };

    unsigned pick(unsigned n) { return static_cast<unsigned>(random() % n); }

    // The shadow holds what the messages before have made of it.
    void note_shadow() {
        auto const& reported = p.cloud.thing(hub).shadow["state"]["reported"];
        if (reported.contains("n")) stored.insert(reported["n"].get<int>());
    }

    void begin(kind what, std::size_t who) {
        operations.push_back(std::make_unique<asked>(what, who, ++count));
        auto& o = *operations.back();
        if (what == kind::shadow) o.version = ++shadow_calls / 2 + 1;  // two for each version: one must fail
        o.operation.emplace(p.io, perform(this, &o));
    }

    static asio::awaitable<void> perform(random_run* r, asked* o) {
        o->connection = r->p.session.counters().connections;
        auto& sub = *r->p.sub[o->who];
        json const value = {{"n", o->number}};
        if (o->what == kind::shadow) {
            std::exception_ptr failure;
            try {
                co_await r->p.gateway.update_shadow(value, o->version);
            } catch (...) {
                failure = std::current_exception();
            }
            o->last_connection = r->p.session.counters().connections;
            if (failure) std::rethrow_exception(failure);
            co_return;
        }
        r->word[o->who] = o;
        if (o->what == kind::login) {
            co_await sub.login();
            CHECK(sub.is_logged_in());
        } else if (o->what == kind::logout) {
            co_await sub.logout();
            if (r->word[o->who] == o) CHECK_FALSE(sub.is_logged_in());
        } else {
            co_await sub.post_properties(value);
        }
    }

    void step() {
        auto const who = pick(2);
        switch (pick(14)) {
            case 0:
            case 1: begin(kind::post, who); break;
            case 2:
            case 3: begin(kind::login, who); break;
            case 4:
            case 5: begin(kind::logout, who); break;
            case 6: p.cloud.drop_device(hub); break;
            case 7:
                if (!operations.empty())
                    operations[pick(static_cast<unsigned>(operations.size()))]->operation->cancel();
                break;
            case 8: p.cloud.delay_answers(std::chrono::milliseconds(pick(4))); break;
            case 9: {
                runnel::testing::wrong_answer const wrong[] = {{.code = 429},    {.code = 500},      {.code = 460},
                                                               {.silent = true}, {.wrong_id = true}, {.garbage = true}};
                p.cloud.answer_next(1 + pick(3), wrong[pick(6)]);
                break;
            }
            case 10: p.down = !p.down; break;
            case 11: begin(kind::shadow, 0); break;
            case 12:
                calls.push_back(std::make_unique<task<json>>(p.io, p.cloud.set_properties(subs[who], {}, 60ms)));
                break;
            default: p.io.run_for(std::chrono::milliseconds(pick(3)));
        }
        p.io.restart();
        for (auto n = pick(8); n > 0; --n) p.io.poll_one();
    }

    bool all_done() const {
        return std::ranges::all_of(operations, [](auto const& o) { return o->operation->done(); });
    }
    bool is_view_right() {
        for (std::size_t i = 0; i < 2; ++i)
            if (p.sub[i]->is_logged_in() != p.cloud.logged_in(subs[i])) return false;
        return p.session.is_connected();
    }

    void check_results() {
        std::map<std::uint64_t, int> done_by_version;
        for (auto const& o : operations) {
            CHECK(o->operation->ended() == 1);
            auto const error = o->operation->error();
            if (o->what == kind::post && !error) CHECK(posted.contains(o->number));
            if (o->what != kind::shadow) continue;
            if (!error) CHECK(stored.contains(o->number));
            if (!error) CHECK(++done_by_version[o->version] == 1);
            bool const one_connection = o->last_connection == o->connection;
            if (error == errc::version_conflict && one_connection) CHECK_FALSE(stored.contains(o->number));
        }
    }

    // Whether a login of it was refused, so that it is out although the last word was another.
    bool was_refused(std::size_t who) {
        return std::ranges::any_of(operations, [&](auto const& o) {
            auto const e = o->operation->error();
            return o->who == who && o->what != kind::shadow && o->what != kind::logout && e && e != errc::overtaken;
        });
    }

    void run() {
        for (int i = 0; i < 50; ++i) step();
        p.cloud.delay_answers(0ms);
        p.cloud.answer_next(0, {});
        p.down = false;
        CHECK(test::wait_until(p.io, [&] { return all_done(); }, 5s));
        CHECK(test::wait_until(p.io, [&] { return is_view_right(); }, 5s));
        p.wait(80ms);
        CHECK(test::wait_until(p.io, [&] { return is_view_right(); }, 5s));
        note_shadow();
        check_results();
        for (std::size_t i = 0; i < 2; ++i) {
            bool const in = p.cloud.logged_in(subs[i]);
            if (word[i] == nullptr) continue;
            if (word[i]->what == kind::logout) CHECK_FALSE(in);
            if (word[i]->what != kind::logout && !in) CHECK(was_refused(i));
        }
        // And all of it can be used as before.
        for (std::size_t i = 0; i < 2; ++i) {
            json const last = {{"n", -1}};
            // On a machine that is busy the times here are short.
            std::error_code error;
            for (int tries = 0; tries < 10 && (tries == 0 || error == errc::timed_out); ++tries)
                error = test::error_of(p.io, p.sub[i]->login());
            CHECK_FALSE(error);
            p.run(p.sub[i]->post_properties(last, {.timeout = 5s}));
            error = test::error_of(p.io, p.sub[i]->logout());
            CHECK((!error || error == errc::timed_out));
            auto const is_out = [&] { return !p.cloud.logged_in(subs[i]) && !p.sub[i]->is_logged_in(); };
            CHECK(test::wait_until(p.io, is_out, 5s));
        }
    }

    std::minstd_rand random;
    std::vector<std::unique_ptr<asked>> operations;
    std::vector<std::unique_ptr<task<json>>> calls;
    std::array<std::optional<task<void>>, 2> running;
    std::array<asked*, 2> word{};  // the last
    std::set<int> posted, stored;
    int count = 0;
    std::uint64_t shadow_calls = 0;
    fixture p;
};

unsigned number_in(char const* variable, unsigned otherwise) {
    char const* const text = std::getenv(variable);
    return text == nullptr ? otherwise : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

}  // namespace

// RUNNEL_RANDOM_RUNS: how many, 30 if not set, which take a few seconds; RUNNEL_RANDOM_SEED: the first.
TEST_CASE("whatever is asked for, answered late, refused or cut off in whatever order, all comes right in the end") {
    auto const first = number_in("RUNNEL_RANDOM_SEED", 1);
    for (unsigned seed = first; seed < first + number_in("RUNNEL_RANDOM_RUNS", 30); ++seed) {
        INFO("seed ", seed);
        random_run r(seed);
        r.run();
    }
}
