#pragma once

#include <runnel/core/printable.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/mqtt/client/authenticator.hpp>
#include <runnel/mqtt/protocol/scram_client.hpp>

#include RUNNEL_ASIO(any_io_executor.hpp)
#include RUNNEL_ASIO(awaitable.hpp)
#include RUNNEL_ASIO(post.hpp)
#include RUNNEL_ASIO(this_coro.hpp)
#include RUNNEL_ASIO(use_awaitable.hpp)

#include <cstdint>
#include <functional>
#include <string>
#include <system_error>
#include <utility>

namespace runnel::mqtt {

/// Authenticates a session by SCRAM (RFC 5802, RFC 7677; MQTT 5, 4.12), and the server to the session:
/// `session.set_authenticator(scram_authenticator<scram_sha_256>({.user_name = "user", .password = "pencil"}))`.
///
/// The password does not cross the wire. What the server must prove is checked before the session is connected. What
/// fails is thrown as `std::system_error` with a `scram_errc`, of which those that stay wrong end `session::run`
/// (`recovery_from`).
///
/// The keys are derived from the password when the server first asks for its salt and iterations, a portion a turn of
/// the executor, so that others go on meanwhile; a connection that is lost or cancelled meanwhile leaves what has been
/// done for the next one. Then they are kept, as long as the server asks for the same, and no password is needed if
/// `scram_credentials::keys` has them from the start.
template <scram_mechanism M, class Executor = asio::any_io_executor>
class scram_authenticator {
  public:
    template <class T>
    using awaitable = asio::awaitable<T, Executor>;
    /// Is told of keys that have been derived, once both sides have accepted them, to be stored for the next process.
    /// What it throws ends the attempt.
    using key_handler = std::function<void(scram_keys const&)>;

    /// Throws `std::system_error` with what is wrong about the credentials, `std::out_of_range` for limits.
    explicit scram_authenticator(scram_credentials who, scram_limits limits = {}, key_handler on_keys = {})
        : client_(std::move(who), limits), on_keys_(std::move(on_keys)) {}

    /// See `authenticator`.
    std::string method() const { return std::string(M::name); }
    awaitable<std::string> begin() { co_return client_.begin(scram_nonce()); }
    awaitable<std::string> answer(std::string data) {
        check(client_.challenge(data));
        if (client_.needs_keys()) {
            auto const executor = co_await asio::this_coro::executor;
            while (!client_.derive(iterations_a_turn)) co_await asio::post(executor, asio::use_awaitable_t<Executor>());
            is_news_ = true;
        }
        co_return client_.answer();
    }
    awaitable<void> finish(std::string data) {
        check(client_.verify(data));
        if (is_news_ && on_keys_) on_keys_(*client_.keys());
        is_news_ = false;
        co_return;
    }

  private:
    static constexpr std::uint32_t iterations_a_turn = 512;

    void check(scram_errc e) const {
        if (e == scram_errc::refused) throw std::system_error(e, printable(client_.refusal()));
        if (e != scram_errc::ok) throw std::system_error(e, std::string(M::name));
    }

    // The session ends one call before it begins another (`authenticating`): while a coroutine is suspended, here
    // `answer` between two portions of the keys, nobody else writes this.
    scram_client<M> client_;
    key_handler on_keys_;
    bool is_news_ = false;  // the keys are those of this exchange
};

}  // namespace runnel::mqtt
