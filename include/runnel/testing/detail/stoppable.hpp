#pragma once

#include <runnel/coro/asio.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/coro/with_slot.hpp>

#include RUNNEL_ASIO(awaitable.hpp)
#include RUNNEL_ASIO(cancellation_signal.hpp)
#include RUNNEL_ASIO(co_spawn.hpp)

#include <exception>
#include <memory>
#include <utility>

namespace runnel::testing::detail {

/// A coroutine that runs beside others, and how to stop it for as long as it is there. When the execution context ends
/// it goes, and nobody is told of its end; cancellation would then use what was in its frames.
///
/// While a coroutine is suspended, others may write `is_there_`: `start` sets it, the coroutine's frame clears it when
/// it goes.
class stoppable {
  public:
    virtual ~stoppable() = default;
    /// Begins `task`, of which there is one. `on_end()` is called when it has ended, by itself or not.
    template <class Executor, class OnEnd>
    static void start(std::shared_ptr<stoppable> const& self, Executor const& executor,
                      asio::awaitable<void, Executor> task, OnEnd on_end) {
        presence here(self);
        asio::co_spawn(executor, run(std::move(here), std::move(task)),
                       runnel::detail::with_slot(executor, self->signal_.slot(),
                                                 [on_end = std::move(on_end)](std::exception_ptr) { on_end(); }));
    }
    /// Ends it by terminal cancellation, unless it has gone, or there is no memory for that.
    void stop() noexcept {
        if (is_there_) runnel::detail::try_to_cancel(signal_);
    }

  private:
    // An argument of the coroutine, so that it goes with the frame, also with one that has not begun.
    class presence {
      public:
        explicit presence(std::shared_ptr<stoppable> of) noexcept : of_(std::move(of)) { of_->is_there_ = true; }
        presence(presence&&) noexcept = default;
        presence& operator=(presence&&) = delete;
        ~presence() {
            if (of_) of_->is_there_ = false;
        }

      private:
        std::shared_ptr<stoppable> of_;
    };

    template <class Executor>
    static asio::awaitable<void, Executor> run(presence, asio::awaitable<void, Executor> task) {
        co_await std::move(task);
    }

    asio::cancellation_signal signal_{};
    bool is_there_ = false;
};

}  // namespace runnel::testing::detail
