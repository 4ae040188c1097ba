#pragma once

// How a session runs: a part of session.hpp, in a file of its own.

#include <runnel/mqtt/session.hpp>

#include <algorithm>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::mqtt {

// --- connection after connection

template <transport Transport>
void session<Transport>::begin_run(std::optional<stream_type>& s) {
    running_ = true;
    stream_ = &s;
    connection_.restart();
    if (subscribing_) subscribing_->reopen();
    begin_attempt();
}

// What was begun is over: begins the next thing, if there is one.
template <transport Transport>
bool session<Transport>::begin_next(reconnect_schedule& schedule, bool cancelled) {
    if (std::exchange(is_pausing_, false)) {
        if (auto failure = connection_.take_failure()) std::rethrow_exception(std::move(failure));
        if (cancelled) throw std::system_error(asio::error::operation_aborted);
        if (!connection_.is_ending()) begin_attempt();
        return !connection_.is_ending();
    }
    bool const opened = stream_->has_value();
    end_attempt();
    if (auto failure = connection_.take_failure()) std::rethrow_exception(std::move(failure));
    if (connection_.is_ending()) return false;
    if (cancelled) throw std::system_error(asio::error::operation_aborted);
    if (options_.follow_redirects && destination_.redirect(connection_.why(), said().redirect)) {
        tell({.what = session_event::kind::redirected, .url = destination_.url(), .detail = said().detail});
        begin_attempt();
    } else {
        begin_pause(schedule, opened);
    }
    return true;
}

template <transport Transport>
void session<Transport>::begin_attempt() {
    connected_at_.reset();
    if (said_ && said_->response_prefix.empty() && said_->assigned_client_id.empty()) said_.reset();
    if (said_) said_->detail = said_->redirect = {};
    connection_.ask_for_attempt();
    tell({.what = session_event::kind::connecting, .url = destination_.url()});
}

template <transport Transport>
void session<Transport>::end_attempt() {
    state_.connection_lost();
    connection_.reset();
    if (authenticating_) authenticating_->on_connection_lost();
    publishing_.offer_room();
    tell({.what = session_event::kind::disconnected,
          .error = connection_.is_ending() ? std::error_code{} : connection_.why(),
          .detail = said().detail});
    stream_->reset();
}

template <transport Transport>
void session<Transport>::begin_pause(reconnect_schedule& schedule, bool opened) {
    auto const why = connection_.why();
    // Some brokers send more again than they may; they would have to be refused for ever.
    if (why == errc::receive_maximum_exceeded) receive_maximum_ = 65535;
    auto const end = outcome();
    if (!end.lasted || *end.lasted < options_.reconnect.stable_after) destination_.failed(opened);
    auto const next = schedule.after(end, clock::now(), uniform());
    if (!next.again)
        throw std::system_error(why, destination_.url() + (said().detail.empty() ? "" : ": " + said().detail));
    tell({.what = session_event::kind::waiting,
          .error = why,
          .twin_suspected = next.twin_suspected,
          .pause = next.pause});
    is_pausing_ = true;
    connection_.pause(next.pause);
}

// Does whatever is due; the outlet has it called.
template <transport Transport>
void session<Transport>::look_after() {
    auto const now = clock::now();
    auto next = clock::time_point::max();
    if (running_) {
        save_if_due();
        if (connection_.is_attempt_due()) {
            auto attempting = attempt(*stream_);
            connection_.start(std::move(attempting));
        }
        if (packets_.is_held_up()) attend_held_up();
        next = attend_messages(now);
        next = std::min(next, connection_.attend(now, *stream_ ? &**stream_ : nullptr, listener(*this)));
    }
    next = std::min(next, publishing_.attend(now, running_));
    if (next != clock::time_point::max()) packets_.attend(next);
}

// --- an application that does not take its messages

template <transport Transport>
auto session<Transport>::wait_for_room() -> awaitable<void> {
    packets_.set_held_up(true);
    while (!state_.can_take_more() && !connection_.is_ending()) {
        parking<executor_type> room(packets_.queue());
        waiter<executor_type> w;
        room_ = &room;
        co_await room.park(w);
        room_ = nullptr;
        if (w.result) throw std::system_error(w.result);
    }
}

template <transport Transport>
void session<Transport>::attend_held_up() {
    if (state_.wants_new_connection() && state_.connected()) {
        state_.disconnect(packets_.out());
        connection_.end_over(errc::receive_maximum_exceeded);
    }
    if (state_.can_take_more() || connection_.is_ending()) {
        if (room_ != nullptr) room_->wake_all({});
    }
    packets_.set_held_up(state_.is_full());
}

// --- messages that no subscription wants

template <transport Transport>
void session<Transport>::keep(mqtt::publish const& packet, delivery token) {
    if (token.quality == qos::at_most_once || options_.unrouted_timeout.count() == 0) return drop(token);
    if (!unrouted_) unrouted_ = std::make_unique<unrouted>(options_.unrouted_timeout, options_.receive_maximum);
    bool const is_first = unrouted_->empty();
    if (auto const oldest = unrouted_->keep(packet, token, clock::now())) drop(*oldest);
    packets_.attend();
    if (is_first)
        tell({.what = session_event::kind::unrouted,
              .pause = options_.unrouted_timeout,
              .detail = std::string(packet.topic)});
}

