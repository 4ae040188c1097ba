#pragma once

#include <runnel/coro/asio.hpp>

#include RUNNEL_ASIO(bind_cancellation_slot.hpp)
#include RUNNEL_ASIO(cancellation_signal.hpp)
#include RUNNEL_ASIO(dispatch.hpp)

#include <exception>
#include <memory>
#include <utility>

// Asio from 1.22.2 to 1.28.1, which is in Boost up to 1.83, emits a cancellation of what has been spawned in a later
// turn, if it comes from elsewhere than the executor, even if the coroutine and the signal have gone by then. Older
// ones emit it at once; newer ones keep the signal.
#define RUNNEL_ASIO_EMITS_LATE (RUNNEL_ASIO_VERSION > 102201 && RUNNEL_ASIO_VERSION < 102802)

namespace runnel::detail {

/// Emits the cancellation of what runs on `executor`.
template <class Executor>
void emit(std::shared_ptr<asio::cancellation_signal> const& signal, [[maybe_unused]] Executor const& executor,
          asio::cancellation_type type) {
#if RUNNEL_ASIO_EMITS_LATE
    asio::dispatch(executor, [signal, type] { signal->emit(type); });
#else
    signal->emit(type);
#endif
}

/// The handler of a `co_spawn` on `executor` that is cancelled by way of `slot`, with a signal of its own: for slots
/// that go, or are used again, while Asio still uses what it has put there.
template <class Executor, class Function>
auto with_own_signal(Executor const& executor, asio::cancellation_slot slot, Function function) {
    auto const signal = std::make_shared<asio::cancellation_signal>();
    slot.assign([signal, executor](asio::cancellation_type type) { emit(signal, executor, type); });
    return asio::bind_cancellation_slot(
        signal->slot(), [signal, f = std::move(function)](std::exception_ptr e) mutable { f(std::move(e)); });
}

/// The same for a slot that remains until the handler has gone.
template <class Executor, class Function>
auto with_slot([[maybe_unused]] Executor const& executor, asio::cancellation_slot slot, Function function) {
#if RUNNEL_ASIO_EMITS_LATE
    return with_own_signal(executor, std::move(slot), std::move(function));
#else
    return asio::bind_cancellation_slot(std::move(slot), std::move(function));
#endif
}

}  // namespace runnel::detail
