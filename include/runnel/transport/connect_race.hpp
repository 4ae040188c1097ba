#pragma once

#include <runnel/transport/waiter.hpp>

#include <asio/basic_waitable_timer.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/wait_traits.hpp>

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel {

/// An address that was tried, and why it could not be connected to.
struct connect_attempt {
    asio::ip::tcp::endpoint endpoint;
    std::error_code error;
};

/// None of a host's addresses could be connected to: the text names each with its error. The code is that of the last
/// one which failed otherwise than by being unreachable, if there is such a one: a host without IPv6 says "network is
/// unreachable" of every IPv6 address, and that is not the news.
class connect_failed : public std::system_error {
  public:
    connect_failed(std::string const& doing, std::vector<connect_attempt> attempts)
        : system_error(code_of(attempts), doing + describe(attempts)),
          attempts_(std::make_shared<std::vector<connect_attempt> const>(std::move(attempts))) {}

    /// The addresses, in the order in which they failed.
    std::vector<connect_attempt> const& attempts() const noexcept { return *attempts_; }

  private:
    static std::error_code code_of(std::vector<connect_attempt> const& attempts) noexcept {
        std::error_code code = asio::error::host_not_found;
        bool telling = false;
        for (auto const& [endpoint, error] : attempts) {
            bool const unreachable = error == asio::error::network_unreachable ||
                                     error == asio::error::host_unreachable ||
                                     error == asio::error::address_family_not_supported;
            if (telling && unreachable) continue;
            code = error;
            telling = !unreachable;
        }
        return code;
    }

    static std::string describe(std::vector<connect_attempt> const& attempts) {
        std::string text;
        for (auto const& [endpoint, error] : attempts)
            text += (text.empty() ? " (" : "; ") + endpoint.address().to_string() + ": " + error.message();
        return text.empty() ? text : text + ')';
    }

    std::shared_ptr<std::vector<connect_attempt> const> attempts_;  // so that copying throws nothing
};

/// The addresses in the order in which they are to be tried: the resolver's order, but the two address families in
/// turn, beginning with that of the first address (RFC 8305 4).
inline std::vector<asio::ip::tcp::endpoint> in_turns(std::vector<asio::ip::tcp::endpoint> const& endpoints) {
    std::vector<asio::ip::tcp::endpoint> result;
    std::size_t next[2] = {0, 0};
    bool v6 = !endpoints.empty() && endpoints.front().address().is_v6();
    while (result.size() < endpoints.size()) {
        std::size_t& i = next[v6 ? 1 : 0];
        while (i < endpoints.size() && endpoints[i].address().is_v6() != v6) ++i;
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
    using duration = std::chrono::steady_clock::duration;

    /// `open(socket, endpoint)` opens a socket that is to be connected, sets its options, and returns an error; called
    /// until the race is over. Throws `connect_failed`, whose text begins with `doing`, when every attempt has failed,
    /// and `operation_aborted` when it is cancelled.
    template <class Open>
    static asio::awaitable<socket_type, Executor> run(Executor executor, std::vector<endpoint_type> endpoints,
                                                      duration delay, Open open, std::string doing) {
        auto const s = std::make_shared<state>(std::move(executor));
        dropper const at_end{*s};
        s->sockets.reserve(endpoints.size());  // they must not move while they connect
        std::size_t started = 0;
        while (s->winner == none) {
            if (started < endpoints.size() && (s->running == 0 || s->next_is_due)) {
                start(s, endpoints[started], open);
                if (++started < endpoints.size()) {
                    s->timer.expires_after(delay);
                    s->timer.async_wait(handler{s, none, {}});
                }
            } else if (s->running == 0) {
                throw connect_failed(doing, std::move(s->failures));
            } else {
                co_await s->place.park(s->waiting);
                if (s->waiting.result) throw std::system_error(s->waiting.result);
            }
        }
        co_return std::move(s->sockets[s->winner]);
    }

  private:
    using timer_type =
        asio::basic_waitable_timer<std::chrono::steady_clock, asio::wait_traits<std::chrono::steady_clock>, Executor>;
    static constexpr std::size_t none = static_cast<std::size_t>(-1);

    // Shared with the handlers of what has been started, which may come when the race is over.
    struct state {
        explicit state(Executor executor) : place(std::move(executor)), timer(place.get_executor()) {}

        parking<Executor> place;
        timer_type timer;
        waiter<Executor> waiting;
        std::vector<socket_type> sockets;
        std::size_t running = 0;
        std::size_t winner = none;
        bool next_is_due = false;
        std::vector<connect_attempt> failures;
    };

    // Whatever way the race ends, nothing goes on.
    struct dropper {
        state& s;
        ~dropper() {
            s.timer.cancel();
            s.sockets.clear();
        }
    };

    // Of an attempt, or of the delay. One type for both, as each costs the user's compiler.
    struct handler {
        std::shared_ptr<state> s;
        std::size_t attempt;
        endpoint_type endpoint;

        void operator()(std::error_code error) const {
            if (error == asio::error::operation_aborted) return;  // the race is over, or the delay was cut short
            s->next_is_due = true;
            if (attempt != none) {
                --s->running;
                if (error)
                    s->failures.push_back({endpoint, error});
                else if (s->winner == none)
                    s->winner = attempt;
            }
            s->place.wake(s->waiting);
        }
    };

    template <class Open>
    static void start(std::shared_ptr<state> const& s, endpoint_type const& endpoint, Open& open) {
        s->next_is_due = false;
        auto& socket = s->sockets.emplace_back(s->place.get_executor());
        if (std::error_code const error = open(socket, endpoint)) {
            s->failures.push_back({endpoint, error});
            s->next_is_due = true;
            return;
        }
        ++s->running;
        socket.async_connect(endpoint, handler{s, s->sockets.size() - 1, endpoint});
    }
};

}  // namespace runnel
