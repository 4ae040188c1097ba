#pragma once

#include <runnel/aliyun/alink/detail/mailbox.hpp>
#include <runnel/aliyun/alink/detail/task_group.hpp>
#include <runnel/aliyun/alink/session.hpp>
#include <runnel/aliyun/topics.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel::aliyun::alink::detail {

/// The handlers of a device's calls and notices, and what is done with a message that is for one of them.
///
/// A handler that throws a `refusal` answers with its code; a `json::exception`, which is what a missing parameter or
/// one of the wrong type throws, becomes 460; anything else 500. All of it is reported to `options::on_fault`, and only
/// there with its text.
///
/// While a coroutine is suspended, others may write this, each in one step:
///
/// | member                          | is written by                                                                  |
/// |---------------------------------|--------------------------------------------------------------------------------|
/// | `handlers_`, `raw_handlers_`    | the user (`set`, `set_raw`), at any time: so a call has a share in its handler |
/// | `answered_`, `answered_count_`  | `channel::run` (`begin`)                                                       |
/// | `running`, `counters` of `box_` | each call when it begins and ends; all that count                              |
///
/// What else a call has is in its frame. `channel::run` waits for the end of all calls, so this outlives them.
template <class Session>
class handler_table {
  public:
    using executor_type = typename Session::executor_type;
    template <class T>
    using awaitable = asio::awaitable<T, executor_type>;
    /// A coroutine that is given a call's parameters, or a notice, and returns what goes back.
    using handler = std::function<awaitable<json>(json)>;
    /// The same for bytes.
    using raw_handler = std::function<awaitable<std::string>(std::string)>;
    using box_type = mailbox<executor_type>;
    using incoming = typename box_type::incoming;
    using tasks_type = task_group<executor_type>;

    handler_table(Session& session, aliyun::device const& who, std::shared_ptr<box_type> box)
        : session_(session), topics_(who), box_(std::move(box)) {}

    /// Sets the handler of a kind of messages, of the service `id`; a call in progress keeps the one that it has.
    void set(topic_kind kind, std::string id, handler h) {
        handlers_.insert_or_assign({kind, std::move(id)}, std::make_shared<handler const>(std::move(h)));
    }
    void set_raw(topic_kind kind, std::string id, raw_handler h) {
        raw_handlers_.insert_or_assign({kind, std::move(id)}, std::make_shared<raw_handler const>(std::move(h)));
    }

    /// The topic filters that the handlers need beyond those of the features: the platform has no wildcard for
    /// services, and RRPC with a topic is known by it.
    std::vector<std::string> filters() const {
        std::vector<std::string> filters;
        for (auto const& [k, unused] : handlers_)
            if (k.first == topic_kind::service_call) {
                filters.push_back(topics_.of<topic_kind::service_call>(k.second).str());
                if (has(box_->options.features, feature::custom_rrpc))
                    filters.push_back("/ext/rrpc/+" + filters.back());
            }
        for (auto const& [k, unused] : raw_handlers_) {
            if (k.first == topic_kind::custom_rrpc) filters.push_back("/ext/rrpc/+" + k.second);
            if (k.first == topic_kind::product_broadcast)
                filters.push_back(topics_.of<topic_kind::product_broadcast>(k.second).str());
        }
        return filters;
    }

    /// Starts to handle a message: with a task for its handler, or by refusing it at once.
    void begin(incoming m, tasks_type& tasks) {
        topic_parts parts;
        if (parse_topic(m.topic, parts) != aliyun::errc::ok) return;
        switch (parts.kind) {
            case topic_kind::rrpc_request: return begin_rrpc(parts, m, tasks);
            case topic_kind::custom_rrpc: return begin_custom_rrpc(parts, m, tasks);
            case topic_kind::raw_down:
                return begin_raw(topic_kind::raw_down, "", m, topics_.reply_of<topic_kind::raw_down>().str(), tasks);
            case topic_kind::device_broadcast: return begin_raw(topic_kind::device_broadcast, "", m, "", tasks);
            case topic_kind::product_broadcast:
                return begin_raw(topic_kind::product_broadcast, std::string(parts.rest), m, "", tasks);
            case topic_kind::error_notice:
            case topic_kind::ota_upgrade:
            case topic_kind::shadow_get: return begin_notice(parts.kind, m, tasks);
            default: break;
        }
        begin_call(parts.kind, std::string(parts.id), m, m.topic + "_reply",
                   mqtt::publish_options{.qos = box_->options.quality}, tasks);
    }

