#pragma once

#include <runnel/coro/wait_list.hpp>

#include <system_error>

namespace runnel {

/// The turn to write to the stream below, of which there is one: for layers whose reader has something to write now and
/// then (a WebSocket's pong, a TLS session's key update) beside the user's own writer.
///
/// The writer waits for the turn. The reader only tries: while another holds the turn it leaves what it has to write
/// pending, and whoever holds the turn writes what is pending before giving the turn back. So the reader never waits
/// for a write of the user's, which the peer may not be reading.
///
/// While a coroutine is suspended, others may write all of this, each in one step: so `take` looks anew when it goes
/// on. `holder_` is written by the `holder` that takes the turn, and by the same when it gives it back.
///
///     typename async_mutex<Executor>::holder turn(shared->turn);
///     if (!turn.try_take()) co_await turn.take();
template <class Executor>
class async_mutex {
  public:
    /// Holds the turn, or not yet. Destruction gives it back, also when the coroutine is destroyed, whichever of the
    /// two objects goes first.
    class holder : private list_link {
      public:
        explicit holder(async_mutex& turn) noexcept : turn_(&turn) { insert_before(turn.holders_); }
        holder(holder const&) = delete;
        holder& operator=(holder const&) = delete;
        ~holder() { give_back(); }

        /// Takes the turn if nobody holds it; false otherwise, and once it is closed.
        bool try_take() noexcept {
            if (turn_->holder_ != nullptr || turn_->closed_) return false;
            turn_->holder_ = this;
            return true;
        }

        /// Waits until the turn is free and takes it. Throws `operation_aborted` when cancelled, without the turn, and
        /// once it is closed.
        asio::awaitable<void, Executor> take() {
            waiter<Executor> waiting;
            while (!try_take()) {
                if (turn_->closed_) throw std::system_error(asio::error::operation_aborted);
                co_await turn_->waiters_.wait(waiting);
                if (waiting.result) throw std::system_error(waiting.result);
            }
        }

        /// Lets the next one have the turn; no effect if it is not held.
        void give_back() {
            if (turn_ == nullptr || turn_->holder_ != this) return;
            turn_->holder_ = nullptr;
            turn_->waiters_.wake_all({});
        }

      private:
        friend class async_mutex;
        async_mutex* turn_;
    };

    explicit async_mutex(Executor executor) : waiters_(std::move(executor)) {}
    async_mutex(async_mutex const&) = delete;
    async_mutex& operator=(async_mutex const&) = delete;
    ~async_mutex() {
        while (holders_.linked()) {
            auto& first = static_cast<holder&>(*holders_.next());
            first.turn_ = nullptr;
            first.unlink();
        }
    }

    bool taken() const noexcept { return holder_ != nullptr; }

    /// Nobody gets the turn any more: those who wait for it, now or later, are told `operation_aborted`.
    void close() {
        closed_ = true;
        waiters_.wake_all(asio::error::operation_aborted);
    }

    Executor const& get_executor() const noexcept { return waiters_.get_executor(); }

  private:
    wait_list<Executor> waiters_;
    list_link holders_{};       // all that may come to hold the turn
    holder* holder_ = nullptr;  // the one that does
    bool closed_ = false;
};

}  // namespace runnel
