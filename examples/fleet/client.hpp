#pragma once

#include <runnel/mqtt/client/session.hpp>

#include <asio/basic_waitable_timer.hpp>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/redirect_error.hpp>

#include "figures.hpp"
#include "plan.hpp"
#include <cstring>
#include <deque>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace fleet {

using executor = asio::io_context::executor_type;
using timer = asio::basic_waitable_timer<clock, asio::wait_traits<clock>, executor>;
template <class T>
using task = asio::awaitable<T, executor>;

/// What a message begins with, if it has room for it: who sent it and when.
struct stamp {
    char mark[8] = {'f', 'l', 'e', 'e', 't', ' ', '1', '\n'};
    std::int64_t sent_at = 0;  ///< of the steady clock, which all processes of a machine share
    std::uint64_t message = 0;
    std::uint64_t sender = 0;

    void write(std::string& payload) const { std::memcpy(payload.data(), this, sizeof *this); }
    bool read(std::string_view payload) {
        if (payload.size() < sizeof *this || std::memcmp(payload.data(), mark, sizeof mark) != 0) return false;
        std::memcpy(this, payload.data(), sizeof *this);
        return true;
    }
};

/// What the clients of one thread share. Only that thread uses it.
struct surroundings {
    explicit surroundings(plan const& all, executor e) : p(all), place(std::move(e)) {}

    plan const& p;
    figures now;
    bool started = false;   ///< publishing may begin
    bool stopping = false;  ///< publishing is to end
    runnel::wait_list<executor> place;
};

/// One device: a session, and what it does.
template <class Transport>
class client {
  public:
    using session_type = runnel::mqtt::session<Transport>;

    client(surroundings& here, executor e, unsigned index, Transport where, runnel::mqtt::session_options options,
           std::string topic, std::string filter)
        : here_(here),
          session_(e, std::move(where), watched(std::move(options))),
          index_(index),
          topic_(std::move(topic)),
          filter_(std::move(filter)) {
        if (here.p.publishes)
            for (unsigned i = 0; i < here.p.in_flight; ++i) ticks_.emplace_back(e);
    }
    client(client const&) = delete;
    client& operator=(client const&) = delete;

    /// Begins everything; it ends after `disconnect`, or when the session gives up.
    void start() {
        begun_at_ = clock::now();
        asio::co_spawn(session_.get_executor(), session_.run(), [this](std::exception_ptr error) {
            if (error) ++here_.now.gave_up;
            ended_ = true;
            stop_publishing();
        });
        asio::co_spawn(session_.get_executor(), live(), [](std::exception_ptr) {});
    }

    /// Lets those who wait for the time of their next message notice that publishing is to end.
    void stop_publishing() {
        for (auto& t : ticks_) t.cancel();
    }

    void disconnect() {
        asio::co_spawn(session_.get_executor(), session_.disconnect(), [](std::exception_ptr) {});
    }

  private:
    runnel::mqtt::session_options watched(runnel::mqtt::session_options options) {
        options.on_event = [this](runnel::mqtt::session_event const& event) { notice(event); };
        return options;
    }

    void notice(runnel::mqtt::session_event const& event) {
        using kind = runnel::mqtt::session_event::kind;
        auto& now = here_.now;
        if (event.what == kind::connected) {
            ++now.connected;
            connected_ = true;
            if (std::exchange(seen_, true))
                ++now.reconnects;
            else
                now.connecting.add(clock::now() - begun_at_);
        } else if (event.what == kind::disconnected) {
            if (std::exchange(connected_, false)) --now.connected;
            if (event.error) ++now.errors[event.error];
        }
    }

    task<void> live() {
        co_await session_.connected();
        std::error_code error;
        if (here_.p.subscribes) {
            auto handler = [this](runnel::mqtt::publish const& m) { receive(m); };
            auto subscribing = subscribe(std::move(handler), error);
            co_await std::move(subscribing);
        }
        if (error) co_return fail(error);
        ++here_.now.ready;
        if (!here_.p.publishes) co_return;
        if (!here_.started) {
            runnel::waiter<executor> w;
            co_await here_.place.wait(w);
        }
        // Those who have waited for each other do not publish at the same moment.
        auto const interval = here_.p.publish_interval;
        next_at_ = clock::now() + (here_.p.wait ? interval * index_ / here_.p.count : interval);
        loops_ = ticks_.size();
        for (auto& tick : ticks_)
            asio::co_spawn(session_.get_executor(), publish_on(tick), [this](std::exception_ptr) {
                if (--loops_ == 0) ++here_.now.finished;
            });
    }

    task<void> subscribe(typename session_type::message_handler handler, std::error_code& error) {
        auto subscribing = session_.subscribe(filter_, std::move(handler), {.maximum_qos = here_.p.qos});
        auto quiet = runnel::capture_error(std::move(subscribing), error);
        co_await std::move(quiet);
    }

    // One message after another, in turn with the client's other loops: each takes the next point in time.
    task<void> publish_on(timer& tick) {
        auto const& p = here_.p;
        std::string payload(p.size, 'x');
        while (!here_.stopping && !ended_ && begun_messages_ < p.limit_of(index_)) {
            ++begun_messages_;
            if (p.publish_interval.count() > 0) {
                tick.expires_at(next_at_);
                next_at_ += p.publish_interval;
                std::error_code ignored;
                auto waiting = tick.async_wait(asio::redirect_error(asio::use_awaitable_t<executor>{}, ignored));
                co_await std::move(waiting);
                if (here_.stopping || ended_) break;
            }
            auto const begun = clock::now();
            stamp s;
            s.sent_at = begun.time_since_epoch().count();
            s.message = ++messages_;
            s.sender = index_;
            if (payload.size() >= sizeof s) s.write(payload);
            std::error_code error;
            auto publishing = session_.publish(topic_, payload, {.qos = p.qos, .retain = p.retain}, error);
            co_await std::move(publishing);
            if (error) {
                fail(error);
                if (error == runnel::mqtt::errc::disconnected) break;
                continue;
            }
            auto const end = clock::now();
            auto& now = here_.now;
            ++now.sent;
            now.first_sent = std::min(now.first_sent, begun);
            now.last_sent = end;
            if (p.qos != runnel::mqtt::qos::at_most_once) now.acknowledgement.add(end - begun);
        }
    }

    void receive(runnel::mqtt::publish const& m) {
        auto& now = here_.now;
        ++now.received;
        now.last_received = clock::now();
        stamp s;
        if (!s.read(m.payload)) return;
        auto const under_way = now.last_received.time_since_epoch().count() - s.sent_at;
        now.delivery.add(std::chrono::nanoseconds(under_way));
        if (!here_.p.publishes || s.sender != index_) return;
        // Its own messages come in order, unless one comes again.
        if (s.message <= last_received_) ++now.repeated;
        last_received_ = std::max(last_received_, s.message);
    }

    void fail(std::error_code error) {
        ++here_.now.failed;
        ++here_.now.errors[error];
    }

    surroundings& here_;
    session_type session_;
    unsigned index_;
    std::string topic_;
    std::string filter_;
    std::deque<timer> ticks_;
    clock::time_point begun_at_;
    clock::time_point next_at_;
    std::size_t loops_ = 0;
    std::uint64_t begun_messages_ = 0;
    std::uint64_t messages_ = 0;
    std::uint64_t last_received_ = 0;
    bool connected_ = false;
    bool seen_ = false;
    bool ended_ = false;
};

}  // namespace fleet
