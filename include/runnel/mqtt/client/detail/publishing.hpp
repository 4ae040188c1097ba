#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/coro/wait_list.hpp>
#include <runnel/mqtt/client/detail/output_queue.hpp>
#include <runnel/mqtt/client/detail/run_end.hpp>
#include <runnel/mqtt/client/publish_result.hpp>
#include <runnel/mqtt/client/session_options.hpp>
#include <runnel/mqtt/protocol/publish_queue.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <new>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::mqtt::detail {

struct publish_call;

/// By which number a message is known to the session state, for a caller of `publish` that withdraws it, perhaps. (As a
/// context ends, the frames go in any order: either of the two may find the other gone.)
struct publish_ticket {
    publish_ticket() noexcept = default;
    publish_ticket(publish_ticket const&) = delete;
    publish_ticket& operator=(publish_ticket const&) = delete;
    inline ~publish_ticket();
    std::uint64_t number = session_state::no_exchange;
    publish_call* of = nullptr;  ///< the call, while it goes on
};

/// A call of `publish`, which may have a ticket.
struct publish_call : publish_queue::call {
    using call::call;
    publish_ticket* ticket = nullptr;
};

inline publish_ticket::~publish_ticket() {
    if (of != nullptr) of->ticket = nullptr;
}

/// The part of a session that publishes: it waits for what the `publish_queue` decides.
///
/// While a coroutine is suspended, here a call, its `publisher` is in its frame. Until it is told its end, that belongs
/// to the queue; whoever tells it (the reader, the timer, the end of `run`, who finds room) writes its `result` first.
/// From then on it is the call's alone, which touches nothing of this object any more: it may be gone. Topic, payload
/// and options stay in place until then. What else there is changes in one step, by anybody.
template <class Executor>
class publishing {
  public:
    using clock = session_clock;
    template <class T>
    using awaitable = asio::awaitable<T, Executor>;

    RUNNEL_COLD publishing(session_options const& options, session_state& state, output_queue<Executor>& packets)
        : state_(state), packets_(packets), queue_(options, state, packets.out()), waiters_(packets.queue()) {}
    publishing(publishing const&) = delete;
    publishing& operator=(publishing const&) = delete;

    /// See `session::publish`. When it ends, it tells `ticket`, if that is not null, by which number `withdraw` knows
    /// the message.
    awaitable<publish_result> publish(std::string_view topic, std::string_view payload, publish_options o,
                                      publish_ticket* ticket = nullptr) {
        bool const needs_time = o.props != nullptr || o.timeout.count() != 0 || state_.is_paced();
        // A QoS 0 message that leaves at once is none that the queue has to know.
        if (o.qos == qos::at_most_once && !needs_time && !o.this_connection && ticket == nullptr) [[likely]] {
            auto const begun = queue_.try_begin(topic, payload, o, {});
            if (begun.error == errc::ok) [[likely]] {
                packets_.flush();
                co_return at_most_once(begun.number);
            }
        }
        publisher self(*this, topic, payload, o, ticket);
        errc const e = queue_.begin(self, needs_time ? clock::now() : clock::time_point{});
        if (needs_time) [[unlikely]]
            packets_.timer().soon();
        packets_.flush();
        if (e != errc::ok && self.at == publish_queue::state::told) throw ended(e, end_.get());
        if (self.linked()) [[likely]] {
            co_await waiters_.wait(self.waiting);
            if (self.waiting.result) throw ended(self.waiting.result, self.result.details.get());
        }
        if (o.qos == qos::at_most_once) co_return at_most_once(self.number);
        if (is_error(self.result.reason)) throw error_with(self.result.reason, self.result.details.get());
        co_return std::move(self.result);
    }

    /// What the call is for has come before the end of its message, of which it is not told any more: it completes.
    RUNNEL_COLD void complete(publish_ticket const& ticket) {
        if (ticket.of == nullptr || !ticket.of->linked()) return;
        wake(*ticket.of, {});
        queue_.cancel(*ticket.of);
    }

    /// Drops a message, of any QoS, that has not been sent yet.
    void withdraw(std::uint64_t number) {
        if (!state_.withdraw(number)) return;
        packets_.timer().soon();  // to what is stored, who waits for room, and who waits until all is delivered
    }

    /// See `session::try_publish`.
    RUNNEL_ALWAYS_INLINE bool try_publish(std::string_view topic, std::string_view payload, publish_options const& o) {
        bool const needs_time = o.props != nullptr || state_.is_paced();
        errc const error = queue_.try_begin(topic, payload, o, needs_time ? clock::now() : clock::time_point{}).error;
        if (needs_time) [[unlikely]]
            packets_.timer().soon();
        packets_.flush();
        if (error != errc::ok && !publish_queue::is_for_want_of_room(error)) throw ended(error, end_.get());
        return error == errc::ok;
    }

    /// Begins the messages of those who wait for room, if there is some.
    void offer_room() {
        if (queue_.is_waited()) [[unlikely]]
            serve();
    }

    /// The connection is over.
    RUNNEL_COLD void connection_lost() {
        queue_.connection_lost([this](auto& c, std::error_code e) { wake(c, e); });
    }

