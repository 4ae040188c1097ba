#pragma once

#include <runnel/core/saturating.hpp>
#include <runnel/mqtt/codec/fixed_header.hpp>
#include <runnel/testing/broker/faults.hpp>
#include <runnel/testing/broker/options.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace runnel::testing::detail {

/// The faults that a test has asked for and that are still to happen, of all connections. Without a clock.
class packet_faults {
  public:
    /// `lose` and what follows in `fault` say what happens to a packet.
    struct fault {
        enum class kind : std::uint8_t { none, lose, delay, cut } what = kind::none;
        std::chrono::steady_clock::duration delay{};
        behind_delayed others = behind_delayed::wait;
        cut_point where = cut_point::before;
    };

    /// Counts what happens in `counters`.
    explicit packet_faults(broker_counters& counters) noexcept : counters_(counters) {}

    /// Throws `std::invalid_argument` if no such packet can come.
    void add(packet_selection of, fault what) {
        check(of);
        rules_.push_back({std::move(of), what});
    }
    void clear() noexcept { rules_.clear(); }

    bool empty() const noexcept { return rules_.empty(); }
    /// How many are to happen still, those without end included.
    std::size_t size() const noexcept { return rules_.size(); }

    /// What is to happen to this packet: what was asked for first. Those asked for later do not see it then.
    fault next(mqtt::role sender, mqtt::packet_type type, std::string_view client) {
        for (auto at = rules_.begin(); at != rules_.end(); ++at) {
            auto& of = at->of;
            if (of.sender != sender || (of.type && *of.type != type)) continue;
            if (!of.client.empty() && of.client != client) continue;
            if (of.skip != 0) {
                --of.skip;
                continue;
            }
            auto const what = at->what;
            if (of.count != 0 && --of.count == 0) rules_.erase(at);
            return what;
        }
        return {};
    }

    broker_counters& counters() noexcept { return counters_; }

  private:
    struct rule {
        packet_selection of{};
        fault what;
    };

    broker_counters& counters_;
    std::list<rule> rules_{};
};

/// One direction of a connection, where packets are lost, delayed, or the last. Without a clock.
class packet_gate {
  public:
    using time_point = std::chrono::steady_clock::time_point;

    packet_gate(packet_faults& faults, mqtt::role sender) noexcept : faults_(faults), sender_(sender) {}

    /// Whether all passes, so that nobody needs to look at it.
    bool is_open() const noexcept { return faults_.empty() && !holds() && !is_cut_; }
    /// Whether packets are delayed.
    bool holds() const noexcept { return !in_order_.empty() || !overtaken_.empty(); }
    /// Bytes of those.
    std::size_t held_bytes() const noexcept { return held_bytes_; }
    /// Whether the connection is to be cut: nothing passes any more.
    bool is_cut() const noexcept { return is_cut_; }

    /// When `release` is to be called.
    std::optional<time_point> next_release() const noexcept {
        if (!holds()) return {};
        if (in_order_.empty()) return overtaken_.begin()->first;
        if (overtaken_.empty()) return in_order_.front().due;
        return (std::min)(in_order_.front().due, overtaken_.begin()->first);
    }

    /// Takes one whole packet: `pass(packet)` is called at once if it goes its way at once. `client` is the name of the
    /// connection's client, empty as long as it has none.
    template <class Pass>
    void take(std::string_view packet, mqtt::packet_type type, std::string_view client, time_point now, Pass pass) {
        using kind = packet_faults::fault::kind;
        if (is_cut_) return;
        auto const fault = faults_.next(sender_, type, client);
        switch (fault.what) {
            case kind::none: go(packet, now, false, pass); break;
            case kind::lose: ++faults_.counters().packets_lost; break;
            case kind::cut: go(fault.where == cut_point::behind ? packet : std::string_view(), now, true, pass); break;
            case kind::delay: hold(packet, deadline_after(now, fault.delay), fault.others); break;
        }
    }

    /// Lets those go on whose time has come.
    template <class Pass>
    void release(time_point now, Pass pass) {
        while (!is_cut_) {
            auto const due = next_release();
            if (!due || *due > now) return;
            if (!in_order_.empty() && in_order_.front().due == *due) {
                auto const packet = std::move(in_order_.front());
                in_order_.pop_front();
                let_go(packet.bytes, pass);
                if (packet.cut) cut();
            } else {
                auto const packet = std::move(overtaken_.begin()->second);
                overtaken_.erase(overtaken_.begin());
                let_go(packet, pass);
            }
        }
    }

  private:
    struct held {
        time_point due;
        std::string bytes{};
        bool cut;  // behind it the connection
    };

    // Goes its way, behind what is held in order.
    template <class Pass>
    void go(std::string_view packet, time_point now, bool is_last, Pass& pass) {
        if (!in_order_.empty()) return keep(packet, (std::max)(now, in_order_.back().due), is_last);
        if (!packet.empty()) pass(packet);
        if (is_last) cut();
    }

    void hold(std::string_view packet, time_point due, behind_delayed others) {
        if (others == behind_delayed::wait)
            return keep(packet, in_order_.empty() ? due : (std::max)(due, in_order_.back().due), false);
        overtaken_.emplace(due, packet);
        count(packet);
    }
    void keep(std::string_view packet, time_point due, bool is_last) {
        in_order_.push_back({due, std::string(packet), is_last});
        count(packet);
    }
    void count(std::string_view packet) noexcept {
        held_bytes_ += packet.size();
        ++faults_.counters().packets_delayed;
    }

    template <class Pass>
    void let_go(std::string_view packet, Pass& pass) {
        held_bytes_ -= packet.size();
        if (!packet.empty()) pass(packet);
    }

    void cut() {
        is_cut_ = true;
        ++faults_.counters().connections_cut;
        in_order_.clear();
        overtaken_.clear();
        held_bytes_ = 0;
    }

    packet_faults& faults_;
    mqtt::role sender_;
    std::deque<held> in_order_{};
    std::multimap<time_point, std::string> overtaken_{};
    std::size_t held_bytes_ = 0;
    bool is_cut_ = false;
};

}  // namespace runnel::testing::detail
