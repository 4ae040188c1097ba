#pragma once

#include <runnel/coro/asio.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/coro/wait_list.hpp>
#include <runnel/coro/with_slot.hpp>

#include RUNNEL_ASIO(cancellation_signal.hpp)
#include RUNNEL_ASIO(co_spawn.hpp)
#include RUNNEL_ASIO(this_coro.hpp)

#include <cstddef>
#include <exception>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace runnel::aliyun::alink::detail {

/// Coroutines that run side by side inside another one, which waits for all of them before it ends (`enclose`).
///
/// While a coroutine is suspended, others may write this, each in one step: `tasks_`, who starts a task, which is
/// before the group is enclosed or in the enclosed coroutine; `*running_`, the same, and the task at its end, as it
/// does `ended` of its entry: by shares of its own, since this may have gone. `joiner_` is that of `enclose`, of which
/// there is one at a time.
template <class Executor>
class task_group {
  public:
    explicit task_group(Executor executor) : waiters_(std::move(executor)) {}
    task_group(task_group const&) = delete;
    task_group& operator=(task_group const&) = delete;

    /// Tasks that have not ended.
    std::size_t running() const noexcept { return *running_; }

    /// Starts a task. What it throws is dropped. Throws `std::bad_alloc` if it cannot begin.
    void start(asio::awaitable<void, Executor> task) {
        forget_ended();
        auto const t = std::make_shared<entry>();
        tasks_.push_back(t);
        ++*running_;
        // Nothing here refers to the group itself unless it is there: the execution context may destroy the frames in
        // any order when it ends.
        std::weak_ptr<std::size_t> const group = running_;
        try {
            asio::co_spawn(waiters_.get_executor(), std::move(task),
                           runnel::detail::with_slot(waiters_.get_executor(), t->signal.slot(),
                                                     [this, group, t](std::exception_ptr) {
                                                         t->ended = true;
                                                         auto const count = group.lock();
                                                         if (!count) return;
                                                         if (--*count == 0) waiters_.wake(joiner_);
                                                     }));
        } catch (...) {  // for want of memory it has not begun
            if (!std::exchange(t->ended, true)) --*running_;
            throw;
        }
    }

    /// Awaits `body`, then cancels the tasks and completes when they have ended too, cancelled or not. Rethrows what
    /// `body` throws. Throws `std::bad_alloc`, but not before, if there was no memory to cancel one: it ends by itself.
    asio::awaitable<void, Executor> enclose(asio::awaitable<void, Executor> body) {
        std::exception_ptr failure;
        // Made before it is needed: with RUNNEL_ASIO_PUBLIC_ONLY it takes memory.
        auto until_all_end = waiters_.wait_out(joiner_);
        try {
            co_await std::move(body);
        } catch (...) {
            failure = std::current_exception();
        }
        bool const throws = co_await asio::this_coro::throw_if_cancelled();
        co_await asio::this_coro::throw_if_cancelled(false);
        for (std::size_t i = 0; i < tasks_.size(); ++i)
            if (!runnel::detail::try_to_cancel(tasks_[i]->signal)) failure = std::make_exception_ptr(std::bad_alloc());
        if (running() != 0) co_await std::move(until_all_end);
        tasks_.clear();
        co_await asio::this_coro::throw_if_cancelled(throws);
        if (failure) std::rethrow_exception(failure);
    }

  private:
    struct entry {
        asio::cancellation_signal signal{};
        bool ended = false;
    };

    void forget_ended() {
        std::erase_if(tasks_, [](auto const& t) { return t->ended; });
    }

    wait_list<Executor> waiters_;
    waiter<Executor> joiner_{};
    std::vector<std::shared_ptr<entry>> tasks_{};
    std::shared_ptr<std::size_t> running_{std::make_shared<std::size_t>(0)};
};

}  // namespace runnel::aliyun::alink::detail