    /// Withdraws the messages whose time is over: of publishers and, if the session runs, messages whose expiry
    /// interval is over before they could be sent. True: once that is stored, `tell_late` is due.
    RUNNEL_COLD bool withdraw_late(clock::time_point now, bool running) {
        if (running && state_.next_expiry()) {
            state_.set_time(to_session_time(now));
            state_.expire(expiring(queue_));
        }
        return queue_.withdraw_late(now);
    }
    /// `error`: that could not be stored.
    RUNNEL_COLD void tell_late(std::error_code error) {
        queue_.tell_late(error, [this](auto& c, std::error_code e) { wake(c, e); });
    }

    /// When `withdraw_late` will have something to do.
    clock::time_point deadline(bool running) const noexcept {
        auto const next = running ? state_.next_expiry() : std::nullopt;
        if (!next) return queue_.deadline();
        return (std::min)(queue_.deadline(), clock::time_point(*next + std::chrono::milliseconds(1)));
    }

    void count(session_counters& c) const noexcept {
        c.messages_published = queue_.published();
        c.messages_dropped = queue_.dropped();
    }

    // What the session state tells. Waking comes first, as it may fail: then `close` will tell.
    void on_published(void* owner, acknowledgement const& ack) {
        auto& p = *static_cast<publisher*>(static_cast<publish_queue::call*>(owner));
        waiters_.wake(p.waiting);
        p.result.what = publish_result::outcome::acknowledged;
        p.result.reason = ack.reason;
        if (!ack.props.empty()) p.result.details = publish_details::of(ack.props);
        queue_.on_end(p);
    }
    void on_sent(void* owner) {
        auto& c = *static_cast<publish_queue::call*>(owner);
        wake(c, {});
        queue_.on_sent(c);
    }
    // That there is no such message any more is stored, and then told, by a turn of the timer's.
    RUNNEL_COLD void on_refused(void* owner, errc why) {
        if (owner != nullptr) queue_.on_refused(*static_cast<publish_queue::call*>(owner), why);
        packets_.timer().soon();
    }

    /// How `run` has ended.
    RUNNEL_COLD run_end const& end() {
        if (!end_) end_ = std::make_shared<publish_details>();
        return end_;
    }
    bool is_closed() const noexcept { return queue_.is_closed(); }

    /// Calls from now on fail at once, and `end` says why.
    RUNNEL_COLD RUNNEL_NOINLINE void refuse(std::string_view why) {
        try {
            end()->reason_string = why;
        } catch (std::bad_alloc const&) {  // then without a text
        }
        queue_.refuse();
    }
    RUNNEL_COLD void reopen() noexcept {
        if (end_ && !end_->reason_string.empty()) end_.reset();  // who has been told may not have read it yet
        queue_.reopen();
    }

    /// All who wait go on with an error, and bring along `end`, as they may outlive the session.
    RUNNEL_COLD void close(std::error_code why) {
        queue_.close(why, [this](auto& c, std::error_code e) { wake_ended(static_cast<publisher&>(c), e); });
    }

  private:
    // One call of `publish`, in its coroutine's frame. Not linked any more if the session goes first.
    struct publisher : publish_call {
        publisher(publishing& part, std::string_view const& t, std::string_view const& p, publish_options const& o,
                  publish_ticket* told) noexcept
            : publish_call(t, p, o), of(part) {
            this->ticket = told;
            if (told != nullptr) told->of = this;
        }
        ~publisher() {
            if (this->ticket != nullptr) {
                this->ticket->of = nullptr;
                this->ticket->number = this->number;
            }
            if (this->linked()) of.give_up(*this);
        }
        publishing& of;
        waiter<Executor> waiting{};
        publish_result result{};
    };

    static publish_result at_most_once(std::uint64_t number) noexcept {
        bool const queued = number != session_state::no_exchange;
        return {queued ? publish_result::outcome::queued : publish_result::outcome::sent, {}, {}};
    }

    struct expiring : session_handler {
        publish_queue& queue;
        explicit expiring(publish_queue& q) noexcept : queue(q) {}
        void on_refused(void* owner, errc why) noexcept {
            if (owner != nullptr) queue.on_refused(*static_cast<publish_queue::call*>(owner), why);
        }
    };

    RUNNEL_NOINLINE void serve() {
        auto const before = queue_.published();
        queue_.offer_room(
            clock::now(), [](auto& c) { return !static_cast<publisher&>(c).waiting.is_waiting(); },
            [this](auto& c, std::error_code e) { wake_ended(static_cast<publisher&>(c), e); });
        if (queue_.published() != before) packets_.flush();  // else the timer might have this called again, and again
    }

    // Its coroutine has been cancelled or destroyed; perhaps others have room now.
    RUNNEL_COLD void give_up(publisher& p) {
        queue_.cancel(p);
        if (queue_.is_waited() || p.options.this_connection) packets_.timer().soon();
    }

    RUNNEL_COLD RUNNEL_NOINLINE void wake_ended(publisher& p, std::error_code why) {
        p.result.details = end_;
        waiters_.wake(p.waiting, why);
    }
    void wake(publish_queue::call& c, std::error_code why) { waiters_.wake(static_cast<publisher&>(c).waiting, why); }

    session_state& state_;
    output_queue<Executor>& packets_;
    publish_queue queue_;
    wait_list<Executor> waiters_;  // for room, or for the acknowledgement
    run_end end_{};                // nullptr: nobody has asked for it
};

}  // namespace runnel::mqtt::detail
