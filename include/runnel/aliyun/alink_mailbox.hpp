#pragma once

#include <runnel/aliyun/alink_options.hpp>
#include <runnel/aliyun/alink_shadow.hpp>
#include <runnel/aliyun/alink_time.hpp>
#include <runnel/mqtt/packet/publish.hpp>
#include <runnel/transport/waiter.hpp>

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::aliyun::alink {

/// Where what a session receives for one device arrives: replies are given to those who wait for them, everything else
/// waits for `channel::run`. The session may hold on to it for longer than the channel exists.
template <class Executor>
class mailbox {
  public:
    /// One who waits for a reply, in its coroutine's frame.
    struct pending : list_link {
        pending(mailbox& box, topic_kind k, std::string_view i) : kind(k), id(i) { this->insert_before(box.pending_); }
        topic_kind kind;
        std::string_view id;
        bool answered = false;
        errc error = errc::ok;
        alink::reply reply;
        shadow_message shadow;
        time_answer time;
        waiter<Executor> waiting;
    };

    /// A message that waits to be handled.
    struct incoming {
        std::string topic;
        std::string payload;
    };

    mailbox(Executor const& executor, aliyun::device const& who, alink::options o)
        : place(executor), starters(executor), options(std::move(o)), topics_(who) {}

    /// Takes a message: decodes it if it is a reply, otherwise keeps a copy. Does not throw, whatever it is.
    void receive(mqtt::publish const& m) {
        topic_parts parts;
        if (parse_topic(m.topic, parts) != aliyun::errc::ok || !topics_.owns(parts)) return;
        if (parts.reply) return receive_reply(parts.kind, m);
        switch (parts.kind) {
            case topic_kind::ntp_response: return receive_time(m);
            case topic_kind::shadow_get: return receive_shadow(m);
            case topic_kind::property_set:
            case topic_kind::service_call:
            case topic_kind::rrpc_request:
            case topic_kind::custom_rrpc:
            case topic_kind::error_notice:
            case topic_kind::ota_upgrade:
            case topic_kind::config_push:
            case topic_kind::log_config_push:
            case topic_kind::job_notify:
            case topic_kind::raw_down:
            case topic_kind::device_broadcast:
            case topic_kind::product_broadcast:
            case topic_kind::topology_change:
            case topic_kind::topology_add_notice:
            case topic_kind::sub_device_disable:
            case topic_kind::sub_device_enable:
            case topic_kind::sub_device_delete: return keep(m);
            default: return;  // the device's own messages: a rule of the platform can send them back
        }
    }

    /// The next message that waits to be handled.
    std::optional<incoming> pop() {
        if (queue_.empty()) return std::nullopt;
        std::optional<incoming> next(std::move(queue_.front()));
        queue_.pop_front();
        return next;
    }

    /// Tells the user of a fault.
    void report(std::error_code why, std::string_view topic, std::string_view detail) {
        ++counters.faults;
        if (options.on_fault) options.on_fault({why, topic, detail});
    }

    parking<Executor> place;
    parking<Executor> starters;  ///< who waits for the subscriptions that another is making
    bool starting = false;
    std::size_t running = 0;  ///< handlers at work
    waiter<Executor> reader;  ///< `run`, when it has nothing to do
    std::error_code closed;   ///< why no more messages come
    alink::options options;
    alink::counters counters;

  private:
    pending* find(topic_kind kind, std::string_view id) {
        for (auto* at = pending_.next(); at != &pending_; at = at->next()) {
            auto* const p = static_cast<pending*>(at);
            if (p->kind == kind && p->id == id && !p->answered) return p;
        }
        ++counters.unmatched_replies;
        return nullptr;
    }

    void complete(pending& p, errc error) {
        p.answered = true;
        p.error = error;
        place.wake(p.waiting);
    }

    void receive_reply(topic_kind kind, mqtt::publish const& m) {
        // The reply to a property post is matched by the filter for events as well.
        alink::reply r;
        errc const e = decode(m.payload, r);
        if (e != errc::ok) report(make_error_code(e), m.topic, m.payload);
        if (r.id.empty()) return;
        if (auto* const p = find(kind, r.id)) {
            p->reply = std::move(r);
            complete(*p, e == errc::ok ? errc::ok : errc::answer_invalid);
        }
    }

    void receive_time(mqtt::publish const& m) {
        time_answer answer;
        if (errc const e = decode(m.payload, answer); e != errc::ok)
            return report(make_error_code(e), m.topic, m.payload);
        if (auto* const p = find(topic_kind::ntp_response, std::to_string(answer.device_sent))) {
            p->time = answer;
            complete(*p, errc::ok);
        }
    }

    // These answers have no identifier: they come in the order of the requests, and a query's has the state in it.
    void receive_shadow(mqtt::publish const& m) {
        shadow_message message;
        if (errc const e = decode(m.payload, message); e != errc::ok)
            return report(make_error_code(e), m.topic, m.payload);
        if (message.what == shadow_message::kind::control) return keep(m);
        for (auto* at = pending_.next(); at != &pending_; at = at->next()) {
            auto& p = *static_cast<pending*>(at);
            bool const query = p.id == "get";
            if (p.kind != topic_kind::shadow_get || p.answered) continue;
            if (message.what != shadow_message::kind::failed && query != (message.what == shadow_message::kind::state))
                continue;
            p.shadow = std::move(message);
            return complete(p, errc::ok);
        }
        ++counters.unmatched_replies;
    }

    void keep(mqtt::publish const& m) {
        if (queue_.size() >= options.maximum_waiting) {
            ++counters.dropped;
            return report(make_error_code(errc::too_many_calls), m.topic, m.payload);
        }
        queue_.push_back({std::string(m.topic), std::string(m.payload)});
        place.wake(reader);
    }

    device_topics topics_;
    list_link pending_;
    std::deque<incoming> queue_;
};

}  // namespace runnel::aliyun::alink
