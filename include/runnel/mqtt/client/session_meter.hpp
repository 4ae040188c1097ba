#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/metric.hpp>
#include <runnel/mqtt/client/session_event.hpp>
#include <runnel/transport/connect_progress.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel::mqtt {

/// The name of a kind of event, as a metric's attribute.
RUNNEL_COLD constexpr char const* name(session_event::kind kind) noexcept {
    switch (kind) {
        case session_event::kind::connecting: return "connecting";
        case session_event::kind::refused: return "refused";
        case session_event::kind::connected: return "connected";
        case session_event::kind::redirected: return "redirected";
        case session_event::kind::disconnected: return "disconnected";
        case session_event::kind::waiting: return "waiting";
        case session_event::kind::fallback: return "fallback";
        case session_event::kind::unacknowledged: return "unacknowledged";
        case session_event::kind::message_rejected: return "message_rejected";
        case session_event::kind::subscription_lost: return "subscription_lost";
        case session_event::kind::unrouted: return "unrouted";
        case session_event::kind::given_up: return "given_up";
        case session_event::kind::stalled: return "stalled";
        case session_event::kind::asking_again: return "asking_again";
        case session_event::kind::not_running: return "not_running";
    }
    return "unknown";
}

/// Adds a session's counters to a snapshot.
///
/// | name | unit | attributes |
/// |---|---|---|
/// | `runnel.mqtt.connections` | `{connection}` | |
/// | `runnel.mqtt.io` | `By` | `direction`: `receive`, `transmit` |
/// | `runnel.mqtt.writes` | `{write}` | |
/// | `runnel.mqtt.store.commits` | `{commit}` | |
/// | `runnel.mqtt.messages.` and `published`, `acknowledged`, `dropped` | `{message}` | |
/// | `runnel.mqtt.messages.` and `resent`, `received`, `unrouted` | `{message}` | |
/// | `runnel.mqtt.queued` | `By`, up and down | |
/// | `runnel.mqtt.messages.in_flight` | `{message}`, up and down | |
/// | `runnel.mqtt.round_trip` | `s`, a gauge; only once there has been an answer | |
///
/// What each means is said in `session_counters`. Where no kind is named it is a counter, whose name in Prometheus ends
/// with `_total`.
RUNNEL_COLD inline void add_metrics(metric_list& to, session_counters const& c) {
    using enum metric_kind;
    auto const add = [&](char const* name, char const* description, char const* unit, metric_kind kind,
                         std::uint64_t value, std::vector<metric_attribute> attributes = {}) {
        to.add({name, description, unit, kind, static_cast<double>(value), std::move(attributes)});
    };
    add("runnel.mqtt.connections", "Connections that the server has accepted.", "{connection}", counter, c.connections);
    constexpr auto io = "Bytes of MQTT, without the layers below.";
    add("runnel.mqtt.io", io, "By", counter, c.bytes_received, {{"direction", "receive"}});
    add("runnel.mqtt.io", io, "By", counter, c.bytes_sent, {{"direction", "transmit"}});
    add("runnel.mqtt.writes", "Writes to the connection; packets share them.", "{write}", counter, c.writes);
    add("runnel.mqtt.store.commits", "Commits of the store; messages share them.", "{commit}", counter, c.commits);
    add("runnel.mqtt.messages.published", "Messages accepted from the application.", "{message}", counter,
        c.messages_published);
    add("runnel.mqtt.messages.acknowledged", "Messages of QoS 1 and 2 that the server has taken or refused.",
        "{message}", counter, c.messages_acknowledged);
    add("runnel.mqtt.messages.dropped", "Messages of QoS 0 dropped as there was no room.", "{message}", counter,
        c.messages_dropped);
    add("runnel.mqtt.messages.resent", "Messages of QoS 1 and 2 sent again on a later connection.", "{message}",
        counter, c.messages_resent);
    add("runnel.mqtt.messages.received", "Messages received.", "{message}", counter, c.messages_received);
    add("runnel.mqtt.messages.unrouted", "Messages received and dropped, as no subscription wanted them.", "{message}",
        counter, c.messages_unrouted);
    add("runnel.mqtt.queued", "Packets that wait to be sent or acknowledged.", "By", up_down_counter, c.queued_bytes);
    add("runnel.mqtt.messages.in_flight", "Messages of QoS 1 and 2 sent and not acknowledged.", "{message}",
        up_down_counter, c.in_flight);
    if (c.round_trip.count() != 0)
        to.add({"runnel.mqtt.round_trip",
                "Time between the last CONNECT or PINGREQ and its answer.",
                "s",
                gauge,
                static_cast<double>(c.round_trip.count()) / 1e6,
                {}});
}

