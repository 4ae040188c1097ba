#pragma once

#include <runnel/coro/exception_code.hpp>
#include <runnel/coro/with_slot.hpp>
#include <runnel/mqtt/client/session.hpp>
#include <runnel/mqtt/codec/owned_properties.hpp>

#include RUNNEL_ASIO(associated_allocator.hpp)
#include RUNNEL_ASIO(associated_cancellation_slot.hpp)
#include RUNNEL_ASIO(associated_executor.hpp)
#include RUNNEL_ASIO(async_result.hpp)
#include RUNNEL_ASIO(cancellation_signal.hpp)
#include RUNNEL_ASIO(cancellation_type.hpp)
#include RUNNEL_ASIO(co_spawn.hpp)
#include RUNNEL_ASIO(dispatch.hpp)
#include RUNNEL_ASIO(executor_work_guard.hpp)

#include <chrono>
#include <concepts>
#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

// The operations of a session with any completion token of Asio's: a callback, `use_future`, `deferred`,
// `use_awaitable`, `as_tuple`, `detached`, and what `bind_executor`, `bind_allocator` and `bind_cancellation_slot` make
// of them.
//
//     async_publish(session, "topic", json, {.qos = qos::at_least_once},
//                   [](std::error_code e, publish_result r) { ... });
//
// What holds for all of them:
//
// - **Arguments are owned.** Strings, filters, properties and handles are copied, or moved, into the operation: nothing
//   needs to outlive the call but the session.
// - **They may be called from any thread**, as nothing of the session is touched by the call. The operation begins on
//   the session's executor: at once if the caller is on it, and else in a later turn. The session must still be there
//   then; if it goes later, the operation ends with `errc::disconnected`.
// - **The handler** is called once, never from within the call, on its associated executor, by default the session's,
//   which is kept from running out of work until then. Its associated allocator is used for what is allocated to call
//   it (coroutines take their frames from Asio's cache of the thread). If the execution context ends first, the handler
//   is destroyed without a call, as Asio's are.
// - **Errors** are the first argument, a `std::error_code` (in the mode for Boost's Asio a `boost::system::error_code`,
//   which becomes one by itself), and the result is empty then. What `run` and `reauthenticate` end with may be any
//   exception, so that their handlers have a `std::exception_ptr`, as those of `co_spawn` do. What has no code is told
//   as `exception_code` says.
// - **Cancellation** by the associated slot is that of the member function, with `operation_aborted`; emit it on the
//   session's executor. Those that change nothing take `total`, the others `partial` and `terminal`.

namespace runnel::mqtt {

namespace detail {

// What calls a handler: on the handler's executor, with memory of its allocator.
template <class Handler, class Executor, class... Arguments>
struct delivery_of {
    using executor_type = asio::associated_executor_t<Handler, Executor>;
    using allocator_type = asio::associated_allocator_t<Handler>;
    executor_type get_executor() const noexcept { return executor; }
    allocator_type get_allocator() const noexcept { return asio::get_associated_allocator(handler); }
    void operator()() { std::apply(std::move(handler), std::move(arguments)); }

    Handler handler;
    executor_type executor;
    std::tuple<Arguments...> arguments;
};

// What `co_spawn` is to call on the session's executor when the operation has ended. `Status` is how the handler wants
// to be told of the error. While a coroutine is suspended, here the operation, nobody writes this: it is called once,
// behind its end, and `*signal_` is Asio's and the slot's.
template <class Handler, class Executor, class Status, class... Result>
class completion {
  public:
    using executor_type = Executor;
    using cancellation_slot_type = asio::cancellation_slot;

