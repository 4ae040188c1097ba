#include <runnel/mqtt/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <iterator>
#include <memory>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

// A user who subscribes, unsubscribes and changes his mind at random, and a server that loses connections and sessions,
// and refuses at times: in the end it has what the user wants, and nothing else.

namespace {

using namespace std::chrono_literals;
namespace mqtt = runnel::mqtt;
using mqtt::qos;
using mqtt::reason_code;
using test::memory_session;
using test::task;

class user {
  public:
    user(mqtt::protocol_version version, unsigned seed)
        : version_(version),
          random_(seed),
          session_(place_.io.get_executor(), place_.transport, options()),
          running_(std::make_unique<task<void>>(place_.io, session_.run())) {
        place_.broker.hooks().authorize_subscribe = [this](auto const&, auto const&, auto const& r) {
            return refuses_ && one_in(10) ? reason_code::unspecified_error : static_cast<reason_code>(r.maximum_qos);
        };
    }

    void run(int steps) {
        for (int i = 0; i < steps; ++i) step();
    }

    void finish() {
        refuses_ = false;
        go_on(1000);
        if (running_->done()) start();
        auto const all_done = [this] {
            auto const done = [](auto const& t) { return t->done(); };
            return std::ranges::all_of(asked_, done) && std::ranges::all_of(ending_, done);
        };
        REQUIRE(test::wait_until(place_.io, all_done));
        take_granted();
        place_.settle();
        test::run(place_.io, session_.connected());
        place_.settle();
        for (auto const& t : ending_) CHECK(is_harmless(t->error()));
        for (auto const filter : filters) {
            CAPTURE(filter);
            bool const wanted =
                std::ranges::any_of(granted_, [&](auto const& s) { return s.filter() == filter && !s.closed(); });
            CHECK(place_.broker.subscribed(filter) == wanted);
        }
        for (auto& s : granted_)
            while (s.try_receive()) {
            }
        place_.settle();
        for (auto const topic : {"a/b", "a/c", "x/y"}) place_.broker.publish(topic, "", qos::at_least_once);
        place_.settle();
        for (auto& s : granted_) {
            CAPTURE(s.filter());
            CHECK(s.size() == (s.closed() ? 0u : s.filter() == "a/+" ? 2u : 1u));
        }
    }

  private:
    static constexpr std::string_view filters[] = {"a/b", "a/+", "x/y"};
    using subscription = memory_session::subscription;

    mqtt::session_options options() const {
        auto o = test::quick("client", version_);
        if (version_ == mqtt::protocol_version::v5) o.session_expiry = 1h;
        return o;
    }
    std::size_t below(std::size_t n) { return random_() % n; }
    bool one_in(std::size_t n) { return below(n) == 0; }

    static bool is_harmless(std::error_code e) {
        return !e || e == asio::error::operation_aborted || e == mqtt::errc::disconnected;
    }

    void start() { running_ = std::make_unique<task<void>>(place_.io, session_.run()); }

    void take_granted() {
        std::erase_if(asked_, [this](auto const& t) {
            if (!t->done()) return false;
            if (!t->error()) granted_.push_back(t->get());
            return true;
        });
    }

    void go_on(std::size_t turns) {
        place_.io.restart();
        while (turns-- != 0 && place_.io.poll_one() != 0) {
        }
    }

    // The server forgets the session, as it does for one who connects with Clean Session.
    void lose_session() {
        auto o = test::quick("client", version_);
        o.clean_start = true;
        o.reconnect.attempts = 1;
        memory_session thief(place_.io.get_executor(), place_.transport, std::move(o));
        task<void> running(place_.io, thief.run());
        test::wait_until(place_.io, [&] { return thief.is_connected() || running.done(); });
        running.cancel();
        running.run_for_error();
    }

    void step() {
        take_granted();
        switch (below(12)) {
            case 0:
            case 1:
            case 2: {
                auto const filter = filters[below(std::size(filters))];
                asked_.push_back(std::make_unique<task<subscription>>(place_.io, session_.subscribe(filter)));
                return;
            }
            case 3:
                if (!asked_.empty()) asked_[below(asked_.size())]->cancel();
                return;
            case 4:
            case 5:
            case 6: {
                if (granted_.empty()) return;
                std::swap(granted_[below(granted_.size())], granted_.back());
                ending_.push_back(std::make_unique<task<void>>(place_.io, unsubscribe(std::move(granted_.back()))));
                granted_.pop_back();
                for (auto const before = begun_; begun_ == before;) go_on(1);
                return;
            }
            case 7:
                if (!ending_.empty()) ending_[below(ending_.size())]->cancel();
                return;
            case 8: return static_cast<void>(place_.broker.drop_client("client"));
            case 9:
                if (one_in(4)) lose_session();
                return;
            case 10:
                if (one_in(4)) running_->cancel();
                if (running_->done()) start();
                return;
            default:
                go_on(below(12));
                if (one_in(3)) test::wait_until(place_.io, [this] { return session_.is_connected(); }, 5ms);
        }
    }

    asio::awaitable<void> unsubscribe(subscription s) {
        ++begun_;
        auto unsubscribing = session_.unsubscribe(s);
        co_await std::move(unsubscribing);
    }

    mqtt::protocol_version version_;
    std::mt19937 random_;
    test::memory_place place_;
    memory_session session_;
    std::unique_ptr<task<void>> running_;
    std::vector<std::unique_ptr<task<subscription>>> asked_;
    std::vector<std::unique_ptr<task<void>>> ending_;
    std::vector<subscription> granted_;
    std::size_t begun_ = 0;  // calls of `unsubscribe`
    bool refuses_ = true;
};

}  // namespace

TEST_CASE("in the end the server has the subscriptions that the user wants, whatever has come in between") {
    for (auto const version : test::versions)
        for (unsigned seed = 0; seed < 60; ++seed) {
            CAPTURE(version == mqtt::protocol_version::v5);
            CAPTURE(seed);
            user u(version, seed);
            u.run(200);
            u.finish();
        }
}
