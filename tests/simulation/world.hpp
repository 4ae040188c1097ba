#pragma once

// One run: a machine, a network, a broker and a client, what is done and what goes wrong, all drawn from a seed.

#include <runnel/testing/broker/broker.hpp>

#include "simulation/checker.hpp"
#include "simulation/client.hpp"
#include "simulation/machine.hpp"
#include "simulation/network.hpp"
#include "simulation/store.hpp"
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace simulation {

/// How a run has gone.
struct outcome {
    std::vector<std::string> failures;
    std::uint64_t hash = 0;   ///< of everything that has happened
    std::uint64_t turns = 0;  ///< of executors
    std::size_t messages = 0;
    std::chrono::seconds time{0};  ///< simulated
};

class world {
  public:
    world(std::uint64_t seed, bool prints) : machine_(seed, prints) {
        auto& r = machine_.random();
        network_.accept = [this](stream s) { accept(std::move(s)); };
        broker_options_.in_flight = r.one_in(2) ? r.between<std::uint16_t>(1, 10) : std::uint16_t{65535};
        begin_broker();
        change_weather();
        draw_actions();
    }
    world(world const&) = delete;
    world& operator=(world const&) = delete;

    outcome run() {
        auto const begin = machine_.now();
        try {
            go_on();
        } catch (std::exception const& e) {
            machine_.log().fail("an exception leaves the executor: %s", e.what());
        }
        outcome o;
        o.time = std::chrono::duration_cast<std::chrono::seconds>(machine_.now() - begin);
        end();
        o.failures = machine_.log().failures();
        o.hash = machine_.log().hash();
        o.turns = machine_.turns();
        o.messages = checker_.messages();
        return o;
    }

  private:
    using broker = runnel::testing::basic_broker<executor>;
    static constexpr std::uint64_t turn_limit = 3'000'000;

    struct action {
        char const* name;
        std::size_t weight;
        std::function<void()> act;
    };

    // --- the course of a run

    void go_on() {
        auto& r = machine_.random();
        client_.begin();
        auto const actions = r.between(50, 400);
        auto const longest = r.one_in(4) ? 20'000 : r.between<std::size_t>(10, 2'000);  // ms between two of them
        for (std::size_t i = 0; i < actions; ++i) {
            pass(microseconds(r.between(0, longest * 1'000)) / (r.one_in(2) ? 1 : 100));
            act();
            if (is_over()) return;
        }
        if (r.one_in(8)) return;  // the context ends in the middle
        settle();
    }
    bool is_over() {
        if (machine_.turns() > turn_limit) machine_.log().fail("no end of turns");
        return !machine_.log().failures().empty();
    }
    void pass(nanoseconds time) {
        auto const end = machine_.now() + time;
        while (machine_.now() < end && machine_.turns() <= turn_limit)
            if (!machine_.step(end)) break;
        advance_to(end);
    }
    // Lets time pass until something holds. False: it does not come to hold.
    template <class Condition>
    bool pass_until(Condition condition, nanoseconds limit) {
        auto const end = machine_.now() + limit;
        while (!condition()) {
            if (machine_.now() >= end || is_over()) return false;
            machine_.step(std::min(end, machine_.now() + 1s));
        }
        return true;
    }

    void act() {
        std::size_t all = 0;
        for (auto const& a : actions_) all += a.weight;
        auto n = machine_.random().between(0, all - 1);
        for (auto const& a : actions_) {
            if (n < a.weight) {
                machine_.log().say("action: %s", a.name);
                client_.check_room();
                return a.act();
            }
            n -= a.weight;
        }
    }

    // Of each kind there is much, little or nothing in a run.
    void draw_actions() {
        auto& r = machine_.random();
        auto const add = [&](char const* name, std::size_t usual, std::function<void()> f) {
            auto const weight = r.one_in(3) ? 0 : r.between(1, 2 * usual);
            if (weight != 0) actions_.push_back({name, weight, std::move(f)});
        };
        actions_.push_back({"publish", r.between(5, 60), [this] { client_.publish(); }});
        add("send", 30, [this] { send(); });
        add("request", 4, [this] { client_.request(); });
        add("subscribe", 5, [this] { client_.toggle_subscription(); });
        add("subscribe twice", 2, [this] { client_.subscribe_twice(); });
        add("refuse", 1, [this] { refuse(); });
        add("discard", 1, [this] { client_.discard(); });
        add("cancel", 10, [this] { client_.cancel_one(); });
        add("release", 5, [this] { client_.release_held(); });
        add("drained", 2, [this] { client_.wait_drained(); });
        add("connected", 2, [this] { client_.wait_connected(); });
        add("events", 1, [this] { client_.follow_events(); });
        add("save", 1, [this] { client_.save(); });
        add("disconnect", 2, [this] { client_.disconnect(); });
        add("destroy", 2, [this] { end_process(false); });
        add("kill", 2, [this] { end_process(true); });
        add("kill at a write", 2, [this] { kill_at_write(); });
        add("store", 2, [this] { store_fails(); });
        add("weather", 3, [this] { change_weather(); });
        add("reset", 4, [this] { for_one_link([](link& l) { l.reset(); }); });
        add("cut", 6, [this] { cut(); });
        add("stall", 4, [this] { stall(); });
        add("half open", 2, [this] { for_one_link([](link& l) { l.half_open(); }); });
        add("deaf", 2, [this] { deaf(); });
        add("broker", 2, [this] { restart_broker(); });
        add("hold acknowledgements", 2, [this] { hold(); });
        add("drop", 2, [this] { drop(); });
        add("sleep", 1, [this] { sleep(); });
        add("time of day", 1, [this] { shift(); });
    }

    // The faults end. Then the session connects, all is delivered, and it ends in good order.
    void settle() {
        auto& log = machine_.log();
        log.say("the faults end");
        is_calm_ = true;
        calm_weather();
        client_.calm_down();
        refuses_ = false;
        if (broker_) broker_->hold_acknowledgements(false);
        auto const ready = [&] {
            if (broker_ && !client_.is_alive()) client_.begin();
            client_.release_held();
            return broker_ && client_.is_connected() && checker_.is_settled();
        };
        // Where nobody subscribes again after a refusal, and the broker sends one at a time, each takes its time.
        if (!pass_until(ready, 30min + checker_.owed() * client_.unrouted_timeout())) {
            client_.tell_pending();
            checker_.finish(false);
            if (!is_over()) log.fail("the session does not come back");
            return;
        }
        try_out();
        if (is_over()) return;
        client_.forget_drained();
        auto const drained = [&] {
            if (client_.pending("publish") != 0) client_.forget_drained();  // what waits for room comes behind
            bool const waits = client_.is_drained() || client_.pending("drained") != 0;
            if (!waits && client_.is_running()) client_.wait_drained();
            return client_.is_drained();
        };
        if (!pass_until(drained, 10min)) return log.fail("the session is not drained");
        for (std::size_t i = 0; i < 4 * client::slots; ++i) send_to(i % client::slots, mqtt::qos::at_most_once, 3'000);
        client_.disconnect();
        client_.want_all();
        if (!pass_until([&] { return !client_.is_running(); }, 1min)) return log.fail("run does not end");
        client_.retire();
        client_.destroy();
        client_.release_held();
        pass(2min);  // by then the broker has noticed all connections that are gone
        if (client_.is_disconnected_well() && !checker_.has_ended_well())
            log.fail("disconnect has completed without an error, and DISCONNECT has not arrived");
        client_.tell_pending();
        if (client_.pending() != 0) log.fail("%zu operations do not end", client_.pending());
        checker_.finish(client_.has_will());
        if (broker_->counters().protocol_errors != silent_clients_) log.fail("the broker has found errors of protocol");
        broker_.reset();
        pass(10s);
        if (!machine_.is_idle()) log.fail("something goes on when all has ended");
    }
    // What a session must be able to do once all is well.
    void try_out() {
        pass(5s);  // the application lets go of what it holds (`client::hold`), and what waits leaves its inbox
        auto const is_asking = [&] {
            return client_.pending("subscribe") + client_.pending("unsubscribe") + client_.pending("subscribe twice") +
                       client_.pending("request") !=
                   0;
        };
        client_.want_all();
        if (!pass_until([&] { return !is_asking() && client_.is_connected(); }, 10min))
            return machine_.log().fail("subscribe, unsubscribe or request does not end");
        for (std::size_t i = 0; i < client::slots && !is_over(); ++i) try_slot(i);
        for (std::size_t i = 0; i < client::slots && !is_over(); ++i)
            if (client_.has_inbox(i) && client_.has((i + 1) % client::slots))
                return try_two(i, (i + 1) % client::slots);
    }
    // Lets time pass until something holds, which it must if the connection is alive: a ping tells. True: it is as it
    // was, and it does not hold.
    template <class Condition>
    bool is_missing(Condition condition) {
        auto const connections = client_.connections();
        bool const holds = pass_until(condition, 3min);
        return !holds && client_.is_connected() && client_.connections() == connections && !is_over();
    }
    void try_slot(std::size_t i) {
        auto [number, receivers] = send_to(i, mqtt::qos::at_most_once, 5'000);
        if (client_.has(i) != (receivers != 0)) {  // there may be a connection since just now
            pass(10s);
            std::tie(number, receivers) = send_to(i, mqtt::qos::at_most_once, 5'000);
        }
        bool const has = client_.has(i);
        if (!client_.is_connected()) return;
        if (has && receivers == 0) machine_.log().fail("slot %zu is subscribed, and the broker knows nothing of it", i);
        if (client_.has_left(i) && receivers != 0) machine_.log().fail("slot %zu is still subscribed at the broker", i);
        if (!has) return;
        if (is_missing([&, n = number] { return checker_.was_handed_over(n) || !client_.has(i); }))
            machine_.log().fail("d%zu does not arrive", number);
        if (client_.version() != mqtt::protocol_version::v5 || i != 0) return;
        auto const connections = client_.connections();
        client_.request(5min);
        bool const is_over_now = pass_until([&] { return client_.pending("request") == 0; }, 6min);
        bool const goes_on = client_.is_connected() && client_.connections() == connections;
        if (!is_over_now || (goes_on && !client_.is_answered())) machine_.log().fail("a request is not answered");
    }
    // A message that the application keeps does not hold up those of another subscription.
    void try_two(std::size_t first, std::size_t second) {
        if (!client_.has_room_for_two() || broker_options_.in_flight < 2) return;
        auto const kept = send_to(first, mqtt::qos::at_least_once, 0, true).first;
        if (is_missing([&] { return checker_.was_handed_over(kept); }))
            machine_.log().fail("d%zu is not handed over", kept);
        auto const other = send_to(second, mqtt::qos::at_least_once, 0).first;
        if (is_missing([&] { return checker_.was_acknowledged(other); }))
            machine_.log().fail("d%zu is held up by d%zu", other, kept);
        client_.release_held();
        pass_until([&] { return client_.is_connected() && checker_.is_settled(); }, 10min);
    }
    // Whatever there is goes, in the middle of things or not.
    void end() {
        client_.retire();
        client_.destroy();
        client_.bury();  // it may have been killed in this very turn
        broker_.reset();
        machine_.end();
    }

    // --- the broker

    void begin_broker() {
        broker_.emplace(server_, broker_options_);
        silent_clients_ = 0;
        auto& hooks = broker_->hooks();
        hooks.on_publish = [this](auto const&, mqtt::publish const& p) { received(p); };
        hooks.on_connect = [this](auto&) {
            checker_.connection_begins();
            return mqtt::reason_code::success;
        };
        hooks.authorize_subscribe = [this](auto const&, auto const&, mqtt::subscription_request const& r) {
            if (!refuses_) return static_cast<mqtt::reason_code>(r.maximum_qos);
            client_.is_refused();
            return mqtt::reason_code::not_authorized;
        };
        hooks.log = [this](std::string_view text) {
            machine_.log().say("broker: %.*s", static_cast<int>(text.size()), text.data());
            if (text.find("silent for longer") == std::string_view::npos) return;
            ++silent_clients_;
            checker_.connection_is_ended();
        };
        network_.now.refuses = false;
    }
    void accept(stream s) { broker_->attach(std::move(s)); }
    void received(mqtt::publish const& p) {
        if (p.topic == will_topic) return checker_.will_published();
        if (!p.topic.starts_with("q/")) return checker_.broker_received(p.payload, p.qos);
        auto const to = p.props.get<mqtt::property_id::response_topic>();
        if (!to) return;
        mqtt::properties props;
        props.correlation_data = p.props.get<mqtt::property_id::correlation_data>();
        auto const text = text_of('r', number_in_text('q', p.payload));
        mqtt::publish const response{.topic = *to, .payload = text, .qos = p.qos, .props = &props};
        broker_->publish(response);
    }
    void send() {
        if (!broker_ || network_.now.refuses) return;
        auto& r = machine_.random();
        auto const count = r.one_in(5) ? r.between(2, 20) : 1;
        for (std::size_t i = 0; i < count; ++i) {
            auto const slot = r.between(0, client::slots - 1);
            auto const quality = static_cast<mqtt::qos>(r.between<int>(0, 2));
            auto const longer = r.one_in(8) ? r.between(0, 6'000) : r.between(0, 60);
            send_to(slot, quality, longer);
        }
    }
    // Returns the message's number, and how many it goes to.
    std::pair<std::size_t, std::size_t> send_to(std::size_t slot, mqtt::qos quality, std::size_t longer,
                                                bool is_kept = false) {
        auto const number = checker_.send(slot, quality, longer);
        if (is_kept) client_.hold(number);
        auto const receivers = broker_->publish("d/" + std::to_string(slot), text_of('d', number, longer), quality);
        checker_.sent(number, receivers != 0);
        machine_.log().say("broker sends d%zu qos %d, %zu receivers", number, static_cast<int>(quality), receivers);
        return {number, receivers};
    }
    void refuse() {
        refuses_ = true;
        machine_.after(milliseconds(machine_.random().between(0, 5'000)), [this] { refuses_ = false; });
    }
    // It goes away, and comes back with its sessions or without.
    void restart_broker() {
        if (network_.now.refuses) return;
        auto& r = machine_.random();
        bool const keeps = !r.one_in(3);
        machine_.log().say("the broker goes, %s its sessions", keeps ? "with" : "without");
        network_.now.refuses = true;
        network_.for_each([](link& l) { l.reset(); });
        machine_.after(milliseconds(r.between(0, 10'000)), [this, keeps] {
            if (keeps) {
                network_.now.refuses = false;
                return;
            }
            broker_.reset();
            checker_.broker_lost_sessions();
            begin_broker();
            if (!is_calm_ && machine_.random().one_in(3)) refuse();  // to renew subscriptions
        });
    }
    void hold() {
        if (!broker_) return;
        broker_->hold_acknowledgements(true);
        machine_.after(milliseconds(machine_.random().between(0, 5'000)), [this] {
            if (broker_) broker_->hold_acknowledgements(false);
        });
    }
    void drop() {
        checker_.connection_is_ended();
        if (machine_.random().one_in(2))
            broker_->drop_client("c");
        else
            broker_->disconnect_client("c");
    }

    // --- the client's machine

    void end_process(bool kills) {
        kills ? client_.kill() : client_.destroy();
        machine_.after(milliseconds(machine_.random().between(0, 5'000)), [this] { client_.begin(); });
    }
    void kill_at_write() {
        client_.kill_at_next_write();
        machine_.after(milliseconds(machine_.random().between(2'000, 5'000)), [this] { client_.begin(); });
    }
    void store_fails() {
        client_.set_store_fails(true);
        machine_.after(milliseconds(machine_.random().between(0, 4'000)), [this] {
            client_.set_store_fails(false);
            client_.begin();
        });
    }
    void sleep() {
        auto const time = milliseconds(machine_.random().between(1, 100'000));
        client_.slept(time);
        machine_.sleep(time);
    }
    void shift() {
        auto const hours = std::chrono::hours(machine_.random().between<int>(0, 2000));
        checker_.time_is_set(hours - 1000h);
        shift_time_of_day(hours - 1000h);
    }

    // --- the network

    void change_weather() {
        auto& r = machine_.random();
        auto& w = network_.now;
        w.fastest = microseconds(r.between(1, 1'000));
        w.slowest = w.fastest + microseconds(r.one_in(3) ? r.between(0, 2'000'000) : r.between(0, 50'000));
        w.capacity = r.one_in(3) ? r.between(1, 500) : r.between(1'000, 100'000);
        w.largest_piece = r.one_in(3) ? r.between(1, 20) : r.between(100, 100'000);
    }
    void calm_weather() {
        network_.now.is_deaf = false;
        network_.now.fastest = microseconds(100);
        network_.now.slowest = microseconds(5'000);
        network_.now.capacity = 64 * 1024;
        network_.now.largest_piece = 64 * 1024;
        network_.for_each([](link& l) { l.cut_never(); });
    }
    template <class F>
    void for_one_link(F f) {
        std::vector<link*> all;
        network_.for_each([&](link& l) { all.push_back(&l); });
        if (!all.empty()) f(*all[machine_.random().between(0, all.size() - 1)]);
    }
    // At one of the next bytes.
    void cut() {
        for_one_link(
            [this](link& l) { l.cut_soon(machine_.random().between<int>(0, 1), machine_.random().between(0, 300)); });
    }
    void stall() {
        for_one_link([this](link& l) { l.stall(milliseconds(machine_.random().between(1, 30'000))); });
    }
    void deaf() {
        network_.now.is_deaf = true;
        machine_.after(milliseconds(machine_.random().between(0, 20'000)), [this] { network_.now.is_deaf = false; });
    }

    machine machine_;
    disk disk_;
    checker checker_{machine_.log(), disk_};
    executor client_executor_ = machine_.make_executor();
    executor server_ = machine_.make_executor();
    network network_{machine_, client_executor_, server_};
    runnel::testing::broker_options broker_options_;
    std::optional<broker> broker_;
    std::uint64_t silent_clients_ = 0;
    bool refuses_ = false;  // subscriptions
    client client_{machine_, network_, checker_, disk_, client_executor_};
    std::vector<action> actions_;
    bool is_calm_ = false;
};

/// A run of a seed, from begin to end.
inline outcome run_seed(std::uint64_t seed, bool prints) {
    begin_virtual_time(seed);
    struct at_end {
        ~at_end() { end_virtual_time(); }
    } const guard;
    world w(seed, prints);
    return w.run();
}

}  // namespace simulation
