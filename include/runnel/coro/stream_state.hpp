#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/coro/asio.hpp>

#include RUNNEL_ASIO(error.hpp)

#include <cstddef>
#include <system_error>
#include <utility>

namespace runnel {

/// The base of what a stream keeps on the heap: a state that belongs to the stream and to each of its operations, from
/// the call until the end. So the stream may be destroyed at any time: it lets go of the state, and the last operation
/// to end frees it.
///
/// A derived class has a function `void abandon() noexcept`, which closes what there is to close and wakes whoever
/// waits; it is called once the stream has gone while there are operations. All this happens on one executor, on which
/// nothing runs at the same time, so that counting costs next to nothing.
class stream_state {
  public:
    stream_state() noexcept = default;
    stream_state(stream_state const&) = delete;
    stream_state& operator=(stream_state const&) = delete;

    /// Whether the stream has been destroyed. Then nothing of its user's is touched any more, buffers included.
    bool is_abandoned() const noexcept { return abandoned_; }

    /// For operations, before they begin and whenever they have waited: throws `operation_aborted` if the stream has
    /// been destroyed.
    void check() const {
        if (abandoned_) [[unlikely]]
            throw_aborted();
    }

  private:
    template <class>
    friend class state_share;
    template <class>
    friend class state_owner;

    [[noreturn]] RUNNEL_COLD RUNNEL_NOINLINE static void throw_aborted() {
        throw std::system_error(asio::error::operation_aborted);
    }

    std::size_t operations_ = 0;
    bool abandoned_ = false;
};

/// An operation's share in a state: an argument of its coroutine.
template <class State>
class state_share {
  public:
    explicit state_share(State* state) noexcept : state_(state) { ++state_->operations_; }
    state_share(state_share&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    state_share(state_share const& other) noexcept : state_share(other.state_) {}
    state_share& operator=(state_share const&) = delete;
    ~state_share() {
        if (state_ != nullptr && --state_->operations_ == 0 && state_->abandoned_) [[unlikely]]
            free(state_);
    }

    State& operator*() const noexcept { return *state_; }
    State* operator->() const noexcept { return state_; }

  private:
    RUNNEL_COLD RUNNEL_NOINLINE static void free(State* state) noexcept { delete state; }

    State* state_;
};

/// The stream's own share; it alone can be moved to another stream.
template <class State>
class state_owner {
  public:
    explicit state_owner(State* state) noexcept : state_(state) {}
    state_owner(state_owner const&) = delete;
    state_owner& operator=(state_owner const&) = delete;
    state_owner(state_owner&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    state_owner& operator=(state_owner&& other) noexcept {
        state_owner moved(std::move(other));
        std::swap(state_, moved.state_);
        return *this;
    }
    ~state_owner() {
        if (state_ != nullptr) let_go(state_);
    }

    explicit operator bool() const noexcept { return state_ != nullptr; }
    State& operator*() const noexcept { return *state_; }
    State* operator->() const noexcept { return state_; }
    state_share<State> share() const noexcept { return state_share<State>(state_); }

  private:
    RUNNEL_COLD RUNNEL_NOINLINE static void let_go(State* state) noexcept {
        if (state->operations_ == 0) {
            delete state;
            return;
        }
        state_share<State> const until_done(state);  // operations may be destroyed meanwhile
        state->abandoned_ = true;
        state->abandon();
    }

    State* state_;
};

}  // namespace runnel
