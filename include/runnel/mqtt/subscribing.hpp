#pragma once

#include <runnel/mqtt/outlet.hpp>
#include <runnel/mqtt/pending.hpp>
#include <runnel/mqtt/session_options.hpp>
#include <runnel/mqtt/session_parts.hpp>
#include <runnel/mqtt/session_state.hpp>
#include <runnel/mqtt/subscription.hpp>
#include <runnel/mqtt/subscription_registry.hpp>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel::mqtt {

/// The part of a session that subscribes, keeps its subscriptions alive, and gives them their messages.
template <class Executor>
class subscribing final : public subscribing_part, private message_source {
  public:
    using subscription = basic_subscription<Executor>;
    using message_handler = std::function<void(publish const&)>;
    template <class T>
    using awaitable = asio::awaitable<T, Executor>;
    using clock = std::chrono::steady_clock;

    subscribing(session_options const& options, session_state& state, outlet<Executor>& packets,
                session_services& services)
        : options_(options), state_(state), packets_(packets), services_(services), unanswered_(packets.queue()) {}
    ~subscribing() override {
        source_.reset();
        operation::leave(operations_);
    }

    /// See `session::subscribe`.
    awaitable<subscription> subscribe(std::span<std::string_view const> filters, message_handler handler,
                                      subscribe_options o) {
        auto const s = std::make_shared<entry>(unanswered_.queue(), filters, o);
        with_requests(*s, [&](mqtt::subscribe packet) {
            packet.packet_id = 1;
            if (errc const e = check(packet, options_.version); e != errc::ok) throw std::system_error(e);
        });
        s->handler = std::move(handler);
        s->box->set_source(source_);
        identifier_ = identifier_ % max_variable_integer + 1;
        registry_.add(s, options_.version == protocol_version::v5 ? identifier_ : 0);
        ask_for_kept();
        remover undo(*this, s.get());
        send_subscribe(*s);
        // At once if the server has announced that it would.
        if (s->refused) throw std::system_error(s->refused, s->refusal);
        while (!s->is_granted()) {
            waiter<Executor> w;
            co_await s->answered.park(w);
            if (s->refused) throw std::system_error(s->refused, s->refusal);
            if (w.result) throw std::system_error(w.result);
        }
        undo.what = nullptr;
        co_return subscription(s);
    }

    awaitable<subscription> subscribe_one(std::string_view filter, message_handler handler, subscribe_options o) {
        auto subscribed = subscribe({&filter, 1}, std::move(handler), o);
        co_return co_await std::move(subscribed);
    }

    /// See `session::unsubscribe`.
    awaitable<void> unsubscribe(subscription const& s) {
        unsubscriber self(*this, *s.state_);
        s.state_->box->set_unwanted();
        if (!remove(s.state_.get())) co_return;
        self.keep_unused();
        if (self.filters.empty() || closed_) co_return;
        unsubscribers_.push_back(&self);
        send_unsubscribe(self);
        co_await unanswered_.park(self.waiting);
        if (self.waiting.result) throw std::system_error(self.waiting.result);
    }

    /// Gives a message to the subscriptions that it matches. One for which a handler fails is to be given back.
    routing dispatch(mqtt::publish const& packet, delivery token) override {
        if (wants_kept_) [[unlikely]]
            if (!take_kept()) return routing::failed;
        auto const outcome = registry_.dispatch(packet, token);
        if (outcome.matched == 0) [[unlikely]]
            return routing::nowhere;
        if (token.quality == qos::at_most_once) return outcome.failed ? routing::failed : routing::done;
        if (outcome.taken)
            acknowledge(token, reason_code::success, {});
        else if (!watches_) [[unlikely]]
            watch();
        return outcome.failed ? routing::failed : routing::done;
    }
    clock::time_point attend(clock::time_point now) override {
        if (wants_kept_) take_kept();
        if (!watches_ || options_.stalled_after.count() == 0) return clock::time_point::max();
        if (next_look_ <= now) {
            watches_ = registry_.find_stalled([this](entry const& s) {
                services_.tell({.what = session_event::kind::stalled,
                                .pause = options_.stalled_after,
                                .detail = s.parts.front().filter});
            });
            next_look_ = clock::time_point::max();
        }
        if (watches_ && next_look_ == clock::time_point::max()) next_look_ = now + options_.stalled_after;
        return next_look_;
    }
    /// What the handler has thrown.
    std::exception_ptr take_failure() noexcept override { return registry_.take_failure(); }

