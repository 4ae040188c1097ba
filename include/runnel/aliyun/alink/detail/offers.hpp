#pragma once

#include <runnel/aliyun/alink/detail/channel.hpp>
#include <runnel/aliyun/alink/protocol/download.hpp>
#include <runnel/core/clock.hpp>

#include <chrono>
#include <concepts>
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

namespace runnel::aliyun::alink::detail {

/// The part of a device that deals with what the platform offers for download: firmware and configurations.
template <message_session Session>
class offers : public channel<Session> {
  public:
    using base = channel<Session>;
    using typename base::handler;
    using typename base::raw_handler;
    template <class T>
    using awaitable = typename base::template awaitable<T>;

    offers(Session& session, aliyun::device const& who, alink::options o) : base(session, who, std::move(o)) {}

    // --- firmware over the air

    /// Tells the platform the version in use: of the device, or of one of its modules. It ends an upgrade.
    awaitable<json> report_version(std::string_view version, std::string_view module = {}) {
        json params = {{"version", version}};
        if (!module.empty()) params["module"] = module;
        return inform(this->topics().template of<topic_kind::ota_inform>().str(), params);
    }
    /// Tells the platform how far an upgrade is: 1 to 100 percent; -1 it has failed, -2 the download, -3 the check, -4
    /// the installation.
    awaitable<json> report_progress(int step, std::string_view text, std::string_view module = {}) {
        return inform(this->topics().template of<topic_kind::ota_progress>().str(), progress(step, text, module));
    }
    /// Asks for an upgrade; nothing if there is none.
    awaitable<std::optional<firmware>> query_firmware(std::string_view module = {}) {
        json params = json::object();
        if (!module.empty()) params["module"] = module;
        return decoded<firmware>(this->template request<topic_kind::ota_firmware_get>(params));
    }
    /// Handles an upgrade on offer: `awaitable<void>(firmware)`.
    template <std::invocable<firmware> Handler>
    void on_firmware(Handler h) {
        auto const take = [](json const& notice) {
            firmware f;
            json const* const data = find(notice, "data");
            refuse_unless_ok(data == nullptr ? errc::member_missing : decode(*data, f));
            return f;
        };
        this->handlers().set(topic_kind::ota_upgrade, {}, decoding(std::move(h), take));
    }

    /// Downloads a firmware: calls `awaitable<void> fetch(remote_file const&, pieces&)` for each file, which gets it by
    /// whatever means, keeps it, and hands its bytes to `pieces`, in order. Then size and digest are checked. The
    /// platform is told of the progress, each 10 percent, and of failures.
    ///
    /// Throws `errc::size_mismatch`, `errc::digest_mismatch`, and what `fetch` throws.
    template <class Fetch>
    awaitable<void> download(firmware what, Fetch fetch) {
        std::exception_ptr failure;
        int step = -2;
        try {
            auto fetching = fetch_all(what, fetch, step);
            co_await std::move(fetching);
        } catch (...) {
            failure = std::current_exception();
        }
        if (!failure) co_return;
        say_progress(step, step == -3 ? "the check has failed" : "the download has failed", what.module);
        std::rethrow_exception(failure);
    }

    // --- remote configuration

    /// Asks for the product's configuration; nothing if there is none.
    awaitable<std::optional<configuration>> get_configuration() {
        json const params = {{"configScope", "product"}, {"getType", "file"}};
        return decoded<configuration>(this->template request<topic_kind::config_get>(params));
    }
    /// Handles a new configuration: `awaitable<void>(configuration)`.
    template <std::invocable<configuration> Handler>
    void on_configuration(Handler h) {
        auto const take = [](json const& params) {
            configuration c;
            refuse_unless_ok(decode(params, c));
            return c;
        };
        this->handlers().set(topic_kind::config_push, {}, decoding(std::move(h), take));
    }
    /// Downloads a configuration, as the function for firmware does.
    template <class Fetch>
    awaitable<void> download(configuration what, Fetch fetch) {
        auto fetching = fetch_one(what.file, fetch, {});
        errc const e = co_await std::move(fetching);
        if (e != errc::ok) throw std::system_error(make_error_code(e));
    }

