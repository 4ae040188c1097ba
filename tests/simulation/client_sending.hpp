#pragma once

// How the application publishes and asks: a part of client.hpp, in a file of its own.

#include "simulation/client.hpp"
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace simulation {

inline client::awaitable<void> client::publish(op_ptr op, mqtt::qos quality, std::size_t size) {
    if (!session_ || op->process != process_) co_return;
    auto const topic = random().between(0, topics - 1);
    auto const number = checker_.publish(topic, quality);
    auto const name = topic_name(topic);
    auto const text = text_of('u', number, size);
    mqtt::publish_options o{.qos = quality};
    mqtt::properties const expiring = draw_expiry();
    if (expires(number, expiring, true)) o.props = &expiring;
    op->quality = static_cast<int>(quality);
    op->size = text.size() + 64;
    if (random().one_in(3)) o.timeout = op->limit = milliseconds(random().between(1, 5'000));
    if (random().one_in(20)) o.timeout = milliseconds::max(), op->limit = {};
    log().say("publish %zu: u%zu qos %d, %lld ms", op->id, number, static_cast<int>(quality),
              static_cast<long long>(o.timeout.count()));
    std::error_code error;
    auto publishing = session_->publish(std::string_view(name), std::string_view(text), o, error);
    co_await std::move(publishing);
    if (!is_dead(*op)) checker_.publish_ended(number, error);
    bool const is_late = error == mqtt::errc::response_timeout || error == mqtt::errc::message_expired;
    // In milliseconds, as the longest time is no number of nanoseconds.
    auto const took = std::chrono::duration_cast<milliseconds>(machine_.now() - op->begun);
    if (is_late && o.props == nullptr && took < o.timeout && !is_dead(*op))
        log().fail("publish %zu ends before its time", op->id);
    if (is_late && !is_calm_ && random().one_in(20)) machine_.next([this] { kill(); });
    if (o.timeout.count() == 0 && o.props == nullptr)
        judge(*op, error, mqtt::errc::session_lost, discarded(), full());
    else
        judge(*op, error, mqtt::errc::session_lost, discarded(), full(), mqtt::errc::message_expired,
              mqtt::errc::response_timeout);
}

// What an operation may end with, only now.
inline mqtt::errc client::discarded() const {
    return discards_ != 0 ? mqtt::errc::message_discarded : mqtt::errc::disconnected;
}
inline mqtt::errc client::full() const {
    return settings_.options.when_full == mqtt::overflow::refuse ? mqtt::errc::queue_full : mqtt::errc::disconnected;
}

inline void client::try_publish(mqtt::qos quality, std::size_t size) {
    auto const topic = random().between(0, topics - 1);
    auto const number = checker_.publish(topic, quality);
    mqtt::properties const expiring = draw_expiry();
    mqtt::publish_options o{.qos = quality};
    if (expires(number, expiring, false)) o.props = &expiring;
    std::error_code error;
    try {
        bool const is_taken = session_->try_publish(topic_name(topic), text_of('u', number, size), o);
        if (is_taken) checker_.accepted(number);
        log().say("try_publish: u%zu qos %d %s", number, static_cast<int>(quality), is_taken ? "taken" : "no room");
    } catch (std::system_error const& e) {
        error = e.code();
    }
    if (error && error != mqtt::errc::disconnected) log().fail("try_publish: %s", error.message().c_str());
}

// None, mostly.
inline mqtt::properties client::draw_expiry() {
    mqtt::properties p;
    if (settings_.expires && random().one_in(3)) p.message_expiry_interval = random().between<std::uint32_t>(1, 20);
    return p;
}
inline bool client::expires(std::size_t number, mqtt::properties const& p, bool waits) {
    if (!p.message_expiry_interval) return false;
    checker_.expires(number, std::chrono::seconds(*p.message_expiry_interval), waits);
    return true;
}

// One of the messages that wait.
inline void client::discard() {
    if (!is_alive()) return;
    auto const all = session_->queued();
    if (all.empty()) return;
    auto const& m = all[random().between(0, all.size() - 1)];
    log().say("discards a message to %s, qos %d", m.topic.c_str(), static_cast<int>(m.qos));
    checker_.discarded(m.topic, m.qos);
    ++discards_;
    try {
        session_->discard(m.number);
    } catch (std::system_error const& e) {
        if (!store_->fails) log().fail("discard: %s", e.what());
    }
}

inline client::awaitable<void> client::request(op_ptr op, milliseconds limit) {
    if (!session_ || op->process != process_) co_return;
    auto const text = text_of('q', op->id);
    op->limit = limit.count() != 0 ? limit : milliseconds(random().between(1, 8'000));
    log().say("request %zu: %lld ms", op->id, static_cast<long long>(op->limit.count()));
    std::error_code error;
    mqtt::publish_options const o{.qos = draw_quality()};
    auto const offline_since = connections_if_offline();
    auto requesting = session_->request(std::string_view("q/a"), std::string_view(text), op->limit, o, error);
    auto const response = co_await std::move(requesting);
    if (error && session_ && op->process == process_ && offline_since && offline_since == connections_if_offline())
        checker_.request_withdrawn(op->id);
    judge(*op, error, mqtt::errc::response_timeout, mqtt::errc::session_lost, discarded(), full(), refused());
    is_answered_ = !error || error == mqtt::errc::queue_full;  // which `judge` allows where that is so
    if (!error && response.payload() != text_of('r', op->id)) log().fail("request %zu gets another response", op->id);
}

}  // namespace simulation
