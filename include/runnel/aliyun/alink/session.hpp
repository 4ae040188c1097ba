#pragma once

#include <runnel/coro/asio.hpp>
#include <runnel/mqtt/client/session_options.hpp>
#include <runnel/mqtt/packet/publish.hpp>

#include RUNNEL_ASIO(awaitable.hpp)

#include <concepts>
#include <functional>
#include <span>
#include <string_view>
#include <system_error>

namespace runnel::aliyun::alink {

/// What Alink needs of a session: `mqtt::session` is one, and so is whatever wraps one.
template <class S>
concept message_session =
    requires(S& s, std::string_view text, mqtt::publish_options how, mqtt::subscribe_options so,
             std::function<void(mqtt::publish const&)> handler, typename S::subscription sub, std::error_code& error) {
        typename S::executor_type;
        { s.get_executor() } -> std::convertible_to<typename S::executor_type>;
        s.publish(text, text, how);
        { s.try_publish(text, text, how) } -> std::same_as<bool>;
        {
            s.subscribe(text, handler, so)
        } -> std::same_as<asio::awaitable<typename S::subscription, typename S::executor_type>>;
        { s.unsubscribe(sub) } -> std::same_as<asio::awaitable<void, typename S::executor_type>>;
        sub.receive(error);
        { sub.closed() } -> std::convertible_to<std::error_code>;
    };

/// A session that tells whether it is connected, and when it is.
template <class S>
concept tells_of_connection = requires(S& s) {
    { s.is_connected() } -> std::convertible_to<bool>;
    { s.connected() } -> std::same_as<asio::awaitable<void, typename S::executor_type>>;
};

/// A session that subscribes to several filters with one packet.
template <class S>
concept subscribes_to_several =
    requires(S& s, std::span<std::string_view const> filters, std::function<void(mqtt::publish const&)> handler,
             mqtt::subscribe_options o) { s.subscribe(filters, handler, o); };

/// A session that tells of each new connection, on which sub-devices have to log in again.
template <class S>
concept counting_session = message_session<S> && requires(S& s, std::uint64_t after) {
    { s.counters().connections } -> std::convertible_to<std::uint64_t>;
    { s.connected(after) } -> std::same_as<asio::awaitable<std::uint64_t, typename S::executor_type>>;
    { s.is_connected() } -> std::convertible_to<bool>;
};

}  // namespace runnel::aliyun::alink
