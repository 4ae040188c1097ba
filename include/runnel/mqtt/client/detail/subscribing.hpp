#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/make_room.hpp>
#include <runnel/core/printable.hpp>
#include <runnel/core/remark.hpp>
#include <runnel/mqtt/client/detail/operation.hpp>
#include <runnel/mqtt/client/detail/output_queue.hpp>
#include <runnel/mqtt/client/detail/session_parts.hpp>
#include <runnel/mqtt/client/detail/subscription_registry.hpp>
#include <runnel/mqtt/client/session_options.hpp>
#include <runnel/mqtt/client/subscription.hpp>
#include <runnel/mqtt/protocol/deadline.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>
#include <runnel/mqtt/protocol/subscriptions.hpp>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel::mqtt::detail {

/// The part of a session that subscribes, keeps its subscriptions alive, and gives them their messages.
///
/// Nothing runs at the same time. While a coroutine is suspended, others may write this:
///
/// | suspended     | where it waits             | what is written meanwhile                                          |
/// |---------------|----------------------------|--------------------------------------------------------------------|
/// | `subscribe`   | `answered` of its entry    | the entry, by an answer, a refusal or the end of `run`; it is      |
/// |               |                            | shared, and read when the coroutine goes on                        |
/// | `unsubscribe` | `unanswered_`              | `settled`, `why` and `text` in its frame, once, by `settle`        |
/// | `receive`     | `receivers` of its entry   | the inbox, by `dispatch`; `closed`                                 |
///
/// All members change in one step, by anybody. But a handler is called in the middle of `dispatch`, and may subscribe
/// and unsubscribe: so an entry that is removed lives until `forget_removed`, and a message that was kept is offered in
/// a later turn, or before the next message. Who goes on looks at its entry and its frame only, where `of` tells
/// whether this object is there.
template <class Executor>
class subscribing final : public subscribing_part {
  public:
    using subscription = basic_subscription<Executor>;
    using message_handler = std::function<void(publish const&)>;
    template <class T>
    using awaitable = asio::awaitable<T, Executor>;
    using clock = session_clock;

    RUNNEL_COLD subscribing(session_options const& options, session_state& state, output_queue<Executor>& packets,
                            session_services& services)
        : options_(options), state_(state), packets_(packets), services_(services), unanswered_(packets.queue()) {}
    RUNNEL_COLD ~subscribing() override {
        source_.reset();
        operation::leave(joining_);
        operation::leave(operations_);
    }

    /// See `session::subscribe`.
    RUNNEL_COLD awaitable<subscription> subscribe(std::span<std::string_view const> filters, message_handler handler,
                                                  subscribe_options const& o) {
        auto s = std::make_shared<entry>(unanswered_.queue(), filters, o);
        s->handler = std::move(handler);
        return subscribe(std::move(s));
    }

    /// Tells `w` if the server refuses to renew a subscription.
    void watch(subscription const& s, subscription_watcher* w) noexcept { s.state_->watcher = w; }

    /// See `session::unsubscribe`.
    awaitable<void> unsubscribe(subscription s, user_properties props) {
        if (!s.state_ || !s.state_->box->is_of(this))  // its wish is another's, and may be gone
            throw std::system_error(errc::disconnected, "this is no subscription of this session");
        check_version(state_.may_have_v5(), !props.empty(), "user_properties");
        note_unwanted(*s.state_);
        make_room(unsubscribers_, 1);
        make_room_to_leave();
        unsubscriber self(*this, end(*s.state_), *s.state_, props);
        note_leaving(s);
        s.state_->box->set_unwanted();
        if (self.ticket == subscriptions::nothing || closed_) co_return;
        unsubscribers_.push_back(&self);
        send_due();
        if (!self.settled) co_await unanswered_.wait(self.waiting);
        if (self.waiting.result) throw ended(self.waiting.result, s.state_->end.get());
        if (self.why) throw std::system_error(self.why, what(s.filter(), self.text));
    }

