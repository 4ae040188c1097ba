#pragma once

// How a session runs: a part of session.hpp, in a file of its own. `run`, and the two coroutines of a connection.
//
// Nothing runs at the same time. While a coroutine is suspended, others may write this:
//
// - `*stream_`: the reader makes it (`open`). `run` destroys it when neither reader nor writer runs (`end_attempt`).
//   The session's destructor does at any time: then the operations on it end, and touch nothing of the session.
// - `room_`: the reader's (`wait_for_room`); `handle_timeout` wakes it.
// - `connected_at_`, `server_info_`: the reader's while there is one, then `run`'s.
// - `quarantine_`: `run` (`judge`), the reader (`look_at_answers`) and `handle_timeout` in one step each.
// - Reader and writer are started by `handle_timeout`, which is called by the timer and is no coroutine.
//
// The session may go while a coroutine waits. So reader and writer begin each time by `here->check()`, and `run` by
// `is_abandoned`; `open` has a share in `destination_`, which it needs until it is done.

#include <runnel/core/compiler.hpp>
#include <runnel/core/remark.hpp>
#include <runnel/mqtt/client/detail/usual_cause.hpp>
#include <runnel/mqtt/client/session.hpp>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::mqtt {

namespace detail {

RUNNEL_COLD RUNNEL_NOINLINE inline void abort_if(bool is_over) {
    if (is_over) throw std::system_error(asio::error::operation_aborted);
}

}  // namespace detail

template <transport Transport>
auto session<Transport>::run(task_share here) -> awaitable<void> {
    if (here->is_abandoned()) throw std::system_error(errc::disconnected);
    if (running_) throw std::logic_error("session::run is running already");
    std::optional<stream_type> s;
    run_guard at_end(*this);
    begin_run(s);
    reconnect_schedule schedule(options_.reconnect, static_cast<bool>(options_.make_credentials), clock::now());
    // From here on this only waits: cancellation is seen to below.
    bool const throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    auto const cancellation = co_await asio::this_coro::cancellation_state;
    auto const is_cancelled = [&] { return cancellation.cancelled() != asio::cancellation_type::none; };
    waiter<executor_type> w;
    try {
        while (!connection_.life().is_ending()) {
            begin_attempt();  // `attempt` opens and reads, `write_loop` writes
            while (goes_on(this, here, is_cancelled())) co_await connection_.waiters().wait(w);
            bool const opened = s.has_value();
            bool const at_once = end_attempt();
            if (connection_.life().is_ending()) break;
            detail::abort_if(is_cancelled());
            if (at_once || follow_redirect()) continue;
            begin_pause(schedule, opened);
            while (goes_on(this, here, is_cancelled())) co_await connection_.waiters().wait(w);
            detail::abort_if(is_cancelled());
            connection_.rethrow_failure();
        }
        detail::abort_if(is_cancelled());  // though an end in good order was asked for
        durability_.save();
    } catch (...) {
        at_end.failure = std::current_exception();
        at_end.cancelled = is_cancelled();
        if (!here->is_abandoned()) connection_.cancel();  // an attempt that has been asked for
    }
    co_await asio::this_coro::throw_if_cancelled(throws);
    if (at_end.failure) std::rethrow_exception(at_end.failure);
    at_end.error = connection_.life().cut_off();
}

// Whether to go on waiting for what has been begun. Static, as the session may have gone.
template <transport Transport>
bool session<Transport>::goes_on(session* of, task_share const& here, bool is_cancelled) {
    if (here->is_abandoned()) throw std::system_error(errc::disconnected);
    if (is_cancelled) of->connection_.cancel();
    return of->connection_.is_busy();
}

// --- connection after connection

template <transport Transport>
void session<Transport>::begin_run(std::optional<stream_type>& s) {
    running_ = true;
    stream_ = &s;
    connection_.begin_run();
    version_.forget();
    publishing_.reopen();
    packets_.timer().set_forgotten(false);
    if (subscribing_) subscribing_->reopen();
}

template <transport Transport>
void session<Transport>::begin_attempt() {
    connected_at_.reset();
    begins_anew_ = false;
    begins_anew_at_ = {};
    if (quarantine_) state_.narrow(packets_.out(), quarantine_->window());
    if (server_info_ && server_info_->response_prefix.empty() && server_info_->assigned_client_id.empty())
        server_info_.reset();
    if (server_info_) server_info_->forget_connection();
    destination_->begin_attempt();
    connection_.ask_for_attempt();
    tell({.what = session_event::kind::connecting, .url = destination_->next_url()});
}

