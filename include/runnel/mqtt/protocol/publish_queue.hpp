#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/list_link.hpp>
#include <runnel/core/send_buffer.hpp>
#include <runnel/mqtt/client/session_options.hpp>
#include <runnel/mqtt/protocol/deadline.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <system_error>

namespace runnel::mqtt {

/// The time as the session state is told it.
inline std::chrono::milliseconds to_session_time(session_clock::time_point t) noexcept {
    return std::chrono::duration_cast<std::chrono::milliseconds>(t.time_since_epoch());
}

/// The calls of `publish` that have not completed: in which order they get room for their messages, when their time is
/// over, and how each has ended, which it is told once. Without I/O, clock and coroutines.
///
/// | state     | what the call waits for                                       | goes on by             |
/// |-----------|---------------------------------------------------------------|------------------------|
/// | `fresh`   | nothing yet                                                   | `begin`                |
/// | `waiting` | room, behind those that wait for room already                 | `offer_room` and (*)   |
/// | `begun`   | the acknowledgement; QoS 0: its turn, at a pace, else nothing | `on_end`, `on_sent`, (*) |
/// | `late`    | to be told that its time is over                              | `tell_late`, once that is stored |
/// | `told`    | nothing: its coroutine may go on                              |                        |
///
/// (*) `withdraw_late`, `on_refused`: `late`; `connection_lost`: those that are for one connection are `told`.
///
/// A message of a call that waits is begun here, where the room is found, and not by the coroutine once it goes on: so
/// nobody can come in between. While connected, QoS 0 waits for room to write, and QoS 1 and 2 for room in the queue;
/// otherwise all wait for room in the queue. Order is that of the calls within each of the two. `cancel` takes a call
/// out in any state.
class publish_queue {
  public:
    using time_point = session_clock::time_point;
    enum class state : std::uint8_t { fresh, waiting, begun, late, told };

    /// One call. What it refers to stays there until it is told, or cancelled.
    struct call : list_link {
        call(std::string_view const& t, std::string_view const& p, publish_options const& o) noexcept
            : topic(t), payload(p), options(o) {}
        std::string_view const& topic;
        std::string_view const& payload;
        publish_options const& options;
        std::uint64_t number = session_state::no_exchange;  ///< of the message in the session state
        std::uint64_t turn = 0;                             ///< among all that have waited for room; of those that wait
        time_point deadline = never;
        errc error = errc::ok;  ///< what it is to be told; of those that are late
        state at = state::fresh;
    };

    publish_queue(session_options const& options, session_state& session, send_buffer& out) noexcept
        : options_(options), state_(session), out_(out) {}
    publish_queue(publish_queue const&) = delete;
    publish_queue& operator=(publish_queue const&) = delete;
    RUNNEL_COLD ~publish_queue() {
        for (auto* list : {&writing_, &queueing_, &begun_, &late_})
            while (list->linked()) list->next()->unlink();
    }

    /// Begins the call's message, or lets it wait for room: the state says which. Returns why its message could not be
    /// begun. `now` counts only where the options have a time limit or properties, or messages leave at a pace.
    RUNNEL_NOINLINE errc begin(call& c, time_point now) {
        if (closed_ || has_lost_connection(c)) [[unlikely]] {
            c.at = state::told;
            return closed_ ? errc::disconnected : errc::not_connected;
        }
        bool const is_new = c.at == state::fresh;
        if (is_new && somebody_waits(c.options.qos)) [[unlikely]]
            return begin_to_wait(c, errc::queue_full, now);
        if (c.options.props != nullptr) state_.set_time(to_session_time(now));  // an expiry interval may begin
        bool const later = is_told_later(c);
        auto const begun = begin_message(c.topic, c.payload, c.options, later ? &c : nullptr);
        if (begun.error != errc::ok) [[unlikely]]
            return is_new ? begin_to_wait(c, begun.error, now) : begun.error;
        c.number = begun.number;
        c.at = state::begun;
        if (!later) return errc::ok;
        if (!is_new) c.unlink();
        c.insert_before(begun_);
        if (c.options.timeout.count() != 0) [[unlikely]]
            set_deadline(c, now);
        return errc::ok;
    }

    /// Begins a message that belongs to no call. It does not wait, and does not overtake those who do.
    RUNNEL_ALWAYS_INLINE session_state::begun try_begin(std::string_view topic, std::string_view payload,
                                                        publish_options const& o, time_point now) {
        if (closed_) [[unlikely]]
            return {errc::disconnected};
        if (somebody_waits(o.qos)) return {errc::queue_full};
        if (state_.is_paced() && state_.connected() && !state_.can_leave(o.qos, now)) [[unlikely]]
            return {errc::queue_full};
        if (o.props != nullptr) state_.set_time(to_session_time(now));
        return begin_message(topic, payload, o, nullptr);
    }