template <transport Transport>
void session<Transport>::drop(delivery token) {
    ++messages_unrouted_;
    bool const v5 = options_.version == protocol_version::v5;
    state_.acknowledge(packets_.out(), token, v5 ? reason_code::implementation_specific_error : reason_code::success);
    packets_.flush();
}

template <transport Transport>
auto session<Transport>::attend_messages(clock::time_point now) -> clock::time_point {
    auto next = clock::time_point::max();
    if (subscribing_) {
        next = subscribing_->attend(now);
        if (auto failure = subscribing_->take_failure()) connection_.fail(std::move(failure));
    }
    if (!unrouted_) return next;
    std::string topic;
    unrouted_->expire(now, [&](mqtt::publish const& packet, delivery token) {
        topic = packet.topic;
        drop(token);
    });
    if (!topic.empty()) tell({.what = session_event::kind::given_up, .detail = std::move(topic)});
    return std::min(next, unrouted_->next_deadline());
}

template <transport Transport>
void session<Transport>::save_if_due() {
    try {
        storing_.save();
    } catch (...) {
        connection_.fail(std::current_exception());
    }
}

// --- one connection, from opening to loss

template <transport Transport>
auto session<Transport>::attempt(std::optional<stream_type>& s) -> typename connection<stream_type>::coroutine {
    std::exception_ptr error;
    try {
        auto opening = open(s);
        co_await std::move(opening);
        connection_.established(keep_alive_);
        while (connection_.is_reading()) {
            if (state_.is_full()) [[unlikely]] {
                auto room = wait_for_room();
                co_await std::move(room);
                if (!connection_.is_reading()) break;
            }
            read_outcome read;
            if constexpr (reads_directly)
                co_await s->read_directly(connection_.room(), read);
            else
                read.size = co_await s->read_some(connection_.room());
            errc const violation = connection_.handle(read, listener(*this));
            if (violation != errc::ok) connection_.end_over(violation);
        }
    } catch (...) {
        error = std::current_exception();
    }
    connection_.end_reading(std::move(error));
}

template <transport Transport>
auto session<Transport>::open(std::optional<stream_type>& s) -> awaitable<void> {
    auto opened = co_await destination_.open(get_executor());
    s.emplace(std::move(opened));
    if (authenticating_) co_await authenticating_->begin();
    refused_ = {};
    send_connect();
    for (errc violation = errc::ok;;) {
        if (!packets_.out().empty()) {
            co_await s->write(connection_.gather(listener(*this)));
            connection_.on_asked();
        }
        if (violation != errc::ok) throw std::system_error(violation);
        read_outcome read;
        if constexpr (reads_directly)
            co_await s->read_directly(connection_.room(), read);
        else
            read.size = co_await s->read_some(connection_.room());
        violation = connection_.handle(read, listener(*this));
        if (violation == errc::ok && state_.current_phase() != session_state::phase::connecting) break;
        if (violation == errc::ok && authenticating_ && authenticating_->is_challenged())
            co_await authenticating_->answer();
    }
    if (refused_) throw std::system_error(refused_);
    if (authenticating_ && state_.connected()) co_await authenticating_->finish();
}

// --- CONNECT and CONNACK

template <transport Transport>
void session<Transport>::send_connect() {
    state_.set_time(milliseconds_now());
    connect_request request(options_, said_ ? said_->assigned_client_id : std::string_view(), receive_maximum_);
    if (authenticating_) request.authenticate(authenticating_->method(), authenticating_->data());
    errc const e = state_.connect(packets_.out(), request.packet(), request.own());
    if (e != errc::ok) fail(std::make_exception_ptr(std::system_error(e, "CONNECT")));
}

template <transport Transport>
void session<Transport>::accepted_or_refused(connack const& answer) {
    connection_.on_answer();
    if (answer.reason != reason_code::success) {
        refused_ = answer.reason;
        said().detail = answer.props.get<property_id::reason_string>().value_or("");
        said().redirect = answer.props.get<property_id::server_reference>().value_or("");
        tell({.what = session_event::kind::refused, .error = refused_, .detail = said().detail});
        return;
    }
    keep_alive_ = options_.keep_alive;
    if (options_.version == protocol_version::v5) {
        if (auto const seconds = answer.props.get<property_id::server_keep_alive>())
            keep_alive_ = std::chrono::seconds(*seconds);  // [MQTT-3.1.2-21]
        if (auto const id = answer.props.get<property_id::assigned_client_identifier>()) {
            said().assigned_client_id = *id;
            storing_.set_client_id(*id);
        }
        if (authenticating_) authenticating_->on_connack(answer);
        if (auto const prefix = answer.props.get<property_id::response_information>()) {
            said().response_prefix = *prefix;
            if (requesting_) requesting_->on_response_information(*prefix);
        }
    }
    destination_.accepted();
    connected_at_ = clock::now();
    ++connections_;
    if (subscribing_) subscribing_->on_connected(answer.session_present);
    places_.connected.wake_all({});
    tell({.what = session_event::kind::connected, .session_present = answer.session_present});
}

// How the last connection, or the attempt to make one, has ended.
template <transport Transport>
reconnect_schedule::failure session<Transport>::outcome() const noexcept {
    auto const why = connection_.why();
    reconnect_schedule::failure f{.why = why};
    if (connected_at_) f.lasted = clock::now() - *connected_at_;
    f.thrown_out = why == reason_code::session_taken_over || why == asio::error::eof;
    return f;
}

}  // namespace runnel::mqtt
