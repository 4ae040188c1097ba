#pragma once

#include <asio/awaitable.hpp>

#include <concepts>
#include <memory>
#include <string>
#include <utility>

namespace runnel::mqtt {

/// Enhanced authentication of MQTT 5 (4.12), as the client's side of a method such as SCRAM-SHA-256. Its functions are
/// coroutines, as the answer may have to be fetched from somewhere; what they throw ends the attempt to connect.
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

/// Any authenticator, or none.
template <class Executor>
class any_authenticator {
  public:
    any_authenticator() noexcept = default;

    template <authenticator<Executor> A>
    explicit any_authenticator(A a) : held_(std::make_unique<model<A>>(std::move(a))) {}

    explicit operator bool() const noexcept { return held_ != nullptr; }
    std::string method() { return held_->method(); }
    asio::awaitable<std::string, Executor> begin() { return held_->begin(); }
    asio::awaitable<std::string, Executor> answer(std::string data) { return held_->answer(std::move(data)); }
    asio::awaitable<void, Executor> finish(std::string data) { return held_->finish(std::move(data)); }

  private:
    struct any {
        virtual ~any() = default;
        virtual std::string method() = 0;
        virtual asio::awaitable<std::string, Executor> begin() = 0;
        virtual asio::awaitable<std::string, Executor> answer(std::string data) = 0;
        virtual asio::awaitable<void, Executor> finish(std::string data) = 0;
    };

    template <class A>
    struct model final : any {
        explicit model(A a) : it(std::move(a)) {}
        std::string method() override { return it.method(); }
        asio::awaitable<std::string, Executor> begin() override { return it.begin(); }
        asio::awaitable<std::string, Executor> answer(std::string data) override { return it.answer(std::move(data)); }
        asio::awaitable<void, Executor> finish(std::string data) override { return it.finish(std::move(data)); }
        A it;
    };

    std::unique_ptr<any> held_;
};

}  // namespace runnel::mqtt
