#pragma once

#include <runnel/websocket/stream.hpp>

#include "support/stream_life.hpp"
#include <chrono>
#include <utility>

namespace test {

/// Options of a WebSocket that make the most of little.
inline runnel::websocket::stream_options quick_websocket() {
    runnel::websocket::stream_options made;
    made.close_timeout = std::chrono::milliseconds(300);
    made.fragment_size = 4'000;
    return made;
}

/// Both ends of a WebSocket whose handshakes are thought of as done.
template <class S, class Next>
std::pair<S, S> opened_websocket(Next one, Next other) {
    using enum runnel::websocket::role;
    return {S(std::move(one), client, quick_websocket()), S(std::move(other), server, quick_websocket())};
}

template <class S>
asio::awaitable<void> reads_messages(stream_user<S>& user) {
    auto const go_on = [](stream_user<S>& u,
                          asio::awaitable<runnel::websocket::message> first) -> asio::awaitable<void> {
        runnel::websocket::message got = co_await std::move(first);
        got = co_await u.stream.read_message();
    };
    return go_on(user, user.stream.read_message());
}

template <class S>
asio::awaitable<void> writes_messages(stream_user<S>& user) {
    auto const go_on = [](stream_user<S>& u, asio::awaitable<void> first) -> asio::awaitable<void> {
        co_await std::move(first);
        co_await u.stream.ping("are you there?");
        u.stream.pack(u.out, runnel::websocket::message_kind::binary, u.text);
        u.stream.pack(u.out, runnel::websocket::message_kind::binary, "more");
        co_await u.stream.write_packed(u.out);
    };
    return go_on(user, user.stream.write_message(runnel::websocket::message_kind::binary, user.text));
}

/// Destroys, cancels and shuts it down at each point of its operations; at every seventh of them, all with
/// -Dlong_tests.
template <class S>
void try_websocket(std::pair<S, S> (*connect)(asio::io_context&)) {
    life_test<S> const life{.connect = connect, .apart = every(7)};
    life.run_all({reads<S>, writes<S>});
    life.run_all({writes<S>, writes_messages<S>});
    life.run_all({reads_messages<S>, writes<S>});
    life.run_all({shuts_down<S>, reads_on<S>});
    life.run_all({shuts_down<S>});
    life.run_inside({reads<S>, writes<S>});
    life.run_inside({writes<S>, reads_on<S>});
    life.run_inside({writes<S>, writes_messages<S>});
    life.run_inside({writes_messages<S>, reads_messages<S>, writes<S>});
}

}  // namespace test
