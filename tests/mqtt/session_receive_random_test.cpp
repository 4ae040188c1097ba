#include <runnel/mqtt/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/memory_store.hpp"
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// An application that takes, holds, gives back and lets go of messages at random, while connections, subscriptions and
// processes come and go: in the end somebody has had each message, and the server may send as much as before.

namespace {

using namespace std::chrono_literals;
namespace mqtt = runnel::mqtt;
using mqtt::qos;
using test::memory_session;
using test::task;

struct kind {
    mqtt::protocol_version version;
    qos quality;
    std::uint16_t receive_maximum;
    bool overlaps;  // a message is for two subscriptions; else the process is started anew at times
    unsigned seed;
};

class receiver {
  public:
    explicit receiver(kind const& k) : kind_(k), random_(k.seed) {
        begin();
        // The server knows all subscriptions from an earlier process.
        for (auto const filter : filters()) test::run(place_.io, test::only(session_->subscribe(filter)));
    }

    void run(int steps) {
        for (int i = 0; i < steps; ++i) step();
    }

    // All messages published must come to somebody who takes them now.
    void finish() {
        failing_ = false;
        for (auto& s : slots_)
            for (; s.pending; take_pending(s)) go_on();
        for (auto const& h : held_) note(h.m.view(), h.by);
        held_.clear();
        for (int i = 0; i < 2000 && !is_done(); ++i) {
            if (i % 20 == 19) place_.broker.drop_client("client");  // what was given back comes again
            go_on();
            for (std::size_t at = 0; at < slots_.size(); ++at) {
                auto& s = slots_[at];
                if (!has(at) && !s.pending) subscribe(at);
                take_pending(s);
                while (receive(at)) held_.clear();
            }
        }
        for (std::size_t n = 0; n < had_.size(); ++n) {
            CAPTURE(n);
            bool const once = kind_.quality == qos::exactly_once;
            std::size_t const total = had_[n][0] + had_[n][1] + had_[n][2] + had_[n][3];
            CHECK(total >= 1);
            if (once) CHECK(*std::ranges::max_element(had_[n]) <= 1);
        }
        CHECK(session_->counters().messages_unrouted == 0);
    }

  private:
    static constexpr std::size_t handler_at = 2;  // the slot whose subscription has a handler

    struct slot {
        std::optional<memory_session::subscription> handle;
        std::optional<task<memory_session::subscription>> pending;
    };
    struct held {
        mqtt::message m;
        std::size_t by;
    };

    std::vector<std::string_view> filters() const {
        return kind_.overlaps ? std::vector<std::string_view>{"m/0", "m/1", "m/2", "m/+"}
                              : std::vector<std::string_view>{"m/0", "m/1", "m/2"};
    }
    std::size_t below(std::size_t n) { return random_() % n; }
    bool one_in(std::size_t n) { return below(n) == 0; }

    void begin() {
        auto o = test::quick("client", kind_.version);
        if (kind_.version == mqtt::protocol_version::v5) o.session_expiry = 1h;
        o.receive_maximum = kind_.receive_maximum;
        o.unrouted_timeout = 24h;
        o.stalled_after = 1ms;
        o.store = store_;
        session_ = std::make_unique<memory_session>(place_.io.get_executor(), place_.transport, std::move(o));
        slots_ = std::vector<slot>(filters().size());
        has_handler_ = false;
        running_.emplace(place_.io, session_->run());
    }
    // What the process holds is acknowledged by nobody.
    void restart() {
        running_->cancel();
        test::wait_until(place_.io, [this] { return running_->done(); });
        session_.reset();
        held_.clear();
        begin();
    }

    bool has(std::size_t at) const { return at == handler_at ? has_handler_ : slots_[at].handle.has_value(); }

