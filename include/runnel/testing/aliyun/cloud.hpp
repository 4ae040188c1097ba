#pragma once

#include <runnel/core/clock.hpp>
#include <runnel/testing/aliyun/detail/answers.hpp>
#include <runnel/testing/aliyun/detail/calls.hpp>
#include <runnel/testing/aliyun/platform.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel::testing {

/// The simulated platform with its services: what a device asks for is answered as the platform does, with its error
/// codes, and a test can act as the application does that uses the platform. Needs nlohmann-json.
///
///     runnel::testing::aliyun_cloud cloud{io.get_executor()};
///     cloud.add_device(thermostat);
///     std::uint16_t port = cloud.listen_tcp();
///     ...
///     CHECK(cloud.thing(thermostat).properties["celsius"] == 21.5);
///     auto reply = co_await cloud.call_service(thermostat, "reboot", {{"delay", 5}});
///
/// Answered are: properties, events, desired properties, tags and templates of the thing model; time, shadow, firmware,
/// configuration, log and jobs; topology, registration and login of sub-devices. A gateway may use the topics of the
/// sub-devices that are logged in through it; a message for one that is not is dropped, and `/ext/error` says 520.
/// Whatever is sent to devices goes to those that have subscribed.
///
/// The functions that wait for a device's answer complete with all of it (`{"id":..., "code":..., "data":...}`) and
/// throw `std::system_error` with `timed_out` if none comes, `operation_aborted` if the cloud is closed, or destroyed
/// before they have gone on. Not thread-safe: all of it runs on the executor.
template <class Executor = asio::any_io_executor>
class basic_aliyun_cloud : public basic_aliyun_platform<Executor> {
    using base = basic_aliyun_platform<Executor>;

  public:
    using duration = std::chrono::steady_clock::duration;
    template <class T>
    using awaitable = asio::awaitable<T, Executor>;

    explicit basic_aliyun_cloud(Executor executor, broker_options options = make_options())
        : base(executor, std::move(options)),
          answers_(records_, this->rules().identities),
          calls_(std::make_shared<detail::aliyun_calls<Executor>>(std::move(executor))) {
        set_hooks();
    }
    ~basic_aliyun_cloud() {
        calls_->close();
        this->hooks() = {};
    }

    static broker_options make_options() {
        auto options = detail::aliyun_rules::make_options();
        options.recorded_messages = 1000;
        return options;
    }

    /// Is told of every message from a device, in place of `hooks().on_publish`, which is the cloud's own. As all
    /// hooks, neither this nor the next may destroy the cloud.
    std::function<void(client_info const&, mqtt::publish const&)> on_message{};
    /// Is told of every connection that ends, in place of `hooks().on_disconnect`.
    std::function<void(std::string_view name)> on_disconnect{};

    /// Ends all listeners, cuts all connections, drops answers that are delayed, and ends with `operation_aborted`
    /// whoever waits for a device's answer.
    void close() {
        calls_->cancel();
        base::close();
    }

    /// Forgets a device and ends its connection. False: it was not known.
    bool remove_device(aliyun::device const& d) {
        records_.remove(detail::aliyun_rules::name_of(d));
        return base::remove_device(d);
    }

    // What devices have told, and what is kept for them.

    /// All of one device; may be changed.
    aliyun_record& thing(aliyun::device const& d) { return records_.of(d); }
    /// The sub-devices of a gateway, by `DEVICE_NAME&PRODUCT_KEY`.
    std::vector<std::string> const& sub_devices(aliyun::device const& gateway) { return thing(gateway).sub_devices; }
    /// Whether a sub-device is logged in through its gateway.
    bool logged_in(aliyun::device const& sub) { return thing(sub).logged_in; }

    /// Desired values of properties, by name.
    void set_desired(aliyun::device const& d, json const& values) {
        for (auto const& [name, value] : values.items()) {
            auto& entry = thing(d).desired[name];
            std::int64_t const version = entry.is_object() ? entry.value("version", std::int64_t{0}) : 0;
            entry = {{"value", value}, {"version", version + 1}};
        }
    }
    /// What `thing/dsltemplate/get` gives.
    void set_thing_model(std::string_view product_key, json model) {
        records_.thing_models.insert_or_assign(std::string(product_key), std::move(model));
    }
    /// What `thing/config/get` gives: `{"configId":..., "configSize":..., "sign":..., "signMethod":..., "url":...}`.
    void set_config(aliyun::device const& d, json config) { thing(d).config = std::move(config); }
    /// What `thing/ota/firmware/get` gives: `{"version":..., "url":..., "size":..., "sign":..., "signMethod":...}`, for
    /// the module it names or the default one.
    void offer_firmware(aliyun::device const& d, json const& firmware) {
        thing(d).firmware[detail::module_in(firmware)] = firmware;
    }

