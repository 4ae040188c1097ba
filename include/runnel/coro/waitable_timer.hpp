#pragma once

#include <runnel/core/clock.hpp>
#include <runnel/coro/asio.hpp>

#include RUNNEL_ASIO(basic_waitable_timer.hpp)
#include RUNNEL_ASIO(wait_traits.hpp)

#include <utility>

namespace runnel {

#ifndef RUNNEL_TEST_CLOCK

/// Asio's timer by the library's clock.
template <class Executor>
using waitable_timer = asio::basic_waitable_timer<steady_clock, asio::wait_traits<steady_clock>, Executor>;

#else

/// Asio's timer by the library's clock: whoever moves that is told what it is waited for.
template <class Executor>
class waitable_timer : public asio::basic_waitable_timer<steady_clock, asio::wait_traits<steady_clock>, Executor> {
  public:
    using base = asio::basic_waitable_timer<steady_clock, asio::wait_traits<steady_clock>, Executor>;
    using base::base;

    /// As Asio's: completes at `expiry()`, or with `operation_aborted` once cancelled.
    template <class Token>
    auto async_wait(Token&& token) {
        auto* const moved = moved_time::of_this_thread();
        if (moved != nullptr && this->expiry() > moved->now && this->expiry() != (steady_clock::time_point::max)())
            moved->deadlines.insert(this->expiry());
        return base::async_wait(std::forward<Token>(token));
    }
};

#endif

}  // namespace runnel
