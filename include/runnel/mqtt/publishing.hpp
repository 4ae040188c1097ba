#pragma once

#include <runnel/mqtt/outlet.hpp>
#include <runnel/mqtt/pending.hpp>
#include <runnel/mqtt/publish_result.hpp>
#include <runnel/mqtt/session_options.hpp>
#include <runnel/mqtt/session_state.hpp>
#include <runnel/transport/waiter.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string_view>
#include <system_error>

namespace runnel::mqtt {

/// The part of a session that publishes: waits for room, and for acknowledgements.
template <class Executor>
class publishing {
  public:
    using clock = std::chrono::steady_clock;
    template <class T>
    using awaitable = asio::awaitable<T, Executor>;

    publishing(session_options const& options, session_state& state, outlet<Executor>& packets)
        : options_(options),
          state_(state),
          packets_(packets),
          unwritten_(packets.queue()),
          queued_(packets.queue()),
          unacknowledged_(packets.queue()) {}
    publishing(publishing const&) = delete;
    publishing& operator=(publishing const&) = delete;
    ~publishing() { publisher::leave(publishers_); }

    /// See `session::publish`. Tells `number`, if it is not null, by which number `withdraw` knows the message.
    awaitable<publish_result> publish(std::string_view topic, std::string_view payload, publish_options o,
                                      std::uint64_t* number = nullptr) {
        publisher self(*this);
        if (o.timeout != std::chrono::milliseconds(0)) set_deadline(self, o.timeout);
        for (;;) {
            auto const begun = begin(topic, payload, o, &self);
            self.number = begun.number;
            if (number != nullptr) *number = begun.number;
            if (begun.error == errc::ok) break;
            if (!is_for_want_of_room(begun.error) || options_.when_full == overflow::refuse) {
                offer_room();
                throw std::system_error(begun.error);
            }
            co_await room_for(o.qos).park(self.waiting);
            if (self.waiting.result) throw std::system_error(self.waiting.result);
            if (self.of == nullptr) throw std::system_error(errc::disconnected);
        }
        offer_room();
        if (o.qos == qos::at_most_once) {
            bool const queued = self.number != session_state::no_exchange;
            co_return publish_result{queued ? publish_result::outcome::queued : publish_result::outcome::sent, {}, {}};
        }

        co_await unacknowledged_.park(self.waiting);
        if (self.waiting.result) throw std::system_error(self.waiting.result);
        if (is_error(self.result.reason)) throw refusal(self.result);
        co_return std::move(self.result);
    }

    /// Drops a message, of any QoS, that has not been sent yet.
    void withdraw(std::uint64_t number) {
        if (!state_.withdraw(number)) return;
        packets_.flush();  // what is stored
        offer_room();
    }

    /// See `session::try_publish`.
    bool try_publish(std::string_view topic, std::string_view payload, publish_options o) {
        errc const error = begin(topic, payload, o, nullptr).error;
        if (error != errc::ok && !is_for_want_of_room(error)) throw std::system_error(error);
        return error == errc::ok;
    }

    /// Lets those go on who wait for room, if there is some.
    void offer_room() {
        if (unwritten_.occupied() && packets_.out().size() < options_.maximum_unwritten) unwritten_.wake_one();
        if (queued_.occupied() && state_.has_room()) queued_.wake_one();
    }

    /// Ends publishers whose time is over and, if the session runs, messages whose expiry interval is over before they
    /// could be sent. Returns when there will be something to end.
    clock::time_point attend(clock::time_point now, bool running) {
        struct refusing : session_handler {
            publishing& of;
            explicit refusing(publishing& p) noexcept : of(p) {}
            void on_refused(void* owner, errc why) { of.on_refused(owner, why); }
        };
        if (deadline_ <= now) end_late(now);
        auto next = running ? state_.next_expiry() : std::nullopt;
        if (!next) return deadline_;
        state_.set_time(milliseconds_now());
        state_.expire(refusing(*this));
        next = state_.next_expiry();
        return next ? std::min(deadline_, clock::time_point(*next + std::chrono::milliseconds(1))) : deadline_;
    }

    void count(session_counters& c) const noexcept {
        c.messages_published = published_;
        c.messages_acknowledged = acknowledged_;
        c.messages_dropped = dropped_;
    }

