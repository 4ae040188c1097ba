#pragma once

#include <runnel/core/random.hpp>
#include <runnel/digest/hex.hpp>
#include <runnel/mqtt/message.hpp>
#include <runnel/mqtt/pending.hpp>
#include <runnel/mqtt/publishing.hpp>
#include <runnel/mqtt/session_parts.hpp>
#include <runnel/mqtt/subscribing.hpp>
#include <runnel/transport/race.hpp>

#include <array>
#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>

namespace runnel::mqtt {

/// The part of a session that sends requests and waits for their responses (MQTT 5, 4.10): all through one response
/// topic of the session's own, told apart by their correlation data.
template <class Executor>
class requesting final : public requesting_part {
  public:
    template <class T>
    using awaitable = asio::awaitable<T, Executor>;

    requesting(Executor const& executor, session_options const& options, publishing<Executor>& out,
               subscribing<Executor>& in)
        : options_(options), publishing_(out), subscribing_(in), opening_(executor), unanswered_(executor) {}
    requesting(requesting const&) = delete;
    requesting& operator=(requesting const&) = delete;
    ~requesting() override { operation::leave(operations_); }

    /// What the server proposes as the beginning of response topics (3.2.2.3.15).
    void on_response_information(std::string_view prefix) override { prefix_ = prefix; }

    /// See `session::request`.
    awaitable<message> request(std::string_view topic, std::string_view payload, std::chrono::milliseconds timeout,
                               publish_options o) {
        if (options_.version != protocol_version::v5) throw std::system_error(errc::unsupported_protocol_version);
        requester self(*this);
        auto asking = ask(self, topic, payload, o);
        auto limited = within(timeout, std::move(asking), errc::response_timeout);
        co_await std::move(limited);
        co_return std::move(self.response);
    }

    /// All who wait go on with an error.
    void close(std::error_code why) override {
        opening_.wake_all(why);
        unanswered_.wake_all(why);
    }

  private:
    using operation = pending<requesting>;

    // One who waits for a response.
    struct requester : operation {
        explicit requester(requesting& r) : operation(&r, r.operations_) {
            do fill_random(correlation.data(), correlation.size());
            while (!r.requesters_.emplace(correlation, this).second);
        }
        ~requester() {
            if (this->of != nullptr) this->of->requesters_.erase(correlation);
        }
        std::string correlation = std::string(8, '\0');
        message response;
        waiter<Executor> waiting;
    };

    // Whoever waits for the subscription goes on afterwards, and tries itself if that has failed.
    struct opener : operation {
        explicit opener(requesting& r) : operation(&r, r.operations_) { r.is_opening_ = true; }
        ~opener() {
            if (this->of == nullptr) return;
            this->of->is_opening_ = false;
            this->of->opening_.wake_all({});
        }
    };

    awaitable<void> ask(requester& self, std::string_view topic, std::string_view payload, publish_options o) {
        while (!subscription_) {
            if (!is_opening_) {
                co_await open();
            } else {
                waiter<Executor> w;
                co_await opening_.park(w);
                if (w.result) throw std::system_error(w.result);
            }
            if (self.of == nullptr) throw std::system_error(errc::disconnected);
        }
        properties props = o.props == nullptr ? properties{} : *o.props;
        props.response_topic = response_topic_;
        props.correlation_data = self.correlation;
        o.props = &props;
        auto publishing = publishing_.publish(topic, payload, o);
        co_await std::move(publishing);
        while (!self.response) {
            co_await unanswered_.park(self.waiting);
            if (self.waiting.result) throw std::system_error(self.waiting.result);
        }
    }

    // Subscribes to a response topic that nobody else knows.
    awaitable<void> open() {
        opener const end(*this);
        std::array<char, 16> unique;
        fill_random(unique.data(), unique.size());
        response_topic_ = prefix_.empty() ? "runnel/response" : prefix_;
        response_topic_ += '/' + digest::encode_hex(std::string_view(unique.data(), unique.size()));
        auto handler = [this](publish const& response) { answered(response); };
        auto subscribed = subscribing_.subscribe_one(response_topic_, std::move(handler), {});
        auto opened = co_await std::move(subscribed);
        subscription_ = std::move(opened);
    }

    void answered(publish const& response) {
        auto const correlation = response.props.get<property_id::correlation_data>();
        if (!correlation) return;
        auto const found = requesters_.find(*correlation);
        if (found == requesters_.end() || found->second->response) return;
        found->second->response = message::copy_of(response);
        unanswered_.wake(found->second->waiting);
    }

    session_options const& options_;
    publishing<Executor>& publishing_;
    subscribing<Executor>& subscribing_;
    parking<Executor> opening_, unanswered_;
    list_link operations_;
    std::unordered_map<std::string_view, requester*> requesters_;  // by correlation data
    std::optional<basic_subscription<Executor>> subscription_;
    std::string prefix_;
    std::string response_topic_;
    bool is_opening_ = false;
};

}  // namespace runnel::mqtt
