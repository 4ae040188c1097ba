#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/heap_optional.hpp>
#include <runnel/coro/capture_error.hpp>
#include <runnel/coro/wait_list.hpp>
#include <runnel/mqtt/client/detail/run_end.hpp>
#include <runnel/mqtt/client/message.hpp>
#include <runnel/mqtt/client/publish_result.hpp>
#include <runnel/mqtt/client/session_options.hpp>
#include <runnel/mqtt/protocol/subscriptions.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace runnel::mqtt {

namespace detail {
template <class Executor>
class subscribing;
template <class Executor>
class pieces_part;
class subscription_watcher;
}  // namespace detail

/// What the session and the handles know of one subscription: of one topic filter or several.
///
/// While a coroutine is suspended, others may write this, each in one step:
///
/// | member               | is written by                                                                             |
/// |----------------------|-------------------------------------------------------------------------------------------|
/// | `box`                | the session, which puts messages there, and whoever takes one; the last handle when it    |
/// |                      | goes (`desert`)                                                                           |
/// | `closed`, `end`      | the session (`subscribing`, `subscription_registry`), which also clears `closed` when it  |
/// |                      | runs again                                                                                |
/// | `handler`, `options` | nobody: they are set before it is subscribed to                                           |
/// | all else             | the session                                                                               |
///
/// Whoever waits has a share, as the session and all handles may go, and looks at `box` and `closed` anew.
template <class Executor>
struct subscription_state {
    struct part {
        explicit part(std::string_view f) : filter(f) {}
        part(part const&) = delete;
        part& operator=(part const&) = delete;
        std::string filter;
        subscription_state* of = nullptr;
        subscriptions::filter const* known = nullptr;  ///< by which identifiers the server may name it in MQTT 5
        std::optional<qos> granted{};
        reason_code reason{};  ///< of the server's last answer
        bool named = false;    ///< the server names it in the message that is being dispatched
    };

    RUNNEL_COLD subscription_state(wake_queue_share<Executor> const& queue, std::span<std::string_view const> filters,
                                   subscribe_options const& o)
        : options(o),
          parts(filters.begin(), filters.end()),
          box(inbox::make(o.inbox)),
          receivers(queue),
          answered(queue) {
        for (auto& p : parts) p.of = this;
        if (!o.user_properties.empty()) keep_user_properties();
    }
    subscription_state(subscription_state const&) = delete;
    subscription_state& operator=(subscription_state const&) = delete;

    bool is_granted() const noexcept { return parts.front().granted.has_value(); }
    // The options view what the caller has.
    RUNNEL_COLD RUNNEL_NOINLINE void keep_user_properties() {
        options.user_properties = user_properties.emplace(options.user_properties).list();
    }

    subscribe_options options;
    std::vector<part> parts;                        ///< one or more; never changes
    std::function<void(publish const&)> handler{};  ///< if set, is called instead of putting messages into `box`
    inbox::owner box;
    wait_list<Executor> receivers;                ///< who waits for a message
    wait_list<Executor> answered;                 ///< who waits for SUBACK
    subscriptions::subscription* wish = nullptr;  ///< nullptr: nobody wants it any more
    detail::subscription_watcher* watcher = nullptr;
    std::uint64_t last_message = 0;  ///< the last one given to it
    std::error_code refused{};
    std::uint16_t lane = 0;      ///< of its messages: see `received`
    std::uint64_t received = 0;  ///< messages received from `box` when that was looked at last
    bool is_left = false;        ///< nobody receives from it any more, and there was no memory to remove it
    bool is_stalled = false;     ///< nobody had received any for long
    std::string refusal{};       ///< of which filter, and what the server says of it, if anything
    std::error_code closed{};    ///< why no more messages come; no error as long as they may
    detail::run_end end{};       ///< of `run`, if that is why
    heap_optional<mqtt::user_properties> user_properties{};  ///< what `options` views
    std::shared_ptr<publish_details const> details{};        ///< of the server's last answer
};

/// A subscription: where the messages that match a topic filter arrive. A handle; it may outlive the session.
///
/// It survives reconnects: if the server has lost the session, the session subscribes again. `session::unsubscribe`
/// ends it. When the last copy of the handle is gone, nobody can receive any more: the session forgets the
/// subscription, but does not end it at the server. Its messages are then such that no subscription wants, those too
/// that wait: see `session_options::unrouted_timeout`. A subscription with a handler needs no handle. One that was
/// default-constructed can only be assigned to and destroyed.
template <class Executor>
class basic_subscription {
  public:
    basic_subscription() noexcept = default;

    /// The topic filters it was made with: `filter(0)` to `filter(filters() - 1)`.
    std::size_t filters() const noexcept { return state_->parts.size(); }
    std::string const& filter(std::size_t index = 0) const noexcept { return state_->parts[index].filter; }
    /// The QoS which the server has granted to a filter.
    mqtt::qos granted_qos(std::size_t index = 0) const noexcept {
        return state_->parts[index].granted.value_or(qos::at_most_once);
    }
    /// What the server has answered for a filter last, to SUBSCRIBE (3.9.3) or UNSUBSCRIBE (3.11.3).
    reason_code reason(std::size_t index = 0) const noexcept { return state_->parts[index].reason; }
    /// Reason string and user properties of that answer, in MQTT 5; null if it has none.
    std::shared_ptr<publish_details const> const& details() const noexcept { return state_->details; }
    /// Why no more messages come, as `receive` would throw it: no error as long as they may.
    std::error_code closed() const noexcept { return state_->closed; }
    /// Messages that wait to be received.
    std::size_t size() const noexcept { return state_->box->size(); }
    /// QoS 0 messages that were dropped because the inbox was full.
    std::uint64_t dropped() const noexcept { return state_->box->dropped(); }

    /// Completes with the next message, at once if one waits. Throws `errc::disconnected` when there is none and
    /// `session::run` (the text then says by what) or the subscription has ended, a `reason_code` if the server has
    /// refused to renew the subscription, and `operation_aborted` after cancellation, which loses no message. The
    /// handle must be there when it begins, and may go while it waits.
    asio::awaitable<message, Executor> receive() {
        if (auto next = state_->box->pop()) [[likely]]
            co_return std::move(next);
        auto const here = state_;
        for (;;) {
            if (auto next = here->box->pop()) co_return std::move(next);
            if (here->closed) throw detail::ended(here->closed, here->end.get());
            waiter<Executor> w;
            co_await here->receivers.wait(w);
            if (w.result) throw detail::ended(w.result, here->end.get());
        }
    }

    asio::awaitable<message, Executor> receive(std::error_code& error) { return capture_error(receive(), error); }

    /// The next message if one waits. Never suspends.
    std::optional<message> try_receive() {
        auto next = state_->box->pop();
        return next ? std::optional(std::move(next)) : std::nullopt;
    }

  private:
    template <class>
    friend class detail::subscribing;
    template <class>
    friend class detail::pieces_part;

    // The handle's copies count as one user of the state, which notices when the last is gone.
    RUNNEL_COLD explicit basic_subscription(std::shared_ptr<subscription_state<Executor>> const& s)
        : state_(s.get(), [s](auto*) { desert(*s); }) {}
    RUNNEL_COLD RUNNEL_NOINLINE static void desert(subscription_state<Executor>& s) {
        if (!s.handler) s.box->desert();
    }

    std::shared_ptr<subscription_state<Executor>> state_{};
};

}  // namespace runnel::mqtt