    // What the session state tells.
    void on_published(void* owner, acknowledgement const& ack) {
        auto& p = *static_cast<publisher*>(owner);
        ++acknowledged_;
        p.result.what = publish_result::outcome::acknowledged;
        p.result.reason = ack.reason;
        if (!ack.props.empty()) p.result.details = publish_details::of(ack);
        unacknowledged_.wake(p.waiting);
    }
    void on_refused(void* owner, errc why) {
        if (owner != nullptr) unacknowledged_.wake(static_cast<publisher*>(owner)->waiting, why);
    }

    /// All who wait go on with an error.
    void close(std::error_code why) {
        unacknowledged_.wake_all(why);
        unwritten_.wake_all(why);
        queued_.wake_all(why);
    }

  private:
    static constexpr auto never = clock::time_point::max();

    // One who waits for the acknowledgement of a message.
    struct publisher : pending<publishing> {
        explicit publisher(publishing& p) noexcept : pending<publishing>(&p, p.publishers_) {}
        ~publisher() {
            if (this->of != nullptr) this->of->state_.disown(number);
        }
        waiter<Executor> waiting;
        publish_result result;
        std::uint64_t number = session_state::no_exchange;
        clock::time_point deadline = never;
    };

    void set_deadline(publisher& p, std::chrono::milliseconds timeout) {
        p.deadline = clock::now() + timeout;
        deadline_ = std::min(deadline_, p.deadline);
        packets_.attend(deadline_);
    }

    // Ends the publishers that have waited for too long.
    void end_late(clock::time_point now) {
        deadline_ = never;
        for (auto* link = publishers_.next(); link != &publishers_; link = link->next()) {
            auto& p = static_cast<publisher&>(*link);
            if (!p.waiting.parked()) continue;
            if (p.deadline > now) {
                deadline_ = std::min(deadline_, p.deadline);
                continue;
            }
            bool const sent = p.number != session_state::no_exchange && !state_.withdraw(p.number);
            unacknowledged_.wake(p.waiting, sent ? errc::response_timeout : errc::message_expired);
        }
    }

    session_state::begun begin(std::string_view topic, std::string_view payload, publish_options const& o,
                               publisher* owner) {
        bool const unacknowledged = o.qos == qos::at_most_once;
        if (unacknowledged && packets_.out().size() >= options_.maximum_unwritten) return {errc::queue_full};
        mqtt::publish const message{
            .topic = topic, .payload = payload, .qos = o.qos, .retain = o.retain, .props = o.props};
        auto* const told = unacknowledged ? nullptr : owner;
        if (o.props != nullptr) state_.set_time(milliseconds_now());  // an expiry interval may begin
        auto begun = state_.publish(packets_.out(), message, told);
        while (begun.error == errc::queue_full && options_.when_full == overflow::drop_oldest &&
               state_.drop_oldest_at_most_once()) {
            ++dropped_;
            begun = state_.publish(packets_.out(), message, told);
        }
        if (begun.error == errc::ok) ++published_;
        if (o.props != nullptr && state_.next_expiry()) packets_.attend();
        packets_.flush();
        return begun;
    }

    static bool is_for_want_of_room(errc e) noexcept {
        return e == errc::queue_full || e == errc::no_packet_identifier;
    }
    // Where to wait for room: QoS 0 does not wait for acknowledgements.
    parking<Executor>& room_for(qos quality) noexcept {
        return quality == qos::at_most_once && state_.connected() ? unwritten_ : queued_;
    }

    static std::system_error refusal(publish_result const& r) {
        if (r.details == nullptr || r.details->reason_string.empty()) return std::system_error(r.reason);
        return {r.reason, r.details->reason_string};
    }

    session_options const& options_;
    session_state& state_;
    outlet<Executor>& packets_;
    // Where coroutines wait: for room of the two kinds, and for acknowledgements.
    parking<Executor> unwritten_, queued_, unacknowledged_;
    list_link publishers_;
    clock::time_point deadline_ = never;  // the first of all publishers
    std::uint64_t published_ = 0, acknowledged_ = 0, dropped_ = 0;
};

}  // namespace runnel::mqtt
