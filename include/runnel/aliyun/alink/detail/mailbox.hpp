#pragma once

#include <runnel/aliyun/alink/options.hpp>
#include <runnel/aliyun/alink/protocol/detail/shadow_line.hpp>
#include <runnel/aliyun/alink/protocol/time.hpp>
#include <runnel/core/clock.hpp>
#include <runnel/coro/wait_list.hpp>
#include <runnel/mqtt/packet/publish.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::aliyun::alink::detail {

/// Where what a session receives for one device arrives: replies are given to those who wait for them, everything else
/// waits for `channel::run`. The session may hold on to it for longer than the channel exists.
///
/// A request that is suspended has its `pending` in its frame: `receive` writes the answer there, and `answered`, once;
/// then it is the request's. `receive` fills `queue_`, and `run` empties it. `line_` changes in one step. `starting`,
/// `running`, `serving` and `closed` are those of `channel` and its handlers. `receive` is called from within the
/// session, and suspends nothing.
template <class Executor>
class mailbox : public std::enable_shared_from_this<mailbox<Executor>> {
  public:
    using clock = steady_clock;

    /// One who waits for a reply, in its coroutine's frame.
    struct pending : list_link {
        pending(mailbox& box, topic_kind k, std::string_view i) : kind(k), id(i), of(box.weak_from_this()) {
            this->insert_before(box.pending_);
        }
        ~pending() {
            if (kind != topic_kind::shadow_get) return;
            auto const box = of.lock();
            this->unlink();
            if (box) box->leave_line(*this);
        }
        topic_kind kind;
        std::string_view id;
        bool answered = false;
        errc error = errc::ok;
        alink::reply reply{};
        shadow_message shadow{};
        time_answer time{};
        waiter<Executor> waiting{};
        shadow_line::question question{};  // of the shadow
        bool in_line = false;              // it is the one that has been asked
        std::weak_ptr<mailbox> of;
    };

    /// A message that waits to be handled.
    struct incoming {
        std::string topic{};
        std::string payload{};
    };

    mailbox(Executor const& executor, aliyun::device const& who, alink::options o)
        : waiters(executor),
          starters(executor),
          in_line(executor),
          options(std::move(o)),
          topics_(who),
          line_(options.timeout) {}

    /// Takes a message: decodes it if it is a reply, otherwise keeps a copy. Does not throw, whatever it is.
    void receive(mqtt::publish const& m) {
        topic_parts parts;
        if (parse_topic(m.topic, parts) != aliyun::errc::ok || !topics_.owns(parts)) return;
        // The platform sends no more; as values, JSON takes many times as much as it has bytes.
        if (m.payload.size() > max_payload_size)
            return report(make_error_code(errc::payload_too_long), m.topic, m.payload.substr(0, 1000));
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

    // Requests to the shadow take turns, in the order in which they were begun; whoever waits does so at `in_line`.

    bool is_its_turn(pending const& p, shadow_line::connection on) {
        line_.look(on, clock::now());
        return line_.is_free() && first_in_line() == &p;
    }
    /// Lets a request begin. False: it is not its turn.
    bool enter_line(pending& p, shadow_line::connection on) {
        if (!is_its_turn(p, on)) return false;
        line_.ask(p.question, on);
        return p.in_line = true;
    }
    /// Whether it would be its turn if it were not for a late answer, which comes on a connection.
    bool waits_for_late_answer(pending const& p) {
        return line_.current() == shadow_line::state::late && first_in_line() == &p;
    }
    clock::time_point late_until() const noexcept { return line_.late_until(); }
    /// The request has been answered.
    void leave_line_answered(shadow_line::connection on) { line_.doubt(on, clock::now()); }
    /// The request will not be sent.
    void withdraw_from_line(pending& p) {
        if (std::exchange(p.in_line, false)) line_.withdraw();
    }

    /// Tells the user of a fault.
    void report(std::error_code why, std::string_view topic, std::string_view detail) {
        ++counters.faults;
        if (options.on_fault) options.on_fault({why, topic, detail});
    }

    wait_list<Executor> waiters;
    wait_list<Executor> starters;  ///< who waits for the subscriptions that another is making
    wait_list<Executor> in_line;
    bool starting = false;
    std::size_t stops = 0;      ///< how often `channel::stop` was called
    std::size_t running = 0;    ///< handlers at work
    bool serving = false;       ///< `channel::run` is under way
    waiter<Executor> reader{};  ///< `run`, when it has nothing to do
    std::error_code closed{};   ///< why no more messages come
    /// If set, tells how the session is connected; it must be there as long as messages come.
    std::function<shadow_line::connection()> connection{};
    alink::options options;
    alink::counters counters{};

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
        waiters.wake(p.waiting);
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

    void receive_shadow(mqtt::publish const& m) {
        shadow_message message;
        if (errc const e = decode(m.payload, message); e != errc::ok)
            return report(make_error_code(e), m.topic, m.payload);
        if (message.what == shadow_message::kind::control) return keep(m);
        // The same again, as its acknowledgement was lost with a connection?
        auto const hash = std::hash<std::string_view>()(m.payload);
        if (m.dup && std::ranges::find(answers_, hash) != answers_.end()) return;
        answers_[answer_count_++ % answers_.size()] = hash;
        if (line_.answered(message, connection ? connection() : shadow_line::connection{})) {
            auto& p = *first_in_line();
            p.in_line = false;
            p.shadow = std::move(message);
            return complete(p, errc::ok);
        }
        ++counters.unmatched_replies;
        in_line.wake_all({});  // it may have been the late one
    }

    pending* first_in_line() {
        for (auto* at = pending_.next(); at != &pending_; at = at->next())
            if (auto* const p = static_cast<pending*>(at); p->kind == topic_kind::shadow_get) return p;
        return nullptr;
    }

    // It is not in the list any more.
    void leave_line(pending& p) {
        if (p.in_line) line_.give_up(clock::now());
        in_line.wake_all({});
    }

    void keep(mqtt::publish const& m) {
        if (queue_.size() >= options.maximum_waiting) {
            ++counters.dropped;
            return report(make_error_code(errc::too_many_calls), m.topic, m.payload);
        }
        queue_.push_back({std::string(m.topic), std::string(m.payload)});
        waiters.wake(reader);
    }

    device_topics topics_;
    list_link pending_{};
    shadow_line line_;
    std::array<std::size_t, 8> answers_{};  // the latest, of the shadow
    std::size_t answer_count_ = 0;
    std::deque<incoming> queue_{};
};

}  // namespace runnel::aliyun::alink::detail