// The connection, or the attempt to make one, is over. Throws what ends `run`. True: the other version of MQTT is to be
// tried at once.
template <transport Transport>
bool session<Transport>::end_attempt() {
    session_event event;
    bool in_other_version = false;
    try {
        judge();
        in_other_version = judge_version();
        event = how_it_ended();
    } catch (...) {
        forget_connection();
        stream_->reset();
        throw;
    }
    forget_connection();
    tell(event);
    stream_->reset();
    connection_.rethrow_failure();
    return in_other_version;
}

// What the end of the attempt says of the version in which it was made. True: the other one is to be tried at once.
template <transport Transport>
bool session<Transport>::judge_version() {
    auto* const progress = destination_->progress();
    if (progress == nullptr || authenticating_) return false;  // it was accepted, or there is no choice
    auto const why = connection_.life().cause();
    bool const told = why.category() == make_error_code(reason_code{}).category();
    if (told && why == reason_code::unsupported_protocol_version) return version_.refused();
    // Not one that has said anything, whatever that was; nor one that finds fault with a certificate.
    bool const silent = progress->step() == connect_step::accept && connection_.unread().empty() && !told &&
                        ended_by_peer() && recovery_from(why) == recovery::retry;
    return silent ? version_.unanswered() : version_.failed();
}

template <transport Transport>
void session<Transport>::forget_connection() {
    if (connected_at_) connection_.lose(position());
    connection_.reset();
    if (authenticating_) authenticating_->on_connection_lost();
    publishing_.connection_lost();
    if constexpr (has_pieces) pieces_.connection_lost(connection_.life().cause());
}

// What there is to tell of the end: by which error, at which step of which attempt, and what usually is the reason.
template <transport Transport>
session_event session<Transport>::how_it_ended() {
    session_event event{.what = session_event::kind::disconnected};
    auto* const progress = destination_->progress();
    if (!connection_.life().is_ending()) {
        event.error = connection_.life().cause();
        if (progress != nullptr) {
            event.step = progress->step();
            event.url = destination_->url();
        }
        if (from_server().detail.empty() && !from_server().refused) {
            if (progress != nullptr) {
                if (!note_answer(connection_.unread()))
                    progress->add(detail::usual_cause(event.error, event.step, event.url));
                from_server().detail = progress->describe();
            } else {
                from_server().detail = from_server().remark;
                add_remark(from_server().detail, detail::usual_cause(event.error, event.step, event.url));
            }
        }
    }
    event.detail = from_server().detail;
    event.details = from_server().details;
    return event;
}

// What a stream says beside the error by which it ends.
template <transport Transport>
void session<Transport>::note(std::system_error const& e) noexcept try {
    if (e.code() == asio::error::operation_aborted || connection_.life().is_violated()) return;
    auto* const progress = destination_->progress();
    if (progress != nullptr && !has_stream(progress->step()))
        progress->fail(e);
    else if (!connection_.life().is(lifecycle::state::over))
        from_server().remark = remark_of(e);
} catch (...) {  // then without
}

// What the server has answered that is no CONNACK. False: there is no such thing.
template <transport Transport>
bool session<Transport>::note_answer(std::string_view bytes) {
    auto* const progress = destination_->progress();
    if (progress == nullptr || bytes.empty() || (bytes[0] & 0xF0) == 0x20) return false;
    progress->add(strange_answer(bytes));
    return true;
}

// Whether the connection that is over was more than a failure.
template <transport Transport>
bool session<Transport>::has_lasted() const {
    return connected_at_ && reaches(clock::now() - *connected_at_, options_.reconnect.stable_after);
}

// Whether the next attempt goes to another server, at once.
template <transport Transport>
bool session<Transport>::follow_redirect() {
    if (has_lasted()) destination_->lasted();
    if (!options_.follow_redirects || !destination_->redirect(connection_.life().cause(), from_server().redirect))
        return false;
    tell({.what = session_event::kind::redirected, .url = destination_->url(), .detail = from_server().detail});
    return true;
}

