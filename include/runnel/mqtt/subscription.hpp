#pragma once

#include <runnel/mqtt/message.hpp>
#include <runnel/mqtt/packet/subscribe.hpp>
#include <runnel/transport/quietly.hpp>
#include <runnel/transport/stream.hpp>
#include <runnel/transport/waiter.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace runnel::mqtt {

template <transport Transport>
class session;

/// What the session and the handles know of one subscription.
template <class Executor>
struct subscription_state {
    subscription_state(Executor const& executor, subscription_request const& r, std::size_t capacity)
        : filter(r.filter),
          request(r),
          box(std::make_shared<inbox>(capacity)),
          receivers(executor),
          answered(executor) {
        request.filter = filter;
    }

    std::string filter;
    subscription_request request;
    std::function<void(publish const&)> handler;  ///< if set, is called instead of putting messages into `box`
    std::shared_ptr<inbox> box;
    parking<Executor> receivers;  ///< who waits for a message
    parking<Executor> answered;   ///< who waits for SUBACK
    std::uint64_t number = 0;     ///< of the SUBSCRIBE last sent
    std::optional<qos> granted;
    std::error_code refused;
    std::error_code closed;  ///< why no more messages come; no error as long as they may
};

/// A subscription: where the messages that match a topic filter arrive. A handle; it may outlive the session.
///
/// It survives reconnects: if the server has lost the session, the session subscribes again. Letting go of the handle
/// does not unsubscribe: messages go on to be taken in and wait. `session::unsubscribe` ends it.
template <class Executor>
class basic_subscription {
  public:
    basic_subscription() noexcept = default;

    std::string const& filter() const noexcept { return state_->filter; }
    /// The QoS which the server has granted.
    mqtt::qos granted_qos() const noexcept { return state_->granted.value_or(qos::at_most_once); }
    /// Messages that wait to be received.
    std::size_t size() const noexcept { return state_->box->size(); }
    /// QoS 0 messages that were dropped because the inbox was full.
    std::uint64_t dropped() const noexcept { return state_->box->dropped(); }

    /// Completes with the next message, at once if one waits. Throws `errc::disconnected` when there is none and
    /// `session::run` or the subscription has ended, a `reason_code` if the server has refused to renew the
    /// subscription, and `operation_aborted` after cancellation, which loses no message.
    asio::awaitable<message, Executor> receive() {
        auto const here = state_;
        for (;;) {
            if (auto next = here->box->pop()) co_return std::move(*next);
            if (here->closed) throw std::system_error(here->closed);
            waiter<Executor> w;
            co_await here->receivers.park(w);
            if (w.result) throw std::system_error(w.result);
        }
    }

    asio::awaitable<message, Executor> receive(std::error_code& error) { return quietly(receive(), error); }

    /// The next message if one waits. Never suspends.
    std::optional<message> try_receive() { return state_->box->pop(); }

  private:
    template <transport Transport>
    friend class session;

    explicit basic_subscription(std::shared_ptr<subscription_state<Executor>> s) noexcept : state_(std::move(s)) {}

    std::shared_ptr<subscription_state<Executor>> state_;
};

}  // namespace runnel::mqtt
