#pragma once

// The client's processes, one after another: a session, and an application that uses it in every way that there is.

#include <runnel/mqtt/client/session.hpp>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>

#include "simulation/checker.hpp"
#include "simulation/client_settings.hpp"
#include "simulation/network.hpp"
#include "simulation/store.hpp"
#include <algorithm>
#include <array>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace simulation {

/// What the user's code throws.
struct user_error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class client {
  public:
    using session = mqtt::session<transport>;
    template <class T>
    using awaitable = asio::awaitable<T, executor>;
    static constexpr std::size_t slots = client_slots, topics = 3;

    client(machine& m, network& n, checker& c, disk& d, executor e)
        : machine_(m), network_(n), checker_(c), disk_(d), executor_(e), settings_(draw_settings(m.random())) {
        auto const& o = settings_.options;
        m.log().say("MQTT %s, store %d, keep alive %d s, receive maximum %d, in flight %d, queued %d", version_name(),
                    has_store(), static_cast<int>(o.keep_alive.count()), o.receive_maximum, o.maximum_in_flight,
                    o.maximum_queued_messages);
        n.on_open = [this](link& l) { watch(l); };
        c.set_pace(o.pace);
        for (auto& s : slots_) {
            s.is_wanted = random().between(0, 3) != 0;
            s.has_handler = random().one_in(2);
        }
    }
    client(client const&) = delete;
    client& operator=(client const&) = delete;

    // --- the life of processes

    bool is_alive() const noexcept { return session_ != nullptr && process_ != dead_; }
    bool has_will() const noexcept { return settings_.options.will.has_value(); }
    bool has_store() const noexcept { return settings_.has_store; }
    milliseconds unrouted_timeout() const noexcept { return settings_.options.unrouted_timeout; }
    mqtt::protocol_version version() const noexcept { return settings_.options.version; }

    char const* version_name() const noexcept { return version() == mqtt::protocol_version::v5 ? "5" : "3.1.1"; }

    /// Nothing begins any more.
    void retire() noexcept { is_retired_ = true; }