  private:
    using key = std::pair<topic_kind, std::string>;

    // A service called by RRPC is an Alink request; everything else is for the handler of RRPC.
    void begin_rrpc(topic_parts const& parts, incoming const& m, tasks_type& tasks) {
        auto const answer = topics_.of<topic_kind::rrpc_response>(parts.id).str();
        constexpr std::string_view prefix = "thing.service.";
        call c;
        if (decode(m.payload, c) == errc::ok && c.method.starts_with(prefix)) {
            auto const id = c.method.substr(prefix.size());
            bool const set = id == "property.set";
            return begin_call(set ? topic_kind::property_set : topic_kind::service_call, set ? std::string() : id, m,
                              answer, {}, tasks);
        }
        begin_raw(topic_kind::rrpc_request, "", m, answer, tasks);
    }

    // The answer goes to the topic of the request.
    void begin_custom_rrpc(topic_parts const& parts, incoming const& m, tasks_type& tasks) {
        std::string topic = "/";
        topic += parts.rest;
        // Whoever subscribes to it may be sent its own answer.
        std::string request(parts.id);
        if (std::ranges::find(answered_, request) != answered_.end()) return;
        answered_[answered_count_++ % answered_.size()] = std::move(request);
        topic_parts inner;
        if (parse_topic(topic, inner) == aliyun::errc::ok && topics_.owns(inner) && !inner.reply) {
            if (inner.kind == topic_kind::service_call || inner.kind == topic_kind::property_set)
                return begin_call(inner.kind, std::string(inner.id), m, m.topic, {}, tasks);
        }
        begin_raw(topic_kind::custom_rrpc, topic, m, m.topic, tasks);
    }

    void begin_call(topic_kind kind, std::string id, incoming const& m, std::string answer, mqtt::publish_options q,
                    tasks_type& tasks) {
        call c;
        errc e = decode(m.payload, c);
        auto const found = handlers_.find(key{kind, std::move(id)});
        if (e == errc::ok && found == handlers_.end()) e = errc::no_handler;
        if (e == errc::ok && box_->running >= box_->options.maximum_calls) e = errc::too_many_calls;
        if (e == errc::ok) {
            ++box_->counters.calls;
            return tasks.start(answer_call(found->second, std::move(c), std::move(answer), q));
        }
        box_->report(make_error_code(e), m.topic, m.payload);
        // RRPC is matched by its topic, so that it can be answered whatever the request was.
        if (c.id.empty() && answer.ends_with("_reply")) return;
        errc const code = e == errc::no_handler       ? errc::not_found
                          : e == errc::too_many_calls ? errc::throttled
                                                      : errc::parameters_invalid;
        reply const refused{.id = c.id, .code = static_cast<int>(code), .message = describe(e)};
        publish_now(answer, encode(refused), q);
    }

    void begin_notice(topic_kind kind, incoming const& m, tasks_type& tasks) {
        json message;
        if (errc const e = parse_object(m.payload, message); e != errc::ok)
            return box_->report(make_error_code(e), m.topic, m.payload);
        auto const found = handlers_.find(key{kind, std::string()});
        if (found == handlers_.end()) return;  // nobody is interested
        if (box_->running >= box_->options.maximum_calls)
            return box_->report(make_error_code(errc::too_many_calls), m.topic, m.payload);
        ++box_->counters.calls;
        tasks.start(handle_notice(found->second, std::move(message), m.topic));
    }

    void begin_raw(topic_kind kind, std::string id, incoming const& m, std::string answer, tasks_type& tasks) {
        auto const found = raw_handlers_.find(key{kind, std::move(id)});
        errc e = found == raw_handlers_.end() ? errc::no_handler : errc::ok;
        if (e == errc::ok && box_->running >= box_->options.maximum_calls) e = errc::too_many_calls;
        if (e != errc::ok) {
            box_->report(make_error_code(e), m.topic, m.payload);
            errc const code = e == errc::no_handler ? errc::not_found : errc::throttled;
            reply refused{.id = "0", .code = static_cast<int>(code), .message = describe(e)};
            if (call c; decode(m.payload, c) == errc::ok) refused.id = c.id;
            if (kind == topic_kind::rrpc_request || kind == topic_kind::custom_rrpc)
                publish_now(answer, encode(refused), {});
            return;
        }
        ++box_->counters.calls;
        tasks.start(answer_raw(found->second, m.payload, m.topic, std::move(answer)));
    }

