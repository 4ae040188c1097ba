#pragma once

#include <runnel/core/random.hpp>
#include <runnel/core/secret.hpp>
#include <runnel/digest/hmac.hpp>
#include <runnel/digest/sha256.hpp>
#include <runnel/mqtt/protocol/scram_server.hpp>
#include <runnel/testing/broker/options.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace runnel::testing {

/// Authenticates a broker's clients by SCRAM (RFC 5802, RFC 7677; MQTT 5, 4.12) with any of the mechanisms `M`:
/// `broker.hooks().authenticate = scram_authentication<mqtt::scram_sha_256>(lookup)`.
///
/// Clients that name another method are refused with `bad_authentication_method`, those whose messages or proof are not
/// right with `not_authorized`. Who does not know a user's password is not told whether there is such a user: a user
/// that is not known is challenged as others are, with a salt of its own that is always the same.
template <mqtt::scram_mechanism... M>
class scram_authentication {
  public:
    /// What the credential store knows of a user; nothing: there is no such user, or this client may not be that user.
    /// `attempt.method` is the mechanism, of which the verifier must be. Is asked at both steps of a client. Must not
    /// throw.
    using lookup = std::function<std::optional<mqtt::scram_verifier>(authentication_attempt const& attempt,
                                                                     std::string_view user_name)>;

    /// `iterations`, 4096 or more: that which users who are not known are asked for; best what all others are.
    explicit scram_authentication(lookup look_up, std::uint32_t iterations = mqtt::scram_least_iterations)
        : look_up_(std::move(look_up)), iterations_(iterations), secret_(32, '\0') {
        fill_random(secret_.data(), secret_.size());
    }

    /// See `broker_hooks::authenticate`.
    mqtt::reason_code operator()(authentication_attempt& a) const {
        std::optional<mqtt::reason_code> answer;
        (void)((a.method == M::name && (answer = step<M>(a), true)) || ...);
        return answer.value_or(mqtt::reason_code::bad_authentication_method);
    }

  private:
    template <mqtt::scram_mechanism One>
    mqtt::reason_code step(authentication_attempt& a) const {
        using mqtt::scram_errc;
        mqtt::scram_server server(a.memory);
        auto const data = a.data.value_or("");
        if (a.step == 0) {
            if (server.begin(data) != scram_errc::ok) return mqtt::reason_code::not_authorized;
            auto const verifier = verifier_of<One>(a, server.user_name());
            a.reply = server.challenge(mqtt::scram_nonce(), verifier.salt, verifier.iterations);
            return mqtt::reason_code::continue_authentication;
        }
        auto const verifier = verifier_of<One>(a, server.user_name());
        std::string last;
        if (server.finish<One>(data, verifier, last) != scram_errc::ok) return mqtt::reason_code::not_authorized;
        a.reply = std::move(last);
        return mqtt::reason_code::success;
    }

    // One that no proof fits, for a user that there is not: no client key has the hash that is its stored key.
    template <mqtt::scram_mechanism One>
    mqtt::scram_verifier verifier_of(authentication_attempt const& a, std::string const& user) const {
        if (auto known = look_up_(a, user)) return std::move(*known);
        constexpr std::size_t size = One::hash::digest_size;
        mqtt::scram_verifier made{.iterations = iterations_};
        made.salt = std::string(digest::view(digest::authenticate<digest::sha256>(secret_, user)).substr(0, 16));
        made.stored_key = secret_string(digest::view(digest::authenticate<typename One::hash>(secret_, user)));
        made.server_key = secret_string(size, '\0');
        return made;
    }

    lookup look_up_;
    std::uint32_t iterations_;
    secret_string secret_;
};

}  // namespace runnel::testing
