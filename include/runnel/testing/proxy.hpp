#pragma once

#include <runnel/core/authority.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/coro/wait_list.hpp>
#include <runnel/testing/detail/accept_loop.hpp>
#include <runnel/testing/detail/stoppable.hpp>
#include <runnel/transport/proxy/protocol/http_connect.hpp>
#include <runnel/transport/proxy/protocol/socks5.hpp>
#include <runnel/transport/tcp.hpp>

#include RUNNEL_ASIO_IP(tcp.hpp)

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::testing {

/// How a proxy is to behave.
struct proxy_options {
    /// What clients must know, if the user name is not empty.
    std::string user_name = {};
    std::string password = {};
    /// If the host is not empty, every connection is passed on there, without a protocol of proxies: for putting the
    /// faults below between any client and any server.
    std::string forward_to_host = {};
    std::uint16_t forward_to_port = 0;
};

/// What a proxy does to the connections that it carries. May be changed at any time.
struct proxy_faults {
    static constexpr std::size_t unlimited = (std::numeric_limits<std::size_t>::max)();
    enum class action {
        reset,     ///< both sides get a TCP reset
        truncate,  ///< both sides get the end of the flow, as if all were well
        stall,     ///< nothing more comes through, and nobody is told
    };

    /// The bytes that each connection carries, both directions together, before `then` happens to it.
    std::size_t bytes = unlimited;
    action then = action::reset;
    /// The most that each direction of each connection carries in a second; 0: without limit.
    std::size_t bytes_per_second = 0;
    /// New connections are reset at once.
    bool refuse = false;
};

/// A proxy inside the process, for tests and demonstrations: HTTP CONNECT and SOCKS5 on one port, which it tells apart
/// by the first byte, or plain forwarding; with means to make it misbehave. Listens on 127.0.0.1 only.
///
///     runnel::testing::proxy proxy{io.get_executor()};
///     std::uint16_t port = proxy.listen();
///
/// Not thread-safe: all of it runs on the executor. Its work keeps the execution context running until `close`, which
/// destroying it does.
template <class Executor = asio::any_io_executor>
class basic_proxy {
  public:
    using executor_type = Executor;

    explicit basic_proxy(Executor executor, proxy_options options = {})
        : state_(std::make_shared<shared>(std::move(executor), std::move(options))) {}
    basic_proxy(basic_proxy const&) = delete;
    basic_proxy& operator=(basic_proxy const&) = delete;
    ~basic_proxy() { close(); }

    /// Listens on 127.0.0.1; port 0 stands for any that is free. Returns the port. Throws `std::system_error` if it is
    /// taken.
    std::uint16_t listen(std::uint16_t port = 0) {
        auto acceptor = detail::listening(state_->executor, port);
        auto const actual = acceptor.local_endpoint().port();
        auto const l = std::make_shared<link>(state_->executor);
        state_->start(l, detail::accept_loop(
                             std::move(acceptor), [l] { return l->stopped; },
                             [self = state_](socket_type socket) { accepted(self, std::move(socket)); }));
        return actual;
    }

    /// Ends the listeners and cuts all connections; what runs ends in the next turns of the executor.
    void close() {
        for (auto const& l : state_->links) {
            l->stopped = true;
            l->stop();
        }
    }

    /// Cuts all connections with a TCP reset; the listeners go on.
    void reset_connections() {
        for (auto const& l : state_->links) {
            if (!l->is_connection) continue;
            l->reset = true;
            l->stop();
        }
    }

    proxy_faults& faults() noexcept { return state_->faults; }
    proxy_options const& options() const noexcept { return state_->options; }

    /// Connections accepted so far, tunnels opened, requests refused, and bytes carried.
    std::size_t connections() const noexcept { return state_->connections; }
    std::size_t tunnels() const noexcept { return state_->tunnels; }
    std::size_t refused() const noexcept { return state_->refused; }
    std::size_t bytes() const noexcept { return state_->bytes; }
    /// The host and port asked for last, as in a URL.
    std::string const& last_target() const noexcept { return state_->last_target; }

  private:
    using socket_type = asio::basic_stream_socket<asio::ip::tcp, Executor>;
    using stream_type = asio_stream<socket_type>;
    template <class T>
    using awaitable = asio::awaitable<T, Executor>;

    // A coroutine that runs, and how to stop it. A connection has two more, one for each direction (`pump`): each reads
    // from one stream and writes to the other, so that each stream has one reader and one writer. While a coroutine is
    // suspended, others may write `carried`, `directions_ended` (the other direction) and `reset` (the user, too);
    // `waiting[i]` is that of direction i. The user may change the faults at any time: each block looks at them.
    struct link : detail::stoppable {
        explicit link(Executor executor) : waiters(std::move(executor)) {}

        wait_list<Executor> waiters;
        bool is_connection = false;
        bool stopped = false;
        bool reset = false;
        std::size_t carried = 0;
        std::size_t directions_ended = 0;
        waiter<Executor> waiting[2];
    };

    // What outlives the proxy until the last coroutine has ended.
    struct shared : std::enable_shared_from_this<shared> {
        shared(Executor e, proxy_options o) : executor(std::move(e)), options(std::move(o)) {}

        void start(std::shared_ptr<link> const& l, awaitable<void> coroutine) {
            links.insert(l);
            detail::stoppable::start(l, executor, std::move(coroutine),
                                     [self = this->shared_from_this(), l] { self->links.erase(l); });
        }

        Executor executor;
        proxy_options options;
        proxy_faults faults{};
        std::set<std::shared_ptr<link>> links{};
        std::size_t connections = 0;
        std::size_t tunnels = 0;
        std::size_t refused = 0;
        std::size_t bytes = 0;
        std::string last_target{};
    };

    using shared_ptr = std::shared_ptr<shared>;
    using link_ptr = std::shared_ptr<link>;

    struct target {
        std::string host{};
        std::uint16_t port = 0;
        bool socks = false;
        std::string early{};  // of the tunnel, sent behind the request without waiting
    };

    static void accepted(shared_ptr const& self, socket_type socket) {
        ++self->connections;
        auto const l = std::make_shared<link>(self->executor);
        l->is_connection = true;
        l->reset = self->faults.refuse;
        self->start(l, serve(self, l, stream_type(std::move(socket))));
    }

    static awaitable<void> serve(shared_ptr self, link_ptr l, stream_type client) {
        std::optional<stream_type> server;
        try {
            if (!l->reset) {
                auto opening = open_tunnel(*self, client, server);
                auto early = co_await std::move(opening);
                if (server) {
                    ++self->tunnels;
                    auto there = pump(*self, *l, 0, client, *server, std::move(early));
                    auto back = pump(*self, *l, 1, *server, client, {});
                    co_await race(l->waiters, std::move(there), std::move(back));
                }
            }
        } catch (std::system_error const&) {  // of either side: both end
        }
        if (!l->reset) co_return;
        reset(client);
        if (server) reset(*server);
    }

    static void reset(stream_type& stream) {
        asio_error_code ignored;
        stream.next_layer().set_option(asio::socket_base::linger(true, 0), ignored);
        stream.next_layer().close(ignored);  // the destructor would not reset
    }

    // Finds out where the client wants to go, connects, and answers. Leaves `server` empty if that is refused.
    static awaitable<std::string> open_tunnel(shared& self, stream_type& client, std::optional<stream_type>& server) {
        target t{self.options.forward_to_host, self.options.forward_to_port, false, {}};
        bool const plain = !t.host.empty();
        if (!plain) {
            auto asking = read_request(self, client, t);
            co_await std::move(asking);
            if (t.host.empty()) {
                ++self.refused;
                co_return std::string();
            }
        }
        self.last_target = authority_of(t.host, t.port);
        basic_tcp<Executor> way;
        way.host = t.host;
        way.port = t.port;
        auto opening = way.open(self.executor);
        bool there = true;
        try {
            server.emplace(co_await std::move(opening));
        } catch (std::system_error const& e) {
            if (e.code() == asio::error::operation_aborted) throw;
            there = false;
        }
        if (!plain) {
            socks5_server socks(false);
            socks.reply(there ? 0 : 5);
            auto answer = t.socks ? socks.take_output()
                          : there ? http_connect_server::answer(200, "Connection established")
                                  : http_connect_server::answer(502, "Bad Gateway");
            auto writing = send(client, std::move(answer));
            co_await std::move(writing);
        }
        co_return std::move(t.early);
    }

    static awaitable<void> read_request(shared& self, stream_type& client, target& t) {
        char room[1024];
        std::size_t n = co_await client.read_some(asio::buffer(room));
        t.socks = room[0] == 5;
        std::string first(room, n);
        auto reading =
            t.socks ? read_socks(self, client, std::move(first), t) : read_http(self, client, std::move(first), t);
        co_await std::move(reading);
    }

    static awaitable<void> read_http(shared& self, stream_type& client, std::string input, target& t) {
        http_connect_server protocol;
        char room[1024];
        while (true) {
            std::size_t const used = protocol.receive(input);
            t.early = input.substr(used);
            if (protocol.done() || protocol.error() != proxy_errc::ok) break;
            std::size_t const n = co_await client.read_some(asio::buffer(room));
            input.assign(room, n);
        }
        auto const& known = self.options;
        std::string answer;
        if (!protocol.done())
            answer = http_connect_server::answer(400, "Bad Request");
        else if (!known.user_name.empty() && protocol.credentials() != known.user_name + ':' + known.password)
            answer = http_connect_server::answer(407, "Proxy Authentication Required",
                                                 "Proxy-Authenticate: Basic realm=\"runnel\"\r\n");
        if (answer.empty()) {
            t.host = protocol.host();
            t.port = protocol.port();
        } else {
            auto writing = send(client, std::move(answer));
            co_await std::move(writing);
            co_await client.shutdown();
        }
    }

    static awaitable<void> read_socks(shared& self, stream_type& client, std::string input, target& t) {
        using event = socks5_server::event;
        auto const& known = self.options;
        socks5_server protocol(!known.user_name.empty());
        char room[1024];
        while (true) {
            std::size_t used = 0;
            auto const what = protocol.receive(input, used);
            input.erase(0, used);
            bool const good = protocol.user_name() == known.user_name && protocol.password() == known.password;
            if (what == event::credentials) protocol.judge(good);
            auto answer = protocol.take_output();
            if (!answer.empty()) {
                auto writing = send(client, std::move(answer));
                co_await std::move(writing);
            }
            if (what == event::request) break;
            if (what == event::failed || (what == event::credentials && !good)) {
                co_await client.shutdown();
                co_return;
            }
            if (!input.empty()) continue;
            std::size_t const n = co_await client.read_some(asio::buffer(room));
            input.assign(room, n);
        }
        t.early = std::move(input);
        t.port = protocol.port();
        t.host = text_of(protocol);
    }

    static std::string text_of(socks5_server const& protocol) {
        auto const& host = protocol.host();
        auto const fill = [&](auto bytes) {
            for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(host[i]);
            return bytes;
        };
        if (protocol.type() == socks5_address::ipv4)
            return asio::ip::make_address_v4(fill(asio::ip::address_v4::bytes_type())).to_string();
        if (protocol.type() == socks5_address::ipv6)
            return asio::ip::make_address_v6(fill(asio::ip::address_v6::bytes_type())).to_string();
        return host;
    }

    static awaitable<void> send(stream_type& to, std::string text) {
        send_buffer out;
        out.append(text);
        co_await to.write(out);
    }

    // Carries one direction to its end, then waits for the end of the other.
    static awaitable<void> pump(shared& self, link& l, std::size_t direction, stream_type& from, stream_type& to,
                                std::string early) {
        send_buffer out;
        out.append(early);
        try {
            while (true) {
                if (!out.empty()) {
                    auto passing = pass_on(self, l, direction, out, to);
                    co_await std::move(passing);
                }
                asio::mutable_buffer const into(out.prepare(block), block);
                std::size_t const n = co_await from.read_some(into);
                out.commit(n);
            }
        } catch (std::system_error const& e) {
            if (e.code() != asio::error::eof) throw;
        }
        co_await to.shutdown();
        ++l.directions_ended;
        l.waiters.wake(l.waiting[1 - direction]);
        while (l.directions_ended < 2) {
            auto waiting_here = wait(l, direction);
            co_await std::move(waiting_here);
        }
    }

    // Writes what has been read, as far as the faults allow.
    static awaitable<void> pass_on(shared& self, link& l, std::size_t direction, send_buffer& out, stream_type& to) {
        auto const& faults = self.faults;
        std::size_t const left = faults.bytes - (std::min)(faults.bytes, l.carried);
        bool const last = out.size() >= left;
        send_buffer now;
        now.append(out.view().substr(0, left));
        out.clear();
        l.carried += now.size();
        self.bytes += now.size();
        if (faults.bytes_per_second != 0) {
            std::uint64_t const millionths = std::uint64_t{now.size()} * 1'000'000;  // more than 32 bits
            co_await sleep_for<Executor>(self.executor,
                                         std::chrono::microseconds(millionths / faults.bytes_per_second));
        }
        co_await to.write(now);
        if (!last || faults.bytes == proxy_faults::unlimited) co_return;
        l.reset = faults.then == proxy_faults::action::reset;
        while (faults.then == proxy_faults::action::stall) {
            auto waiting_here = wait(l, direction);
            co_await std::move(waiting_here);
        }
        throw std::system_error(asio::error::connection_aborted);
    }

    static awaitable<void> wait(link& l, std::size_t direction) {
        co_await l.waiters.wait(l.waiting[direction]);
        if (l.waiting[direction].result) throw std::system_error(l.waiting[direction].result);
    }

    static constexpr std::size_t block = 16 * 1024;

    shared_ptr state_;
};

/// The usual one, with `asio::any_io_executor`.
using proxy = basic_proxy<>;

}  // namespace runnel::testing