    /// Whether anybody waits for room.
    bool is_waited() const noexcept { return writing_.linked() || queueing_.linked(); }

    /// Begins the messages of those who wait, as far as there is room, and calls `tell(call, error)` for each that is
    /// told something by that. Where `tell` throws, here and below, that call is told another time. Of one that
    /// `is_gone(call)`, as its coroutine has been cancelled, no message is begun.
    template <class IsGone, class Tell>
    RUNNEL_NOINLINE void offer_room(time_point now, IsGone&& is_gone, Tell&& tell) {
        if (state_.connected()) {
            while (has_room_to_write() && serve(writing_, now, is_gone, tell)) {
            }
            while (state_.has_room() && serve(queueing_, now, is_gone, tell)) {
            }
        } else {
            while (serve(earlier(), now, is_gone, tell)) {
            }
        }
    }

    /// When `withdraw_late` may have something to do.
    time_point deadline() const noexcept { return deadline_; }

    /// Ends the calls whose time is over: what has not been sent is withdrawn. Their callers are told by `tell_late`,
    /// once the withdrawal is stored. Whether there are any. (Of thousands that wait each may be some ms late.)
    bool withdraw_late(time_point now) noexcept {
        if (now < deadline_) return late_.linked();
        deadline_ = never;
        std::size_t seen = 0;
        for (auto* list : {&writing_, &queueing_, &begun_}) seen += withdraw_late(*list, now);
        // Looking at all again for each would take all the time there is: where many wait, it takes a share.
        if (deadline_ != never) deadline_ = (std::max)(deadline_, now + std::chrono::microseconds(seen / 8));
        return late_.linked();
    }
    /// The session state has dropped the message, as `why` says, which is told in the same way.
    void on_refused(call& c, errc why) noexcept { be_late(c, why); }
    /// `error`, if it is one, is told in place of what they would be told: their withdrawal could not be stored.
    template <class Tell>
    void tell_late(std::error_code error, Tell&& tell) {
        tell_all(late_, error, tell);
    }

    /// The session state tells the end of a message: acknowledged, or, of QoS 0 at a pace, sent. Once.
    void on_end(call& c) noexcept {
        assert(c.at == state::begun && c.linked());
        c.unlink();
        c.at = state::told;
    }
    void on_sent(call& c) noexcept {
        on_end(c);
        c.number = session_state::no_exchange;
    }

    /// The call goes away: it is told nothing any more. A message that has begun goes on, unless it is only for the
    /// call.
    void cancel(call& c) noexcept {
        if (!c.linked()) return;
        c.unlink();
        if (c.at == state::begun) let_go(c);
    }

    /// The connection has gone, and there is no other yet: what was for it only is not sent any more.
    template <class Tell>
    RUNNEL_COLD void connection_lost(Tell&& tell) {
        for (auto* list : {&writing_, &begun_})
            for (auto* link = list->next(); link != list;) {
                auto& c = static_cast<call&>(*link);
                link = link->next();
                if (has_lost_connection(c)) tell_end(c, errc::not_connected, tell);
            }
    }

    /// From now on calls fail at once with `errc::disconnected`, until `reopen`.
    void refuse() noexcept { closed_ = true; }
    bool is_closed() const noexcept { return closed_; }
    void reopen() noexcept { closed_ = false; }

    /// All are told `why`.
    template <class Tell>
    void close(std::error_code why, Tell&& tell) {
        for (auto* list : {&late_, &begun_, &queueing_, &writing_}) tell_all(*list, why, tell);
        deadline_ = never;
    }

    std::uint64_t published() const noexcept { return published_; }
    std::uint64_t dropped() const noexcept { return dropped_; }

    static bool is_for_want_of_room(errc e) noexcept {
        return e == errc::queue_full || e == errc::no_packet_identifier || e == errc::topic_alias_cannot_wait;
    }

  private:
    RUNNEL_ALWAYS_INLINE bool somebody_waits(qos quality) const noexcept {
        if (!writing_.linked() && !queueing_.linked()) [[likely]]
            return false;
        if (!state_.connected()) return true;
        return quality == qos::at_most_once ? writing_.linked() : queueing_.linked();
    }

    // Whether the end of a message that begins now is told by the session state. At a pace, QoS 0 waits for its turn.
    RUNNEL_ALWAYS_INLINE bool is_told_later(call const& c) const noexcept {
        return c.options.qos != qos::at_most_once || (state_.is_paced() && state_.connected());
    }

    static bool is_for_this_connection(call const& c) noexcept {
        return c.options.this_connection && c.options.qos == qos::at_most_once;
    }
    RUNNEL_ALWAYS_INLINE bool has_lost_connection(call const& c) const noexcept {
        return is_for_this_connection(c) && !state_.connected();
    }

