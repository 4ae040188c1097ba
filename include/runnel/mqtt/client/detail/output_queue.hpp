#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/send_buffer.hpp>
#include <runnel/coro/wait_list.hpp>
#include <runnel/mqtt/client/detail/session_timer.hpp>

#include <cstddef>

namespace runnel::mqtt::detail {

/// Where a session's packets gather until the writer of the connection takes them all.
///
/// Anybody may append while the writer, or anybody else, is suspended: whole packets, in one step. The writer takes
/// them by a swap, so what it writes is not changed (see `connection`). No function here resumes a coroutine at once.
template <class Executor>
class output_queue {
  public:
    /// `on_timer(of)` is called on the executor when the session's timer is due.
    RUNNEL_COLD output_queue(Executor const& executor, std::size_t headroom,
                             typename session_timer<Executor>::function on_timer, void* of)
        : gathered_(headroom), writer_(executor), timer_(executor, on_timer, of) {}

    /// Packets are encoded to its end; `flush` then has them written.
    send_buffer& out() noexcept { return gathered_; }

    /// Lets the writer go to work, if there is anything to write: behind the coroutines that are going on in this turn,
    /// or in a later turn of the executor. Costs next to nothing if that has been asked for already.
    void flush() {
        if (!gathered_.empty()) has_writer_ ? writer_.wake_one_behind() : ask_for_writer();
        if (timer_.watches_flush()) [[unlikely]]
            tell_timer();
    }

    /// Lets the writer, if there is one, look whether there is something to do.
    void wake() { writer_.wake_one(); }

    /// Where the writer waits for `flush` or `wake`.
    wait_list<Executor>& writer() noexcept { return writer_; }
    /// Whether there is a writer: an idle session does without.
    void set_writer(bool there_is) noexcept { has_writer_ = there_is; }
    /// For all wait lists of the session.
    wake_queue_share<Executor> const& queue() const noexcept { return writer_.queue(); }

    session_timer<Executor>& timer() noexcept { return timer_; }

  private:
    // Functions of their own, so that `flush` has nothing to keep for them.
    RUNNEL_NOINLINE void ask_for_writer() { timer_.soon(); }
    RUNNEL_NOINLINE void tell_timer() { timer_.on_flush(); }

    send_buffer gathered_;
    wait_list<Executor> writer_;
    session_timer<Executor> timer_;
    bool has_writer_ = false;
};

}  // namespace runnel::mqtt::detail
