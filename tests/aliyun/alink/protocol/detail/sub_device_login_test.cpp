#include <runnel/aliyun/alink/error.hpp>
#include <runnel/aliyun/alink/protocol/detail/sub_device_login.hpp>

#include <doctest/doctest.h>

#include "support/event_sequences.hpp"
#include "support/sample.hpp"
#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace runnel::aliyun::alink;
using namespace std::chrono_literals;
using login = runnel::aliyun::alink::detail::sub_device_login;
using state = login::state;
using step = login::step;
using answer = login::answer;

constexpr login::time_point start{1h};

// A sub-device with its gateway, a connection that carries requests in order, and the platform.
struct world {
    login client;
    login::time_point now = start;
    bool in = false;        // on the platform
    bool allowed = true;    // to log in
    bool refusing = false;  // the platform answers 429 and does nothing
    struct request {
        bool login;
        bool heeded;  // its answer
    };
    std::deque<request> travelling;
    std::optional<answer> answered;  // and not received yet

    void want(bool wanted) {
        if (wanted) allowed = true;  // somebody has enabled it
        client.want(wanted);
    }

    bool perform() {
        auto const what = client.next(now);
        if (what == step::none) return false;
        what == step::log_in ? client.begin_login() : client.begin_logout();
        travelling.push_back({what == step::log_in, true});
        return true;
    }

    bool process() {
        if (travelling.empty()) return false;
        auto const r = travelling.front();
        travelling.pop_front();
        answer a = answer::refused;
        if (!refusing) {
            if (r.login) {
                a = allowed ? answer::done : answer::refused_ever;
                in = in || allowed;
            } else {
                a = in ? answer::done : answer::out_already;
                in = false;
            }
        }
        if (r.heeded) answered = a;
        return true;
    }

    bool receive() {
        if (!answered) return false;
        client.answered(*answered, now, make_error_code(errc::throttled));
        answered.reset();
        return true;
    }

    void time_out() {
        if (!client.is_busy()) return;
        answered.reset();
        if (!travelling.empty()) travelling.back().heeded = false;
        client.answered(answer::nothing, now, make_error_code(errc::timed_out));
    }

    // The platform disables it, and says so.
    void end() {
        in = allowed = false;
        client.ended();
    }

    // It was perhaps taken out of the topology.
    void doubt(bool rightly) {
        in = in && !rightly;
        client.doubted();
    }

    // An answer that is on its way may be kept for the next connection.
    void reconnect() {
        in = false;
        bool const lost = !travelling.empty() && travelling.back().heeded;
        travelling.clear();
        client.reconnected();
        if (lost) client.lost();
    }

    bool is_right() const {
        if (client.is_in()) return in;
        if (client.current() == state::out) return !in;
        return !client.is_busy() || answered || !travelling.empty();
    }

    // All goes well from now on. Whether the gateway's view comes to be the platform's, and what is wanted.
    bool settle() {
        refusing = false;
        int steps = 0;
        while (steps++ < 100) {
            if (receive() || process() || perform()) continue;
            if (client.due() == login::time_point::max()) break;
            now = client.due();
        }
        return steps < 100 && !client.is_busy() && client.is_in() == in && client.is_wanted() == in;
    }
};

}  // namespace

TEST_CASE(
    "whatever happens in whatever order, six events long, the gateway's view comes to be the platform's, and the last "
    "word counts") {
    enum : int { want_in, want_out, perform, process, refuse, receive, time_out, end, doubt, reconnect, kinds };
    test::for_each_sequence(kinds, test::up_to(6), [](std::vector<int> const& sequence) {
        world w;
        bool last_word = false, rightly = true;
        for (int const event : sequence) {
            w.refusing = event == refuse;
            switch (event) {
                case want_in: w.want(last_word = true); break;
                case want_out: w.want(last_word = false); break;
                case perform: w.perform(); break;
                case process:
                case refuse: w.process(); break;
                case receive: w.receive(); break;
                case time_out: w.time_out(); break;
                case end: w.end(); break;
                case doubt: w.doubt(std::exchange(rightly, !rightly)); break;
                default: w.reconnect();
            }
            if (!w.is_right()) FAIL("its view is not the platform's");
        }
        if (!w.settle()) FAIL("it does not come to be the platform's");
        // Only a refusal can stand against the last word.
        if (w.in != last_word && !(last_word && w.client.refusal())) FAIL("the last word does not count");
    });
}

