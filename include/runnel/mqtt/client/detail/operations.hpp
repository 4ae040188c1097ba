#pragma once

// What a session is asked to do: a part of session.hpp, in a file of its own. Its beginning and its end, the operations
// of the user, and what they share.

#include <runnel/coro/capture_error.hpp>
#include <runnel/mqtt/client/detail/requesting.hpp>
#include <runnel/mqtt/client/detail/subscribing.hpp>
#include <runnel/mqtt/client/session.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel::mqtt {

template <transport Transport>
session<Transport>::session(executor_type executor, Transport transport, session_options options)
    : options_((check(options), std::move(options))),
      destination_(std::make_shared<detail::destination<Transport>>(std::move(transport))),
      state_(role::client, options_.version,
             {options_.maximum_queued, options_.maximum_in_flight, options_.outgoing_topic_aliases,
              options_.accept_unknown_session, options_.maximum_queued_messages, options_.maximum_unwritten,
              options_.receive_maximum},
             options_.pace),
      durability_(options_, state_),
      packets_(executor, stream_type::headroom, &on_timer, this),
      connection_(state_, options_, packets_, stream_type::headroom),
      publishing_(options_, state_, packets_) {
    if (!durability_) return;
    packets_.timer().watch(state_);
    if (auto const id = durability_.client_id(); !id.empty()) from_server().assigned_client_id = id;
}

template <transport Transport>
session<Transport>::~session() {
    connection_.abandon();
    if (stream_ != nullptr) stream_->reset();  // so that nothing is read or written any more
    if (subscribing_) subscribing_->abandon_unread();
    finish(errc::disconnected, {});
    run_guard::leave(running_here_);
    for (auto const& w : watchers_)
        if (auto const stream = w.lock()) stream->close();
}

template <transport Transport>
session_counters session<Transport>::counters() const noexcept {
    session_counters all;
    all.connections = connections_;
    all.messages_received = messages_received_;
    all.messages_unrouted = messages_unrouted_;
    connection_.count(all);
    all.commits = durability_.commits();
    publishing_.count(all);
    all.queued_bytes = state_.queued_bytes();
    all.in_flight = state_.unacknowledged();
    all.messages_acknowledged = state_.acknowledged();
    all.messages_resent = state_.resent();
    return all;
}

template <transport Transport>
std::optional<negotiated_settings> session<Transport>::negotiated() const {
    if (!state_.connected()) return {};
    negotiated_settings n;
    n.version = state_.version();
    n.keep_alive = connection_.agreed_keep_alive();
    bool const is_clean = options_.clean_start || state_.wants_identifier();  // of CONNECT in MQTT 3.1.1
    n.session_expiry = n.version == protocol_version::v5 ? options_.session_expiry
                       : is_clean                        ? std::chrono::seconds(0)
                                                         : never_expires;
    n.server = state_.peer();
    if (!server_info_) return n;
    n.assigned_client_id = server_info_->assigned_client_id;
    n.response_information = server_info_->response_prefix;
    auto const& told = server_info_->agreed;
    if (auto const s = told.template get<property_id::session_expiry_interval>())
        n.session_expiry = std::chrono::seconds(*s);
    n.details = publish_details::of(told);
    return n;
}

template <transport Transport>
auto session<Transport>::events() -> event_stream<executor_type> {
    event_stream<executor_type> stream(get_executor());
    std::erase_if(watchers_, [](auto const& w) { return w.expired(); });
    watchers_.push_front(stream.watch());
    return stream;
}

template <transport Transport>
auto session<Transport>::publish(std::string_view topic, std::string_view payload, publish_options o)
    -> awaitable<publish_result> {
    return publishing_.publish(topic, payload, o);
}

template <transport Transport>
auto session<Transport>::publish(std::string_view topic, std::string_view payload, publish_options o,
                                 std::error_code& error) -> awaitable<publish_result> {
    return capture_error(publish(topic, payload, o), error);
}

template <transport Transport>
std::vector<queued_message> session<Transport>::queued() {
    std::vector<queued_message> all;
    state_.for_each_queued(
        [&](queued_view const& m) { all.push_back({m.number, std::string(m.topic), m.size, m.qos, m.sent}); });
    return all;
}

template <transport Transport>
bool session<Transport>::discard(std::uint64_t number) {
    packets_.timer().soon();  // to who waits for it; what can fail comes first
    bool const found = state_.discard(number, errc::message_discarded, listener(*this));
    if (!found) return false;
    if (running_) send_rest();
    durability_.save();
    wake_if_drained();
    publishing_.offer_room();  // the place is free once that is stored
    return true;
}

template <transport Transport>
auto session<Transport>::subscribe(std::string_view filter, subscribe_options o) -> awaitable<subscription> {
    return subscribe(filter, {}, o);
}

template <transport Transport>
auto session<Transport>::subscribe(std::string_view filter, subscribe_options o, std::error_code& error)
    -> awaitable<subscription> {
    return capture_error(subscribe(filter, o), error);
}

template <transport Transport>
auto session<Transport>::subscribe(std::string_view filter, message_handler handler, subscribe_options o)
    -> awaitable<subscription> {
    return subscriptions().subscribe({&filter, 1}, std::move(handler).plain(), o);
}

template <transport Transport>
auto session<Transport>::subscribe(std::span<std::string_view const> filters, subscribe_options o)
    -> awaitable<subscription> {
    return subscriptions().subscribe(filters, {}, o);
}

template <transport Transport>
auto session<Transport>::subscribe(std::span<std::string_view const> filters, message_handler handler,
                                   subscribe_options o) -> awaitable<subscription> {
    return subscriptions().subscribe(filters, std::move(handler).plain(), o);
}

