#pragma once

#include <asio/execution.hpp>
#include <asio/io_context.hpp>

#include "simulation/clock.hpp"
#include "simulation/trace.hpp"
#include "support/random_source.hpp"
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace simulation {

using namespace std::chrono_literals;
using random_source = test::random_source;
using std::chrono::milliseconds, std::chrono::microseconds;

/// What is ready to run on one executor.
class lane {
  public:
    struct function {
        virtual ~function() = default;
        virtual void run() = 0;
    };

    bool is_ready() const noexcept { return !ready_.empty(); }
    bool is_running() const noexcept { return is_running_; }
    void push(std::unique_ptr<function> f) { ready_.push_back(std::move(f)); }
    void run_first() {
        auto const f = std::move(ready_.front());
        ready_.pop_front();
        struct running {
            bool& flag;
            explicit running(bool& b) noexcept : flag(b) { flag = true; }
            ~running() { flag = false; }
        } const now(is_running_);
        f->run();
    }
    void drop_first() { std::exchange(ready_.front(), nullptr), ready_.pop_front(); }

  private:
    std::deque<std::unique_ptr<function>> ready_;
    bool is_running_ = false;
};

/// An executor of Asio's on a lane: as a strand, it keeps what it is given in order, and runs at once what is
/// dispatched from within.
class executor {
  public:
    executor(asio::io_context& io, lane& l) noexcept : io_(&io), lane_(&l) {}

    asio::execution_context& query(asio::execution::context_t) const noexcept { return *io_; }
    static constexpr asio::execution::mapping_t query(asio::execution::mapping_t) noexcept {
        return asio::execution::mapping.thread;
    }
    asio::execution::blocking_t query(asio::execution::blocking_t) const noexcept {
        return never_ ? asio::execution::blocking_t(asio::execution::blocking.never)
                      : asio::execution::blocking_t(asio::execution::blocking.possibly);
    }
    executor require(asio::execution::blocking_t::never_t) const noexcept { return with(true); }
    executor require(asio::execution::blocking_t::possibly_t) const noexcept { return with(false); }

    template <class F>
    void execute(F&& f) const {
        if (!never_ && lane_->is_running()) return std::move(f)();
        lane_->push(std::make_unique<holder<std::decay_t<F>>>(std::forward<F>(f)));
    }

    friend bool operator==(executor const&, executor const&) noexcept = default;

  private:
    template <class F>
    struct holder final : lane::function {
        explicit holder(F&& f) : held(std::move(f)) {}
        explicit holder(F const& f) : held(f) {}
        void run() override {
            F f(std::move(held));
            f();
        }
        F held;
    };

    executor with(bool never) const noexcept {
        auto e = *this;
        e.never_ = never;
        return e;
    }

    asio::io_context* io_;
    lane* lane_;
    bool never_ = false;
};

/// The machine on which everything runs, in one thread: a virtual clock, executors, and events at given times. All
/// times are whole microseconds, as Asio waits for no less.
///
/// Which executor has the next turn is drawn. What is guaranteed is what strands guarantee, and no more: functions of
/// one executor run in the order in which they were given to it. Session, its stream and its application are on one
/// executor, as the library asks for; the broker and its ends of the streams on another.
class machine {
  public:
    machine(std::uint64_t seed, bool prints) : random_(static_cast<std::uint32_t>(seed)), log_(prints) {
        slowness_ = random_.one_in(4) ? 0 : random_.between(1, 200);
    }
    machine(machine const&) = delete;
    machine& operator=(machine const&) = delete;
    ~machine() { end(); }

    random_source& random() noexcept { return random_; }
    trace& log() noexcept { return log_; }
    std::uint64_t turns() const noexcept { return turns_; }
    static time_point now() { return std::chrono::steady_clock::now(); }

    executor make_executor() { return {*io_, *lanes_.emplace_back(std::make_unique<lane>())}; }

    /// Calls a function at a time, between two turns.
    void at(time_point when, std::function<void()> f) { events_.emplace(std::max(when, now()), std::move(f)); }
    void after(nanoseconds time, std::function<void()> f) { at(now() + time, std::move(f)); }

    /// Calls a function before anything else goes on.
    void next(std::function<void()> f) { urgent_.push_back(std::move(f)); }

    /// Nothing runs for so long, while time goes on elsewhere: the process has been stopped, or the machine slept.
    void sleep(nanoseconds time) { advance_to(now() + time); }

    /// Goes on by one turn, or to the next time at which there is something to do, not later than `limit`. False:
    /// nothing is to be done any more until then.
    bool step(time_point limit) {
        if (!urgent_.empty()) {
            auto const all = std::exchange(urgent_, {});
            for (auto const& f : all) f();
            return true;
        }
        collect_timers();
        bool const has_events = !events_.empty() && events_.begin()->first <= now();
        if (has_events && (random_.one_in(3) || !is_ready())) {
            auto const f = std::move(events_.begin()->second);
            events_.erase(events_.begin());
            f();
            return true;
        }
        if (run_turn()) return true;
        return wait(limit);
    }

    /// Whether anything is left to be done, now or later, but for events.
    bool is_idle() {
        collect_timers();
        return !is_ready() && io_->stopped();
    }

    /// What has not run yet never does, and what it holds is destroyed.
    void end() {
        forget_events();
        if (!io_) return;
        do {
            io_->shutdown();
            drop_all();
            forget_events();  // what goes may have sent something
            io_->shutdown();
        } while (is_ready());
        forget_events();
        io_.reset();
    }

  private:
    // Lets its services destroy what they hold while all of them are still there: so can what they give to the lanes
    // meanwhile be destroyed, as Asio's own queue does it.
    struct context : asio::io_context {
        using asio::execution_context::shutdown;
        using asio::io_context::io_context;
    };

    void forget_events() {
        // Each list is taken first, as what is destroyed may add to it.
        while (!events_.empty()) std::exchange(events_, {});
        while (!urgent_.empty()) std::exchange(urgent_, {});
    }
    void collect_timers() {
        if (io_->stopped()) io_->restart();
        io_->poll();
    }
    bool is_ready() const {
        for (auto const& l : lanes_)
            if (l->is_ready()) return true;
        return false;
    }
    bool run_turn() {
        if (!is_ready()) return false;
        auto* next = &*lanes_[random_.between(0, lanes_.size() - 1)];
        while (!next->is_ready()) next = &*lanes_[random_.between(0, lanes_.size() - 1)];
        ++turns_;
        if (slowness_ != 0) advance_to(now() + microseconds(random_.between(0, slowness_)));
        next->run_first();
        return true;
    }
    // To the next event or timer.
    bool wait(time_point limit) {
        if (!events_.empty()) limit = std::min(limit, events_.begin()->first);
        if (now() >= limit) return false;
        wait_until_at_most(limit);
        if (io_->stopped()) io_->restart();
        if (io_->run_one_until(limit) != 0) return true;
        advance_to(limit);
        return !events_.empty() && events_.begin()->first <= now();
    }
    void drop_all() {
        for (auto const& l : lanes_)
            while (l->is_ready()) l->drop_first();
        if (is_ready()) drop_all();
    }

    random_source random_;
    trace log_;
    std::vector<std::unique_ptr<lane>> lanes_;
    std::unique_ptr<context> io_ = std::make_unique<context>(1);
    std::multimap<time_point, std::function<void()>> events_;  // of one time in the order in which they came
    std::vector<std::function<void()>> urgent_;
    std::uint64_t turns_ = 0;
    std::size_t slowness_;  // how many microseconds a turn takes at most
};

}  // namespace simulation
