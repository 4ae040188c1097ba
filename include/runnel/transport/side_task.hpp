#pragma once

#include <asio/awaitable.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/cancellation_state.hpp>
#include <asio/detail/type_traits.hpp>
#include <asio/post.hpp>

#include <exception>
#include <utility>

namespace runnel {

/// A coroutine that runs beside the one that has started it, can be cancelled, and tells of its end. As `co_spawn` with
/// a cancellation slot, at a third of its memory and code: it belongs to somebody who is on the executor already and
/// waits for its end, so that nothing needs to be passed through the executor or kept at work.
///
/// One coroutine at a time. The object must outlive it, unless the executor runs nothing any more.
template <class Executor>
class side_task {
  public:
    using awaitable = asio::awaitable<void, Executor>;
    /// `end(of, error)` is called when the coroutine has ended: with what it has thrown, or nullptr. It throws nothing.
    using end_function = void (*)(void* of, std::exception_ptr error);

    side_task(end_function told, void* of) noexcept : end_(told), of_(of) {}
    side_task(side_task const&) = delete;
    side_task& operator=(side_task const&) = delete;

    /// Begins `task` on `executor`, on which the caller is; it runs until it waits for the first time. So it may have
    /// ended, and have told so, when this returns. There must be none running.
    void start(Executor const& executor, awaitable task) {
        auto whole = run(this, std::move(task));
        start(executor, std::move(whole));
    }

    /// A coroutine that catches whatever it throws, and calls `end` last of all: it does without the frame of another.
    using coroutine = asio::awaitable<asio::detail::awaitable_thread_entry_point, Executor>;
    void start(Executor const& executor, coroutine task) {
        running_ = true;
        asio::cancellation_state const state(signal_.slot());
        launcher(std::move(task), executor, signal_.slot(), state).launch();
    }
    void end(std::exception_ptr error) {
        running_ = false;
        end_(of_, std::move(error));
    }

    /// Whether it has begun and not ended.
    bool running() const noexcept { return running_; }

    /// Asks it to end, by terminal cancellation. No effect if it is not running.
    void cancel() {
        if (running_) signal_.emit(asio::cancellation_type::terminal);
    }

  private:
    using launcher = asio::detail::awaitable_thread<Executor>;

    static coroutine run(side_task* self, awaitable task) {
        std::exception_ptr error;
        try {
            co_await std::move(task);
        } catch (...) {
            error = std::current_exception();
        }
        self->end(std::move(error));
    }

    end_function end_;
    void* of_;
    asio::cancellation_signal signal_;
    bool running_ = false;
};

}  // namespace runnel