    completion(Handler handler, Executor const& executor, asio::cancellation_type accepted)
        : handler_(std::move(handler)), executor_(executor), work_(asio::get_associated_executor(handler_, executor)) {
        auto slot = asio::get_associated_cancellation_slot(handler_);
        if (!slot.is_connected()) return;
        // Of its own, as a coroutine takes `terminal` only, and Asio may still use the slot when the handler does.
        signal_ = std::allocate_shared<asio::cancellation_signal>(asio::get_associated_allocator(handler_));
        slot.assign([signal = signal_, executor, accepted](asio::cancellation_type type) {
            if ((type & accepted) != asio::cancellation_type::none)
                runnel::detail::emit(signal, executor, asio::cancellation_type::terminal);
        });
    }

    executor_type get_executor() const noexcept { return executor_; }
    cancellation_slot_type get_cancellation_slot() const noexcept {
        return signal_ ? signal_->slot() : asio::cancellation_slot();
    }

    void operator()(std::exception_ptr e, Result... result) {
        using delivery = delivery_of<Handler, Executor, Status, Result...>;
        auto executor = work_.get_executor();
        asio::dispatch(
            delivery{std::move(handler_), std::move(executor), {status(std::move(e)), std::move(result)...}});
        work_.reset();
    }

  private:
    static Status status(std::exception_ptr e) {
        if constexpr (std::same_as<Status, std::exception_ptr>)
            return e;
        else
            return exception_code(e);
    }

    Handler handler_;
    Executor executor_;
    asio::executor_work_guard<asio::associated_executor_t<Handler, Executor>> work_;
    std::shared_ptr<asio::cancellation_signal> signal_{};
};

// Begins an operation: `make` makes its coroutine, and owns what that is made of until then.
template <class Executor, class Status, class... Result>
struct initiation {
    using executor_type = Executor;
    executor_type get_executor() const noexcept { return executor; }

    template <class Handler, class Make>
    void operator()(Handler&& handler, Make make) const {
        completion<std::decay_t<Handler>, Executor, Status, Result...> done(std::forward<Handler>(handler), executor,
                                                                            accepted);
        asio::co_spawn(executor, make(), std::move(done));
    }

    Executor executor;
    asio::cancellation_type accepted;
};

inline constexpr auto changes_something = asio::cancellation_type::terminal | asio::cancellation_type::partial;
inline constexpr auto changes_nothing = changes_something | asio::cancellation_type::total;

template <class Status, class... Result, class Executor, class Token, class Make>
auto initiate(Executor const& executor, asio::cancellation_type accepted, Token&& token, Make make) {
    return asio::async_initiate<Token, void(Status, Result...)>(
        initiation<Executor, Status, Result...>{executor, accepted}, token, std::move(make));
}

// The coroutines, which own what they are given. In `operations<Session>`, so that each is one template.
template <class Session>
struct operations {
    template <class T>
    using awaitable = typename Session::template awaitable<T>;
    using subscription = typename Session::subscription;