    /// Gives a message to the subscriptions that it matches. One for which a handler fails is to be given back.
    routing dispatch(mqtt::publish const& packet, delivery token) override {
        if (wants_kept_) [[unlikely]]
            if (!take_kept()) return routing::failed;
        auto* const only = registry_.only_recipient(packet.topic);
        if (token.quality == qos::at_most_once && only != nullptr) [[likely]] {
            bool held = false;
            return registry_.give(*only, packet, token, held) ? routing::done : routing::failed;
        }
        auto const outcome = registry_.dispatch(only, packet, token);
        if (outcome.matched == 0) [[unlikely]]
            return is_unwanted(packet.topic) ? routing::unwanted : routing::nowhere;
        if (token.quality == qos::at_most_once) return outcome.failed ? routing::failed : routing::done;
        if (outcome.taken) {
            acknowledge(token, reason_code::success, {});
        } else {
            state_.assign(token, outcome.lane);
            if (!watches_) [[unlikely]]
                watch();
        }
        return outcome.failed ? routing::failed : routing::done;
    }
    std::optional<std::uint16_t> lane_of(mqtt::publish const& packet) override {
        if (wants_kept_) take_kept();  // older ones of its topic go to their lane first
        return registry_.lane_of(packet);
    }
    RUNNEL_COLD clock::time_point handle_timeout(clock::time_point now) override {
        if (wants_kept_) take_kept();
        registry_.forget_removed();  // where nothing is read, as without a connection
        if (options_.stalled_after.count() == 0) return (clock::time_point::max)();
        return (std::min)(look_at_inboxes(now), again_at_ <= now ? look_at_given_back(now) : again_at_);
    }
    /// What the handler has thrown.
    std::exception_ptr take_failure() noexcept override { return registry_.take_failure(); }

    // What the session state tells.

    RUNNEL_COLD void on_session_lost() noexcept override {
        registry_.session_lost();
        unwanted_.clear();
        wishes_.connected(false);
    }
    /// The server has accepted the connection: asks for what it does not know.
    RUNNEL_COLD void on_connected() override {
        wishes_.connected(true);
        if (state_.doubts_session()) wishes_.doubt();
        for (auto* u : unsubscribers_)
            if (!wishes_.owes(u->ticket)) settle(*u, {}, {});
        send_due();
    }
    RUNNEL_COLD void on_suback(void* owner, suback const& answer) override {
        auto const* const wish = wishes_.on_suback(*static_cast<subscriptions::request*>(owner), answer.reasons);
        if (wish == nullptr) return;  // it has been removed since
        auto& s = *static_cast<entry*>(wish->owner);
        auto* at = s.parts.data();
        for (auto const reason : answer.reasons) (at++)->reason = reason;
        s.details = publish_details::of(answer.props);
        if (wish->at == subscriptions::stage::refused) return refuse(s, answer);
        for (auto& p : s.parts) p.granted = static_cast<qos>(p.reason);
        s.answered.wake_all({});
    }
    RUNNEL_COLD void on_unsuback(void* owner, unsuback const& answer) override {
        auto& request = *static_cast<subscriptions::request*>(owner);
        for (auto* u : unsubscribers_)
            if (u->ticket == request.ticket) note_answer(u->what, request, answer);
        auto const end = wishes_.on_unsuback(request, answer.reasons);
        auto const why = is_error(end.reason) ? make_error_code(end.reason) : std::error_code();
        settle(end.ticket, why, answer.props.template get<property_id::reason_string>().value_or(""));
    }

    /// All that one read has brought is handled: nobody up the stack uses what has been removed. There may be packet
    /// identifiers again for requests that found none.
    void on_read() override {
        registry_.forget_removed();
        if (unsent_) send_due();
    }

    RUNNEL_COLD std::size_t held() const noexcept override { return registry_.held(); }

    /// All who wait go on with an error, until `reopen`.
    RUNNEL_COLD void close(std::error_code why) override {
        closed_ = true;
        unanswered_.wake_all(why);
        registry_.close(why, services_.end());
    }
    RUNNEL_COLD void reopen() noexcept override {
        closed_ = false;
        registry_.reopen();
    }
    RUNNEL_COLD void abandon_unread() noexcept override try {
        for (auto* link = joining_.next(); link != &joining_; link = link->next())
            if (auto* const s = static_cast<remover&>(*link).what; s != nullptr && !s->is_granted())
                abandon_unread(*s->box);
        for (auto const& each : leaving_)
            if (auto const s = each.lock()) abandon_unread(*s->box);
    } catch (...) {
        // Without memory: then it comes again.
    }

  private:
    using entry = subscription_state<Executor>;
    using operation = operation_base<subscribing>;