    /// A process begins, unless the store cannot be read.
    void begin() {
        if (session_ || is_retired_) return;
        ++process_;
        store_ = std::make_shared<store>(machine_, disk_);
        set_store_fails(store_fails_);
        auto options = settings_.options;
        if (has_store()) options.store = store_;
        options.on_event = [this](mqtt::session_event const& e) { on_event(e); };
        try {
            session_ = std::make_unique<session>(executor_, transport(network_), std::move(options));
        } catch (std::system_error const& e) {
            if (!store_fails_) log().fail("the session cannot be made: %s", e.what());
            return;
        }
        log().say("process %zu begins, %zu messages restored", process_, session_->restored());
        checker_.process_begins();
        for (std::size_t i = 0; i < slots; ++i) {
            slots_[i].handle.reset();
            slots_[i].is_asking = false;
            slots_[i].is_wanted ? subscribe_some_time(i) : checker_.unsettle(i);
        }
        run();
    }
    /// A program may connect first, and subscribe then.
    void subscribe_some_time(std::size_t i) {
        if (random().one_in(2)) return subscribe(i);
        slots_[i].is_asking = true;
        machine_.after(milliseconds(random().between(1, 3'000)), [this, i, process = process_] {
            if (is_alive() && process == process_) subscribe(i);
        });
    }
    /// The session is destroyed, between two turns or at the end of an operation, and the process goes on.
    void destroy() {
        if (!is_alive()) return;
        log().say("the session is destroyed");
        store_->on_kill = nullptr;
        session_.reset();
        checker_.process_ends(checker::ending::destroyed, has_store(), !store_->fails);
        forget_handles();
    }
    /// The process ends in the middle of whatever it is doing, as by kill -9.
    void kill() {
        if (!is_alive()) return;
        log().say("the process is killed");
        dead_ = process_;
        store_->is_dead = true;
        store_->on_kill = nullptr;
        bool const tells = !random().one_in(4);
        network_.for_each([&](link& l) { l.kill(0, tells); });
        checker_.process_ends(checker::ending::killed, has_store(), false);
        machine_.next([this] { bury(); });
    }
    /// What a killed process leaves goes.
    void bury() {
        session_.reset();
        forget_handles();
        for (auto const& op : std::vector(pending_)) op->signal.emit(asio::cancellation_type::terminal);
    }
    void kill_at_next_write() {
        if (is_alive()) store_->on_kill = [this] { kill(); };
    }
    void set_store_fails(bool fails) {
        store_fails_ = fails;
        if (store_) store_->fails = fails;
        if (fails) store_failed_in_ = process_;
    }
    /// No faults any more, and the user's code does what it should.
    void calm_down() {
        is_calm_ = true;
        set_store_fails(false);
        if (store_) store_->on_kill = nullptr;
    }

    // --- operations

    void publish() {
        if (!is_alive()) return;
        auto const count = random().one_in(6) ? random().between(2, 12) : 1;
        for (std::size_t i = 0; i < count; ++i) {
            auto const quality = draw_quality();
            bool const waits = random().one_in(2);
            auto const size = random().one_in(8) ? random().between(0, 6'000) : random().between(0, 60);
            if (waits)
                start("publish", [=, this](op_ptr op) { return publish(std::move(op), quality, size); });
            else
                try_publish(quality, size);
        }
    }
    void request(milliseconds limit = {}) {
        if (is_alive() && version() == mqtt::protocol_version::v5)
            start("request", [=, this](op_ptr op) { return request(std::move(op), limit); });
    }
    void toggle_subscription() {
        if (!is_alive()) return;
        auto const i = random().between(0, slots - 1);
        auto& s = slots_[i];
        if (s.is_asking) return;
        if (!s.handle) return want(i);
        if (random().one_in(3)) {  // the last handle goes; with a handler it means nothing
            if (!s.has_handler) forget(i);
            return;
        }
        auto const handle = *s.handle;
        forget(i);
        start("unsubscribe", [=, this](op_ptr op) { return unsubscribe(std::move(op), i, handle); });
    }
    void want_all() {
        for (std::size_t i = 0; i < slots; ++i)
            if (is_alive() && slots_[i].is_wanted && !slots_[i].is_asking && !slots_[i].handle) subscribe(i);
    }
    void disconnect() {
        if (is_alive()) start("disconnect", [this](op_ptr op) { return disconnect(std::move(op)); });
    }
    void wait_drained() {
        if (is_alive()) start("drained", [this](op_ptr op) { return drained(std::move(op)); });
    }
    void wait_connected() {
        if (is_alive()) start("connected", [this](op_ptr op) { return connected(std::move(op)); });
    }
    void follow_events() {
        if (is_alive()) start("events", [this](op_ptr op) { return events(std::move(op)); });
    }
    void save() {
        if (!is_alive()) return;
        try {
            session_->save();
        } catch (std::system_error const& e) {
            if (!store_->fails) log().fail("save: %s", e.what());
        }
    }
    void discard();  // client_sending.hpp
    void cancel_one() {
        if (pending_.empty()) return;
        auto const op = pending_[random().between(0, pending_.size() - 1)];
        if (!is_calm_ && !op->is_cancelled) cancel(*op);
    }
    void subscribe_twice();  // client_receiving.hpp
    /// The server refuses subscriptions, or has done so.
    void is_refused() noexcept { may_be_refused_ = true; }
    void release_held() {
        held_next_ = static_cast<std::size_t>(-1);
        for (auto& [number, m] : std::exchange(held_, {})) checker_.taken(number);
    }

    /// Nobody may wait for room where there is: without a connection, and with nothing in the queue; or with so little
    /// that the largest of those who wait would fit. What is to be stored before has time until the next event.
    void check_room() {
        auto const& o = settings_.options;
        bool const is_bound_by_bytes = o.maximum_queued_messages == mqtt::session_options().maximum_queued_messages;
        if (!is_alive() || !is_bound_by_bytes || session_->is_connected() || store_failed_in_ == process_) return;
        std::size_t bytes = 0, begun = 0, largest = 0;
        for (auto const& m : session_->queued()) {
            bytes += m.size;
            begun += m.qos == mqtt::qos::at_least_once;
        }
        for (auto const& op : pending_) largest = std::max(largest, op->size);
        if (bytes != 0 && (has_store() || bytes + largest > o.maximum_queued)) return;
        for (auto const& op : pending_) {
            bool const is_old = lasted(*op) > 1s && op->process == process_;
            if (!is_old || op->quality < 0 || op->quality > 1 || (op->quality == 0 && bytes != 0)) continue;
            if (op->quality == 1 && begun != 0)
                --begun;  // it may be the one that is in the queue
            else
                log().fail("publish %zu waits for room, of which there is enough", op->id);
        }
    }

    // --- at the end

    /// Whether there is a subscription of this slot, so that the server must have it; or there was one, and it must
    /// not.
    bool has(std::size_t i) const { return slots_[i].handle.has_value(); }
    bool has_inbox(std::size_t i) const { return has(i) && !slots_[i].has_handler; }
    bool has_left(std::size_t i) const { return !has(i) && slots_[i].left_in == process_; }
    std::uint64_t connections() const { return is_alive() ? session_->counters().connections : 0; }
    bool is_answered() const noexcept { return is_answered_; }
    /// This message is not taken until `release_held`.
    void hold(std::size_t number) noexcept { held_next_ = number; }
    bool has_room_for_two() const noexcept { return settings_.options.receive_maximum >= 2; }
    /// Whether the last `disconnect` was on the last connection, and has completed without an error.
    bool is_disconnected_well() const noexcept { return is_disconnected_well_; }
    bool is_running() const noexcept { return is_running_; }
    bool is_connected() const noexcept { return is_alive() && session_->is_connected(); }
    std::size_t pending() const noexcept { return pending_.size(); }
    std::size_t pending(std::string_view name) const noexcept {
        return static_cast<std::size_t>(
            std::ranges::count_if(pending_, [=](auto const& op) { return op->name == name; }));
    }
    void tell_pending() {
        for (auto const& op : pending_) log().say("pending: %s %zu", op->name, op->id);
    }
    bool is_drained() const { return drained_ == process_; }
    void forget_drained() noexcept { drained_ = 0; }

    /// That a process has stood still for so long.
    void slept(nanoseconds time) noexcept {
        slept_ += time;
        woke_ = machine_.now() + time;
    }

  private:
    struct operation {
        std::size_t id;
        char const* name;
        std::size_t process;
        time_point begun;
        nanoseconds slept;  // by then
        milliseconds limit{0};
        bool is_cancelled = false;
        bool may_destroy = false;
        bool is_run = false;
        bool has_begun = false;  // of `run`: the session knows of it
        int ended = 0;
        int quality = -1;
        std::size_t size = 0;  // of a PUBLISH packet, at most
        asio::cancellation_signal signal{};
    };
    using op_ptr = std::shared_ptr<operation>;
    using subscription = session::subscription;

    struct slot {
        bool is_wanted = false;
        bool has_handler = false;
        bool is_asking = false;
        std::size_t left_in = 0;  // the process that has unsubscribed
        std::optional<subscription> handle;
        std::weak_ptr<operation> receiving;
    };

    random_source& random() noexcept { return machine_.random(); }
    trace& log() noexcept { return machine_.log(); }
    bool is_dead(operation const& op) const noexcept { return op.process <= dead_; }
    // Without the time that the machine has slept.
    nanoseconds lasted(operation const& op) const noexcept { return machine_.now() - op.begun - (slept_ - op.slept); }
    mqtt::qos draw_quality() { return static_cast<mqtt::qos>(random().between<int>(0, 2)); }
    bool is_unsteady() { return !is_calm_ && random().between(1, 1000) <= settings_.unsteadiness; }

    void watch(link& l) {
        if (!is_alive()) return l.kill(0, true);
        l.watch = checker_.watch_connection(version(), has_store());
        log().say("a connection opens");
    }

    void forget_handles() {
        for (auto& s : slots_) s.handle.reset();
        held_.clear();
    }

    // --- how operations begin and end

    template <class Make>
    op_ptr start(char const* name, Make make) {
        auto const op = std::make_shared<operation>(++operations_, name, process_, machine_.now(), slept_);
        op->may_destroy = !is_calm_ && random().one_in(200);
        pending_.push_back(op);
        asio::co_spawn(executor_, make(op),
                       asio::bind_cancellation_slot(op->signal.slot(),
                                                    [this, op](std::exception_ptr e) { ended(op, std::move(e)); }));
        return op;
    }
    void ended(op_ptr const& op, std::exception_ptr const& e) {
        std::erase(pending_, op);
        if (++op->ended != 1) log().fail("%s %zu ends twice", op->name, op->id);
        if (!is_dead(*op)) log().say("%s %zu has ended", op->name, op->id);
        try {
            if (e) std::rethrow_exception(e);
        } catch (std::system_error const& what) {
            judge(*op, what.code());  // cancelled before it has begun
        } catch (std::exception const& what) {
            if (!is_dead(*op)) log().fail("%s %zu throws: %s", op->name, op->id, what.what());
        }
        if (op->is_run) {
            is_running_ = false;
            if (op->has_begun && op->process == process_) run_ended_ = machine_.now();
            machine_.after(milliseconds(is_calm_ ? 1 : random().between(0, 3'000)), [this] { run(); });
        }
        if (op->may_destroy && !is_calm_ && op->process == process_) destroy();
    }

    // Whether an operation may end so.
    template <class... Errc>
    void judge(operation const& op, std::error_code e, Errc... may) {
        if (is_dead(op)) return;
        if (e) log().say("%s %zu: %s", op.name, op.id, e.message().c_str());
        bool const is_usual = !e || e == mqtt::errc::disconnected || ((e == may) || ...);
        bool const is_cancelled = op.is_cancelled && e == asio::error::operation_aborted;
        if (!is_usual && !is_cancelled && !is_of_store(e))
            log().fail("%s %zu ends with: %s", op.name, op.id, e.message().c_str());
        auto const took = lasted(op);
        if (op.limit.count() != 0 && took > op.limit + 1s)
            log().fail("%s %zu takes %lld ms", op.name, op.id, static_cast<long long>(took / 1ms));
    }
    static bool is_of_store(std::error_code e) {
        return e == std::errc::io_error || e == std::errc::no_space_on_device;
    }

    // --- run

    void run() {
        if (!is_alive() || is_running_) return;
        check_told();
        is_running_ = true;
        start("run", [this](op_ptr op) { return run(std::move(op)); })->is_run = true;
        want_all();
    }
    // All that was begun before the end of `run` has been told of it.
    void check_told() {
        if (machine_.now() - std::max(run_ended_, woke_) < 100ms) return;
        for (auto const& op : pending_) {
            std::string_view const name = op->name;
            bool const ends = name == "publish" || name == "subscribe" || name == "unsubscribe" || name == "drained" ||
                              name == "connected" || name == "request";
            if (ends && op->process == process_ && op->begun < run_ended_)
                log().fail("%s %zu has not been told the end of run", op->name, op->id);
        }
    }
    awaitable<void> run(op_ptr op) {
        std::error_code error;
        try {
            if (session_ && op->process == process_) {
                op->has_begun = !op->is_cancelled;  // or Asio throws at `co_await`
                auto running = session_->run();
                co_await std::move(running);
            }
        } catch (std::system_error const& e) {
            error = e.code();
        } catch (user_error const&) {
            log().say("run ends by the user's error");
        }
        judge(*op, error);
    }

    // --- client_sending.hpp

    awaitable<void> publish(op_ptr op, mqtt::qos quality, std::size_t size);
    mqtt::errc full() const;
    mqtt::errc discarded() const;
    void try_publish(mqtt::qos quality, std::size_t size);
    static std::string topic_name(std::size_t topic) { return "u/" + std::to_string(topic); }
    awaitable<void> request(op_ptr op, milliseconds limit);

    mqtt::properties draw_expiry();
    bool expires(std::size_t number, mqtt::properties const& p, bool waits);

    // --- client_receiving.hpp

    void want(std::size_t i);
    void forget(std::size_t i);
    void subscribe(std::size_t i);
    awaitable<void> subscribe(op_ptr op, std::size_t i);
    awaitable<void> subscribe_twice(op_ptr op, std::size_t i);
    mqtt::reason_code refused() const {
        using enum mqtt::reason_code;
        if (!may_be_refused_) return success;
        return version() == mqtt::protocol_version::v5 ? not_authorized : unspecified_error;
    }
    void cancel(operation& op) {
        log().say("cancels %s %zu", op.name, op.id);
        op.is_cancelled = true;
        op.signal.emit(asio::cancellation_type::terminal);
    }
    // How many connections there have been; nothing: there is one.
    std::optional<std::uint64_t> connections_if_offline() const {
        return session_->is_connected() ? std::nullopt : std::optional(connections());
    }
    void handle(std::size_t process, std::size_t i, mqtt::publish const& p);
    void receive(std::size_t i);
    awaitable<void> receive(op_ptr op, std::size_t i);
    awaitable<void> use(op_ptr op, std::size_t number, mqtt::message m);
    void fail_with(std::size_t number, mqtt::message m);
    awaitable<void> hold(mqtt::message& m);
    awaitable<void> unsubscribe(op_ptr op, std::size_t i, subscription s);

    // --- waiting, and the end

    awaitable<void> disconnect(op_ptr op) {
        if (!session_ || op->process != process_) co_return;
        log().say("disconnect %zu", op->id);
        auto const connection = session_->is_connected() ? checker_.connection() : 0;
        is_disconnected_well_ = false;
        try {
            auto ending = session_->disconnect();
            co_await std::move(ending);
            is_disconnected_well_ = connection != 0 && connection == checker_.connection();
            bool const counts = connection != 0 && !is_dead(*op) && op->process == process_;
            if (counts && !checker_.said_goodbye(connection))
                log().fail("disconnect %zu completes without an error, and has not been sent", op->id);
        } catch (std::system_error const& e) {
            if (!is_dead(*op)) log().say("disconnect %zu: %s", op->id, e.what());
        }
    }
    awaitable<void> drained(op_ptr op) {
        if (!session_ || op->process != process_) co_return;
        std::error_code error;
        try {
            auto waiting = session_->drained();
            co_await std::move(waiting);
            drained_ = op->process;
        } catch (std::system_error const& e) {
            error = e.code();
        }
        judge(*op, error);
    }
    awaitable<void> connected(op_ptr op) {
        if (!session_ || op->process != process_) co_return;
        std::error_code error;
        try {
            auto waiting = session_->connected(session_->counters().connections);
            co_await std::move(waiting);
        } catch (std::system_error const& e) {
            error = e.code();
        }
        judge(*op, error);
    }
    awaitable<void> events(op_ptr op) {
        if (!session_ || op->process != process_) co_return;
        std::error_code error;
        try {
            auto all = session_->events();
            for (;;) {
                auto next = all.next();
                co_await std::move(next);
            }
        } catch (std::system_error const& e) {
            error = e.code();
        }
        judge(*op, error);
    }

    // --- what the session tells

    void on_event(mqtt::session_event const& e) {
        if (!is_alive()) return;
        using enum mqtt::session_event::kind;
        log().say("event: %s", to_string(e).c_str());
        if (e.what == given_up) checker_.gave_up();
        if (e.what == subscription_lost && e.filter.starts_with("d/")) {
            auto const i = static_cast<std::size_t>(e.filter[2] - '0');
            checker_.unsettle(i);
            machine_.next([this, i, process = process_] {
                if (process == process_ && is_alive()) slots_[i].handle.reset();
            });
        }
        if (e.what == disconnected && e.error == mqtt::errc::keep_alive_timeout) check_silence();
        if (!is_calm_ && e.what == connected && random().one_in(100)) disconnect();
        if (e.what == disconnected && is_violation(e.error))
            log().fail("the connection ends with: %s", e.error.message().c_str());
    }
    // What moves is alive, as long as PINGREQ itself is under way.
    void check_silence() {
        if (machine_.now() - woke_ < 100ms) return;  // all that is due comes at once, in whatever order
        auto const three_quarters = settings_.options.keep_alive * 3 / 4.0;
        auto const limit = std::min<nanoseconds>(settings_.options.response_timeout,
                                                 std::chrono::duration_cast<nanoseconds>(three_quarters));
        network_.for_each([&](link& l) {
            if (l.is_moving(limit / 2)) log().fail("a connection is taken for dead on which bytes move");
        });
    }
    static bool is_violation(std::error_code e) {
        if (e.category() == make_error_code(mqtt::reason_code{}).category()) {
            using enum mqtt::reason_code;
            return e == protocol_error || e == malformed_packet || e == receive_maximum_exceeded ||
                   e == topic_alias_invalid || e == packet_too_large || e == packet_identifier_in_use;
        }
        if (e.category() != make_error_code(mqtt::errc{}).category()) return false;
        using enum mqtt::errc;
        if (e == receive_maximum_exceeded) return false;  // the session's own wish; else DISCONNECT says so
        return !(e == connect_timeout || e == close_timeout || e == keep_alive_timeout || e == disconnected);
    }

    machine& machine_;
    network& network_;
    checker& checker_;
    disk& disk_;
    executor executor_;
    settings const settings_;
    std::shared_ptr<store> store_;
    std::unique_ptr<session> session_;
    std::array<slot, slots> slots_;
    std::vector<std::pair<std::size_t, mqtt::message>> held_;
    std::vector<op_ptr> pending_;
    std::size_t operations_ = 0;
    std::size_t discards_ = 0;
    std::size_t process_ = 0;
    std::size_t dead_ = 0;     // the last process that was killed
    std::size_t drained_ = 0;  // the process of which `drained` has completed
    std::size_t store_failed_in_ = 0;
    nanoseconds slept_{0};
    bool is_running_ = false;
    bool store_fails_ = false;
    bool is_calm_ = false;
    bool is_retired_ = false;
    bool may_be_refused_ = false;
    bool is_answered_ = false;           // the last request
    bool is_disconnected_well_ = false;  // the last time
    time_point run_ended_{}, woke_{};
    std::size_t held_next_ = static_cast<std::size_t>(-1);
};

}  // namespace simulation

#include "simulation/client_receiving.hpp"
#include "simulation/client_sending.hpp"
