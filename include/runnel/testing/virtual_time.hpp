#pragma once

#include <runnel/core/clock.hpp>
#include <runnel/core/saturating.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/coro/waitable_timer.hpp>
#include <runnel/coro/with_slot.hpp>

#include RUNNEL_ASIO(awaitable.hpp)
#include RUNNEL_ASIO(cancellation_signal.hpp)
#include RUNNEL_ASIO(co_spawn.hpp)
#include RUNNEL_ASIO(io_context.hpp)

#include <algorithm>
#include <chrono>
#include <concepts>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <type_traits>
#include <utility>

namespace runnel::testing {

#ifdef RUNNEL_TEST_CLOCK
/// Whether this program's time can be moved: RUNNEL_TEST_CLOCK is defined.
inline constexpr bool has_test_clock = true;
#else
/// Whether this program's time can be moved: it cannot, as RUNNEL_TEST_CLOCK is not defined.
inline constexpr bool has_test_clock = false;
#endif

/// Time that passes only when the test says so, for all of runnel that runs on this thread and on one `io_context`:
/// sessions, the embedded broker, `sleep_for`, `within`. So hours of pauses, keep alive and expiry take milliseconds.
///
///     asio::io_context io;
///     runnel::testing::virtual_time time{io};
///     ...
///     time.advance(std::chrono::hours(24));
///
/// It takes a program that is compiled with RUNNEL_TEST_CLOCK defined, in all of its files. Made before, and destroyed
/// after, what is to live in it, and before the context; one at a time on a thread. It runs the context: nobody else
/// may. It knows of nothing outside of the process (see docs/testing.md): connections are to be in memory.
class virtual_time {
  public:
    using duration = steady_clock::duration;
    using time_point = steady_clock::time_point;

    /// Takes over the clocks of this thread, which stand at the time that it is. Throws `std::logic_error` if there is
    /// another one on this thread.
    template <std::same_as<asio::io_context> Context>
    explicit virtual_time(Context& io) : state_(std::make_unique<state>(io)) {
        static_assert(has_test_clock && sizeof(Context) != 0,
                      "virtual time needs RUNNEL_TEST_CLOCK to be defined, in all files of the program");
    }
    virtual_time(virtual_time const&) = delete;
    virtual_time& operator=(virtual_time const&) = delete;

    /// The time that it is.
    static time_point now() noexcept { return steady_clock::now(); }
    /// How much has passed since this was made.
    duration elapsed() const noexcept { return now() - state_->begin; }

    /// Lets all happen that happens without time passing. Does not return as long as something happens without end.
    /// What a handler throws leaves this and the functions below.
    void settle() { state_->settle(); }

    /// It goes on for this long at most, so that the calendar has a day for it.
    static constexpr std::chrono::hours maximum{100 * 365 * 24};

    /// Lets `length` pass: what is due meanwhile happens at its time, and in order. Less than nothing is nothing.
    /// Throws `std::out_of_range` if that is behind `maximum`.
    void advance(time_limit length) {
        auto const end = deadline_after(now(), length.value);
        if (end > last()) throw std::out_of_range("virtual time ends 100 years after its beginning");
        state_->advance(end, [] { return false; });
        state_->move(end);
        settle();
    }

    /// Lets time pass until `condition()` holds, at most `limit`. Returns whether it holds; when nothing waits for any
    /// time, that is at once.
    template <std::predicate Condition>
    bool advance_until(Condition condition, time_limit limit = std::chrono::hours(24)) {
        state_->advance((std::min)(deadline_after(now(), limit.value), last()), condition);
        return condition();
    }

    /// Runs `coroutine` to its end, and lets as much time pass as it takes. Returns its value, or rethrows what it
    /// throws. Throws `std::errc::timed_out` if it has not ended after `limit`, or if nothing waits for any time: then
    /// it has been cancelled.
    template <class T, class Executor>
    T run(asio::awaitable<T, Executor> coroutine, time_limit limit = std::chrono::hours(24)) {
        auto const begun = std::make_shared<task<T>>();
        asio::co_spawn(state_->io, keep_value(begun, std::move(coroutine)),
                       runnel::detail::with_slot(state_->io.get_executor(), begun->signal.slot(),
                                                 [begun](std::exception_ptr error) {
                                                     begun->error = std::move(error);
                                                     begun->done = true;
                                                 }));
        if (!advance_until([&] { return begun->done; }, limit)) {
            begun->signal.emit(asio::cancellation_type::terminal);
            settle();
            throw std::system_error(std::make_error_code(std::errc::timed_out), "virtual_time::run");
        }
        if (begun->error) std::rethrow_exception(begun->error);
        if constexpr (!std::is_void_v<T>) return std::move(*begun->value);
    }

  private:
    time_point last() const noexcept { return state_->begin + maximum; }

    // While a coroutine is suspended, here `keep_value`, nobody writes this: it does, at its end, and Asio's handler
    // behind that. `run` reads it between two turns of the context, and may go before: both have a share.
    template <class T>
    struct task {
        asio::cancellation_signal signal{};
        std::optional<std::conditional_t<std::is_void_v<T>, bool, T>> value{};
        std::exception_ptr error{};
        bool done = false;
    };

    template <class T, class Executor>
    static asio::awaitable<void, Executor> keep_value(std::shared_ptr<task<T>> into,
                                                      asio::awaitable<T, Executor> coroutine) {
        if constexpr (std::is_void_v<T>)
            co_await std::move(coroutine);
        else
            into->value.emplace(co_await std::move(coroutine));
    }

#ifdef RUNNEL_TEST_CLOCK
    struct state {
        explicit state(asio::io_context& context) : io(context), look(context.get_executor()), begin(moved.now) {
            auto*& current = moved_time::of_this_thread();
            if (current != nullptr) throw std::logic_error("there is a virtual_time on this thread already");
            current = &moved;
        }
        state(state const&) = delete;
        state& operator=(state const&) = delete;
        ~state() { moved_time::of_this_thread() = nullptr; }

        void settle() {
            io.restart();
            do {
                while (io.poll() != 0) {
                }
            } while (!io.stopped() && fire());
        }

        // Asio looks which timers are due when the first of them has come: this one always is. Whether others were.
        bool fire() {
            auto const fired = std::make_shared<bool>(false);
            look.expires_at((time_point::min)());
            look.async_wait([fired](std::error_code) { *fired = true; });
            std::size_t handled = 0;
            while (!*fired && !io.stopped()) handled += io.run_one();
            return handled > 1 || io.poll() != 0;
        }

        void move(time_point to) {
            if (to <= moved.now) return;
            moved.calendar += std::chrono::duration_cast<std::chrono::system_clock::duration>(to - moved.now);
            moved.now = to;
            moved.deadlines.erase(moved.deadlines.begin(), moved.deadlines.upper_bound(to));
        }

        // From deadline to deadline, up to `end`, until the condition holds.
        template <class Condition>
        void advance(time_point end, Condition const& condition) {
            for (settle(); !condition() && !moved.deadlines.empty(); settle()) {
                auto const next = *moved.deadlines.begin();
                if (next > end) return move(end);
                move(next);
            }
        }
        asio::io_context& io;
        moved_time moved{};
        waitable_timer<asio::io_context::executor_type> look;
        time_point begin;
    };
#else
    struct state {
        explicit state(asio::io_context& context) : io(context) {}
        void settle() {}
        void move(time_point) {}
        template <class Condition>
        void advance(time_point, Condition const&) {}
        asio::io_context& io;
        time_point begin{};
    };
#endif

    std::unique_ptr<state> state_;
};

}  // namespace runnel::testing
