#pragma once

#include <runnel/aliyun/alink/detail/offers.hpp>
#include <runnel/aliyun/alink/protocol/log.hpp>
#include <runnel/aliyun/alink/protocol/shadow.hpp>
#include <runnel/aliyun/alink/protocol/time.hpp>
#include <runnel/core/clock.hpp>
#include <runnel/core/printable.hpp>

#include <chrono>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace runnel::aliyun::alink {

/// A device on the platform, as its thing model has it: properties, events, services, and the platform's services for
/// devices. Over any session:
///
///     alink::device thermostat(session, identity);
///     thermostat.on_service("reboot", [&](alink::json input) -> asio::awaitable<alink::json> { ... });
///     co_await thermostat.run();                  // beside session.run(): handles what is received
///
///     alink::json const reading = {{"Temperature", 21.5}};
///     co_await thermostat.post_properties(reading);
///
/// JSON is used before a function returns, so that it need not live on. Give it a name: g++ 12 cannot compile JSON in
/// braces within a `co_await` expression, or destroys it twice.
///
/// Requests throw `std::system_error`: a reply's code, `errc::timed_out`, `errc::disconnected` and others of category
/// `runnel.aliyun.alink`, or what the session throws; `runnel::capture_error` gives the error to a variable instead.
/// Handlers are coroutines that run inside `run`, side by side; they may make requests, and end when `run` is
/// cancelled. Set them before `run`, of which there is one at a time. What they are given, they own.
template <message_session Session>
class device : public detail::offers<Session> {
  public:
    using base = detail::offers<Session>;
    using typename base::handler;
    using typename base::raw_handler;
    template <class T>
    using awaitable = typename base::template awaitable<T>;

    device(Session& session, aliyun::device const& who, alink::options o = {}) : base(session, who, std::move(o)) {}

    // --- properties, events, services

    /// Reports properties: `{"Temperature": 21.5}`, or with a time `{"Temperature": {"value": 21.5, "time": ms}}`.
    awaitable<json> post_properties(json const& values, request_options how = {}) {
        return this->template request<topic_kind::property_post>(values, how);
    }
    /// Reports properties and events of several times, or several devices, at once, in the platform's forms
    /// (`feature::batches`).
    awaitable<json> post_batch(json const& batch, request_options how = {}) {
        return this->template request<topic_kind::property_batch_post>(batch, how);
    }
    awaitable<json> post_history(json const& history, request_options how = {}) {
        return this->template request<topic_kind::property_history_post>(history, how);
    }
    awaitable<json> post_pack(json const& pack, request_options how = {}) {
        return this->template request<topic_kind::property_pack_post>(pack, how);
    }

    /// Reports an event with its output parameters, as of now or of `time` (milliseconds since 1970).
    awaitable<json> post_event(std::string_view id, json const& values, request_options how = {},
                               std::uint64_t time = base::now()) {
        json const params = {{"value", values}, {"time", time}};
        return this->template request<topic_kind::event_post>(params, how, id);
    }

    /// Handles properties that are to be set: `awaitable<void>(json values)`. Report them once they are.
    template <std::invocable<json> Handler>
    void on_properties(Handler h) {
        this->handlers().set(topic_kind::property_set, {}, base::answering(std::move(h)));
    }
    /// Handles calls of a service, synchronous or not: `awaitable<json>(json input)` returns the output parameters.
    template <std::invocable<json> Handler>
    void on_service(std::string id, Handler h) {
        this->throw_if_started();
        this->handlers().set(topic_kind::service_call, std::move(id), base::answering(std::move(h)));
    }

    // --- desired properties, tags

    /// `{"Power": {"value": 1, "version": 2}}` for those of the names that are desired.
    awaitable<json> get_desired(std::span<std::string_view const> names) {
        return this->template request<topic_kind::desired_get>(list(names));
    }
    /// Forgets desired properties, if the version has not changed: `{"Power": {"version": 2}}`; `{"Power": {}}`
    /// whatever the version is.
    awaitable<json> delete_desired(json const& versions) {
        return this->template request<topic_kind::desired_delete>(versions);
    }