    // What the session state tells.

    /// The server has accepted the connection: asks again for what it does not know.
    void on_connected(bool session_present) override {
        if (!session_present) registry_.session_lost();
        // First, as there may be a new subscription to the same filter.
        for (auto* u : unsubscribers_) {
            if (session_present)
                send_unsubscribe(*u);
            else
                unanswered_.wake(u->waiting);
        }
        registry_.for_each([&](entry& s) {
            if (!session_present || !s.is_granted()) send_subscribe(s);
        });
    }
    void on_suback(void* owner, suback const& answer) override {
        auto& s = *static_cast<entry*>(owner);
        s.number = session_state::no_exchange;
        for (auto const reason : answer.reasons)
            if (is_error(reason)) return refuse(s, reason, answer);
        auto* at = s.parts.data();
        for (auto const reason : answer.reasons) (at++)->granted = static_cast<qos>(reason);
        s.answered.wake_all({});
    }
    void on_unsuback(void* owner) override { unanswered_.wake(static_cast<unsubscriber*>(owner)->waiting); }

    /// All that one read has brought is handled: nobody up the stack uses what has been removed. There may be packet
    /// identifiers again for requests that found none.
    void on_read() override {
        registry_.forget_removed();
        if (!unsent_ || !state_.connected()) return;
        unsent_ = false;
        for (auto* u : unsubscribers_)
            if (u->number == session_state::no_exchange) send_unsubscribe(*u);
        registry_.for_each([&](entry& s) {
            if (s.number == session_state::no_exchange && !s.is_granted()) send_subscribe(s);
        });
    }

    /// All who wait go on with an error, until `reopen`.
    void close(std::error_code why) override {
        closed_ = true;
        unanswered_.wake_all(why);
        registry_.close(why);
    }
    void reopen() noexcept override {
        closed_ = false;
        registry_.reopen();
    }

  private:
    using entry = subscription_state<Executor>;
    using operation = pending<subscribing>;

    // One who waits for UNSUBACK.
    struct unsubscriber : operation {
        unsubscriber(subscribing& s, entry const& e) : operation(&s, s.operations_) {
            for (auto const& p : e.parts) filters.push_back(p.filter);
        }
        ~unsubscriber() {
            if (this->of == nullptr) return;
            std::erase(this->of->unsubscribers_, this);
            this->of->state_.disown(number);
        }
        // What another subscription has too stays.
        void keep_unused() {
            std::erase_if(filters, [this](auto const& f) { return this->of->registry_.contains(f); });
        }
        std::vector<std::string> filters;
        waiter<Executor> waiting;
        std::uint64_t number = session_state::no_exchange;
    };

    struct remover : operation {
        remover(subscribing& s, entry* w) noexcept : operation(&s, s.operations_), what(w) {}
        ~remover() {
            if (this->of != nullptr && what != nullptr) this->of->abandon(*what);
        }
        entry* what;
    };

    // Calls `f` with the SUBSCRIBE for all filters of the subscription.
    template <class F>
    static void with_requests(entry const& s, F&& f) {
        std::vector<subscription_request> requests;
        auto const& o = s.options;
        for (auto const& p : s.parts)
            requests.push_back({p.filter, o.maximum_qos, o.no_local, o.retain_as_published, o.handling});
        properties props;
        if (!s.parts.empty() && s.parts.front().identifier != 0)
            props.subscription_identifiers = s.parts.front().identifier;
        f(mqtt::subscribe{.packet_id = 0, .requests = requests, .props = &props});
    }

    void send_subscribe(entry& s) {
        s.number = session_state::no_exchange;
        for (auto& p : s.parts) p.granted.reset();
        if (!state_.connected()) return;
        with_requests(s, [&](mqtt::subscribe packet) {
            if (!state_.peer().subscription_identifier_available) packet.props = {};
            auto const begun = state_.subscribe(packets_.out(), packet, &s);
            s.number = begun.number;
            packets_.flush();
            if (begun.error == errc::no_packet_identifier)
                unsent_ = true;
            else if (begun.error != errc::ok)
                refuse(s, begun.error);
        });
    }

    void send_unsubscribe(unsubscriber& u) {
        u.number = session_state::no_exchange;
        if (!state_.connected()) return;
        std::vector<std::string_view> const filters(u.filters.begin(), u.filters.end());
        auto const begun = state_.unsubscribe(packets_.out(), {0, filters, {}}, &u);
        u.number = begun.number;
        packets_.flush();
        if (begun.error == errc::no_packet_identifier)
            unsent_ = true;
        else if (begun.error != errc::ok)
            unanswered_.wake(u.waiting, begun.error);
    }

