#pragma once

#include <runnel/coro/wait_list.hpp>
#include <runnel/mqtt/client/detail/session_parts.hpp>
#include <runnel/mqtt/client/session_event.hpp>
#include <runnel/mqtt/codec/error.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <system_error>
#include <utility>

namespace runnel::mqtt {

/// The events of a session from the moment when the stream was made: one for whoever wants to follow. A handle.
template <class Executor>
class event_stream {
  public:
    explicit event_stream(Executor const& executor) : state_(std::make_shared<state>(executor)) {}

    /// Completes with the next event, at once if one waits. Throws `errc::disconnected` when there is none and the
    /// session is gone, and `operation_aborted` after cancellation, which loses no event. The handle must be there when
    /// it begins, and may go while it waits.
    asio::awaitable<session_event, Executor> next() {
        auto const here = state_;
        while (here->events.empty()) {
            if (here->closed) throw std::system_error(errc::disconnected);
            waiter<Executor> w;
            co_await here->readers.wait(w);
            if (w.result && here->events.empty()) throw std::system_error(w.result);
        }
        auto event = std::move(here->events.front());
        here->events.pop_front();
        co_return event;
    }

    /// Events that were lost because nobody took them: the oldest, beyond 256.
    std::uint64_t dropped() const noexcept { return state_->dropped; }

    // While a coroutine is suspended, others may write all of this, each in one step: the session (`push`, `close`) and
    // whoever takes an event, as several may wait. So `next` looks at `events` and `closed` anew when it goes on; it
    // has a share.
    struct state final : detail::event_watcher {
        explicit state(Executor const& executor) : readers(executor) {}

        void push(session_event const& event) override {
            constexpr std::size_t capacity = 256;
            if (events.size() == capacity) {
                events.pop_front();
                ++dropped;
            }
            events.push_back(event);
            readers.wake_one();
        }
        void close() override {
            closed = true;
            readers.wake_all({});
        }

        std::deque<session_event> events{};
        wait_list<Executor> readers;
        std::uint64_t dropped = 0;
        bool closed = false;
    };
    /// For the session.
    std::weak_ptr<detail::event_watcher> watch() const noexcept { return state_; }

  private:
    std::shared_ptr<state> state_;
};

}  // namespace runnel::mqtt