    // What an application does.

    /// Sets properties.
    awaitable<json> set_properties(aliyun::device d, json params, duration timeout = std::chrono::seconds(5)) {
        return ask(topic_of(d, "/thing/service/property/set"), "thing.service.property.set", std::move(params),
                   timeout);
    }
    /// Calls a service whose answer may take its time.
    awaitable<json> call_service(aliyun::device d, std::string id, json params,
                                 duration timeout = std::chrono::seconds(5)) {
        return ask(topic_of(d, "/thing/service/" + id), "thing.service." + id, std::move(params), timeout);
    }
    /// Calls a service whose answer is waited for: over RRPC.
    awaitable<json> call_service_synchronously(aliyun::device d, std::string id, json params,
                                               duration timeout = std::chrono::seconds(5)) {
        auto request = request_for("thing.service." + id, std::move(params));
        return parsed(rrpc(d, request.dump(), timeout));
    }
    /// Asks a device anything, over `/sys/PK/DN/rrpc/request/...`.
    awaitable<std::string> rrpc(aliyun::device d, std::string payload, duration timeout = std::chrono::seconds(5)) {
        auto const id = std::to_string(++last_message_);
        return exchange(topic_of(d, "/rrpc/request/" + id), topic_of(d, "/rrpc/response/" + id), std::move(payload),
                        timeout);
    }
    /// The same over `/ext/rrpc/...` and a topic of the device's own, which begins with a slash. The device must have
    /// connected with `ext=1`, which is not checked.
    awaitable<std::string> custom_rrpc(aliyun::device, std::string const& topic, std::string payload,
                                       duration timeout = std::chrono::seconds(5)) {
        auto const full = "/ext/rrpc/" + std::to_string(++last_message_) + topic;
        return exchange(full, full, std::move(payload), timeout);
    }
    /// Pushes a configuration, which `thing/config/get` gives from then on.
    awaitable<json> push_config(aliyun::device d, json config, duration timeout = std::chrono::seconds(5)) {
        set_config(d, config);
        return ask(topic_of(d, "/thing/config/push"), "thing.config.push", std::move(config), timeout);
    }
    /// Offers firmware and tells the device of it.
    void push_firmware(aliyun::device const& d, json const& firmware) {
        offer_firmware(d, firmware);
        json const notice = {{"id", next_id()}, {"code", "1000"}, {"data", firmware}, {"message", "success"}};
        send("/ota/device/upgrade/" + names_of(d), notice);
    }
    /// Keeps a job for the device and tells it: `{"taskId":..., "jobDocument":..., ...}`.
    void notify_job(aliyun::device const& d, json job) {
        auto const id = detail::text_of(job, "taskId");
        json const params = {{"taskId", id}, {"task", job}};
        thing(d).jobs[id] = std::move(job);
        send(topic_of(d, "/thing/job/notify"), request_for("thing.job.notify", params));
    }
    /// Tells the device whether to post its log (1) or not (0).
    void push_log_config(aliyun::device const& d, int mode) {
        thing(d).log_mode = mode;
        send(topic_of(d, "/thing/config/log/push"), request_for("thing.config.log.push", detail::log_config(thing(d))));
    }
    /// Changes the desired part of the shadow and tells the device.
    void set_shadow_desired(aliyun::device const& d, json const& desired) {
        auto& shadow = thing(d).shadow;
        detail::change_shadow(shadow, "desired", desired, now() / 1000);
        shadow["version"] = shadow["version"].template get<std::int64_t>() + 1;
        json const notice = {{"method", "control"},
                             {"payload", detail::shadow_contents(shadow)},
                             {"version", shadow["version"]},
                             {"timestamp", now() / 1000}};
        send("/shadow/get/" + names_of(d), notice);
    }
    /// Sends bytes that are not of the thing model's JSON.
    void send_raw(aliyun::device const& d, std::string_view bytes) {
        this->publish(topic_of(d, "/thing/model/down_raw"), bytes, mqtt::qos::at_least_once);
    }
    void broadcast(aliyun::device const& d, std::string_view payload) {
        this->publish(topic_of(d, "/broadcast/request/" + std::to_string(++last_message_)), payload);
    }
    void broadcast_to_product(std::string_view product_key, std::string_view topic, std::string_view payload) {
        this->publish("/broadcast/" + std::string(product_key) + "/" + std::string(topic), payload);
    }

