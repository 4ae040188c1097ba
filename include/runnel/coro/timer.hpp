#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/coro/waitable_timer.hpp>

#include RUNNEL_ASIO(defer.hpp)

#include <chrono>
#include <memory>
#include <system_error>
#include <utility>

namespace runnel {

/// Calls a function at a time, or soon: one timer for all that an object has to attend to, whatever it is. The function
/// looks what is due and sets the timer anew; it may be called too early, or for nothing.
///
/// Not thread-safe: everything happens on the executor. After destruction the function is not called.
template <class Executor>
class timer {
  public:
    using clock = steady_clock;
    using function = void (*)(void* of);

    /// Calls `call(of)` on the executor. What it throws leaves the executor's `run`.
    RUNNEL_COLD timer(Executor const& executor, function call, void* of)
        : state_(std::make_shared<state>(executor, call, of)) {}
    timer(timer const&) = delete;
    timer& operator=(timer const&) = delete;
    RUNNEL_COLD ~timer() {
        state_->of = nullptr;
        stop();
    }

    /// Lets the function be called at `when`, unless it is to be called earlier anyway.
    void set(clock::time_point when) {
        if (when < state_->when) arm(when);
    }

    /// Lets the function be called in a later turn of the executor.
    void soon() {
        if (state_->soon) return;
        post();
        state_->soon = true;
    }

    /// Forgets the time that was set.
    void stop() noexcept {
        if (std::exchange(state_->when, never()) == never()) return;
        try {
            state_->timer.cancel();
        } catch (...) {
        }
    }

  private:
    static constexpr clock::time_point never() noexcept { return (clock::time_point::max)(); }

    // Shared with the operations under way. Nothing here is a coroutine: each function and each handler changes this in
    // one step. `of` is the destructor's, `when` is written by `set`, `stop` and the timer's handler, `soon` by the
    // function of that name and its handler. Since a handler may come when the object has gone, it looks at `of` before
    // it calls.
    struct state {
        RUNNEL_COLD RUNNEL_NOINLINE state(Executor const& executor, function c, void* o)
            : timer(executor), call(c), of(o) {}
        state(state const&) = delete;
        state& operator=(state const&) = delete;
        waitable_timer<Executor> timer;
        function call;
        void* of;
        clock::time_point when = never();
        bool soon = false;
    };

    // Of the timer, and of `soon`.
    struct handler {
        std::shared_ptr<state> s;
        void operator()(std::error_code error) const {
            if (error || s->of == nullptr) return;
            s->when = never();
            s->call(s->of);
        }
        void operator()() const {
            s->soon = false;
            if (s->of != nullptr) s->call(s->of);
        }
    };

    RUNNEL_NOINLINE void arm(clock::time_point when) {
        state_->when = never();
        state_->timer.expires_at(when);
        state_->timer.async_wait(handler{state_});
        state_->when = when;
    }
    RUNNEL_NOINLINE void post() { asio::defer(state_->timer.get_executor(), handler{state_}); }

    std::shared_ptr<state> state_;
};

}  // namespace runnel
