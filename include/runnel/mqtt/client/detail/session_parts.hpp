#pragma once

#include <runnel/coro/asio.hpp>
#include <runnel/mqtt/client/detail/run_end.hpp>
#include <runnel/mqtt/client/message.hpp>
#include <runnel/mqtt/client/session_event.hpp>
#include <runnel/mqtt/packet.hpp>
#include <runnel/mqtt/protocol/detail/received.hpp>
#include <runnel/mqtt/protocol/unrouted.hpp>

#include RUNNEL_ASIO(awaitable.hpp)

#include <chrono>
#include <cstdint>
#include <exception>
#include <optional>
#include <string_view>
#include <system_error>

namespace runnel::mqtt::detail {

// The parts of a session that not every session has, as it sees them. Each is made by the function of the session that
// first needs it, and only there: programs that do not call that function have neither its code nor its memory.

/// What a part asks of its session.
class session_services {
  public:
    /// No subscription wants a message, at present.
    virtual void keep(publish const& packet, delivery token) = 0;
    /// How `run` has ended, for those who may outlive the session.
    virtual run_end const& end() = 0;
    /// The messages kept so far; nullptr: none.
    virtual unrouted* kept() noexcept = 0;
    virtual void tell(session_event const& event) = 0;
    /// Ends the connection, if there is one, for a reason of which the server is told.
    virtual void end_connection(errc why) = 0;
    /// Ends `run`, if there is one, with what nobody else can be told.
    virtual void end_run(std::exception_ptr why) noexcept = 0;
    /// The server of a new connection has proven itself: what waits for that may be written.
    virtual void on_proven() = 0;
    /// A secret is among the packets that gather: they are wiped once they have been written.
    virtual void on_secret() noexcept = 0;

  protected:
    ~session_services() = default;
};

/// Is told that the server has refused to renew a subscription.
class subscription_watcher {
  public:
    virtual void on_subscription_lost(std::error_code why) = 0;

  protected:
    ~subscription_watcher() = default;
};

/// Where a message has gone.
enum class routing : std::uint8_t {
    done,     ///< to all subscriptions that it matches
    failed,   ///< likewise, but a handler has thrown: see `take_failure`
    nowhere,  ///< no subscription wants it
    unwanted  ///< likewise, and the application has unsubscribed from it
};

/// Subscriptions: see `subscribing`. Inboxes know it as where their messages come from.
class subscribing_part : public message_source {
  public:
    virtual ~subscribing_part() = default;
    virtual routing dispatch(publish const& packet, delivery token) = 0;
    /// The lane of a message that has been given out before; nothing: no subscription wants it.
    virtual std::optional<std::uint16_t> lane_of(publish const& packet) = 0;
    /// Does what is due at `now`; returns when there will be something to do. Handlers may fail.
    virtual std::chrono::steady_clock::time_point handle_timeout(std::chrono::steady_clock::time_point now) = 0;
    virtual std::exception_ptr take_failure() noexcept = 0;
    /// The server has no session; `on_connected` may follow.
    virtual void on_session_lost() noexcept = 0;
    virtual void on_connected() = 0;
    virtual void on_suback(void* owner, suback const& answer) = 0;
    virtual void on_unsuback(void* owner, unsuback const& answer) = 0;
    virtual void on_read() = 0;
    /// Bytes of messages that the application has not taken, beyond the bounds of the inboxes.
    virtual std::size_t held() const noexcept = 0;
    virtual void close(std::error_code why) = 0;
    virtual void reopen() noexcept = 0;
    /// The session goes: others decide of what waits where nobody receives it, as nobody wants it any more, or has a
    /// handle yet. If they have had it, it is taken.
    virtual void abandon_unread() noexcept = 0;
};

/// Requests: see `requesting`.
class requesting_part {
  public:
    virtual ~requesting_part() = default;
    virtual void on_response_information(std::string_view prefix) = 0;
    virtual void close(std::error_code why) = 0;
};

/// Authentication by steps: see `authenticating`.
template <class Executor>
class authenticating_part {
  public:
    virtual ~authenticating_part() = default;
    virtual std::string method() = 0;
    /// The data of CONNECT, after `begin`.
    virtual std::string_view data() const noexcept = 0;
    virtual asio::awaitable<void, Executor> begin() = 0;
    /// Something has been read: answers the server's challenge, or, while nothing else may be written (`is_held`),
    /// judges the server's proof, and then tells the session so.
    virtual asio::awaitable<void, Executor> go_on(bool is_held) = 0;
    virtual asio::awaitable<void, Executor> again() = 0;
    virtual void on_auth(auth const& packet) = 0;
    virtual void on_connack(connack const& answer) = 0;
    virtual void on_connection_lost() = 0;
};

/// Who follows the events: see `event_stream`.
class event_watcher {
  public:
    virtual ~event_watcher() = default;
    virtual void push(session_event const& event) = 0;
    virtual void close() = 0;
};

}  // namespace runnel::mqtt::detail
