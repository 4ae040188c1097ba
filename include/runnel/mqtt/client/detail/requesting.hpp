#pragma once

#include <runnel/core/random.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/digest/hex.hpp>
#include <runnel/mqtt/client/detail/operation.hpp>
#include <runnel/mqtt/client/detail/publishing.hpp>
#include <runnel/mqtt/client/detail/session_parts.hpp>
#include <runnel/mqtt/client/detail/subscribing.hpp>
#include <runnel/mqtt/client/message.hpp>
#include <runnel/mqtt/protocol/requests.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::mqtt::detail {

/// The part of a session that sends requests and waits for their responses (MQTT 5, 4.10): all through one response
/// topic of the session's own, told apart by their correlation data.
///
/// While a coroutine is suspended, here a request, its `requester` is in its frame. The reader writes `response` there,
/// and `requests` the state and the error; then it is woken. `response_topic_` is written by the one request that
/// subscribes, `prefix_` by CONNACK. After each wait a request calls `check` before all else: this object may be gone.
template <class Executor>
class requesting final : public requesting_part, private subscription_watcher {
  public:
    template <class T>
    using awaitable = asio::awaitable<T, Executor>;

    requesting(Executor const& executor, session_state const& state, publishing<Executor>& out,
               subscribing<Executor>& in)
        : state_(state), publishing_(out), subscribing_(in), waiting_(executor) {}
    requesting(requesting const&) = delete;
    requesting& operator=(requesting const&) = delete;
    ~requesting() override { operation::leave(operations_); }

    /// What the server proposes as the beginning of response topics (3.2.2.3.15).
    void on_response_information(std::string_view prefix) override { prefix_ = prefix; }

    /// See `session::request`.
    awaitable<message> request(std::string_view topic, std::string_view payload, std::chrono::milliseconds timeout,
                               publish_options o) {
        if (!state_.may_have_v5()) throw std::system_error(errc::unsupported_protocol_version);
        requester self(*this);
        auto asking = ask(self, topic, payload, o);
        auto limited = within(timeout, std::move(asking), errc::response_timeout);
        co_await std::move(limited);
        co_return std::move(self.response);
    }

    /// All who wait go on with an error.
    void close(std::error_code why) override { requests_.end(why, waking()); }

  private:
    using operation = operation_base<requesting>;

    // One who waits for a response. Without it there is no use in its message.
    struct requester : operation, requests::entry {
        explicit requester(requesting& r) : operation(&r, r.operations_) {
            correlation.resize(8);
            do fill_random(correlation.data(), correlation.size());
            while (!r.requests_.add(*this));
        }
        requester(requester const&) = delete;
        requester& operator=(requester const&) = delete;
        ~requester() {
            if (opening != nullptr) *opening = nullptr;
            if (this->of == nullptr) return;
            auto& part = *this->of;
            if (part.requests_.remove(*this, part.waking())) part.publishing_.withdraw(ticket.number);
        }
        // After each wait: throws if there is nothing to go on with.
        void check(std::error_code waited = {}) const {
            if (this->of == nullptr) throw std::system_error(errc::disconnected);
            if (this->error) throw ended(this->error, this->of->publishing_.end().get());
            if (waited) throw std::system_error(waited);
        }
        message response{};
        waiter<Executor> waiting{};
        publish_ticket ticket{};        // of the message
        requester** opening = nullptr;  // how `opener` knows it
    };

    // The one who subscribes, while it does. (As a context ends, the frames go in any order.)
    struct opener {
        explicit opener(requester& r) noexcept : self(&r) { r.opening = &self; }
        opener(opener const&) = delete;
        opener& operator=(opener const&) = delete;
        ~opener() {
            if (self == nullptr) return;
            self->opening = nullptr;
            if (self->of == nullptr) return;
            auto& all = self->of->requests_;
            opened ? all.opened(*self, self->of->waking()) : all.not_opened(*self, self->of->waking());
        }
        requester* self;
        bool opened = false;
    };

    auto waking() noexcept {
        return [this](requests::entry& e) { waiting_.wake(static_cast<requester&>(e).waiting); };
    }

    awaitable<void> ask(requester& self, std::string_view topic, std::string_view payload, publish_options o) {
        for (auto step = requests_.next(self); step != requests::step::send; step = requests_.next(self)) {
            if (step == requests::step::open) {
                auto opening = open(self);
                co_await std::move(opening);
                self.check();
            } else {
                co_await waiting_.wait(self.waiting);
                self.check(self.waiting.result);
            }
        }
        auto const response_topic = response_topic_;  // the next one may come while this waits for room
        properties props = o.props == nullptr ? properties{} : *o.props;
        props.response_topic = response_topic;
        props.correlation_data = self.correlation;
        o.props = &props;
        auto publishing = publishing_.publish(topic, payload, o, &self.ticket);
        co_await std::move(publishing);
        while (self.at == requests::stage::asked) {
            self.check();
            co_await waiting_.wait(self.waiting);
            self.check(self.waiting.result);
        }
        self.check();
    }

    // Subscribes to a response topic that nobody else knows.
    awaitable<void> open(requester& self) {
        opener opening(self);
        std::array<char, 16> unique;
        fill_random(unique.data(), unique.size());
        response_topic_ = prefix_.empty() ? "runnel/response" : prefix_;
        response_topic_ += '/' + digest::encode_hex(std::string_view(unique.data(), unique.size()));
        auto handler = [this](publish const& response) { answered(response); };
        std::string_view const filter = response_topic_;
        auto subscribed = subscribing_.subscribe({&filter, 1}, std::move(handler), {});
        auto const opened = co_await std::move(subscribed);
        if (self.of == nullptr) throw std::system_error(errc::disconnected);
        if (opened.closed() && opened.closed() != errc::disconnected) throw std::system_error(opened.closed());
        subscribing_.watch(opened, this);
        opening.opened = true;
    }

    void answered(publish const& response) {
        auto const correlation = response.props.get<property_id::correlation_data>();
        if (!correlation) return;
        auto copy = message::copy_of(response);  // what can fail comes first
        auto* const found = requests_.on_response(*correlation);
        if (found == nullptr) return;
        auto& r = static_cast<requester&>(*found);
        r.response = std::move(copy);
        try {
            waiting_.wake(r.waiting);
            publishing_.complete(r.ticket);  // the server may be longer about its acknowledgement
        } catch (...) {
            r.at = requests::stage::asked;  // so that it is told the end of `run`
            throw;
        }
    }

    // No response can come any more; the next request subscribes anew.
    void on_subscription_lost(std::error_code why) override { requests_.refused(why, waking()); }

    session_state const& state_;
    publishing<Executor>& publishing_;
    subscribing<Executor>& subscribing_;
    requests requests_{};
    wait_list<Executor> waiting_;
    list_link operations_{};
    std::string prefix_{};
    std::string response_topic_{};
};

}  // namespace runnel::mqtt::detail
