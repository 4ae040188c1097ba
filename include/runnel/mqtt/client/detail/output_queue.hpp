#pragma once

#include <runnel/core/send_buffer.hpp>
#include <runnel/coro/timer.hpp>
#include <runnel/coro/wait_list.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>

#include <chrono>
#include <cstddef>
#include <memory>

namespace runnel::mqtt::detail {

/// Where a session's packets gather until the writer of the connection takes them all.
template <class Executor>
class output_queue {
  public:
    using clock = std::chrono::steady_clock;

    /// `on_timer(of)` is called on the executor when there is something to attend to.
    [[gnu::cold]] output_queue(Executor const& executor, std::size_t headroom,
                               typename timer<Executor>::function on_timer, void* of)
        : gathered_(headroom), writer_(executor), timer_(executor, on_timer, of) {}

    /// Packets are encoded to its end; `flush` then has them written.
    send_buffer& out() noexcept { return gathered_; }

    /// Lets the writer go to work, if there is anything to write: behind the coroutines that are going on in this turn,
    /// or in a later turn of the executor. Costs next to nothing if that has been asked for already.
    void flush() {
        if (!gathered_.empty()) has_writer_ ? writer_.wake_one_behind() : timer_.soon();
        if (attends_) [[unlikely]]
            attend_if_due();
    }

    /// Lets the writer, if there is one, look whether there is something to do.
    void wake() { writer_.wake_one(); }

    /// Where the writer waits for `flush` or `wake`.
    wait_list<Executor>& writer() noexcept { return writer_; }
    /// For all places of the session.
    std::shared_ptr<wake_queue<Executor>> const& queue() const noexcept { return writer_.queue(); }
    /// Whether there is a writer: an idle session does without.
    void set_writer(bool there_is) noexcept { has_writer_ = there_is; }

    /// From now on `flush` sees to what a store is to hold, too.
    void watch(session_state const& state) noexcept {
        watched_ = &state;
        attends_ = true;
    }

    /// Whether nobody runs the session yet: then `flush` has it attended to, as there may be something to tell.
    void set_forgotten(bool is_forgotten) noexcept {
        is_forgotten_ = is_forgotten;
        set_held_up(is_held_up_);
    }
    bool is_forgotten() const noexcept { return is_forgotten_; }

    /// While held up, `flush` has the session attended to: reading may go on.
    void set_held_up(bool is_held_up) noexcept {
        is_held_up_ = is_held_up;
        attends_ = is_held_up || is_forgotten_ || watched_ != nullptr;
    }
    bool is_held_up() const noexcept { return is_held_up_; }

    /// Has the session attended to, in a later turn of the executor, or at a time at the latest.
    void attend() { timer_.soon(); }
    void attend(clock::time_point when) { timer_.set(when); }
    /// Forgets the times.
    void stop_attending() noexcept { timer_.stop(); }

  private:
    [[gnu::noinline]] void attend_if_due() {
        if (is_held_up_ || is_forgotten_ || watched_->has_changes()) timer_.soon();
    }

    send_buffer gathered_;
    wait_list<Executor> writer_;
    timer<Executor> timer_;
    session_state const* watched_ = nullptr;
    bool has_writer_ = false;
    bool is_held_up_ = false;
    bool is_forgotten_ = true;
    bool attends_ = true;  // `flush` has more to see to
};

}  // namespace runnel::mqtt::detail