// Throws if there is to be no other attempt.
template <transport Transport>
void session<Transport>::begin_pause(reconnect_schedule& schedule, bool opened) {
    auto const why = connection_.life().cause();
    // Some brokers send more again than they may; they would have to be refused for ever.
    if (why == errc::receive_maximum_exceeded && !begins_anew_) receive_maximum_ = 65535;
    reconnect_schedule::failure end{.why = why};
    if (connected_at_) end.lasted = clock::now() - *connected_at_;
    end.thrown_out = why == reason_code::session_taken_over || why == asio::error::eof;
    // It has not sent PUBREC yet for what PUBREL has freed; by the next time it will have.
    end.passing = why == reason_code::protocol_error && connection_.had_freed();
    auto const url = destination_->url();  // of the server that it was
    if (!has_lasted()) destination_->failed(opened || why == errc::connect_timeout);
    auto const next = schedule.after(end, clock::now(), uniform());
    if (!next.again) throw std::system_error(why, detail_with(url, from_server().detail));
    tell({.what = session_event::kind::waiting,
          .error = why,
          .twin_suspected = next.twin_suspected,
          .pause = next.pause});
    if (!connection_.life().is_ending()) connection_.pause(next.pause);
}

// Does whatever is due; the timer calls it. What fails ends `run`.
template <transport Transport>
void session<Transport>::on_timer(void* of) {
    auto& self = *static_cast<session*>(of);
    try {
        self.handle_timeout();
    } catch (...) {
        if (!self.running_) {
            self.packets_.timer().set(clock::now() + std::chrono::milliseconds(100));  // for what was still to be done
            throw;
        }
        self.connection_.fail(std::current_exception());
    }
}

template <transport Transport>
void session<Transport>::handle_timeout() {
    auto const now = clock::now();
    auto next = never;
    if (running_) {
        if (connection_.life().is(lifecycle::state::due)) {
            connection_.open();
            auto attempting = attempt(*stream_, connection_.reader().share());
            connection_.reader().launch(get_executor(), std::move(attempting));
        }
        if (packets_.timer().is_held_up()) attend_held_up();
        auto const begins_anew = state_.wants_new_connection() ? begin_anew(now) : never;
        tell_of_overtaken();
        if (quarantine_ && quarantine_->on_time(now)) {
            state_.set_time(to_session_time(now));
            state_.narrow(packets_.out(), quarantine_->window());
            packets_.flush();
        }
        if (connection_.needs_writer() && *stream_) {
            packets_.set_writer(true);
            auto writing = write_loop(**stream_, connection_.writer().share());
            connection_.writer().launch(get_executor(), std::move(writing));
        }
        next =
            (std::min)({begins_anew, send_due(now), attend_messages(now), quarantine_ ? quarantine_->deadline() : never,
                        connection_.advance(now, position(), is_deaf())});
    }
    if (packets_.timer().is_forgotten()) tell_of_no_run();
    bool const late = publishing_.withdraw_late(now, running_);
    if (running_) send_rest();
    // What has been withdrawn is withdrawn in the store, too, before anybody is told.
    auto const error = running_ || late ? save_if_due() : std::error_code{};
    if (late && !(running_ && error)) publishing_.tell_late(error);
    if (!error) publishing_.offer_room();  // what has ended has left its place once that is stored
    wake_if_drained();
    next = (std::min)(next, publishing_.deadline(running_));
    if (next != never) packets_.timer().set(next);
}

// What was withdrawn may have held up others.
template <transport Transport>
void session<Transport>::send_rest() {
    auto const before = packets_.out().size();
    connection_.tell_time();
    state_.send_more(packets_.out());
    if (packets_.out().size() != before) packets_.flush();
}

// Operations wait, and nobody has called `run`. Those who call it in the same turn, or as the next thing, are not told.
template <transport Transport>
void session<Transport>::tell_of_no_run() {
    if (++turns_without_run_ < 3) return packets_.timer().soon();
    packets_.timer().set_forgotten(false);
    tell({.what = session_event::kind::not_running});
}

// --- an application that does not take its messages

