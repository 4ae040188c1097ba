#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/coro/detail/asio_thread.hpp>
#include <runnel/coro/std_errors.hpp>
#include <runnel/coro/stream_state.hpp>

#include RUNNEL_ASIO(awaitable.hpp)
#include RUNNEL_ASIO(cancellation_signal.hpp)

#include <cstddef>
#include <exception>
#include <utility>

namespace runnel {

/// A coroutine that runs beside the one that has started it, can be cancelled, and tells of its end. As `co_spawn` with
/// a cancellation slot, at a third of its memory and code: it belongs to somebody who is on the executor already and
/// waits for its end, so that nothing needs to be passed through the executor or kept at work.
///
/// One coroutine at a time. If the object goes first, the coroutine is cancelled, and nobody is told of its end.
///
/// While a coroutine is suspended, others may write this, each in one step:
///
/// | member     | is written by                                                                                       |
/// |------------|-----------------------------------------------------------------------------------------------------|
/// | `running_` | `launch` and `abandon`, for the owner; `end`, for the coroutine                                     |
/// | `life_`    | the owner: the first `share` makes it, `abandon` and the destructor let it go; the coroutine has a  |
/// |            | share                                                                                               |
/// | `present`  | `launch`, and the coroutine's frame when it goes: after the object, perhaps, or when the next one   |
/// |            | has begun                                                                                           |
///
/// So the coroutine asks `is_abandoned` when it goes on, before it touches the object.
template <class Executor>
class child_task {
  public:
    using awaitable = asio::awaitable<void, Executor>;
    /// `end(of, error)` is called when the coroutine has ended: with what it has thrown, or nullptr. It throws nothing.
    using end_function = void (*)(void* of, std::exception_ptr error);

    child_task(end_function told, void* of) noexcept : end_(told), of_(of) {}
    child_task(child_task const&) = delete;
    child_task& operator=(child_task const&) = delete;

    /// What is needed as long as the coroutine runs.
    struct life : stream_state {
        void abandon() noexcept {
            if (present == 0) return;
            try {
                signal.emit(asio::cancellation_type::terminal);
            } catch (...) {
            }
        }
        asio::cancellation_signal signal{};
        std::size_t present = 0;  // coroutines, from `launch` on; one that has ended may be behind the next
    };
    /// A share in that: tells whether the object, and whoever has it as a member, has gone.
    using share_type = state_share<life>;
    share_type share() {
        if (!life_) life_ = state_owner<life>(new life);
        return life_.share();
    }

    /// Begins `task` on `executor`, on which the caller is; it runs until it waits for the first time. So it may have
    /// ended, and have told so, when this returns. There must be none running.
    void start(Executor const& executor, awaitable task) {
        auto whole = run(this, share(), std::move(task));
        launch(executor, std::move(whole));
    }

    /// In the coroutine's frame: cancellation uses what is in it, and ends with it. As the execution context ends, that
    /// may be before the object goes.
    class presence {
      public:
        explicit presence(share_type const& share) noexcept : of_(*share) {}
        presence(presence const&) = delete;
        presence& operator=(presence const&) = delete;
        ~presence() { --of_.present; }

      private:
        life& of_;
    };

    /// A coroutine that has a share and a `presence`, catches whatever it throws, and calls `end` last of all, unless
    /// the object has gone.
    using coroutine = detail::launchable<Executor>;
    void launch(Executor const& executor, coroutine task) {
        auto const of = share();
        running_ = true;
        ++of->present;
        try {
            detail::launch(executor, std::move(task), of->signal.slot());
        } catch (...) {  // for want of memory it has not begun
            running_ = false;
            --of->present;
            throw;
        }
    }
    void end(std::exception_ptr error) {
        running_ = false;
        end_(of_, std::move(error));
    }

    /// Whether it has begun and not ended.
    bool running() const noexcept { return running_; }

    /// Asks it to end, by terminal cancellation. No effect if it is not running.
    void cancel() {
        if (running_) life_->signal.emit(asio::cancellation_type::terminal);
    }

    /// If it is running: as when the object goes. For who lets something go that it uses, as cancellation may use that.
    RUNNEL_COLD void abandon() noexcept {
        if (std::exchange(running_, false)) state_owner<life> const gone(std::move(life_));
    }

  private:
    static coroutine run(child_task* self, share_type here, awaitable task) {
        presence const is_there(here);
        std::exception_ptr error;
        try {
            co_await RUNNEL_STD_ERRORS(std::move(task));
        } catch (...) {
            error = std::current_exception();
        }
        if (!here->is_abandoned()) self->end(std::move(error));
    }

    end_function end_;
    void* of_;
    state_owner<life> life_{nullptr};
    bool running_ = false;
};

}  // namespace runnel