    // Nobody waits for the end of its message any more.
    void let_go(call& c) noexcept {
        if (!is_for_this_connection(c) || !state_.withdraw(c.number)) state_.disown(c.number);
    }

    RUNNEL_ALWAYS_INLINE session_state::begun begin_message(std::string_view topic, std::string_view payload,
                                                            publish_options const& o, void* owner) {
        if (o.qos == qos::at_most_once && !has_room_to_write()) return {errc::queue_full};
        publish message{.topic = topic, .payload = payload, .qos = o.qos, .retain = o.retain, .props = o.props};
        auto begun = state_.publish_in_place(out_, message, owner);
        if (begun.error == errc::queue_full && options_.when_full == overflow::drop_oldest) [[unlikely]]
            begun = make_room_and_begin(message, owner);
        if (begun.error == errc::ok) ++published_;
        return begun;
    }

    RUNNEL_COLD session_state::begun make_room_and_begin(publish& message, void* owner) {
        session_state::begun begun{errc::queue_full};
        while (begun.error == errc::queue_full && state_.drop_oldest_at_most_once()) {
            ++dropped_;
            begun = state_.publish_in_place(out_, message, owner);
        }
        return begun;
    }

    RUNNEL_NOINLINE errc begin_to_wait(call& c, errc e, time_point now) {
        if (!is_for_want_of_room(e) || options_.when_full == overflow::refuse) {
            c.at = state::told;
            return e;
        }
        c.at = state::waiting;
        c.turn = turns_++;
        c.insert_before(c.options.qos == qos::at_most_once ? writing_ : queueing_);
        if (c.options.timeout.count() != 0) set_deadline(c, now);
        return e;
    }

    RUNNEL_COLD void set_deadline(call& c, time_point now) noexcept {
        if (c.deadline != never) return;
        c.deadline = deadline_after(now, c.options.timeout);
        deadline_ = (std::min)(deadline_, c.deadline);
    }

    bool has_room_to_write() const noexcept { return out_.size() < options_.maximum_unwritten; }

    // The list whose first call has waited for longer.
    list_link& earlier() noexcept {
        if (!writing_.linked()) return queueing_;
        if (!queueing_.linked()) return writing_;
        bool const first = static_cast<call&>(*writing_.next()).turn < static_cast<call&>(*queueing_.next()).turn;
        return first ? writing_ : queueing_;
    }

    // Begins the message of the first call of the list. False: there is none, or no room for it.
    template <class IsGone, class Tell>
    bool serve(list_link& list, time_point now, IsGone& is_gone, Tell& tell) {
        if (!list.linked()) return false;
        auto& c = static_cast<call&>(*list.next());
        bool const has_begun = c.at == state::begun;  // which could not be told
        errc const e = has_begun || is_gone(c) ? errc::ok : begin(c, now);
        if (is_for_want_of_room(e)) return false;
        if (list.next() != &c) return true;  // among those begun
        tell(c, e);
        c.unlink();
        c.at = state::told;
        return true;
    }

    void be_late(call& c, errc why) noexcept {
        c.error = why;
        c.at = state::late;
        c.unlink();
        c.insert_before(late_);
    }

    // Returns how many it has looked at.
    std::size_t withdraw_late(list_link& list, time_point now) noexcept {
        std::size_t seen = 0;
        for (auto* link = list.next(); link != &list; ++seen) {
            auto& c = static_cast<call&>(*link);
            link = link->next();
            if (c.deadline > now) {
                deadline_ = (std::min)(deadline_, c.deadline);
                continue;
            }
            bool const sent = c.at == state::begun && !state_.withdraw(c.number);
            if (sent) state_.disown(c.number);
            be_late(c, sent ? errc::response_timeout : errc::message_expired);
        }
        return seen;
    }

    template <class Tell>
    void tell_all(list_link& list, std::error_code why, Tell& tell) {
        while (list.linked()) {
            auto& c = static_cast<call&>(*list.next());
            tell_end(c, why ? why : make_error_code(c.error), tell);
        }
    }
    template <class Tell>
    void tell_end(call& c, std::error_code why, Tell& tell) {
        tell(c, why);  // first, as it may fail: then it is told by whoever comes next
        c.unlink();
        if (c.at == state::begun) let_go(c);
        c.at = state::told;
    }

    session_options const& options_;
    session_state& state_;
    send_buffer& out_;
    list_link writing_{};   // QoS 0 that waits for room to write
    list_link queueing_{};  // QoS 1 and 2 that wait for room in the queue
    list_link begun_{};     // those that wait for their acknowledgement
    list_link late_{};
    time_point deadline_ = never;  // the first of all, or earlier
    std::uint64_t turns_ = 0;
    std::uint64_t published_ = 0;
    std::uint64_t dropped_ = 0;
    bool closed_ = false;
};

}  // namespace runnel::mqtt
