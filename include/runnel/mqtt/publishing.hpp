#pragma once

#include <runnel/mqtt/outlet.hpp>
#include <runnel/mqtt/pending.hpp>
#include <runnel/mqtt/publish_result.hpp>
#include <runnel/mqtt/session_options.hpp>
#include <runnel/mqtt/session_state.hpp>
#include <runnel/transport/race.hpp>
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
    template <class T>
    using awaitable = asio::awaitable<T, Executor>;

    publishing(Executor const& executor, session_options const& options, session_state& state,
               outlet<Executor>& packets)
        : options_(options),
          state_(state),
          packets_(packets),
          unwritten_(executor),
          queued_(executor),
          unacknowledged_(executor),
          expiring_(executor) {}
    publishing(publishing const&) = delete;
    publishing& operator=(publishing const&) = delete;
    ~publishing() { publisher::leave(publishers_); }

    /// See `session::publish`.
    awaitable<publish_result> publish(std::string_view topic, std::string_view payload, publish_options o) {
        if (o.timeout == std::chrono::milliseconds(0)) return publish_in_time(topic, payload, o, nullptr);
        return publish_within(topic, payload, o);
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

    /// Ends messages whose expiry interval is over before they could be sent; runs until it is cancelled.
    awaitable<void> watch_expiry() {
        struct refusing : session_handler {
            publishing& of;
            explicit refusing(publishing& p) noexcept : of(p) {}
            void on_refused(void* owner, errc why) { of.on_refused(owner, why); }
        };
        for (;;) {
            if (auto const next = state_.next_expiry()) {
                // Intervals are in seconds; one that begins meanwhile may be over before this one.
                auto const left = *next - milliseconds_now() + std::chrono::milliseconds(1);
                auto sleeping = sleep_for<Executor>(unwritten_.get_executor(), std::clamp<std::chrono::milliseconds>(
                                                                                   left, {}, std::chrono::seconds(1)));
                co_await std::move(sleeping);
                state_.set_time(milliseconds_now());
                state_.expire(refusing(*this));
            } else {
                waiter<Executor> w;
                co_await expiring_.park(w);
                if (w.result) throw std::system_error(w.result);
            }
        }
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
    // One who waits for the acknowledgement of a message.
    struct publisher : pending<publishing> {
        explicit publisher(publishing& p) noexcept : pending<publishing>(&p, p.publishers_) {}
        ~publisher() {
            if (this->of != nullptr) this->of->state_.disown(number);
        }
        waiter<Executor> waiting;
        publish_result result;
        std::uint64_t number = session_state::no_exchange;
    };

    // `number` is told the exchange's, if it is not null.
    awaitable<publish_result> publish_in_time(std::string_view topic, std::string_view payload, publish_options o,
                                              std::uint64_t* number) {
        publisher self(*this);
        for (;;) {
            auto const begun = begin(topic, payload, o, &self);
            self.number = begun.number;
            if (begun.error == errc::ok) break;
            if (!is_for_want_of_room(begun.error) || options_.when_full == overflow::refuse) {
                offer_room();
                throw std::system_error(begun.error);
            }
            waiter<Executor> w;
            co_await room_for(o.qos).park(w);
            if (w.result) throw std::system_error(w.result);
            if (self.of == nullptr) throw std::system_error(errc::disconnected);
        }
        offer_room();
        if (o.qos == qos::at_most_once) {
            bool const queued = self.number != session_state::no_exchange;
            if (number != nullptr) *number = self.number;
            co_return publish_result{queued ? publish_result::outcome::queued : publish_result::outcome::sent, {}, {}};
        }

        if (number != nullptr) *number = self.number;
        co_await unacknowledged_.park(self.waiting);
        if (self.waiting.result) throw std::system_error(self.waiting.result);
        if (is_error(self.result.reason)) throw refusal(self.result);
        co_return std::move(self.result);
    }

    awaitable<publish_result> publish_within(std::string_view topic, std::string_view payload, publish_options o) {
        struct : pending<publishing> {
            using pending<publishing>::pending;
            publish_result result;
            bool done = false;
            std::uint64_t number = session_state::no_exchange;
        } self(this, publishers_);
        auto publishing_it = [](publishing& p, auto& s, std::string_view t, std::string_view b,
                                publish_options with) -> awaitable<void> {
            s.result = co_await p.publish_in_time(t, b, with, &s.number);
            s.done = true;
        }(*this, self, topic, payload, o);
        auto waiting = sleep_for<Executor>(unwritten_.get_executor(), o.timeout);
        // A place of its own: the session may be gone before this has ended.
        parking<Executor> here(unwritten_.get_executor());
        co_await race(here, std::move(publishing_it), std::move(waiting));
        if (self.done) co_return std::move(self.result);
        if (self.of == nullptr) throw std::system_error(errc::disconnected);
        bool const sent = self.number != session_state::no_exchange && !state_.withdraw(self.number);
        throw std::system_error(sent ? errc::response_timeout : errc::message_expired);
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
        if (o.props != nullptr && state_.next_expiry()) expiring_.wake_one();
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
    // Where coroutines wait: for room of the two kinds, for acknowledgements, and for something that expires.
    parking<Executor> unwritten_, queued_, unacknowledged_, expiring_;
    list_link publishers_;
    std::uint64_t published_ = 0, acknowledged_ = 0, dropped_ = 0;
};

}  // namespace runnel::mqtt