    RUNNEL_COLD awaitable<subscription> subscribe(std::shared_ptr<entry> s) {
        s->end = services_.end();
        if (!s->end->reason_string.empty()) throw ended(errc::disconnected, s->end.get());
        check_version(state_.may_have_v5(), s->options);
        if (errc const e = check_or_send(*s, 0, nullptr); e != errc::ok) throw std::system_error(e);
        enlist(s);
        remover undo(*this, s.get());
        ask_for_kept();
        send_due();
        // At once if the server has announced that it would.
        if (s->refused) throw std::system_error(s->refused, s->refusal);
        while (!s->is_granted()) {
            waiter<Executor> w;
            co_await s->answered.wait(w);
            if (s->refused) throw std::system_error(s->refused, s->refusal);
            if (w.result) throw ended(w.result, s->end.get());
        }
        undo.what = nullptr;
        co_return subscription(s);
    }

    RUNNEL_COLD void enlist(std::shared_ptr<entry> const& s) {
        std::vector<std::string_view> names(s->parts.size());
        std::ranges::transform(s->parts, names.begin(), &entry::part::filter);
        s->box->set_source(source_);
        s->wish = &wishes_.add(names, s.get());
        try {
            registry_.add(s);
        } catch (...) {
            wishes_.remove(*std::exchange(s->wish, nullptr));  // allocates nothing: the server does not have it
            throw;
        }
        std::erase_if(unwanted_, [&](auto const& f) { return std::ranges::find(names, f) != names.end(); });
    }

    // In MQTT 3.1.1 the server says no more than that it has unsubscribed.
    RUNNEL_COLD static void note_answer(entry& s, subscriptions::request const& r, unsuback const& answer) {
        auto reason = answer.reasons.begin();
        for (auto const* f : r.filters) {
            auto const said = reason != answer.reasons.end() ? *reason++ : reason_code::success;
            for (auto& p : s.parts)
                if (p.filter == f->name) p.reason = said;
        }
        s.details = publish_details::of(answer.props);
    }

    // One who waits for UNSUBACK.
    struct unsubscriber : operation {
        unsubscriber(subscribing& s, std::uint64_t t, entry& w, user_properties const& p) noexcept
            : operation(&s, s.operations_), ticket(t), what(w), props(p) {}
        RUNNEL_COLD ~unsubscriber() {
            if (this->of != nullptr) std::erase(this->of->unsubscribers_, this);
        }
        std::uint64_t ticket;
        entry& what;                   // lives in the coroutine's handle
        user_properties const& props;  // in the coroutine, too
        waiter<Executor> waiting{};
        std::error_code why{};  // what has come of it, once it is settled
        std::string text{};
        bool settled = false;
    };

    struct remover : operation {
        remover(subscribing& s, entry* w) noexcept : operation(&s, s.joining_), what(w) {}
        remover(remover const&) = delete;
        remover& operator=(remover const&) = delete;
        RUNNEL_COLD ~remover() {
            if (this->of != nullptr && what != nullptr) this->of->abandon(*what);
        }
        entry* what;
    };

    // Sends the SUBSCRIBE for all filters of the subscription, or, if there is no request, only checks it. `identifier`
    // 0: it has none.
    RUNNEL_COLD RUNNEL_NOINLINE errc check_or_send(entry const& s, std::uint32_t identifier,
                                                   subscriptions::request* r) {
        std::vector<subscription_request> requests(s.parts.size());
        auto const& o = s.options;
        // Where the server has it all the same, what is retained has come.
        bool const may_have_it = r != nullptr && r->of->is_doubtful && state_.version() == protocol_version::v5;
        auto const handling = may_have_it ? (std::max)(o.handling, retain_handling::send_if_new) : o.handling;
        std::ranges::transform(s.parts, requests.begin(), [&](auto const& p) {
            return subscription_request{p.filter, o.maximum_qos, o.no_local, o.retain_as_published, handling};
        });
        properties props;
        if (identifier != 0) props.subscription_identifiers = identifier;
        props.user_properties = o.user_properties;
        mqtt::subscribe const packet{.packet_id = 1, .requests = requests, .props = &props};
        auto const version = state_.may_have_v5() ? protocol_version::v5 : protocol_version::v3_1_1;
        return r == nullptr ? check(packet, version) : state_.subscribe(packets_.out(), packet, r).error;
    }

