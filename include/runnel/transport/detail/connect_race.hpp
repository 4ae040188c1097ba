#pragma once

#include <runnel/core/authority.hpp>
#include <runnel/core/clock.hpp>
#include <runnel/core/compiler.hpp>
#include <runnel/core/printable.hpp>
#include <runnel/core/saturating.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/coro/timer.hpp>
#include <runnel/coro/wait_list.hpp>
#include <runnel/transport/connect_failed.hpp>
#include <runnel/transport/connect_progress.hpp>

#include RUNNEL_ASIO_IP(tcp.hpp)
#include RUNNEL_ASIO(use_awaitable.hpp)

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel::detail {

/// The addresses in the order in which they are to be tried: the resolver's order, but the two address families in
/// turn, beginning with that of the first address (RFC 8305 4). Each once: what the system is told of a host may name
/// an address again.
RUNNEL_COLD inline std::vector<asio::ip::tcp::endpoint> in_turns(
    std::vector<asio::ip::tcp::endpoint> const& endpoints) {
    std::vector<asio::ip::tcp::endpoint> result;
    std::size_t next[2] = {0, 0};
    bool v6 = !endpoints.empty() && endpoints.front().address().is_v6();
    auto const is_due = [&](auto const& endpoint) {
        return endpoint.address().is_v6() == v6 && std::ranges::find(result, endpoint) == result.end();
    };
    while (next[0] < endpoints.size() || next[1] < endpoints.size()) {
        std::size_t& i = next[v6 ? 1 : 0];
        while (i < endpoints.size() && !is_due(endpoints[i])) ++i;
        if (i < endpoints.size()) result.push_back(endpoints[i++]);
        v6 = !v6;
    }
    return result;
}

/// Connects to one of several addresses of a host, whichever answers first ("Happy Eyeballs", RFC 8305 5). Attempts are
/// started one after another: the next one when the last one started has failed, or has not been answered within a
/// delay. The first to connect wins and the others are dropped.
template <class Executor>
class connect_race {
  public:
    using endpoint_type = asio::ip::tcp::endpoint;
    using socket_type = asio::basic_stream_socket<asio::ip::tcp, Executor>;
    using duration = std::chrono::milliseconds;  // of any length

    /// Where to connect to: addresses, or else the name of a host, or its address in the form of a text.
    struct target {
        std::vector<endpoint_type> endpoints{};
        std::string host{};
        std::uint16_t port;
        target(std::vector<endpoint_type> e) : endpoints(std::move(e)), port(0) {}
        target(std::string h, std::uint16_t p) : host(std::move(h)), port(p) {}
    };

    /// `open(socket, endpoint)` opens a socket that is to be connected, sets its options, and returns an error; called
    /// until the race is over. Throws an error of name resolution, `connect_failed`, whose text begins with `doing`,
    /// when every attempt has failed, and `operation_aborted` when it is cancelled. The result is made of the socket.
    ///
    /// Name resolution by the operating system cannot be interrupted; a cancelled call returns at once nevertheless,
    /// and the late answer is dropped.
    ///
    /// `progress`, which may be null, is told the steps and the address, and says which addresses come last, as they
    /// were of no use before, and how much time there is: see `connect_budget::spacing`.
    template <class Result = socket_type, class Open>
    RUNNEL_COLD static asio::awaitable<Result, Executor> run(Executor executor, target to, duration delay, Open open,
                                                             std::string doing, connect_progress* progress = nullptr) {
        auto const s = std::make_shared<state>(std::move(executor), delay);
        dropper const at_end{*s};
        if (progress != nullptr) progress->at(connect_step::resolve, "resolving " + printable(to.host));
        s->find(s, to);
        while (s->winner == none) {
            if (s->step(s, open, to.host, doing, progress)) continue;
            co_await s->waiters.wait(s->waiting);
            if (s->waiting.result) throw std::system_error(s->waiting.result);
        }
        if (progress != nullptr) s->tell_winner(*progress);
        co_return Result(std::move(s->winners_socket()));
    }

  private:
    using resolver_type = asio::ip::basic_resolver<asio::ip::tcp, Executor>;
    static constexpr std::size_t none = static_cast<std::size_t>(-1);

    // How `connect_progress` knows it. That two addresses share a number is as good as impossible, and harmless.
    RUNNEL_COLD RUNNEL_NOINLINE static std::uint64_t number_of(endpoint_type const& endpoint) {
        return std::hash<std::string_view>()({reinterpret_cast<char const*>(endpoint.data()), endpoint.size()});
    }

    // Shared with the handlers of what has been started, which may come when the race is over. While a coroutine is
    // suspended, here `run`, others may write this, each in one step:
    //
    // | member                                   | is written by                                                      |
    // |------------------------------------------|--------------------------------------------------------------------|
    // | `endpoints`, `not_found`, `is_resolving` | the resolver's handler, once; else `run`                           |
    // | `next_is_due`                            | the timer (`due`) and the handlers of attempts set it; `run`       |
    // |                                          | clears it (`step`)                                                 |
    // | `running`, `failures`                    | the handlers of attempts; `run` when it starts one (`step`)        |
    // | `winner`                                 | the handler of the first attempt that connects                     |
    // | `sockets`, `hopeful`, `delay`            | `run` alone                                                        |
    //
    // So `run` looks at all of it anew (`step`). What a handler writes behind the end of the race, nobody reads.
    struct state {
        RUNNEL_COLD RUNNEL_NOINLINE state(Executor executor, duration d)
            : waiters(std::move(executor)),
              delay_over(waiters.get_executor(), &due, this),
              resolver(waiters.get_executor()),
              delay(d) {}
        state(state const&) = delete;
        state& operator=(state const&) = delete;
        RUNNEL_COLD RUNNEL_NOINLINE ~state() = default;

        wait_list<Executor> waiters;
        timer<Executor> delay_over;
        resolver_type resolver;
        duration delay;
        waiter<Executor> waiting{};
        std::vector<endpoint_type> endpoints{};
        std::error_code not_found{};
        std::list<socket_type> sockets{};  // of the endpoints that have been started; they must not move meanwhile
        std::size_t hopeful = 0;           // the first endpoints; those behind them were of no use
        std::size_t running = 0;
        std::size_t winner = none;
        bool is_resolving = false;
        bool next_is_due = false;
        std::vector<connect_attempt> failures{};

        socket_type& winners_socket() noexcept {
            return *std::next(sockets.begin(), static_cast<std::ptrdiff_t>(winner));
        }

        RUNNEL_COLD static void due(void* of) {
            auto& self = *static_cast<state*>(of);
            self.next_is_due = true;
            self.waiters.wake(self.waiting);
        }

        RUNNEL_COLD void find(std::shared_ptr<state> const& self, target& to) {
            if (to.host.empty()) {
                endpoints = std::move(to.endpoints);
                return;
            }
            if (!may_be_host(to.host)) {
                not_found = asio::error::host_not_found;
                return;
            }
            asio_error_code no_address;
            auto const address = asio::ip::make_address(to.host, no_address);
            if (!no_address) {
                endpoints.push_back({address, to.port});
                return;
            }
            is_resolving = true;
            resolver.async_resolve(to.host, std::to_string(long{to.port}), asio::ip::resolver_base::numeric_service,
                                   handler{self, none, {}});
        }

        // The addresses are known.
        RUNNEL_COLD void prepare(connect_progress* progress) {
            hopeful = endpoints.size();
            if (progress == nullptr) return;
            auto const now = steady_clock::now();
            delay = std::chrono::floor<duration>(progress->budget.spacing(now, hopeful, clock_duration(delay)));
            for (auto const useless : progress->useless())
                for (std::size_t i = 0; i < hopeful; ++i) {
                    if (number_of(endpoints[i]) != useless) continue;
                    auto const last = endpoints[i];
                    for (; i + 1 < endpoints.size(); ++i) endpoints[i] = endpoints[i + 1];
                    endpoints[i] = last;
                    --hopeful;
                    break;
                }
        }

        // An address that was of no use in its share of the time has all that is left: it may only be slow.
        RUNNEL_COLD void tell_winner(connect_progress& progress) const {
            auto const& address = endpoints[winner];
            progress.connected_to(number_of(address));
            if (winner >= hopeful) return;
            std::size_t others = 0;
            for (std::size_t i = 0; i < hopeful; ++i)
                if (endpoints[i] != address &&
                    std::ranges::find(failures, endpoints[i], &connect_attempt::endpoint) == failures.end())
                    ++others;
            if (others != 0) progress.share_with_addresses(others, address.address().to_string(), steady_clock::now());
        }

        // Starts the next attempt if it is due. False: there is nothing to do but to wait.
        template <class Open>
        RUNNEL_COLD bool step(std::shared_ptr<state> const& self, Open& open, std::string const& host,
                              std::string const& doing, connect_progress* progress) {
            if (is_resolving) return false;
            if (not_found) throw std::system_error(not_found, "resolving " + printable(host));
            std::size_t const started = sockets.size();
            if (started == endpoints.size() && running == 0) throw connect_failed(doing, std::move(failures));
            if (started == endpoints.size() || (running != 0 && !next_is_due)) return false;
            if (started == 0) {
                if (progress != nullptr) progress->at(connect_step::connect, doing);
                prepare(progress);
            }
            next_is_due = false;
            auto const& endpoint = endpoints[started];
            auto& socket = sockets.emplace_back(waiters.get_executor());
            if (std::error_code const error = open(socket, endpoint)) {
                failures.push_back({endpoint, error});
                next_is_due = true;
            } else {
                ++running;
                socket.async_connect(endpoint, handler{self, started, endpoint});
            }
            if (sockets.size() < endpoints.size()) {
                delay_over.stop();
                auto const wait = hopeful == 0 || sockets.size() < hopeful ? delay : 4 * delay;
                delay_over.set(deadline_after(steady_clock::now(), wait));
            }
            return true;
        }
    };

    // Whatever way the race ends, nothing goes on.
    struct dropper {
        state& s;
        RUNNEL_COLD ~dropper() {
            if (s.is_resolving) s.resolver.cancel();
            s.delay_over.stop();
            s.sockets.clear();
        }
    };

    // Of an attempt, or of the resolver. One type for both, as each costs the user's compiler.
    struct handler {
        std::shared_ptr<state> s;
        std::size_t attempt;
        endpoint_type endpoint;

        RUNNEL_COLD void operator()(std::error_code error) const {
            if (error == asio::error::operation_aborted) return;  // the race is over
            s->next_is_due = true;
            --s->running;
            if (error)
                s->failures.push_back({endpoint, error});
            else if (s->winner == none)
                s->winner = attempt;
            s->waiters.wake(s->waiting);
        }
        RUNNEL_COLD void operator()(std::error_code error, typename resolver_type::results_type const& results) const {
            s->is_resolving = false;
            s->not_found = error;
            std::vector<endpoint_type> found;
            for (auto const& entry : results) found.push_back(entry.endpoint());
            s->endpoints = in_turns(found);
            s->waiters.wake(s->waiting);
        }
    };
};

}  // namespace runnel::detail