  protected:
    /// Milliseconds since 1970.
    static std::uint64_t now() noexcept {
        auto const time = system_clock::now().time_since_epoch();
        return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(time).count());
    }

    static void refuse_unless_ok(errc e) {
        if (e != errc::ok) throw refusal(static_cast<int>(errc::parameters_invalid), describe(e));
    }

    /// A handler that returns nothing answers with an empty object.
    template <class Handler>
    static handler answering(Handler h) {
        if constexpr (std::same_as<std::invoke_result_t<Handler&, json>, awaitable<json>>) {
            return h;
        } else {
            return decoding(std::move(h), [](json& params) { return std::move(params); });
        }
    }

    /// A handler that is given what `take` makes of the message.
    template <class Handler, class Take>
    static handler decoding(Handler h, Take take) {
        return [h = std::move(h), take](json message) mutable -> awaitable<json> {
            auto argument = take(message);
            auto handling = h(std::move(argument));
            co_await std::move(handling);
            co_return json::object();
        };
    }

  private:
    static json progress(int step, std::string_view text, std::string_view module) {
        json params = {{"step", std::to_string(step)}, {"desc", text}};
        if (!module.empty()) params["module"] = module;
        return params;
    }

    // Those topics have no replies, and no method.
    awaitable<json> inform(std::string topic, json const& params) {
        return this->send(std::move(topic), write(json{{"id", this->next_id()}, {"params", params}}));
    }

    void say_progress(int step, std::string_view text, std::string_view module) {
        auto const topic = this->topics().template of<topic_kind::ota_progress>();
        json const message = {{"id", this->next_id()}, {"params", progress(step, text, module)}};
        // Not worth waiting, nor failing, for.
        try {
            this->session().try_publish(topic.view(), write(message), {.qos = this->box().options.quality});
        } catch (std::system_error const& e) {
            this->box().report(e.code(), topic.view(), text);
        }
    }

    // An offer in the data of a reply. No data, or the code for that, is no offer.
    template <class Offer>
    awaitable<std::optional<Offer>> decoded(awaitable<json> request) {
        json data;
        try {
            data = co_await std::move(request);
        } catch (std::system_error const& e) {
            if (e.code() != errc::configuration_missing) throw;
        }
        if (data.empty()) co_return std::nullopt;
        Offer offer;
        if (errc const e = decode(data, offer); e != errc::ok) throw std::system_error(make_error_code(e));
        co_return std::optional<Offer>(std::move(offer));
    }

    template <class Fetch>
    awaitable<errc> fetch_one(remote_file const& file, Fetch& fetch, std::function<void(std::uint64_t)> advanced) {
        pieces out(file, std::move(advanced));
        auto fetching = fetch(file, out);
        co_await std::move(fetching);
        co_return out.finish();
    }

    // `step` is what to tell the platform if it fails.
    template <class Fetch>
    awaitable<void> fetch_all(firmware const& what, Fetch& fetch, int& step) {
        std::uint64_t const total = what.size();
        std::uint64_t before = 0;
        int told = 0;
        for (auto const& file : what.files) {
            auto advanced = [&](std::uint64_t bytes) {
                int const percent = total == 0 ? 100 : static_cast<int>((before + bytes) * 100 / total);
                if (percent < told + 10 && percent != 100) return;
                if (percent == told) return;
                told = percent;
                say_progress(percent, "downloading", what.module);
            };
            auto fetching = fetch_one(file, fetch, advanced);
            errc const e = co_await std::move(fetching);
            before += file.size;
            if (e == errc::ok) continue;
            step = -3;
            throw std::system_error(make_error_code(e));
        }
    }
};

}  // namespace runnel::aliyun::alink::detail