    // Sends whatever there is to be sent, as far as there are packet identifiers.
    RUNNEL_COLD void send_due() {
        unsent_ = false;
        bool const named = names();
        while (state_.connected() && !unsent_) {
            auto* const request = wishes_.next(named);
            if (request == nullptr) break;
            bool const subscribes = request->type == packet_type::subscribe;
            errc e{};
            try {
                e = subscribes ? send_subscribe(*request, named) : send_unsubscribe(*request);
            } catch (...) {
                wishes_.take_back(*request);
                throw;
            }
            if (e == errc::ok) continue;
            unsent_ = e == errc::no_packet_identifier;
            if (unsent_)
                wishes_.take_back(*request);
            else
                give_up(*request, e);
        }
        packets_.flush();
    }

    RUNNEL_COLD errc send_subscribe(subscriptions::request& r, bool named) {
        auto& s = *static_cast<entry*>(r.of->owner);
        for (auto& p : s.parts) p.granted.reset();
        return check_or_send(s, named ? r.of->identifier : 0, &r);
    }
    // Whether subscriptions have identifiers on this connection.
    RUNNEL_COLD bool names() const noexcept {
        return state_.version() == protocol_version::v5 && state_.peer().subscription_identifier_available;
    }

    RUNNEL_COLD errc send_unsubscribe(subscriptions::request& r) {
        std::vector<std::string_view> filters(r.filters.size());
        std::ranges::transform(r.filters, filters.begin(), &subscriptions::filter::name);
        properties props;
        for (auto const* u : unsubscribers_)
            if (u->ticket == r.ticket && state_.may_have_v5()) props.user_properties = u->props.list();
        mqtt::unsubscribe const packet{.packet_id = 0, .filters = filters, .props = &props};
        return state_.unsubscribe(packets_.out(), packet, &r).error;
    }

    // It cannot be sent: the server has announced that, or it would be too large.
    RUNNEL_COLD void give_up(subscriptions::request& r, errc why) {
        auto const ticket = r.ticket;
        auto* const wish = r.of;
        wishes_.give_up(r);
        if (wish == nullptr) return settle(ticket, why, {});
        auto& s = *static_cast<entry*>(wish->owner);
        refuse(s, why, s.parts.front().filter);
    }

    // Those who wait for the end of a debt go on.
    RUNNEL_COLD void settle(std::uint64_t ticket, std::error_code why, std::string_view text) {
        for (auto* u : unsubscribers_)
            if (u->ticket == ticket) settle(*u, why, text);
    }
    RUNNEL_COLD void settle(unsubscriber& u, std::error_code why, std::string_view text) {
        if (std::exchange(u.settled, true)) return;
        u.why = why;
        u.text = printable(text);
        unanswered_.wake(u.waiting, {});
    }

    // The server refuses a filter: the subscription has all or none, so the others are given up.
    RUNNEL_COLD void refuse(entry& s, suback const& answer) {
        if (auto const text = answer.props.template get<property_id::reason_string>()) s.refusal = printable(*text);
        auto const* part = s.parts.data();
        for (auto const reason : answer.reasons) {
            if (is_error(reason)) {
                refuse(s, reason, part->filter);
                break;
            }
            ++part;
        }
        send_due();
    }

    // Its owner is told where it waits; the subscription is no more.
    RUNNEL_COLD void refuse(entry& s, std::error_code why, std::string const& filter) {
        bool const had_it = s.wish->was_granted;
        s.refused = why;
        end(s);
        auto const detail = std::exchange(s.refusal, what(filter, s.refusal));
        if (!had_it) return;
        if (s.watcher != nullptr) s.watcher->on_subscription_lost(why);
        services_.tell(
            {.what = session_event::kind::subscription_lost, .error = why, .detail = detail, .filter = filter});
    }

    // The text of an exception: the filter, and what the server says, if anything.
    RUNNEL_COLD static std::string what(std::string filter, std::string_view text) {
        add_remark(filter, text);
        return filter;
    }

    // Nobody wants it any more. Returns the ticket of what the server is owed for it, if it is owed something.
    RUNNEL_COLD std::uint64_t end(entry& s) {
        if (s.wish != nullptr) return leave(s, true);
        std::uint64_t ticket = subscriptions::nothing;
        for (auto const& p : s.parts) ticket = (std::max)(ticket, wishes_.debt(p.filter));
        return ticket;
    }

