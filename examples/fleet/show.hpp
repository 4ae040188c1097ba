#pragma once

#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>

#include "figures.hpp"
#include "machine.hpp"
#include "plan.hpp"
#include "worker.hpp"
#include <csignal>
#include <cstdio>
#include <future>
#include <memory>
#include <vector>

namespace fleet {

/// Runs a whole fleet and tells how it goes: connecting, its time, the rest that is under way, the end.
template <class Transport>
class show {
  public:
    /// `make` constructs clients: see `worker`.
    template <class Make>
    show(plan const& p, Make make) : p_(p), memory_before_(resident_bytes()) {
        for (unsigned i = 0; i < p.threads; ++i) workers_.push_back(std::make_unique<worker<Transport>>(p, i, make));
    }

    /// True if nothing was lost and nothing failed.
    bool run() {
        listen_to_signals();
        begun_ = line_at_ = clock::now();
        for (auto& w : workers_) w->start(begun_);
        watch([this] { return all_are_there(); }, {});
        memory_ = resident_bytes();
        std::printf("%lld clients are there after %.2f s; %.1f KiB of this process each, %.1f s of processor time\n",
                    static_cast<long long>(all_.ready), since(begun_),
                    static_cast<double>(memory_ - std::min(memory_, memory_before_)) / 1024 / p_.count,
                    processor_seconds());
        if (p_.wait) each([](auto& w) { w.start_publishing(); });
        auto const working = clock::now();
        auto const processor_before = processor_seconds();
        watch([this] { return p_.publishes && all_have_published(); }, p_.duration);
        worked_ = since(working);
        processor_ = processor_seconds() - processor_before;
        each([](auto& w) { w.stop_publishing(); });
        interrupted_ = false;  // the second time, what is under way is given up
        watch([this] { return (!p_.publishes || all_have_published()) && all_.missing(p_) == 0; }, p_.drain_limit);
        each([](auto& w) { w.disconnect(); });
        for (auto& w : workers_) w->join();
        return sum_up();
    }

  private:
    bool all_are_there() const {
        auto const out = all_.gave_up + (p_.subscribes ? all_.failed : 0);
        return all_.ready + static_cast<std::int64_t>(out) >= p_.count;
    }
    bool all_have_published() const { return all_.finished >= all_.ready; }

    void listen_to_signals() {
        signals_.async_wait([this](std::error_code error, int) {
            if (error) return;
            interrupted_ = true;
            listen_to_signals();
        });
    }

    template <class F>
    void each(F f) {
        for (auto& w : workers_) f(*w);
    }

    // Gathers figures, and prints a line each second, until `done` is true, a limit (if it is not 0) is over, or the
    // user interrupts.
    template <class Done>
    void watch(Done done, std::chrono::seconds limit) {
        auto const end = clock::now() + limit;
        for (;;) {
            gather();
            if (done() || interrupted_) return;
            if (limit.count() != 0 && clock::now() >= end) return;
            io_.restart();
            io_.run_for(std::chrono::milliseconds(50));
        }
    }

    void gather() {
        std::vector<std::future<figures>> coming;
        for (auto& w : workers_) coming.push_back(w->take());
        for (auto& c : coming) {
            auto const one = c.get();
            all_.add(one);
            now_.add(one);
        }
        auto const now = clock::now();
        if (now - line_at_ < std::chrono::seconds(1)) return;
        print_line(p_, since(begun_), since(line_at_), now_, all_);
        line_at_ = now;
        now_ = {};
    }

    static double since(clock::time_point t) { return std::chrono::duration<double>(clock::now() - t).count(); }

    bool sum_up() {
        auto const per_second = [](std::uint64_t n, double seconds) {
            return seconds > 0 ? static_cast<double>(n) / seconds : 0;
        };
        auto const span = [&](clock::time_point last) {
            return std::chrono::duration<double>(last - all_.first_sent).count();
        };
        std::printf("\nconnected     %llu of %u, each after (p50/p99/p99.9) %s; %llu reconnects\n",
                    wide(all_.connecting.count()), p_.count, percentiles(all_.connecting).c_str(),
                    wide(all_.reconnects));
        if (p_.publishes && all_.sent > 0)
            std::printf("sent          %llu, %.0f a second\n", wide(all_.sent),
                        per_second(all_.sent, span(all_.last_sent)));
        if (all_.acknowledgement.count() > 0)
            std::printf("acknowledged  after %s\n", percentiles(all_.acknowledgement).c_str());
        if (p_.subscribes)
            std::printf("received      %llu, %.0f a second, %llu of them again\n", wide(all_.received),
                        per_second(all_.received, p_.publishes ? span(all_.last_received) : worked_),
                        wide(all_.repeated));
        if (all_.delivery.count() > 0) std::printf("              after %s\n", percentiles(all_.delivery).c_str());
        std::printf("processor     %.2f s in %.2f s\n", processor_, worked_);
        for (auto const& [error, n] : all_.errors)
            std::printf("error         %llu times: %s: %s\n", wide(n), error.category().name(),
                        error.message().c_str());
        auto const missing = all_.missing(p_);
        bool const again = all_.repeated > 0 && p_.qos == runnel::mqtt::qos::exactly_once;
        bool const good = missing == 0 && !again && all_.failed == 0 && all_.gave_up == 0 &&
                          all_.ready == static_cast<std::int64_t>(p_.count);
        std::printf("%s: %llu lost, %llu operations failed, %llu clients gave up\n", good ? "good" : "NOT GOOD",
                    wide(missing), wide(all_.failed), wide(all_.gave_up));
        return good;
    }

    plan const& p_;
    std::vector<std::unique_ptr<worker<Transport>>> workers_;
    asio::io_context io_{1};
    asio::signal_set signals_{io_, SIGINT, SIGTERM};
    bool interrupted_ = false;
    figures all_;
    figures now_;
    clock::time_point begun_;
    clock::time_point line_at_;
    std::uint64_t memory_before_;
    std::uint64_t memory_ = 0;
    double worked_ = 0;
    double processor_ = 0;
};

}  // namespace fleet