    // --- handlers at work

    struct running {
        explicit running(std::shared_ptr<box_type> b) noexcept : box(std::move(b)) { ++box->running; }
        ~running() { --box->running; }
        running(running const&) = delete;
        running& operator=(running const&) = delete;
        std::shared_ptr<box_type> box;
    };

    // What the exception that is being handled means for the one who called.
    std::error_code explain(reply& r, std::string& detail) {
        r.code = static_cast<int>(errc::internal_error);
        r.message = describe(errc::handler_failed);
        try {
            throw;
        } catch (refusal const& e) {
            r.code = e.code();
            r.message = detail = e.what();
            return reply_error(r.code);
        } catch (json::exception const& e) {  // a parameter that is not there, or of another type
            r.code = static_cast<int>(errc::parameters_invalid);
            r.message = describe(errc::parameters_invalid);
            detail = e.what();
            return make_error_code(errc::parameters_invalid);
        } catch (std::system_error const& e) {
            detail = e.what();
            return e.code();
        } catch (std::exception const& e) {
            detail = e.what();
        } catch (...) {
        }
        return make_error_code(errc::handler_failed);
    }

    awaitable<void> answer_call(std::shared_ptr<handler const> h, call c, std::string topic, mqtt::publish_options q) {
        running const here(box_);
        reply r{.id = c.id};
        std::error_code failed;
        std::string detail;
        try {
            auto handling = (*h)(std::move(c.params));
            r.data = co_await std::move(handling);
            if (r.data.is_null()) r.data = json::object();
        } catch (...) {
            failed = explain(r, detail);
        }
        if (failed == asio::error::operation_aborted) co_return;
        if (failed) box_->report(failed, topic, detail);
        std::string text;
        try {
            text = encode(r);
        } catch (std::system_error const& e) {
            box_->report(e.code(), topic, "the reply of a handler");
            reply const instead{
                .id = r.id, .code = static_cast<int>(errc::internal_error), .message = describe(errc::handler_failed)};
            text = encode(instead);
        }
        if (c.wants_reply) co_await publish_quietly(std::move(topic), std::move(text), q);
    }

    awaitable<void> handle_notice(std::shared_ptr<handler const> h, json message, std::string topic) {
        running const here(box_);
        reply unused;
        std::string detail;
        try {
            auto handling = (*h)(std::move(message));
            co_await std::move(handling);
        } catch (...) {
            auto const failed = explain(unused, detail);
            if (failed != asio::error::operation_aborted) box_->report(failed, topic, detail);
        }
    }

    awaitable<void> answer_raw(std::shared_ptr<raw_handler const> h, std::string payload, std::string topic,
                               std::string answer) {
        running const here(box_);
        reply unused;
        std::string detail, text;
        std::error_code failed;
        try {
            auto handling = (*h)(std::move(payload));
            text = co_await std::move(handling);
        } catch (...) {
            failed = explain(unused, detail);
        }
        if (failed == asio::error::operation_aborted) co_return;
        if (failed) {
            box_->report(failed, topic, detail);
            unused.id = "0";
            text = encode(unused);
        }
        bool const wanted = !answer.empty() && (!text.empty() || answer.find("/rrpc/") != answer.npos);
        if (wanted) co_await publish_quietly(std::move(answer), std::move(text), mqtt::publish_options{});
    }

    awaitable<void> publish_quietly(std::string topic, std::string text, mqtt::publish_options q) {
        std::error_code failed;
        auto publishing = session_.publish(topic, text, q);
        try {
            co_await std::move(publishing);
        } catch (std::system_error const& e) {
            failed = e.code();
        }
        if (failed && failed != asio::error::operation_aborted) box_->report(failed, topic, text);
    }

    void publish_now(std::string_view topic, std::string_view text, mqtt::publish_options q) {
        try {
            if (!session_.try_publish(topic, text, q)) box_->report(make_error_code(errc::too_many_calls), topic, text);
        } catch (std::system_error const& e) {
            box_->report(e.code(), topic, text);
        }
    }

    Session& session_;
    device_topics topics_;
    std::shared_ptr<box_type> box_;
    std::map<key, std::shared_ptr<handler const>> handlers_{};
    std::map<key, std::shared_ptr<raw_handler const>> raw_handlers_{};
    std::array<std::string, 32> answered_{};  // requests of custom RRPC, the latest
    std::size_t answered_count_ = 0;
};

}  // namespace runnel::aliyun::alink::detail
