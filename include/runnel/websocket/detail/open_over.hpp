#pragma once

#include <runnel/core/clock.hpp>
#include <runnel/transport/connect_progress.hpp>
#include <runnel/transport/stream.hpp>
#include <runnel/websocket/stream.hpp>

#include <system_error>
#include <utility>

namespace runnel::websocket::detail {

/// Opens `below`, and performs the client's handshake over what `wrap` makes of the stream. An address behind which
/// nobody answers is left for the host's next, as `connect_progress` has it; `progress` may be null. What `url`
/// returns, once the stream is open, is told there. `Below` is a transport, or a reference to one that stays.
template <class Stream, class Compression, class Below, class Url, class Wrap>
asio::awaitable<Stream, typename Stream::executor_type> open_over(Below below, typename Stream::executor_type executor,
                                                                  connect_progress* progress, client_options how,
                                                                  typename Compression::options compression, Url url,
                                                                  Wrap wrap) {
    check(how.stream);
    check_opening(how.timeout, how.limits);
    if constexpr (Compression::enabled) check(compression);
    auto const limit = how.timeout;
    while (true) {
        auto opening = open_stream(below, executor, progress);
        auto stream_below = co_await std::move(opening);
        auto wrapped = wrap(std::move(stream_below));
        if (progress != nullptr) {
            progress->at(connect_step::websocket, "WebSocket handshake with " + url());
            how.timeout = progress->handshake_time(limit, steady_clock::now());
        }
        auto const budget = progress != nullptr ? progress->budget : connect_budget();
        auto shaking_hands = Stream::handshake(std::move(wrapped), how, compression, budget);
        try {
            co_return co_await std::move(shaking_hands);
        } catch (std::system_error const& e) {
            bool const is_late = e.code() == errc::handshake_timeout && progress != nullptr;
            if (!is_late || !progress->try_next_address(e, steady_clock::now())) throw;
        }
    }
}

}  // namespace runnel::websocket::detail
