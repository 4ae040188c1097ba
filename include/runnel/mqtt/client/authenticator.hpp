#pragma once

#include <runnel/coro/asio.hpp>

#include RUNNEL_ASIO(awaitable.hpp)

#include <concepts>
#include <string>
#include <utility>

namespace runnel::mqtt {

/// Enhanced authentication of MQTT 5 (4.12), as the client's side of a method such as SCRAM-SHA-256. Its functions are
/// coroutines, as the answer may have to be fetched from somewhere; what they throw ends the attempt to connect, or the
/// connection if the server has been asked to authenticate again. One of them runs at a time. When the connection is
/// lost they are cancelled, and they may outlive the session if they take no notice. After `reauthenticate` has been
/// cancelled, `answer` and `finish` may be called once more with the same data.
///
/// - `method()`: the name of the method.
/// - `begin()`: the data of CONNECT, or of the AUTH that begins a re-authentication; called for each.
/// - `answer(data)`: the data with which to go on, when the server wants to (reason 0x18).
/// - `finish(data)`: the server is content; its last data, which may prove who the server is.
template <class A, class Executor>
concept authenticator = requires(A& a, std::string data) {
    { a.method() } -> std::convertible_to<std::string>;
    { a.begin() } -> std::same_as<asio::awaitable<std::string, Executor>>;
    { a.answer(std::move(data)) } -> std::same_as<asio::awaitable<std::string, Executor>>;
    { a.finish(std::move(data)) } -> std::same_as<asio::awaitable<void, Executor>>;
};

}  // namespace runnel::mqtt
