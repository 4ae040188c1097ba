#pragma once

#include <runnel/coro/asio.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/coro/wait_list.hpp>
#include <runnel/coro/waitable_timer.hpp>

#include RUNNEL_ASIO(awaitable.hpp)
#include RUNNEL_ASIO(error.hpp)

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::testing::detail {

/// Requests of the simulated platform that wait for the answer of a device, and what it is to do later. Kept by those
/// who wait, too, so that it may be let go of meanwhile.
///
/// While a coroutine is suspended, others may write this, each in one step:
///
/// | member             | is written by                                                                      |
/// |--------------------|------------------------------------------------------------------------------------|
/// | `calls_`           | each `wait` when it begins and ends; a later one with the same key takes its place |
/// | `answer` of a call | `answered`, into the frame of who waits; the last one counts                       |
/// | `timers_`          | `later`, and the timers' handlers                                                  |
/// | `closed_`          | `close`: so all ask for it when they go on, who have been answered, too            |
template <class Executor>
class aliyun_calls : public std::enable_shared_from_this<aliyun_calls<Executor>> {
  public:
    using duration = std::chrono::steady_clock::duration;

    explicit aliyun_calls(Executor executor) : waiters_(std::move(executor)) {}

    /// Waits for the answer that `answered` will be told under `key`; calls `send` once it is ready for it. Throws
    /// `timed_out` after `timeout`, `operation_aborted` when `close` was called.
    asio::awaitable<std::string, Executor> wait(std::string key, std::function<void()> send, duration timeout) {
        return wait(this->shared_from_this(), std::move(key), std::move(send), timeout);
    }

    /// A device has answered. False: nobody waits for it.
    bool answered(std::string_view key, std::string_view answer) {
        auto const found = calls_.find(key);
        if (found == calls_.end()) return false;
        found->second->answer = answer;
        waiters_.wake(found->second->waiting);
        return true;
    }

    /// Calls `f` after `pause`, unless `close` is called before.
    void later(duration pause, std::function<void()> f) {
        auto const timer = std::make_shared<timer_type>(waiters_.get_executor(), pause);
        timers_.insert(timer);
        timer->async_wait([self = this->shared_from_this(), timer, f = std::move(f)](std::error_code error) {
            self->timers_.erase(timer);
            if (!error && !self->closed_) f();
        });
    }

    /// Ends all waiting with `operation_aborted`, and drops what was to be done later.
    void cancel() {
        for (auto const& timer : timers_) timer->cancel();
        waiters_.wake_all(asio::error::operation_aborted);
    }
    /// The same, for good.
    void close() {
        closed_ = true;
        cancel();
    }

  private:
    using timer_type = waitable_timer<Executor>;

    struct call {
        call(aliyun_calls& c, std::string k) : of(c), key(std::move(k)) { of.calls_.insert_or_assign(key, this); }
        ~call() {
            auto const found = of.calls_.find(key);
            if (found != of.calls_.end() && found->second == this) of.calls_.erase(found);
        }
        call(call const&) = delete;
        call& operator=(call const&) = delete;

        aliyun_calls& of;
        std::string key;
        waiter<Executor> waiting{};
        std::optional<std::string> answer{};
    };

    static asio::awaitable<std::string, Executor> wait(std::shared_ptr<aliyun_calls> self, std::string key,
                                                       std::function<void()> send, duration timeout) {
        if (self->closed_) throw std::system_error(asio::error::operation_aborted);
        call made(*self, std::move(key));
        send();
        auto waiting = wait_for(self, made);
        auto limited = within<Executor>(self->waiters_, timeout, asio::error::timed_out, std::move(waiting));
        co_await std::move(limited);
        // Whoever goes on may be about to use what has closed this.
        if (self->closed_) throw std::system_error(asio::error::operation_aborted);
        co_return std::move(*made.answer);
    }

    static asio::awaitable<void, Executor> wait_for(std::shared_ptr<aliyun_calls> self, call& made) {
        while (!made.answer) {
            if (self->closed_) throw std::system_error(asio::error::operation_aborted);
            co_await self->waiters_.wait(made.waiting);
            if (made.waiting.result) throw std::system_error(made.waiting.result);
        }
    }

    wait_list<Executor> waiters_;
    std::map<std::string, call*, std::less<>> calls_{};
    std::set<std::shared_ptr<timer_type>> timers_{};
    bool closed_ = false;
};

}  // namespace runnel::testing::detail