    void subscribe(std::size_t at) {
        auto const filter = filters()[at];
        if (at != handler_at) {
            slots_[at].pending.emplace(place_.io, session_->subscribe(filter));
            return;
        }
        has_handler_ = true;
        slots_[at].pending.emplace(place_.io, session_->subscribe(filter, [this](mqtt::publish const& m) {
            if (failing_ && one_in(10)) throw std::runtime_error("failed");
            note(m, handler_at);
        }));
    }
    void take_pending(slot& s) {
        if (!s.pending || !s.pending->done()) return;
        auto const at = static_cast<std::size_t>(&s - slots_.data());
        if (s.pending->error()) {
            if (at == handler_at) has_handler_ = false;
        } else if (at != handler_at) {
            s.handle = s.pending->get();
        }
        s.pending.reset();
    }

    void step() {
        auto const at = below(slots_.size());
        auto& s = slots_[at];
        take_pending(s);
        switch (below(16)) {
            case 0:
            case 1:
            case 2: return publish(1 + below(5));
            case 3:
            case 4:
                if (!has(at) && !s.pending) subscribe(at);
                return;
            case 5:
                if (one_in(3)) s.handle.reset();
                return;
            case 6:
            case 7:
            case 8: return static_cast<void>(receive(at));
            case 9:
            case 10:
            case 11:
            case 12: return let_go();
            case 13:
                if (one_in(3)) place_.broker.drop_client("client");
                return;
            case 14: return go_on();
            default:
                if (s.pending && at != handler_at && one_in(2)) s.pending->cancel();
                if (!kind_.overlaps && one_in(20)) return restart();
                return place_.settle();
        }
    }

    void publish(std::size_t n) {
        for (; n != 0; --n) {
            place_.broker.publish("m/" + std::to_string(below(3)), std::to_string(had_.size()), kind_.quality);
            had_.push_back({});
        }
    }
    void note(mqtt::publish const& m, std::size_t by) { ++had_[std::stoul(std::string(m.payload))][by]; }

    bool receive(std::size_t at) {
        if (!slots_[at].handle) return false;
        auto m = slots_[at].handle->try_receive();
        if (!m) return false;
        if (!failing_) note(m->view(), at);
        held_.push_back({std::move(*m), at});
        return true;
    }

    void let_go() {
        if (held_.empty()) return;
        auto const at = held_.begin() + static_cast<std::ptrdiff_t>(below(held_.size()));
        auto h = std::move(*at);
        held_.erase(at);
        switch (below(4)) {
            case 0: return h.m.abandon();
            case 1:
                try {
                    auto const unwound = std::move(h.m);
                    throw std::runtime_error("failed");
                } catch (std::runtime_error const&) {
                }
                return;
            case 2: note(h.m.view(), h.by); return h.m.acknowledge();
            default: note(h.m.view(), h.by);
        }
    }

    void go_on() {
        test::wait_until(place_.io, [] { return false; }, 3ms);
        if (!running_->done()) return;
        running_.emplace(place_.io, session_->run());  // the handler has failed
    }

    bool is_done() const {
        return std::ranges::all_of(had_, [](auto const& n) { return n[0] + n[1] + n[2] + n[3] > 0; });
    }

    kind kind_;
    std::mt19937 random_;
    test::memory_place place_;
    std::shared_ptr<test::memory_store> store_ = std::make_shared<test::memory_store>();
    std::unique_ptr<memory_session> session_;
    std::optional<task<void>> running_;
    std::vector<slot> slots_;
    std::vector<held> held_;
    std::vector<std::array<std::size_t, 4>> had_;  // of each message, by subscription
    bool has_handler_ = false;
    bool failing_ = true;
};

}  // namespace

constexpr std::uint16_t receive_maxima[] = {1, 3, 20, 65535};

TEST_CASE("somebody has had each message in the end, and one of QoS 2 once, whatever befalls those who receive it") {
    for (auto const version : test::versions)
        for (auto const quality : {qos::at_least_once, qos::exactly_once})
            for (std::uint16_t const receive_maximum : receive_maxima)
                for (bool const overlaps : {false, true})
                    for (unsigned seed = 0; seed < 4; ++seed) {
                        CAPTURE(version == mqtt::protocol_version::v5);
                        CAPTURE(quality == qos::exactly_once);
                        CAPTURE(receive_maximum);
                        CAPTURE(overlaps);
                        CAPTURE(seed);
                        receiver r({version, quality, receive_maximum, overlaps, seed});
                        r.run(400);
                        r.finish();
                    }
}