    // It goes, and with it its wish; nothing changes if there is no memory for that. Returns the ticket of what the
    // server is owed for it, where it is `owed` something at all.
    RUNNEL_COLD std::uint64_t leave(entry& s, bool owed) {
        registry_.prepare_to_remove();
        std::uint64_t ticket = subscriptions::nothing;
        if (owed)
            ticket = wishes_.remove(*s.wish);
        else
            wishes_.forget(*s.wish);
        s.wish = nullptr;
        registry_.remove(&s);
        return ticket;
    }

    // What the server had on its way, or queued, when the application unsubscribed still comes, and nobody will ask for
    // it: it is not to be kept, where it would use up what the server may send.
    RUNNEL_COLD void note_unwanted(entry const& s) {
        for (auto const& p : s.parts) unwanted_.push_back(p.filter);
        if (unwanted_.size() > 64) unwanted_.erase(unwanted_.begin(), unwanted_.end() - 64);
    }
    RUNNEL_COLD bool is_unwanted(std::string_view topic) const noexcept {
        return std::ranges::any_of(unwanted_, [=](auto const& f) {
            auto const filter = split_shared(f).filter;
            auto const inner = inner_filter(filter);
            return matches(filter, topic) || (!inner.empty() && matches(inner, topic));
        });
    }

    // It has been unsubscribed from. What waits in its inbox can still be received, as long as there is a handle.
    RUNNEL_COLD void note_leaving(subscription const& s) noexcept {
        if (!s.state_->box->is_unwanted() && s.state_->box->holds_acknowledgements()) leaving_.push_back(s.state_);
    }
    RUNNEL_COLD void make_room_to_leave() {
        if (leaving_.size() != leaving_.capacity()) return;
        std::erase_if(leaving_, [](auto const& each) { return each.expired(); });
        make_room(leaving_, 1);
    }
    RUNNEL_COLD void abandon_unread(inbox& box) {
        box.for_each_unread([this](delivery token) {
            if (registry_.drop(token) == subscription_registry<Executor>::unread::acknowledge)
                state_.acknowledge(packets_.out(), token, reason_code::success, {});
        });
    }

    // Nobody waits for it any more; the server may have granted it, or be about to.
    RUNNEL_COLD void abandon(entry& s) noexcept {
        if (s.wish == nullptr) return;
        try {
            end(s);
            s.box->drop_unread();  // nobody has a handle
            send_due();
        } catch (...) {
            stay(s);
        }
    }
    // There is no memory to remove it: what comes for it is acknowledged.
    RUNNEL_COLD static void stay(entry& s) noexcept {
        s.closed = errc::disconnected;
        s.is_left = true;
    }

    // What inboxes tell. If there is no memory for what is to be done about it, `run` ends: on the next connection the
    // message comes again, and is acknowledged if it has been taken.

    void taken(delivery token, reason_code reason, property_view props) noexcept override try {
        if (registry_.take(token)) acknowledge(token, reason, props);
    } catch (...) {
        end_run();
    }
    RUNNEL_COLD void given_back(delivery token, inbox const& by) noexcept override try {
        if (registry_.give_back(token, by)) return acknowledge(token, reason_code::success, {});
        state_.give_back(token);
        if (again_at_ == (clock::time_point::max)()) await_others(clock::now());
        packets_.timer().soon();
    } catch (...) {
        state_.give_back(token);
        end_run();
    }
    RUNNEL_COLD void deserted(inbox const& box) noexcept override {
        auto* const s = registry_.find(box);
        if (s == nullptr || s->wish == nullptr) return;
        try {
            leave(*s, false);
        } catch (...) {
            stay(*s);
        }
    }
    RUNNEL_COLD void unread(mqtt::publish const& packet, delivery token) noexcept override try {
        auto const what = registry_.drop(token);
        if (what == decltype(what)::keep) {
            services_.keep(packet, token);
            ask_for_kept();  // there may be a subscription by now that matches it
        }
        if (what == decltype(what)::acknowledge) acknowledge(token, reason_code::success, {});
    } catch (...) {
        state_.give_back(token, &packet);
        end_run();
    }
    RUNNEL_COLD RUNNEL_NOINLINE void end_run() noexcept { services_.end_run(std::current_exception()); }