template <transport Transport>
auto session<Transport>::wait_for_room(task_share const& here) -> awaitable<void> {
    packets_.timer().set_held_up(true);
    // What is left however the wait ends, if the session is still there.
    struct leaving {
        session& self;
        task_share const& here;
        ~leaving() {
            if (!here->is_abandoned()) self.room_ = nullptr;
        }
    } const at_end{*this, here};
    while (!state_.can_take_more() && connection_.life().is(lifecycle::state::online)) {
        wait_list<executor_type> room(packets_.queue());
        waiter<executor_type> w;
        room_ = &room;
        co_await room.wait(w);
        here->check();
        room_ = nullptr;
        if (w.result) throw std::system_error(w.result);
    }
}

// What the application has not taken cannot grow by more than what is received: so this is asked for seldom.
template <transport Transport>
void session<Transport>::weigh() noexcept {
    constexpr std::size_t step = 64 * 1024;
    auto const held = (subscribing_ ? subscribing_->held() : 0) + (unrouted_ ? unrouted_->bytes() : 0);
    auto const limit = options_.maximum_held;
    is_laden_ = held >= (is_laden_ ? limit / 2 + 1 : limit);
    // As long as it is, it may have what it has.
    auto const most = options_.receive_maximum;
    auto const has = (std::clamp)(state_.not_taken(), std::size_t{1}, std::size_t{most});
    state_.bound_not_taken(is_laden_ ? static_cast<std::uint16_t>(has) : most);
    weigh_at_ = is_laden_ ? 0 : add_saturating(connection_.received(), std::max<std::uint64_t>(limit - held, step));
}

template <transport Transport>
void session<Transport>::attend_held_up() {
    if (is_laden_) weigh();
    if (state_.can_take_more() || !connection_.life().is(lifecycle::state::online)) {
        if (room_ != nullptr) room_->wake_all({});
    }
    packets_.timer().set_held_up(state_.is_full());
}

// Only another connection brings messages that were left out or given back. First the server is given time to answer
// what has been sent on this one: else that would be sent again on each connection, and never be done with. Returns
// when to look again.
template <transport Transport>
auto session<Transport>::begin_anew(clock::time_point now) -> clock::time_point {
    if (begins_anew_at_ == clock::time_point{}) begins_anew_at_ = deadline_after(now, options_.response_timeout);
    if (state_.unanswered().any && now < begins_anew_at_) {
        packets_.timer().set_held_up(true);  // until there is an answer
        return begins_anew_at_;
    }
    state_.disconnect(packets_.out());
    begins_anew_ = true;
    connection_.end_over(errc::receive_maximum_exceeded);
    return never;
}

// --- messages that no subscription wants

template <transport Transport>
void session<Transport>::keep(mqtt::publish const& packet, delivery token) {
    if (token.quality == qos::at_most_once || options_.unrouted_timeout.count() == 0) return drop(token);
    // How many there may be is seen to where they are received; one read may bring more than `receive_maximum`.
    if (!unrouted_) unrouted_ = std::make_unique<unrouted>(options_.unrouted_timeout, 65535);
    bool const is_first = unrouted_->empty();
    state_.assign(token, unrouted::lane_of(packet.topic));
    packets_.timer().soon();  // what can fail comes first
    auto const oldest = unrouted_->keep(packet, token, clock::now());
    try {
        if (oldest) drop(*oldest);
        if (is_first) tell(session_event::kind::unrouted, {}, packet.topic, options_.unrouted_timeout);
    } catch (...) {  // it is kept: who gave it back would get it twice
        end_run(std::current_exception());
    }
}

template <transport Transport>
std::uint16_t session<Transport>::lane_of(mqtt::publish const& packet) {
    auto const wanted = subscribing_ ? subscribing_->lane_of(packet) : std::nullopt;
    return wanted ? *wanted : unrouted::lane_of(packet.topic);
}

template <transport Transport>
void session<Transport>::drop(delivery token) {
    ++messages_unrouted_;
    bool const v5 = state_.version() == protocol_version::v5;
    state_.acknowledge(packets_.out(), token, v5 ? reason_code::implementation_specific_error : reason_code::success);
    packets_.flush();
}

template <transport Transport>
auto session<Transport>::attend_messages(clock::time_point now) -> clock::time_point try {
    auto next = never;
    if (connection_.has_failed()) return next;  // what is kept is for the next run
    if (subscribing_) {
        next = subscribing_->handle_timeout(now);
        if (auto failure = subscribing_->take_failure()) connection_.fail(std::move(failure));
    }
    if (!unrouted_) return next;
    std::string topic;
    unrouted_->expire(now, [&](mqtt::publish const& packet, delivery token) {
        topic = packet.topic;
        drop(token);
    });
    if (!topic.empty()) tell(session_event::kind::given_up, {}, topic);
    return (std::min)(next, unrouted_->next_deadline());
} catch (...) {  // from the user's code
    connection_.fail(std::current_exception());
    return never;
}