/// Counts a session's events, for metrics: attempts, failures by step and cause, losses by cause.
///
///     runnel::mqtt::session_meter meter;  // must outlive the session
///     options.on_event = [&](auto const& event) { meter.on_event(event); };
///     ...
///     runnel::metric_list list{{"session", "a"}};
///     add_metrics(list, session.counters());
///     meter.add_metrics(list);
///     serve(to_prometheus(list));
///
/// For one session, or several that are not to be told apart; in one thread.
class session_meter {
  public:
    /// How many pairs of step and cause are told apart; the others are counted as "other" of their step.
    static constexpr std::size_t maximum_causes = 64;

    /// Throws nothing and allocates nothing.
    RUNNEL_COLD void on_event(session_event const& e) noexcept {
        ++events_[static_cast<std::size_t>(e.what)];
        using enum session_event::kind;
        if (e.what == connected) is_connected_ = true;
        if (e.what != disconnected) return;
        is_connected_ = false;
        if (e.error) count(e.step, e.error);
    }

    /// From the event `connected` to `disconnected`. (When a session is destroyed no event tells of it.)
    bool is_connected() const noexcept { return is_connected_; }
    /// How often there has been an event of this kind.
    std::uint64_t count_of(session_event::kind kind) const noexcept { return events_[static_cast<std::size_t>(kind)]; }

    /// Adds to a snapshot:
    ///
    /// | name | unit | attributes |
    /// |---|---|---|
    /// | `runnel.mqtt.connected` | gauge: 1 or 0 | |
    /// | `runnel.mqtt.session.events` | `{event}` | `event`: the kinds of `session_event`; attempts are `connecting` |
    /// | `runnel.mqtt.connect.failures` | `{attempt}` | `step`: of `connect_step`; `error.type`: the error's message |
    /// | `runnel.mqtt.connection.losses` | `{connection}` | `error.type` |
    ///
    /// Nothing in it is text of the server's.
    RUNNEL_COLD void add_metrics(metric_list& to) const {
        to.add({"runnel.mqtt.connected",
                "Whether there is a connection that the server has accepted.",
                "",
                metric_kind::gauge,
                is_connected_ ? 1.0 : 0.0,
                {}});
        for (std::size_t i = 0; i < kinds; ++i)
            to.add({"runnel.mqtt.session.events",
                    "Events of the session.",
                    "{event}",
                    metric_kind::counter,
                    static_cast<double>(events_[i]),
                    {{"event", name(static_cast<session_event::kind>(i))}}});
        // Codes of several categories may have the same message.
        std::map<std::pair<connect_step, std::string>, std::uint64_t> sums;
        for (std::size_t i = 0; i < used_; ++i) sums[{causes_[i].step, causes_[i].error.message()}] += causes_[i].count;
        for (std::size_t i = 0; i < others_.size(); ++i)
            if (others_[i] != 0) sums[{static_cast<connect_step>(i), "other"}] += others_[i];
        for (auto const& [of, count] : sums) add_cause(to, of.first, of.second, count);
    }

  private:
    static constexpr std::size_t kinds = static_cast<std::size_t>(session_event::kind::not_running) + 1;
    static constexpr std::size_t steps = static_cast<std::size_t>(connect_step::accept) + 1;

    struct cause {
        connect_step step = connect_step::none;
        std::error_code error{};
        std::uint64_t count = 0;
    };

    void count(connect_step step, std::error_code error) noexcept {
        auto const end = causes_.begin() + static_cast<std::ptrdiff_t>(used_);
        auto const found =
            std::find_if(causes_.begin(), end, [&](auto const& c) { return c.step == step && c.error == error; });
        if (found != end)
            ++found->count;
        else if (used_ < maximum_causes)
            causes_[used_++] = {step, error, 1};
        else
            ++others_[static_cast<std::size_t>(step)];
    }

    RUNNEL_COLD static void add_cause(metric_list& to, connect_step step, std::string error, std::uint64_t count) {
        auto const value = static_cast<double>(count);
        metric_attribute type{"error.type", std::move(error)};
        if (step == connect_step::none)
            to.add({"runnel.mqtt.connection.losses",
                    "Connections lost, by cause.",
                    "{connection}",
                    metric_kind::counter,
                    value,
                    {std::move(type)}});
        else
            to.add({"runnel.mqtt.connect.failures",
                    "Attempts to connect that have failed, by step and cause.",
                    "{attempt}",
                    metric_kind::counter,
                    value,
                    {{"step", name(step)}, std::move(type)}});
    }

    std::array<std::uint64_t, kinds> events_{};
    std::array<cause, maximum_causes> causes_{};
    std::array<std::uint64_t, steps> others_{};
    std::size_t used_ = 0;
    bool is_connected_ = false;
};

}  // namespace runnel::mqtt