    // Messages have been kept for a subscription that was to come. They are taken in a later turn, or before the next
    // message, so that no handler is called inside of `subscribe`.
    RUNNEL_COLD void ask_for_kept() {
        if (services_.kept() == nullptr) return;
        wants_kept_ = true;
        packets_.timer().soon();
    }
    // False: a handler has failed; the rest is kept.
    RUNNEL_COLD bool take_kept() {
        if (std::exchange(takes_kept_, true)) return true;  // a handler has subscribed: they are offered once more
        // As it is left if there is no memory: what has not been given out is still kept.
        struct ending {
            subscribing& self;
            bool wants_again = true;
            ~ending() {
                self.takes_kept_ = false;
                self.wants_kept_ = wants_again;
            }
        } at_end{*this};
        bool failed = false;
        do {
            wants_kept_ = false;
            if (auto* const kept = services_.kept())
                kept->offer([&](mqtt::publish const& packet, delivery token) {
                    if (failed) return false;
                    auto const to = dispatch(packet, token);
                    failed = to == routing::failed;
                    if (failed) state_.give_back(token, &packet);
                    return to != routing::nowhere && to != routing::unwanted;
                });
        } while (wants_kept_ && !failed);
        at_end.wants_again = failed;
        return !failed;
    }

    RUNNEL_COLD clock::time_point look_at_inboxes(clock::time_point now) {
        if (!watches_) return (clock::time_point::max)();
        if (next_look_ <= now) {
            watches_ = registry_.find_stalled([this](entry const& s) {
                services_.tell({.what = session_event::kind::stalled,
                                .pause = options_.stalled_after,
                                .detail = s.parts.front().filter});
            });
            next_look_ = (clock::time_point::max)();
        }
        if (watches_ && next_look_ == (clock::time_point::max)()) next_look_ = now + options_.stalled_after;
        return next_look_;
    }
    // A server may send fewer messages than it is allowed to. If it has sent all these, and they have been given back,
    // nothing comes any more: after a while without any they are to come again, on another connection. Where they are
    // given back once more, the next time takes longer.
    RUNNEL_COLD void await_others(clock::time_point now) {
        again_at_ = deadline_after(now, options_.stalled_after * patience_);
        arrived_ = state_.arrived();
    }
    RUNNEL_COLD clock::time_point look_at_given_back(clock::time_point now) {
        again_at_ = (clock::time_point::max)();
        bool const is_idle = state_.holds_only_given_back();
        if (!is_idle) patience_ = 1;
        if (is_idle && state_.arrived() == arrived_) {
            if (!state_.ask_again()) return again_at_;
            services_.tell({.what = session_event::kind::asking_again, .pause = options_.stalled_after * patience_});
            patience_ = (std::min)(2 * patience_, 32);
            packets_.timer().soon();
        } else if (state_.given_back() != 0) {
            await_others(now);
        }
        return again_at_;
    }

    RUNNEL_COLD void watch() {
        watches_ = true;
        packets_.timer().soon();
    }

    void acknowledge(delivery token, reason_code reason, property_view props) {
        [[maybe_unused]] errc const e = state_.acknowledge(packets_.out(), token, reason, props);
        assert(e == errc::ok);
        packets_.flush();
    }

    session_options const& options_;
    session_state& state_;
    output_queue<Executor>& packets_;
    session_services& services_;
    subscriptions wishes_{};
    subscription_registry<Executor> registry_{};
    wait_list<Executor> unanswered_;
    std::vector<unsubscriber*> unsubscribers_{};
    std::vector<std::string> unwanted_{};  // filters that the application has unsubscribed from last
    list_link operations_{};
    list_link joining_{};                          // of `remover`: subscriptions of which nobody has a handle yet
    std::vector<std::weak_ptr<entry>> leaving_{};  // unsubscribed from while messages waited
    std::shared_ptr<message_source> source_{std::make_shared<char>(), this};  // known to inboxes, which may outlive it
    bool closed_ = true;
    bool unsent_ = false;      // a request waits for a packet identifier
    bool wants_kept_ = false;  // there is a subscription that kept messages have not been offered to
    bool takes_kept_ = false;  // they are being offered
    bool watches_ = false;     // whether inboxes are read from
    clock::time_point next_look_ = (clock::time_point::max)();
    clock::time_point again_at_ = (clock::time_point::max)();  // when to look at what was given back
    std::uint64_t arrived_ = 0;                                // messages by then
    int patience_ = 1;                                         // in units of `stalled_after`
};

}  // namespace runnel::mqtt::detail