    /// Sets tags of the device: `{"floor": "3"}`.
    awaitable<json> update_tags(json const& tags) {
        json params = json::array();
        for (auto const& [key, value] : tags.items()) params.push_back({{"attrKey", key}, {"attrValue", value}});
        return this->template request<topic_kind::tags_update>(params);
    }
    awaitable<json> delete_tags(std::span<std::string_view const> names) {
        json params = json::array();
        for (auto const name : names) params.push_back({{"attrKey", name}});
        return this->template request<topic_kind::tags_delete>(params);
    }

    // --- the thing model itself

    /// The product's thing model (TSL): what properties, events and services there are, as the platform has it
    /// (`feature::definition`).
    awaitable<json> get_thing_model() { return this->template request<topic_kind::thing_template_get>(json::object()); }

    // --- messages of any form

    /// Handles RRPC requests that are no calls of services: `awaitable<std::string>(std::string)`, answered by QoS 0.
    void on_rrpc(raw_handler h) { this->handlers().set_raw(topic_kind::rrpc_request, {}, std::move(h)); }
    /// Handles RRPC requests with a topic of one's own, which begins with a slash. The device must connect with the
    /// parameter `ext=1`.
    void on_custom_rrpc(std::string topic, raw_handler h) {
        this->throw_if_started();
        this->handlers().set_raw(topic_kind::custom_rrpc, std::move(topic), std::move(h));
    }
    /// Handles raw data of the thing model (`feature::raw`); what it returns, if anything, is the raw reply.
    void on_raw(raw_handler h) { this->handlers().set_raw(topic_kind::raw_down, {}, std::move(h)); }
    /// Publishes raw data of the thing model.
    awaitable<json> post_raw(std::string bytes) {
        return this->send(this->topics().template of<topic_kind::raw_up>().str(), std::move(bytes));
    }
    /// Handles broadcasts to this device (`feature::broadcast`), and those to all devices of the product on a topic
    /// (the part behind `/broadcast/PRODUCT_KEY/`). What the handlers return is dropped.
    void on_broadcast(raw_handler h) { this->handlers().set_raw(topic_kind::device_broadcast, {}, std::move(h)); }
    void on_product_broadcast(std::string topic, raw_handler h) {
        this->throw_if_started();
        this->handlers().set_raw(topic_kind::product_broadcast, std::move(topic), std::move(h));
    }
    /// Handles the platform's notices of errors, such as messages it has dropped: `awaitable<void>(json notice)`, which
    /// has a "code" and a "message".
    template <std::invocable<json> Handler>
    void on_error_notice(Handler h) {
        this->handlers().set(topic_kind::error_notice, {}, base::answering(std::move(h)));
    }

    // --- time

    /// Asks the platform for the time.
    awaitable<time_difference> ask_time() {
        this->begin_request();
        auto const sent = base::now();
        auto const begin = steady_clock::now();
        std::string const id = std::to_string(sent);
        typename base::pending p(this->box(), topic_kind::ntp_response, id);
        auto asking = this->exchange(p, this->topics().template of<topic_kind::ntp_request>().str(),
                                     write(json{{"deviceSendTime", id}}), std::chrono::milliseconds(0));
        co_await std::move(asking);
        auto const elapsed = steady_clock::now() - begin;
        co_return difference(p.time, std::chrono::duration_cast<std::chrono::milliseconds>(elapsed));
    }

    // --- device shadow: one request at a time, as the answers do not say what they answer; others wait, and their
    // timeouts count. After one that has timed out the next waits for its answer, or for `options::timeout`.