    /// Forbids a sub-device to log in, and ends its login.
    awaitable<json> disable(aliyun::device sub, duration timeout = std::chrono::seconds(5)) {
        thing(sub).disabled = true;
        return ended(sub, ask(topic_of(sub, "/thing/disable"), "thing.disable", json::object(), timeout));
    }
    awaitable<json> enable(aliyun::device sub, duration timeout = std::chrono::seconds(5)) {
        thing(sub).disabled = false;
        return ask(topic_of(sub, "/thing/enable"), "thing.enable", json::object(), timeout);
    }
    /// Takes a sub-device out of its gateway's topology.
    awaitable<json> remove_sub(aliyun::device sub, duration timeout = std::chrono::seconds(5)) {
        return detached(sub, ask(topic_of(sub, "/thing/delete"), "thing.delete", json::object(), timeout));
    }
    /// Tells a gateway that its topology has changed: status 0 added, 1 deleted, 2 enabled, 8 disabled.
    awaitable<json> change_topology(aliyun::device gateway, int status, json subs,
                                    duration timeout = std::chrono::seconds(5)) {
        json params = {{"status", status}, {"subList", std::move(subs)}};
        return ask(topic_of(gateway, "/thing/topo/change"), "thing.topo.change", std::move(params), timeout);
    }
    /// Asks a gateway to add sub-devices: `[{"productKey":..., "deviceName":...}]`.
    awaitable<json> ask_to_add(aliyun::device gateway, json subs, duration timeout = std::chrono::seconds(5)) {
        return ask(topic_of(gateway, "/thing/topo/add/notify"), "thing.topo.add.notify", std::move(subs), timeout);
    }
    /// Ends a sub-device's login and tells its gateway by `/ext/error`: 427 logged in elsewhere, 521 deleted, ...
    void log_out(aliyun::device const& sub, int code) {
        auto& r = thing(sub);
        r.logged_in = false;
        if (auto const* const gateway = this->rules().identities.find(r.gateway)) push_error(*gateway, code);
    }

    // How the platform is to misbehave.

    /// Makes the next `count` answers wrong: `{.code = 429}`, `{.silent = true}`, ...
    void answer_next(std::size_t count, wrong_answer how) noexcept { answers_.answer_next(count, how); }
    /// Leaves the next `count` requests without an answer.
    void drop_next(std::size_t count) noexcept { answer_next(count, {.silent = true}); }
    /// Answers only after `pause`, from now on.
    void delay_answers(duration pause) noexcept { pause_ = pause; }
    /// The clock that `/ext/ntp` tells of is ahead by so much.
    void clock_offset(std::chrono::milliseconds ahead) noexcept { answers_.clock_offset = ahead.count(); }
    /// Sends an error on `/ext/error/...`; without a text it is the code's own.
    void push_error(aliyun::device const& d, int code, std::string text = {}) {
        if (text.empty()) text = detail::message_of(code);
        send("/ext/error/" + names_of(d), {{"id", next_id()}, {"code", code}, {"message", std::move(text)}});
    }

  private:
    static std::string names_of(aliyun::device const& d) { return d.product_key.str() + "/" + d.device_name.str(); }
    static std::string topic_of(aliyun::device const& d, std::string const& rest) {
        return "/sys/" + names_of(d) + rest;
    }
    static std::int64_t now() {
        auto const since = system_clock::now().time_since_epoch();
        return std::chrono::duration_cast<std::chrono::milliseconds>(since).count();
    }
    std::string next_id() { return std::to_string(++last_message_); }

