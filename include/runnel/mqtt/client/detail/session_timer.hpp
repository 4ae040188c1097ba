#pragma once

#include <runnel/coro/timer.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>

namespace runnel::mqtt::detail {

/// The one timer of a session, and when sending has it called besides: `session::handle_timeout` does whatever is due,
/// and sets it to the next deadline of the machines.
template <class Executor>
class session_timer : public timer<Executor> {
  public:
    using timer<Executor>::timer;

    /// From now on `on_flush` sees to what a store is to hold, too.
    void watch(session_state const& session) noexcept {
        watched_ = &session;
        watches_flush_ = true;
    }

    /// Whether nobody runs the session yet: then there may be something to tell whoever sends.
    void set_forgotten(bool is_forgotten) noexcept {
        is_forgotten_ = is_forgotten;
        set_held_up(is_held_up_);
    }
    bool is_forgotten() const noexcept { return is_forgotten_; }

    /// While reading is held up, sending may let it go on.
    void set_held_up(bool is_held_up) noexcept {
        is_held_up_ = is_held_up;
        watches_flush_ = is_held_up || is_forgotten_ || watched_ != nullptr;
    }
    bool is_held_up() const noexcept { return is_held_up_; }

    /// Whether `on_flush` is to be called when packets are to be written.
    bool watches_flush() const noexcept { return watches_flush_; }
    void on_flush() {
        if (is_held_up_ || is_forgotten_ || watched_->has_changes()) this->soon();
    }

  private:
    session_state const* watched_ = nullptr;
    bool is_held_up_ = false;
    bool is_forgotten_ = true;
    bool watches_flush_ = true;
};

}  // namespace runnel::mqtt::detail
