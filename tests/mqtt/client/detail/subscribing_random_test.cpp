#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/accounting_server.hpp"
#include "support/memory_sessions.hpp"
#include "support/random_source.hpp"
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

// A user who subscribes, unsubscribes, lets go of subscriptions and changes his mind at random, and a server that
// answers late, refuses, is cut off and loses sessions: in the end it has what the user wants, and nothing else.

namespace {

using namespace std::chrono_literals;
namespace mqtt = runnel::mqtt;
using mqtt::qos;
using test::memory_session;
using test::task;

class user {
  public:
    explicit user(std::uint32_t seed)
        : random_(seed),
          session_(io_.get_executor(), server_.transport, options()),
          running_(std::in_place, io_, session_.run()) {
        server_.refuses = [this] { return refuses_ && random_.one_in(8); };
        come_back();
    }

    void run() {
        for (auto steps = random_.between(50, 200); steps != 0 && !server_.failed; --steps) step();
        finish();
    }

  private:
    using subscription = memory_session::subscription;
    static constexpr std::string_view filters[] = {"a/b", "x/y", "a/+"};

    mqtt::session_options options() {
        auto o = test::quick("client", version_);
        o.session_expiry = 1h;
        o.unrouted_timeout = 24h;
        o.on_event = [this](auto const& e) { last_event_ = to_string(e); };
        return o;
    }

    void come_back() {
        CAPTURE(last_event_);
        REQUIRE(test::come_back(io_, server_, session_, running_));
    }

    void step() {
        take_granted();
        switch (random_.between(0, 15)) {
            case 0:
            case 1:
            case 2: return subscribe();
            case 3:
                if (!asked_.empty()) asked_[random_.between(0, asked_.size() - 1)]->cancel();
                return;
            case 4:
            case 5:
                if (!granted_.empty()) end(take_one());
                return;
            case 6:
                if (!ending_.empty()) ending_[random_.between(0, ending_.size() - 1)]->cancel();
                return;
            case 7:
                if (!granted_.empty()) let_go(take_one());
                return;
            case 8: return server_.cut();
            case 9:
                if (random_.one_in(6)) server_.lose_session();
                return;
            case 10:
                if (random_.one_in(6)) running_->cancel();
                return;
            case 11: server_.prompt = random_.one_in(3); return;
            case 12: return come_back();
            case 13:
            case 14:
                for (auto n = random_.between(0, 3); n != 0; --n) server_.handle();
                return server_.send(random_.between(0, 20));
            default:
                io_.restart();
                for (auto n = random_.between(0, 12); n != 0 && io_.poll_one() != 0;) --n;
        }
    }

    void subscribe() {
        // One filter, or the two that no other one matches both of.
        std::span<std::string_view const> all = filters;
        auto const which = random_.one_in(5) ? all.first(2) : all.subspan(random_.between(0, 2), 1);
        asked_.push_back(std::make_unique<task<subscription>>(io_, session_.subscribe(which)));
    }
    void take_granted() {
        std::erase_if(asked_, [this](auto const& t) {
            if (!t->done()) return false;
            CHECK(t->ended() == 1);
            CHECK(is_expected(t->error()));
            if (!t->error()) granted_.push_back(t->get());
            return true;
        });
    }
    subscription take_one() {
        std::swap(granted_[random_.between(0, granted_.size() - 1)], granted_.back());
        auto s = std::move(granted_.back());
        granted_.pop_back();
        return s;
    }

    void end(subscription s) {
        if (is_wanted(s))
            for (std::size_t i = 0; i < s.filters(); ++i) let_go_.erase(s.filter(i));
        ending_.push_back(std::make_unique<task<void>>(io_, unsubscribe(std::move(s))));
        io_.restart();
        for (auto const before = begun_; begun_ == before;) io_.poll_one();
    }
    asio::awaitable<void> unsubscribe(subscription s) {
        ++begun_;
        auto unsubscribing = session_.unsubscribe(s);
        co_await std::move(unsubscribing);
    }
    // The server may go on to have its filters.
    void let_go(subscription const& s) {
        for (std::size_t i = 0; i < s.filters(); ++i) let_go_.insert(s.filter(i));
    }

    static bool is_wanted(subscription const& s) { return !s.closed() || s.closed() == mqtt::errc::disconnected; }
    static bool is_expected(std::error_code e) {
        return !e || e == asio::error::operation_aborted || e == mqtt::errc::disconnected ||
               e == mqtt::reason_code::unspecified_error;
    }

    void finish() {
        refuses_ = false;
        server_.prompt = true;
        come_back();
        server_.cut();  // what was refused is owed on the next connection
        come_back();
        REQUIRE(test::wait_until(io_, [this] {
            return std::ranges::all_of(asked_, [](auto const& t) { return t->done(); }) &&
                   std::ranges::all_of(ending_, [](auto const& t) { return t->done(); });
        }));
        take_granted();
        test::settle(io_);
        for (auto const& t : ending_) {
            CHECK(t->ended() == 1);
            CHECK(is_expected(t->error()));
        }
        std::erase_if(granted_, [](auto const& s) { return !is_wanted(s); });
        for (auto const& s : granted_) CHECK_FALSE(s.closed());
        for (auto const filter : filters) {
            CAPTURE(filter);
            bool const has_it = server_.subscriptions.contains(filter);
            if (std::ranges::any_of(granted_, [&](auto const& s) { return has(s, filter); }))
                CHECK(has_it);
            else if (!let_go_.contains(filter))
                CHECK_FALSE(has_it);
        }
        check_messages();
    }
    // Each subscription gets what it matches, and gets it once.
    void check_messages() {
        for (auto& s : granted_)
            while (s.try_receive()) {
            }
        test::settle(io_);
        std::string_view const topics[] = {"a/b", "a/c", "x/y"};
        for (auto const topic : topics) server_.publish(std::string(topic), qos::at_least_once);
        test::settle(io_);
        for (auto& s : granted_) {
            CAPTURE(s.filter());
            CHECK(s.size() == (s.filters() == 2 || s.filter() == "a/+" ? 2u : 1u));
        }
    }
    static bool has(subscription const& s, std::string_view filter) {
        for (std::size_t i = 0; i < s.filters(); ++i)
            if (s.filter(i) == filter) return true;
        return false;
    }

    test::random_source random_;
    mqtt::protocol_version version_ = random_.one_in(2) ? mqtt::protocol_version::v5 : mqtt::protocol_version::v3_1_1;
    asio::io_context io_;
    test::accounting_server server_{io_, version_, 65535};
    std::string last_event_;
    memory_session session_;
    std::optional<task<void>> running_;
    std::vector<std::unique_ptr<task<subscription>>> asked_;
    std::vector<std::unique_ptr<task<void>>> ending_;
    std::vector<subscription> granted_;
    std::set<std::string, std::less<>> let_go_;  // filters
    std::size_t begun_ = 0;                      // calls of `unsubscribe`
    bool refuses_ = true;
};

}  // namespace

// RUNNEL_RANDOM_RUNS: how many, 100 if not set; RUNNEL_RANDOM_SEED: the first.
TEST_CASE("in the end the server has the subscriptions that the user wants, whatever has come in between") {
    auto const first = test::number_in("RUNNEL_RANDOM_SEED", 1);
    for (unsigned seed = first; seed < first + test::number_in("RUNNEL_RANDOM_RUNS", 100); ++seed) {
        INFO("seed ", seed);
        user u(seed);
        u.run();
    }
}