TEST_CASE("a first login is tried three times, then given up with the reason, until it is wanted again") {
    login one;
    auto now = start;
    CHECK(one.next(now) == step::none);
    CHECK(one.due() == login::time_point::max());
    for (int round = 0; round < 2; ++round) {
        one.want(true);
        for (int i = 0; i < 3; ++i) {
            CHECK(one.next(now) == step::log_in);
            one.begin_login();
            CHECK(one.next(now) == step::none);
            one.answered(answer::refused, now, make_error_code(errc::throttled), "busy");
            CHECK(one.next(now) == step::none);
            now += 1s;
        }
        CHECK_FALSE(one.is_wanted());
        CHECK(one.refusal() == errc::throttled);
        CHECK(one.refusal_text() == "busy");
        CHECK(one.due() == login::time_point::max());
    }
}

TEST_CASE("a sub-device that has been logged in is logged in again for as long as it is wanted, with longer pauses") {
    login one;
    auto now = start;
    one.want(true);
    one.begin_login();
    one.answered(answer::done, now);
    CHECK(one.is_kept());
    one.reconnected();
    CHECK_FALSE(one.is_in());
    std::vector<std::chrono::seconds> pauses;
    for (int i = 0; i < 12; ++i) {
        CHECK(one.next(now) == step::log_in);
        one.begin_login();
        one.answered(i % 2 ? answer::nothing : answer::refused, now);
        pauses.push_back(std::chrono::duration_cast<std::chrono::seconds>(one.due() - now));
        now = one.due();
    }
    CHECK(pauses == std::vector<std::chrono::seconds>{1s, 1s, 1s, 2s, 4s, 8s, 16s, 32s, 60s, 60s, 60s, 60s});
    // A new connection begins anew.
    one.reconnected();
    CHECK(one.next(start) == step::log_in);
    one.begin_login();
    one.answered(answer::refused_ever, now, make_error_code(errc::topology_missing));
    CHECK_FALSE(one.is_wanted());
    CHECK(one.refusal() == errc::topology_missing);
}

TEST_CASE("what nobody knows is asked for again, unless somebody sees to it") {
    login one;
    one.want(true);
    one.begin_login();
    one.want(false);
    one.answered(answer::nothing, start);
    CHECK(one.current() == state::unknown);
    CHECK(one.next(start) == step::log_out);
    one.add_leaver();
    CHECK(one.next(start) == step::none);
    CHECK(one.due() == login::time_point::max());
    one.remove_leaver();
    CHECK(one.next(start) == step::log_out);
    one.begin_logout();
    one.answered(answer::out_already, start);
    CHECK(one.current() == state::out);
    CHECK(one.next(start) == step::none);
}

TEST_CASE(
    "one that is refused for the sake of another is as it was, and one that the platform shuts out is not wanted") {
    login one;
    one.want(true);
    one.begin_login();
    one.returned();
    CHECK(one.current() == state::out);
    CHECK(one.next(start) == step::log_in);
    one.begin_login();
    one.answered(answer::done, start);
    one.ended(make_error_code(errc::session_device_disabled));
    CHECK(one.current() == state::out);
    CHECK_FALSE(one.is_wanted());
    CHECK(one.refusal() == errc::session_device_disabled);
    CHECK(one.next(start) == step::none);
}

TEST_CASE("a logout that the platform will not have is asked for again, with pauses") {
    login one;
    one.want(true);
    one.begin_login();
    one.answered(answer::done, start);
    one.want(false);
    one.begin_logout();
    one.answered(answer::refused, start);
    CHECK(one.is_in());
    CHECK(one.next(start) == step::none);
    CHECK(one.next(start + 1s) == step::log_out);
    one.begin_logout();
    one.answered(answer::refused_ever, start);
    CHECK(one.next(start) == step::none);
    CHECK(one.next(start + 1s) == step::log_out);
    one.want(false);
    CHECK(one.next(start) == step::log_out);
    one.want(true);
    CHECK(one.next(start) == step::none);
    CHECK(one.is_kept());
}

TEST_CASE("one that was asked for alone goes with others once that has been answered") {
    login one;
    one.want(true);
    one.begin_login();
    one.returned();
    CHECK(one.is_single());
    one.begin_login();
    one.answered(answer::done, start);
    CHECK_FALSE(one.is_single());
}

TEST_CASE("on a new connection one whose logout was on its way and has been returned is not in") {
    login one;
    one.want(true);
    one.begin_login();
    one.answered(answer::done, start);
    one.want(false);
    one.begin_logout();
    one.reconnected();
    one.returned();
    CHECK(one.current() == state::out);
}
