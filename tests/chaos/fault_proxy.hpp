#pragma once

#include <asio/awaitable.hpp>
#include <asio/buffer.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string_view>
#include <system_error>
#include <utility>

namespace test {

/// Stands between clients and a server on this machine, and makes the network between them bad on demand. It goes on
/// accepting connections while the server is down: these are closed at once.
class fault_proxy {
  public:
    using clock = std::chrono::steady_clock;

    /// Listens on a free loopback port and forwards to `server`, another one. Must outlive the context's runs.
    fault_proxy(asio::io_context& io, std::uint16_t server)
        : io_(io),
          acceptor_(io, {asio::ip::address_v4::loopback(), 0}),
          server_(asio::ip::address_v4::loopback(), server) {
        asio::co_spawn(io_, accept(), asio::detached);
    }

    std::uint16_t port() const { return acceptor_.local_endpoint().port(); }

    /// If set, is told of all bytes that come, before anything happens to them: of which connection (counted from 1),
    /// in which direction (0: from the client).
    std::function<void(std::uint64_t connection, std::size_t direction, std::string_view bytes)> on_bytes;

    /// Resets all connections (TCP RST): both ends lose what is on its way.
    void reset() {
        for (auto const& weak : links_)
            if (auto const l = weak.lock()) l->end(true);
    }
    /// The next bytes that come are forwarded only up to the `keep`-th, in one direction (0 or 1), and then the
    /// connection ends: a packet arrives without its end.
    void truncate(std::size_t direction, std::size_t keep) {
        for (auto const& weak : links_)
            if (auto const l = weak.lock()) l->keep[direction] = keep;
    }
    /// For a while nothing is forwarded, and the connections stay.
    void stall(std::chrono::milliseconds duration) { stalled_until_ = clock::now() + duration; }
    /// For a while only `bytes` at a time are forwarded, each millisecond.
    void throttle(std::chrono::milliseconds duration, std::size_t bytes) {
        throttled_until_ = clock::now() + duration;
        throttled_bytes_ = bytes;
    }

  private:
    static constexpr std::size_t all = static_cast<std::size_t>(-1);

    struct link {
        link(asio::ip::tcp::socket c, std::uint64_t n)
            : client(std::move(c)), server(client.get_executor()), number(n) {}

        void end(bool with_reset) {
            for (auto* const s : {&client, &server}) {
                std::error_code ignored;
                if (with_reset) s->set_option(asio::socket_base::linger(true, 0), ignored);
                s->close(ignored);
            }
        }

        asio::ip::tcp::socket client, server;
        std::uint64_t number;
        std::array<std::size_t, 2> keep{all, all};
    };

    asio::awaitable<void> accept() {
        for (;;) {
            auto socket = co_await acceptor_.async_accept(asio::use_awaitable);
            auto const l = std::make_shared<link>(std::move(socket), ++accepted_);
            std::erase_if(links_, [](auto const& weak) { return weak.expired(); });
            links_.push_back(l);
            asio::co_spawn(io_, serve(l), asio::detached);
        }
    }

    asio::awaitable<void> serve(std::shared_ptr<link> l) {
        try {
            co_await l->server.async_connect(server_, asio::use_awaitable);
            asio::co_spawn(io_, forward(l, l->client, l->server, 0), asio::detached);
            asio::co_spawn(io_, forward(l, l->server, l->client, 1), asio::detached);
        } catch (std::system_error const&) {
            l->end(false);
        }
    }

    asio::awaitable<void> forward(std::shared_ptr<link> l, asio::ip::tcp::socket& from, asio::ip::tcp::socket& to,
                                  std::size_t direction) {
        try {
            std::array<char, 16 * 1024> bytes;
            for (;;) {
                std::size_t const n = co_await from.async_read_some(asio::buffer(bytes), asio::use_awaitable);
                if (on_bytes) on_bytes(l->number, direction, {bytes.data(), n});
                std::size_t const kept = std::min(n, l->keep[direction]);
                for (std::size_t at = 0; at < kept;) {
                    while (clock::now() < stalled_until_) co_await sleep(std::chrono::milliseconds(1));
                    bool const throttled = clock::now() < throttled_until_;
                    std::size_t const part = std::min(kept - at, throttled ? throttled_bytes_ : kept);
                    co_await asio::async_write(to, asio::buffer(bytes.data() + at, part), asio::use_awaitable);
                    if (throttled) co_await sleep(std::chrono::milliseconds(1));
                    at += part;
                }
                if (l->keep[direction] != all) break;
            }
        } catch (std::system_error const&) {
        }
        l->end(false);
    }

    asio::awaitable<void> sleep(std::chrono::milliseconds duration) {
        asio::steady_timer timer(io_, duration);
        co_await timer.async_wait(asio::use_awaitable);
    }

    asio::io_context& io_;
    asio::ip::tcp::acceptor acceptor_;
    asio::ip::tcp::endpoint server_;
    std::list<std::weak_ptr<link>> links_;
    clock::time_point stalled_until_{}, throttled_until_{};
    std::size_t throttled_bytes_ = 1;
    std::uint64_t accepted_ = 0;
};

}  // namespace test