// --- messages for which the server ends the connection

namespace detail {

// Whether a connection has ended for a reason of this machine's, or of the network on the way, and not of the peer's.
// (Codes of Asio 1.22 do not equal `std::errc`, nor those of the standard library Asio's.)
RUNNEL_COLD inline bool is_own_network(std::error_code const& e) noexcept {
    using asio::error::basic_errors;
    constexpr std::pair<basic_errors, std::errc> own[] = {
        {asio::error::timed_out, std::errc::timed_out},
        {asio::error::operation_aborted, std::errc::operation_canceled},
        {asio::error::network_down, std::errc::network_down},
        {asio::error::network_unreachable, std::errc::network_unreachable},
        {asio::error::host_unreachable, std::errc::host_unreachable}};
    return std::ranges::any_of(own, [&](auto const& one) { return e == one.first || e == one.second; });
}

}  // namespace detail

// Whether the connection has not ended by this end's own doing, nor by the network's.
template <transport Transport>
bool session<Transport>::ended_by_peer() const {
    auto const why = connection_.life().cause();
    return !connection_.life().is_ending() && why.category() != make_error_code(errc{}).category() &&
           !detail::is_own_network(why);
}

// Whether one is given up, now that a connection has ended.
template <transport Transport>
void session<Transport>::judge() {
    auto const why = connection_.life().cause();
    bool const by_peer = ended_by_peer();
    if (!quarantine_) {
        if (!by_peer || !connected_at_) return;
        quarantine_ = std::make_unique<detail::quarantine>(options_.message_strikes);
        quarantine_->connected(*connected_at_);
    }
    auto const given_up = quarantine_->disconnected({.left = connection_.left(),
                                                     .why = why,
                                                     .by_peer = by_peer,
                                                     .at = clock::now(),
                                                     .written = connection_.written_at()});
    if (!given_up) return;
    auto topic = topic_of(*given_up);
    state_.reject(*given_up, errc::message_rejected, listener(*this));
    durability_.save_quietly();
    tell(session_event::kind::message_rejected, why, topic);
}

