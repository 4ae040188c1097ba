#pragma once

#include <runnel/transport/proxy_error.hpp>
#include <runnel/transport/race.hpp>
#include <runnel/transport/stream.hpp>

#include <asio/buffer.hpp>
#include <asio/error.hpp>

#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace runnel {

/// Reads from a proxy that owes an answer: at least one byte. Throws `proxy_errc::closed_early` with `what` if it has
/// closed instead.
template <stream Stream>
asio::awaitable<std::size_t, typename Stream::executor_type> read_answer(Stream& s, asio::mutable_buffer into,
                                                                         char const* what) {
    std::size_t n = 0;
    try {
        n = co_await s.read_some(into);
    } catch (std::system_error const& e) {
        if (e.code() != asio::error::eof) throw;
    }
    if (n == 0) throw std::system_error(proxy_errc::closed_early, what);
    co_return n;
}

/// Throws `std::out_of_range`, with the range in its text, if a proxy's time is not possible.
[[gnu::cold]] inline void check_proxy_time(std::chrono::milliseconds handshake_timeout) {
    if (handshake_timeout.count() < 0) throw std::out_of_range("handshake_timeout of a proxy must be 0 ms or more");
}

/// Talks to a proxy for at most `limit`, or for as long as it takes if that is 0. Throws
/// `proxy_errc::handshake_timeout`, and what `talk` throws.
template <class Executor>
asio::awaitable<void, Executor> talk_to_proxy(Executor executor, std::chrono::milliseconds limit,
                                              asio::awaitable<void, Executor> talk) {
    if (limit.count() == 0) {
        co_await std::move(talk);
        co_return;
    }
    parking<Executor> place(std::move(executor));
    auto limited = within<Executor>(place, limit, proxy_errc::handshake_timeout, std::move(talk));
    co_await std::move(limited);
}

}  // namespace runnel