    void set_hooks() {
        auto& hooks = this->hooks();
        hooks.on_publish = [this](client_info const& who, mqtt::publish const& m) { received(who, m); };
        hooks.on_disconnect = [this](std::string_view name) {
            if (auto* const gateway = records_.find(name))
                for (auto const& sub : gateway->sub_devices) records_.find(sub)->logged_in = false;
            if (on_disconnect) on_disconnect(name);
        };
        hooks.authorize_publish = [this, check = std::move(hooks.authorize_publish)](client_info const& who,
                                                                                     mqtt::publish const& m) {
            auto const verdict = check(who, m);
            if (verdict.reason == mqtt::reason_code::not_authorized) tell_of_missing_login(who.name, m.topic);
            return verdict;
        };
        this->rules().allows_besides = [this](std::string_view name, std::string_view topic) {
            auto* const gateway = records_.find(name);
            return gateway != nullptr &&
                   std::any_of(gateway->sub_devices.begin(), gateway->sub_devices.end(), [&](auto const& sub) {
                       auto const* const r = records_.find(sub);
                       return r != nullptr && r->logged_in && detail::is_topic_of(r->device, topic);
                   });
        };
    }

    void tell_of_missing_login(std::string_view name, std::string_view topic) {
        aliyun::topic_parts parts;
        if (parse_topic(topic, parts) != aliyun::errc::ok) return;
        auto const* const sub = records_.find(aliyun_name_of(parts.product_key, parts.device_name));
        if (sub != nullptr && sub->gateway == name) push_error(*this->rules().identities.find(name), 520);
    }

    void received(client_info const& who, mqtt::publish const& m) {
        if (on_message) on_message(who, m);
        if (is_answer(m)) return;
        auto answer = answers_.answer(who.name, m.topic, m.payload, now());
        if (!answer || !this->broker().is_open()) return;
        if (pause_ == duration::zero()) return send(*answer);
        calls_->later(pause_, [this, late = std::move(*answer)] { send(late); });
    }

    // Whether it is what a device answers to the platform, for whoever waits for it.
    bool is_answer(mqtt::publish const& m) {
        if (calls_->answered(m.topic, m.payload)) return true;  // RRPC: the topic is that of one request
        if (!m.topic.ends_with("_reply")) return false;
        auto const body = testing::detail::parsed(m.payload);
        return calls_->answered(std::string(m.topic) + ' ' + detail::text_of(body, "id"), m.payload);
    }

    void send(detail::aliyun_outgoing const& m) { this->publish(m.topic, m.payload, mqtt::qos::at_least_once); }
    void send(std::string topic, json const& payload) {
        send(detail::aliyun_outgoing{std::move(topic), payload.dump()});
    }

    json request_for(std::string method, json params) {
        return {{"id", next_id()}, {"version", "1.0"}, {"params", std::move(params)}, {"method", std::move(method)}};
    }

    // Sends a request and waits for the answer on the topic with `_reply`.
    awaitable<json> ask(std::string topic, std::string method, json params, duration timeout) {
        auto const request = request_for(std::move(method), std::move(params));
        auto key = topic + "_reply " + detail::text_of(request, "id");
        return parsed(exchange(std::move(topic), std::move(key), request.dump(), timeout));
    }

    awaitable<std::string> exchange(std::string topic, std::string key, std::string payload, duration timeout) {
        auto sending = [this, m = detail::aliyun_outgoing{std::move(topic), std::move(payload)}] {
            if (!this->broker().is_open()) throw std::system_error(asio::error::operation_aborted);
            send(m);
        };
        return calls_->wait(std::move(key), std::move(sending), timeout);
    }

    static awaitable<json> parsed(awaitable<std::string> answering) {
        auto const text = co_await std::move(answering);
        json answer;
        if (auto const e = aliyun::alink::parse(text, answer); e != aliyun::alink::errc::ok)
            throw std::runtime_error("the device's answer cannot be read (" + std::string(describe(e)) + "): " + text);
        co_return std::move(answer);
    }

    awaitable<json> ended(aliyun::device sub, awaitable<json> asking) {
        auto answer = co_await std::move(asking);
        thing(sub).logged_in = false;
        co_return std::move(answer);
    }
    awaitable<json> detached(aliyun::device sub, awaitable<json> asking) {
        auto answer = co_await std::move(asking);
        records_.detach(thing(sub));
        co_return std::move(answer);
    }

    // While a coroutine is suspended, others may write all of this, each in one step: the broker's hooks, what `calls_`
    // does later, and the user's calls. Who waits for a device does so in `calls_`, in which it has a share, and which
    // lets it go on only if this is there still.
    aliyun_records records_{};
    detail::aliyun_answers answers_;
    std::shared_ptr<detail::aliyun_calls<Executor>> calls_;
    duration pause_{0};
    std::uint64_t last_message_ = 0;
};

/// The usual one, with `asio::any_io_executor`.
using aliyun_cloud = basic_aliyun_cloud<>;

}  // namespace runnel::testing