    static awaitable<publish_result> publish(Session& s, std::string topic, std::string payload, publish_options o,
                                             owned_properties props) {
        o.props = props.get();
        auto publishing = s.publish(std::string_view(topic), std::string_view(payload), o);
        co_return co_await std::move(publishing);
    }
    static awaitable<subscription> subscribe(Session& s, std::vector<std::string> filters,
                                             typename Session::message_handler handler, subscribe_options o,
                                             user_properties props) {
        std::vector<std::string_view> const names(filters.begin(), filters.end());
        o.user_properties = props.list();
        auto subscribing = s.subscribe(std::span<std::string_view const>(names), std::move(handler), o);
        co_return co_await std::move(subscribing);
    }
    static awaitable<void> unsubscribe(Session& s, subscription from, user_properties props) {
        auto unsubscribing = s.unsubscribe(from, props.list());
        co_await std::move(unsubscribing);
    }
    static awaitable<message> receive(subscription from) {
        auto receiving = from.receive();
        co_return co_await std::move(receiving);
    }
    static awaitable<session_event> next(event_stream<typename Session::executor_type> from) {
        auto waiting = from.next();
        co_return co_await std::move(waiting);
    }
    static awaitable<message> request(Session& s, std::string topic, std::string payload,
                                      std::chrono::milliseconds timeout, publish_options o, owned_properties props) {
        o.props = props.get();
        auto requesting = s.request(std::string_view(topic), std::string_view(payload), timeout, o);
        co_return co_await std::move(requesting);
    }
    static awaitable<publish_result> respond(Session& s, owned_properties to, std::string payload, publish_options o,
                                             owned_properties props) {
        o.props = props.get();
        mqtt::publish request;
        request.props = to.get();
        auto responding = s.respond(request, std::string_view(payload), o);
        co_return co_await std::move(responding);
    }
    static awaitable<void> disconnect(Session& s, reason_code reason, owned_properties props) {
        auto disconnecting = s.disconnect(reason, props.get());
        co_await std::move(disconnecting);
    }
    // As the members are called when the coroutine is made, which may be in another thread.
    static awaitable<void> run(Session& s) {
        auto running = s.run();
        co_await std::move(running);
    }
    static awaitable<void> connected(Session& s) {
        auto waiting = s.connected();
        co_await std::move(waiting);
    }
    static awaitable<std::uint64_t> connected(Session& s, std::uint64_t after) {
        auto waiting = s.connected(after);
        co_return co_await std::move(waiting);
    }
    static awaitable<void> drained(Session& s) {
        auto waiting = s.drained();
        co_await std::move(waiting);
    }
    static awaitable<void> reauthenticate(Session& s) {
        auto authenticating = s.reauthenticate();
        co_await std::move(authenticating);
    }
};

// What a respondent needs of a request.
RUNNEL_COLD inline owned_properties where_to_respond(mqtt::publish const& to) {
    properties p;
    p.response_topic = to.props.get<property_id::response_topic>();
    p.correlation_data = to.props.get<property_id::correlation_data>();
    return owned_properties(&p);
}

RUNNEL_COLD inline owned_properties owned(property_view const& props) {
    if (props.empty()) return {};
    properties const all = props.parse();
    return owned_properties(&all);
}

}  // namespace detail

/// One topic filter or several, for `async_subscribe`: made of a string, or of a `std::vector<std::string>`.
class filter_list {
  public:
    template <std::convertible_to<std::string_view> Text>
    filter_list(Text const& one) : names_{std::string(std::string_view(one))} {}
    filter_list(std::vector<std::string> several) noexcept : names_(std::move(several)) {}

    /// Moves them out.
    std::vector<std::string> take() && noexcept { return std::move(names_); }