template <transport Transport>
auto session<Transport>::unsubscribe(subscription const& s, user_property_list props) -> awaitable<void> {
    return subscriptions().unsubscribe(s, user_properties(props));
}

template <transport Transport>
auto session<Transport>::request(std::string_view topic, std::string_view payload, std::chrono::milliseconds timeout,
                                 publish_options o) -> awaitable<message> {
    return requests().request(topic, payload, timeout, o);
}

template <transport Transport>
auto session<Transport>::request(std::string_view topic, std::string_view payload, std::chrono::milliseconds timeout,
                                 publish_options o, std::error_code& error) -> awaitable<message> {
    return capture_error(request(topic, payload, timeout, o), error);
}

template <transport Transport>
auto session<Transport>::respond(mqtt::publish const& to, std::string_view payload, publish_options o)
    -> awaitable<publish_result> {
    auto const topic = to.props.get<property_id::response_topic>();
    if (!topic) throw std::system_error(errc::no_response_topic);
    properties props = o.props == nullptr ? properties{} : *o.props;
    props.correlation_data = to.props.get<property_id::correlation_data>();
    o.props = &props;
    auto publishing = publish(*topic, payload, o);
    co_return co_await std::move(publishing);
}

template <transport Transport>
auto session<Transport>::reauthenticate() -> awaitable<void> {
    if (!authenticating_) throw std::system_error(errc::not_connected);
    auto authenticating = authenticating_->again();  // not of this session, which may go before it ends
    co_await std::move(authenticating);
}

template <transport Transport>
auto session<Transport>::connected() -> awaitable<void> {
    if (is_connected()) co_return;
    auto waiting = wait(&places::connected);
    co_await std::move(waiting);
}

template <transport Transport>
auto session<Transport>::connected(std::uint64_t after) -> awaitable<std::uint64_t> {
    auto const here = connection_.reader().share();
    while (connections_ <= after) {
        auto waiting = wait(&places::connected);
        co_await std::move(waiting);
        if (here->is_abandoned()) throw std::system_error(errc::disconnected);
    }
    co_return connections_;
}

template <transport Transport>
auto session<Transport>::drained() -> awaitable<void> {
    if (is_drained()) {
        auto const error = save_if_due();
        if (!error) co_return;
        if (!running_) throw std::system_error(error, "session store");
    }
    auto waiting = wait(&places::drained);
    co_await std::move(waiting);
}

template <transport Transport>
auto session<Transport>::disconnect(reason_code reason, property_view props) -> awaitable<void> {
    if (!running_) co_return;
    auto const phase = state_.current_phase();
    bool const may_speak = phase == session_state::phase::connecting || phase == session_state::phase::connected;
    connection_.tell_time();
    errc const e = state_.disconnect(packets_.out(), {reason, props});
    if (e != errc::ok) throw std::system_error(e);
    connection_.close(may_speak);
    publishing_.refuse("disconnect was called");
    waiter<executor_type> w;
    co_await where_to_wait().ended.wait(w);
    if (w.result) throw std::system_error(w.result);
}

template <transport Transport>
auto session<Transport>::where_to_wait() -> places& {
    if (!places_) places_ = std::make_unique<places>(packets_.queue());
    return *places_;
}

template <transport Transport>
auto session<Transport>::wait(wait_list<executor_type> places::* where) -> awaitable<void> {
    auto const by = publishing_.end();
    if (!running_ && publishing_.is_closed()) throw detail::ended(errc::disconnected, by.get());
    if (!running_) packets_.timer().soon();
    waiter<executor_type> w;
    co_await (where_to_wait().*where).wait(w);
    if (w.result) throw detail::ended(w.result, by.get());
}

template <transport Transport>
void session<Transport>::finish(std::error_code ended, std::string_view text) noexcept {
    running_ = false;
    stream_ = nullptr;
    packets_.timer().stop();
    // `disconnected` is told of messages that stay, and so not of those that have been dropped.
    if (durability_.save_quietly()) publishing_.tell_late({});
    std::error_code const why = errc::disconnected;
    if (!text.empty()) publishing_.refuse(text);
    publishing_.close(why);
    if (subscribing_) subscribing_->close(why);
    if (requesting_) requesting_->close(why);
    if (authenticating_) authenticating_->on_connection_lost();
    if (!places_) return;
    places_->connected.wake_all(why);
    places_->drained.wake_all(why);
    places_->ended.wake_all(ended);
}

template <transport Transport>
void session<Transport>::tell(session_event const& event) {
    if (options_.on_event) options_.on_event(event);
    for (auto const& w : watchers_)
        if (auto const stream = w.lock()) stream->push(event);
}

template <transport Transport>
void session<Transport>::tell(session_event::kind what, std::error_code error, std::string_view detail,
                              std::chrono::milliseconds pause) {
    tell({.what = what, .error = error, .pause = pause, .detail = printable(detail)});
}

template <transport Transport>
auto session<Transport>::subscriptions() -> detail::subscribing<executor_type>& {
    if (!subscribing_) {
        detail::session_services& services = *this;
        subscribing_ = std::make_unique<detail::subscribing<executor_type>>(options_, state_, packets_, services);
        if (running_) subscribing_->reopen();
    }
    return static_cast<detail::subscribing<executor_type>&>(*subscribing_);
}

template <transport Transport>
auto session<Transport>::requests() -> detail::requesting<executor_type>& {
    if (!requesting_) {
        requesting_ =
            std::make_unique<detail::requesting<executor_type>>(get_executor(), state_, publishing_, subscriptions());
        requesting_->on_response_information(from_server().response_prefix);
    }
    return static_cast<detail::requesting<executor_type>&>(*requesting_);
}

}  // namespace runnel::mqtt