    // The server refuses a filter: the subscription has all or none, so the others are given up.
    void refuse(entry& s, reason_code reason, suback const& answer) {
        if (auto const text = answer.props.template get<property_id::reason_string>()) s.refusal = *text;
        std::vector<std::string_view> granted;
        auto const* at = s.parts.data();
        for (auto const each : answer.reasons) {
            if (!is_error(each)) granted.push_back(at->filter);
            ++at;
        }
        refuse(s, reason);
        std::erase_if(granted, [this](auto f) { return registry_.contains(f); });
        if (!granted.empty()) state_.unsubscribe(packets_.out(), {0, granted, {}}, nullptr);
        packets_.flush();
    }

    // Its owner is told where it waits; the subscription is no more.
    void refuse(entry& s, std::error_code why) {
        s.refused = why;
        remove(&s);
    }

    bool remove(entry* s) {
        if (!registry_.remove(s)) return false;
        state_.disown(s->number);
        return true;
    }

    // Nobody waits for it any more; the server may have granted it, or be about to.
    void abandon(entry& s) {
        bool const asked = s.number != session_state::no_exchange || s.is_granted();
        if (!remove(&s) || !asked) return;
        std::vector<std::string_view> filters;
        for (auto const& p : s.parts)
            if (!registry_.contains(p.filter)) filters.push_back(p.filter);
        if (!filters.empty()) state_.unsubscribe(packets_.out(), {0, filters, {}}, nullptr);
        packets_.flush();
    }

    void taken(delivery token, reason_code reason, property_view props) override {
        if (registry_.take(token)) acknowledge(token, reason, props);
    }
    [[gnu::cold]] void given_back(delivery token, inbox const& by) override {
        registry_.give_back(token, by);
        state_.give_back(token);
    }
    [[gnu::cold]] void deserted(inbox const& box) override {
        if (auto* const s = registry_.find(box)) remove(s);
    }
    // It is acknowledged if another subscription has had it.
    [[gnu::cold]] void unread(mqtt::publish const& packet, delivery token) override {
        if (!registry_.is_shared(token))
            services_.keep(packet, token);
        else if (registry_.take(token))
            acknowledge(token, reason_code::success, {});
    }

    // Messages have been kept for a subscription that was to come. They are taken in a later turn, or before the next
    // message, so that no handler is called inside of `subscribe`.
    [[gnu::cold]] void ask_for_kept() {
        if (services_.kept() == nullptr) return;
        wants_kept_ = true;
        packets_.attend();
    }
    // False: a handler has failed; the rest is kept.
    [[gnu::cold]] bool take_kept() {
        wants_kept_ = false;
        bool failed = false;
        if (auto* const kept = services_.kept())
            kept->offer([&](mqtt::publish const& packet, delivery token) {
                if (failed) return false;
                auto const outcome = registry_.dispatch(packet, token);
                if (outcome.matched == 0) return false;
                failed = outcome.failed;
                if (failed)
                    state_.give_back(token, &packet);
                else if (outcome.taken)
                    acknowledge(token, reason_code::success, {});
                else
                    watch();
                return true;
            });
        wants_kept_ = failed;
        return !failed;
    }

    [[gnu::cold]] void watch() {
        watches_ = true;
        packets_.attend();
    }

    void acknowledge(delivery token, reason_code reason, property_view props) {
        [[maybe_unused]] errc const e = state_.acknowledge(packets_.out(), token, reason, props);
        assert(e == errc::ok);
        packets_.flush();
    }

    session_options const& options_;
    session_state& state_;
    outlet<Executor>& packets_;
    session_services& services_;
    subscription_registry<Executor> registry_;
    parking<Executor> unanswered_;
    std::vector<unsubscriber*> unsubscribers_;
    list_link operations_;
    std::shared_ptr<message_source> source_{std::make_shared<char>(), this};  // known to inboxes, which may outlive it
    std::uint32_t identifier_ = 0;                                            // of the subscription made last
    bool closed_ = true;
    bool unsent_ = false;      // a request waits for a packet identifier
    bool wants_kept_ = false;  // there is a subscription that kept messages have not been offered to
    bool watches_ = false;     // whether inboxes are read from
    clock::time_point next_look_ = clock::time_point::max();
};

}  // namespace runnel::mqtt
