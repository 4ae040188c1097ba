#pragma once

#include <runnel/core/send_buffer.hpp>
#include <runnel/mqtt/session_state.hpp>
#include <runnel/transport/waiter.hpp>

#include <cstddef>

namespace runnel::mqtt {

/// Where a session's packets gather until the writer of the connection takes them all.
template <class Executor>
class outlet {
  public:
    outlet(Executor const& executor, std::size_t headroom)
        : gathered_(headroom), writer_(executor), changes_(executor) {}

    /// Packets are encoded to its end; `flush` then has them written.
    send_buffer& out() noexcept { return gathered_; }

    /// Lets the writer go to work in a later turn of the executor, if there is anything to write. Costs next to nothing
    /// if that has been asked for already.
    void flush() {
        if (!gathered_.empty()) writer_.wake_one();
        if (watched_ != nullptr && watched_->has_changes()) changes_.wake_one();
    }

    /// Lets the writer look whether there is something else to do.
    void wake() { writer_.wake_one(); }

    /// Where the writer waits for `flush` or `wake`.
    parking<Executor>& writer() noexcept { return writer_; }

    /// From now on `flush` wakes who waits for changes of what a store holds.
    void watch(session_state const& state) noexcept { watched_ = &state; }
    /// Where to wait for them.
    parking<Executor>& changes() noexcept { return changes_; }

  private:
    send_buffer gathered_;
    parking<Executor> writer_;
    parking<Executor> changes_;
    session_state const* watched_ = nullptr;
};

}  // namespace runnel::mqtt