    /// The device's shadow.
    awaitable<shadow> get_shadow() {
        auto asking = shadow_request({.query = true}, write(json{{"method", "get"}}));
        auto answer = co_await std::move(asking);
        co_return std::move(answer.shadow);
    }
    /// Reports values to the shadow. `version` must be greater than the shadow's, else `errc::version_conflict`: which
    /// may also mean, if the connection was lost meanwhile, that the values have arrived before.
    awaitable<shadow_message> update_shadow(json const& reported, std::uint64_t version) {
        return shadow_request({.version = version}, write(make_shadow_update(reported, version)));
    }
    /// Tells the shadow that everything desired is done.
    awaitable<shadow_message> clear_shadow_desired(std::uint64_t version) {
        return shadow_request({.version = version}, write(make_shadow_clear(version)));
    }
    /// Deletes reported values from the shadow; all of them if no names are given.
    awaitable<shadow_message> delete_from_shadow(std::span<std::string_view const> names, std::uint64_t version) {
        return shadow_request({.version = version}, write(make_shadow_delete(list(names), version)));
    }
    /// Handles what is desired of the device by its shadow: `awaitable<void>(shadow)`.
    template <std::invocable<shadow> Handler>
    void on_shadow(Handler h) {
        auto const take = [](json const& message) {
            shadow_message decoded;
            base::refuse_unless_ok(decode(write(message), decoded));
            return std::move(decoded.shadow);
        };
        this->handlers().set(topic_kind::shadow_get, {}, base::decoding(std::move(h), take));
    }

    // --- logs, jobs

    /// Posts lines to the platform's log.
    awaitable<json> post_log(std::span<log_entry const> lines) {
        return this->template request<topic_kind::log_post>(make_log(lines));
    }
    /// Whether the platform wants logs of this device.
    awaitable<bool> is_log_wanted() {
        json const params = {{"configScope", "device"}, {"getType", "content"}};
        auto asking = this->template request<topic_kind::log_config_get>(params);
        json const data = co_await std::move(asking);
        bool wanted = false;
        if (errc const e = read_log_mode(data, wanted); e != errc::ok) throw std::system_error(make_error_code(e));
        co_return wanted;
    }
    /// Handles a change of that: `awaitable<void>(bool wanted)`.
    template <std::invocable<bool> Handler>
    void on_log_wanted(Handler h) {
        auto const take = [](json const& params) {
            bool wanted = false;
            base::refuse_unless_ok(read_log_mode(params, wanted));
            return wanted;
        };
        this->handlers().set(topic_kind::log_config_push, {}, base::decoding(std::move(h), take));
    }

    /// Asks for a job, by default the next one (`feature::jobs`): its description, as the platform has it.
    awaitable<json> get_job(std::string_view id = "$next") {
        json const params = {{"taskId", id}};
        return this->template request<topic_kind::job_get>(params);
    }
    /// Tells the platform of a job: `{"taskId", "status", "statusDetails", "progress"}`.
    awaitable<json> update_job(json const& state) { return this->template request<topic_kind::job_update>(state); }
    /// Handles notices of jobs: `awaitable<void>(json)`.
    template <std::invocable<json> Handler>
    void on_job(Handler h) {
        this->handlers().set(topic_kind::job_notify, {}, base::answering(std::move(h)));
    }

  private:
    static json list(std::span<std::string_view const> names) {
        json all = json::array();
        for (auto const name : names) all.push_back(name);
        return all;
    }

    awaitable<shadow_message> shadow_request(detail::shadow_line::question q, std::string text) {
        this->begin_request();
        typename base::pending p(this->box(), topic_kind::shadow_get, {});
        p.question = q;
        auto asking = this->exchange(p, this->topics().template of<topic_kind::shadow_update>().str(), std::move(text),
                                     std::chrono::milliseconds(0));
        co_await std::move(asking);
        if (p.shadow.what == shadow_message::kind::failed)
            throw std::system_error(reply_error(p.shadow.code), printable(p.shadow.text));
        co_return std::move(p.shadow);
    }
};

}  // namespace runnel::aliyun::alink