// A message that the server does not acknowledge hangs, without holding up the others.
template <transport Transport>
void session<Transport>::tell_of_overtaken() {
    if (state_.overtaken() < 32'767) return;
    auto const oldest = state_.unanswered().first;
    if (std::exchange(overtaken_, oldest) == oldest) return;
    tell(session_event::kind::unacknowledged, {}, topic_of(oldest));
}

// The topic of a message that is held; none of one that the server has already.
template <transport Transport>
std::string session<Transport>::topic_of(std::uint64_t number) {
    std::string topic;
    state_.for_each_queued([&](queued_view const& m) {
        if (m.number == number) topic = m.topic;
    });
    return topic;
}

// The trial of messages goes on.
template <transport Transport>
void session<Transport>::look_at_answers() {
    if (!quarantine_->on_answers(state_.unanswered())) return;
    state_.narrow(packets_.out(), quarantine_->window());
    packets_.flush();
}

// --- messages that leave at a pace

// Sends those whose turn it is; returns when to look again.
template <transport Transport>
auto session<Transport>::send_due(clock::time_point now) -> clock::time_point {
    // Behind a write under way they would gather, and leave all at once: the writer has this called when it is done.
    if (!state_.is_paced() || !connection_.is_empty()) return never;
    state_.set_time(to_session_time(now));
    auto const next = state_.send_due(packets_.out(), now, listener(*this));
    if (!packets_.out().empty()) packets_.flush();  // while held up, it would have this called again, and again
    return next;
}

// Stores what is not stored yet, before anything else is told or written. An error ends `run`.
template <transport Transport>
std::error_code session<Transport>::save_if_due() {
    try {
        durability_.save();
    } catch (std::system_error const& e) {
        if (running_) connection_.fail(std::current_exception());
        return e.code();
    }
    return {};
}

template <transport Transport>
flow_position session<Transport>::position() {
    return connection_.position(stream_ != nullptr && *stream_ ? backlog_of(**stream_) : 0);
}

// --- one connection: both of its coroutines

// Both have a share in what tells whether the session has gone meanwhile: then they touch nothing any more, and end.

// Opens the stream, then reads to its end.
template <transport Transport>
auto session<Transport>::attempt(std::optional<stream_type>& s, task_share here) -> coroutine {
    task_presence const is_there(here);
    std::exception_ptr error;
    try {
        co_await open(s, here);
        while (connection_.is_reading()) {
            if (state_.is_full() && !is_in_pieces()) [[unlikely]] {
                co_await wait_for_room(here);
                if (!connection_.is_reading()) break;
            }
            read_outcome read;
            if constexpr (reads_directly)
                co_await s->read_directly(connection_.room(), read);
            else
                read.size = co_await s->read_some(connection_.room());
            here->check();
            handle(read);
            here->check();
            if (authenticating_) [[unlikely]] {
                bool const was_held = connection_.is_held();
                co_await authenticating_->go_on(was_held);
                here->check();
                if (was_held) handle({});  // what has come behind CONNACK
                here->check();
            }
            if constexpr (has_pieces) {
                while (pieces_.is_held() && connection_.is_reading()) {
                    auto waiting = pieces_.until_taken();
                    co_await std::move(waiting);
                    here->check();
                    handle({});  // goes on with what has been read
                    here->check();
                }
            }
        }
        if (server_info_ && server_info_->refused) throw std::system_error(server_info_->refused);
    } catch (std::system_error const& e) {
        error = std::current_exception();
        if (!here->is_abandoned()) note(e);
    } catch (...) {
        error = std::current_exception();
    }
    if (!here->is_abandoned()) connection_.reader().end(std::move(error));
}

// Handles what has been read, and lets those go on that this has woken: publishers first, then the writer, so that the
// reader finds nothing left to be done when it reads again. The session may have gone when this returns.
template <transport Transport>
void session<Transport>::handle(read_outcome const& read) {
    // Where reading and writing take coroutines' frames, of which Asio keeps two for reuse, the next read goes first.
    if constexpr (!reads_directly) return connection_.handle(read, listener(*this));
    auto const queue = packets_.queue();
    queue->begin_turn();
    try {
        connection_.handle(read, listener(*this));
    } catch (...) {
        queue->end_turn_later();
        throw;
    }
    queue->end_turn();
}

// Writes what has gathered, again and again, and at last shuts the stream down.
template <transport Transport>
auto session<Transport>::write_loop(stream_type& s, task_share here) -> coroutine {
    task_presence const is_there(here);
    std::exception_ptr error;
    try {
        for (bool at_once = true;; at_once = false) {
            while (!connection_.has_to_write() && !connection_.is_resting()) {
                waiter<executor_type> w;
                co_await packets_.writer().wait(w);
                here->check();
                if (w.result) throw std::system_error(w.result);
                at_once = true;
            }
            if (!connection_.has_packets()) break;
            auto& out = connection_.gather(listener(*this));
            if constexpr (has_pieces) {
                if (pieces_.is_in(out.view())) {
                    auto writing = pieces_.write(s, connection_, out, here);
                    co_await std::move(writing);
                    here->check();
                    connection_.on_written(connection_.writes_ping() ? position() : flow_position{});
                    wake_if_drained();
                    continue;
                }
            }
            // What gathers during a write waits for a turn of its own, so that others have theirs.
            if (!at_once || !write_directly(s, out)) {
                co_await s.write(out);
                here->check();
            }
            connection_.on_written(connection_.writes_ping() ? position() : flow_position{});
            wake_if_drained();
        }
        if (connection_.is_written()) {
            co_await s.shutdown();
            here->check();
            connection_.on_shut_down();
        }
    } catch (...) {
        error = std::current_exception();
    }
    if (!here->is_abandoned()) connection_.writer().end(std::move(error));
}

// What has been waited for may have come all the same, though the attempt was over before.
template <transport Transport>
void session<Transport>::check_opening() {
    detail::abort_if(!connection_.life().is_open());
}

template <transport Transport>
auto session<Transport>::open(std::optional<stream_type>& s, task_share const& here) -> awaitable<void> {
    auto const way = destination_;  // which is needed until it has opened
    auto opened = co_await way->open(get_executor(), {clock::now(), connection_.life().deadline()});
    here->check();
    check_opening();
    s.emplace(std::move(opened));
    // Which of several servers it is only the transport knows, and only now.
    if (!version_.is_fixed()) version_.meet(std::hash<std::string>{}(way->url()));
    if (authenticating_) {
        way->progress()->at(connect_step::authenticate, "authentication");
        co_await authenticating_->begin();
        here->check();
        check_opening();
    }
    way->progress()->at(connect_step::accept, "waiting for CONNACK");
    send_connect();
    packets_.flush();
}

// --- CONNECT and CONNACK

template <transport Transport>
void session<Transport>::send_connect() {
    state_.set_time(to_session_time(clock::now()));
    state_.speak(next_version());
    detail::connect_request request(options_, state_.version(),
                                    server_info_ ? server_info_->assigned_client_id : std::string_view(),
                                    receive_maximum_, state_.must_begin_anew());
    try {
        durability_.check_client(request.client_id());
    } catch (...) {
        fail(std::current_exception());
    }
    if (authenticating_) request.authenticate(authenticating_->method(), authenticating_->data());
    errc const e = state_.connect(packets_.out(), request.packet(), request.own());
    if (e == errc::ok) return;
    auto why = std::make_exception_ptr(std::system_error(e, "CONNECT"));
    if (version_.is_guess()) std::rethrow_exception(std::move(why));  // the next one is of MQTT 5 again
    fail(std::move(why));
}

// For `negotiated`.
template <transport Transport>
void session<Transport>::keep_agreed(property_view const& props) {
    using enum property_id;
    bool const told = props.has(session_expiry_interval) || props.has(reason_string) || props.has(user_property);
    if (!told || props.raw().size() > 64 * 1024) return;
    from_server().connack = props.raw();
    from_server().agreed = props.relocated(from_server().connack);
}

template <transport Transport>
void session<Transport>::accepted_or_refused(connack const& answer) {
    connection_.on_answer();
    bool const version = answer.reason == reason_code::unsupported_protocol_version;
    if (!version) version_.answered();
    if (answer.reason != reason_code::success) {
        from_server().refused = answer.reason;
        from_server().detail = printable(
            answer.props.get<property_id::reason_string>().value_or(version ? "see session_options::version" : ""));
        from_server().redirect = answer.props.get<property_id::server_reference>().value_or("");
        from_server().details = publish_details::of(answer.props);
        tell(session_event::kind::refused, from_server().refused, from_server().detail);
        return;
    }
    auto keep_alive = options_.keep_alive;
    if (state_.version() == protocol_version::v5) {
        if (auto const seconds = answer.props.get<property_id::server_keep_alive>())
            keep_alive = std::chrono::seconds(*seconds);  // [MQTT-3.1.2-21]
        // From a server that was not asked for one it is ignored (3.2.2.3.7).
        auto const id = answer.props.get<property_id::assigned_client_identifier>();
        if (id && state_.wants_identifier()) {
            from_server().assigned_client_id = *id;
            durability_.set_client_id(*id);
        }
        if (authenticating_) authenticating_->on_connack(answer);
        if (auto const prefix = answer.props.get<property_id::response_information>()) {
            from_server().response_prefix = *prefix;
            if (requesting_) requesting_->on_response_information(*prefix);
        }
        keep_agreed(answer.props);
    }
    connection_.accept(keep_alive, authenticating_ != nullptr);
    session_present_ = answer.session_present;
    if (subscribing_) subscribing_->on_connected();  // what it sends waits with all else
    if (authenticating_ != nullptr)
        destination_->progress()->at(connect_step::authenticate, "authentication");
    else
        connection_begins();
}

// Both ends have: the server by CONNACK, and where there is an authenticator, that has found the server to be the right
// one.
template <transport Transport>
void session<Transport>::connection_begins() {
    session_event event{.what = session_event::kind::connected, .session_present = session_present_};
    event.url = destination_->url();
    if (auto* const progress = destination_->progress()) event.detail = std::move(progress->passed_over);
    destination_->accepted();
    connected_at_ = clock::now();
    if (quarantine_) quarantine_->connected(*connected_at_);
    ++connections_;
    if (places_) places_->connected.wake_all({});
    if (state_.version() != state_.queue_version())
        tell(session_event::kind::fallback, {}, std::to_string(state_.without_properties()));
    tell(event);
}

}  // namespace runnel::mqtt