  private:
    std::vector<std::string> names_;
};

/// What has the operations of a session: `mqtt::session`, and what wraps one, as `aliyun::device_session` does. For
/// what that does not have itself there is the session in it.
template <class S>
concept session_operations = requires(S& s, std::string_view text, std::span<std::string_view const> filters,
                                      publish_options p, subscribe_options o, typename S::message_handler handler,
                                      typename S::subscription sub, user_property_list props, property_view view) {
    typename S::template awaitable<void>;
    { s.get_executor() } -> std::convertible_to<typename S::executor_type>;
    s.publish(text, text, p);
    s.subscribe(filters, std::move(handler), o);
    s.unsubscribe(sub, props);
    s.connected(std::uint64_t{});
    s.disconnect(reason_code::normal_disconnection, view);
    s.run();
};

/// `session::run`. The handler: `void(std::exception_ptr)`.
template <session_operations Session, class Token>
auto async_run(Session& s, Token&& token) {
    return detail::initiate<std::exception_ptr>(s.get_executor(), detail::changes_something, std::forward<Token>(token),
                                                [&s] { return detail::operations<Session>::run(s); });
}

/// `session::publish`. The handler: `void(std::error_code, publish_result)`.
template <session_operations Session, class Token>
auto async_publish(Session& s, std::string topic, std::string payload, publish_options o, Token&& token) {
    auto make = [&s, topic = std::move(topic), payload = std::move(payload), o,
                 props = owned_properties(o.props)]() mutable {
        return detail::operations<Session>::publish(s, std::move(topic), std::move(payload), o, std::move(props));
    };
    return detail::initiate<asio_error_code, publish_result>(s.get_executor(), detail::changes_something,
                                                             std::forward<Token>(token), std::move(make));
}
template <session_operations Session, class Token>
auto async_publish(Session& s, std::string topic, std::string payload, Token&& token) {
    return async_publish(s, std::move(topic), std::move(payload), publish_options{}, std::forward<Token>(token));
}

/// `session::subscribe` to one filter or several, with a handler for the messages or, if that is left out or empty,
/// with an inbox, from which `async_receive` takes them. The completion handler: `void(std::error_code, subscription)`.
template <session_operations Session, class Token>
auto async_subscribe(Session& s, filter_list filters, typename Session::message_handler handler, subscribe_options o,
                     Token&& token) {
    auto make = [&s, filters = std::move(filters).take(), handler = std::move(handler), o,
                 props = user_properties(o.user_properties)]() mutable {
        return detail::operations<Session>::subscribe(s, std::move(filters), std::move(handler), o, std::move(props));
    };
    return detail::initiate<asio_error_code, typename Session::subscription>(
        s.get_executor(), detail::changes_something, std::forward<Token>(token), std::move(make));
}
template <session_operations Session, class Token>
auto async_subscribe(Session& s, filter_list filters, typename Session::message_handler handler, Token&& token) {
    return async_subscribe(s, std::move(filters), std::move(handler), subscribe_options{}, std::forward<Token>(token));
}
template <session_operations Session, class Token>
auto async_subscribe(Session& s, filter_list filters, subscribe_options o, Token&& token) {
    return async_subscribe(s, std::move(filters), typename Session::message_handler{}, o, std::forward<Token>(token));
}
template <session_operations Session, class Token>
auto async_subscribe(Session& s, filter_list filters, Token&& token) {
    return async_subscribe(s, std::move(filters), subscribe_options{}, std::forward<Token>(token));
}

/// `session::unsubscribe`. The handler: `void(std::error_code)`.
template <session_operations Session, class Token>
auto async_unsubscribe(Session& s, typename Session::subscription from, user_properties props, Token&& token) {
    auto make = [&s, from = std::move(from), props = std::move(props)]() mutable {
        return detail::operations<Session>::unsubscribe(s, std::move(from), std::move(props));
    };
    return detail::initiate<asio_error_code>(s.get_executor(), detail::changes_something, std::forward<Token>(token),
                                             std::move(make));
}
template <session_operations Session, class Token>
auto async_unsubscribe(Session& s, typename Session::subscription from, Token&& token) {
    return async_unsubscribe(s, std::move(from), user_properties{}, std::forward<Token>(token));
}

/// `subscription::receive` of a subscription of this session. The handler: `void(std::error_code, message)`. It is
/// called once: who wants the next message calls this again, from the handler, say.
template <session_operations Session, class Token>
auto async_receive(Session& s, typename Session::subscription from, Token&& token) {
    auto make = [from = std::move(from)]() mutable { return detail::operations<Session>::receive(std::move(from)); };
    return detail::initiate<asio_error_code, message>(s.get_executor(), detail::changes_nothing,
                                                      std::forward<Token>(token), std::move(make));
}

/// `event_stream::next` of a stream of this session's events. The handler: `void(std::error_code, session_event)`.
template <transport Transport, class Token>
auto async_next_event(session<Transport>& s, event_stream<typename session<Transport>::executor_type> from,
                      Token&& token) {
    auto make = [from = std::move(from)]() mutable {
        return detail::operations<session<Transport>>::next(std::move(from));
    };
    return detail::initiate<asio_error_code, session_event>(s.get_executor(), detail::changes_nothing,
                                                            std::forward<Token>(token), std::move(make));
}

/// `session::request`. The handler: `void(std::error_code, message)`.
template <transport Transport, class Token>
auto async_request(session<Transport>& s, std::string topic, std::string payload, std::chrono::milliseconds timeout,
                   publish_options o, Token&& token) {
    auto make = [&s, topic = std::move(topic), payload = std::move(payload), timeout, o,
                 props = owned_properties(o.props)]() mutable {
        return detail::operations<session<Transport>>::request(s, std::move(topic), std::move(payload), timeout, o,
                                                               std::move(props));
    };
    return detail::initiate<asio_error_code, message>(s.get_executor(), detail::changes_something,
                                                      std::forward<Token>(token), std::move(make));
}
template <transport Transport, class Token>
auto async_request(session<Transport>& s, std::string topic, std::string payload, std::chrono::milliseconds timeout,
                   Token&& token) {
    return async_request(s, std::move(topic), std::move(payload), timeout, publish_options{.qos = qos::at_least_once},
                         std::forward<Token>(token));
}

/// `session::respond`. Of `to` the response topic and the correlation data are copied. The handler:
/// `void(std::error_code, publish_result)`.
template <transport Transport, class Token>
auto async_respond(session<Transport>& s, mqtt::publish const& to, std::string payload, publish_options o,
                   Token&& token) {
    auto make = [&s, to = detail::where_to_respond(to), payload = std::move(payload), o,
                 props = owned_properties(o.props)]() mutable {
        return detail::operations<session<Transport>>::respond(s, std::move(to), std::move(payload), o,
                                                               std::move(props));
    };
    return detail::initiate<asio_error_code, publish_result>(s.get_executor(), detail::changes_something,
                                                             std::forward<Token>(token), std::move(make));
}
template <transport Transport, class Token>
auto async_respond(session<Transport>& s, mqtt::publish const& to, std::string payload, Token&& token) {
    return async_respond(s, to, std::move(payload), publish_options{}, std::forward<Token>(token));
}

/// `session::reauthenticate`. The handler: `void(std::exception_ptr)`.
template <transport Transport, class Token>
auto async_reauthenticate(session<Transport>& s, Token&& token) {
    return detail::initiate<std::exception_ptr>(
        s.get_executor(), detail::changes_something, std::forward<Token>(token),
        [&s] { return detail::operations<session<Transport>>::reauthenticate(s); });
}

/// `session::connected`. The handler: `void(std::error_code)`.
template <session_operations Session, class Token>
auto async_connected(Session& s, Token&& token) {
    return detail::initiate<asio_error_code>(s.get_executor(), detail::changes_nothing, std::forward<Token>(token),
                                             [&s] { return detail::operations<Session>::connected(s); });
}
/// `session::connected(after)`. The handler: `void(std::error_code, std::uint64_t)`.
template <session_operations Session, class Token>
auto async_connected(Session& s, std::uint64_t after, Token&& token) {
    return detail::initiate<asio_error_code, std::uint64_t>(
        s.get_executor(), detail::changes_nothing, std::forward<Token>(token),
        [&s, after] { return detail::operations<Session>::connected(s, after); });
}

/// `session::drained`. The handler: `void(std::error_code)`.
template <transport Transport, class Token>
auto async_drained(session<Transport>& s, Token&& token) {
    return detail::initiate<asio_error_code>(s.get_executor(), detail::changes_nothing, std::forward<Token>(token),
                                             [&s] { return detail::operations<session<Transport>>::drained(s); });
}

/// `session::disconnect`. The handler: `void(std::error_code)`.
template <session_operations Session, class Token>
auto async_disconnect(Session& s, reason_code reason, property_view props, Token&& token) {
    auto make = [&s, reason, props = detail::owned(props)]() mutable {
        return detail::operations<Session>::disconnect(s, reason, std::move(props));
    };
    return detail::initiate<asio_error_code>(s.get_executor(), detail::changes_something, std::forward<Token>(token),
                                             std::move(make));
}
template <session_operations Session, class Token>
auto async_disconnect(Session& s, Token&& token) {
    return async_disconnect(s, reason_code::normal_disconnection, property_view{}, std::forward<Token>(token));
}

}  // namespace runnel::mqtt
