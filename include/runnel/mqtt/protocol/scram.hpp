#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/printable.hpp>
#include <runnel/core/random.hpp>
#include <runnel/core/secret.hpp>
#include <runnel/core/utf8.hpp>
#include <runnel/digest/base64.hpp>
#include <runnel/digest/hmac.hpp>
#include <runnel/digest/pbkdf2.hpp>
#include <runnel/digest/sha1.hpp>
#include <runnel/digest/sha256.hpp>
#include <runnel/digest/sha512.hpp>
#include <runnel/mqtt/protocol/scram_error.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

// SCRAM (RFC 5802), what both ends have in common: mechanisms, keys, nonces. `scram_client` and `scram_server` are the
// two ends of an exchange.

namespace runnel::mqtt {

/// SCRAM-SHA-1 (RFC 5802).
struct scram_sha_1 {
    using hash = digest::sha1;
    static constexpr std::string_view name = "SCRAM-SHA-1";
};

/// SCRAM-SHA-256 (RFC 7677).
struct scram_sha_256 {
    using hash = digest::sha256;
    static constexpr std::string_view name = "SCRAM-SHA-256";
};

/// SCRAM-SHA-512 (draft-melnikov-scram-sha-512, which has expired; servers have it all the same).
struct scram_sha_512 {
    using hash = digest::sha512;
    static constexpr std::string_view name = "SCRAM-SHA-512";
};

/// A mechanism of SCRAM: its hash function, and its name, which is the authentication method of MQTT. The three above
/// are models; another one can be supplied.
template <class M>
concept scram_mechanism = digest::hash<typename M::hash> && requires {
    { M::name } -> std::convertible_to<std::string_view>;
};

/// The fewest iterations that are taken (RFC 5802 5.1, RFC 7677 4).
inline constexpr std::uint32_t scram_least_iterations = 4096;

/// What a client may keep instead of the password, so that PBKDF2 is done once and not at each connection: good for one
/// user, mechanism, salt and number of iterations. Who has them can act as the client, so they are as secret as the
/// password, but for other services that it may be used for.
struct scram_keys {
    std::string salt{};  ///< bytes, as the server's
    std::uint32_t iterations = 0;
    secret_string client_key{};  ///< as many bytes as the mechanism's digest
    secret_string server_key{};  ///< as many
};

/// What a server keeps of a user's password. Who has it can act as the server, but not as the client.
struct scram_verifier {
    std::string salt{};  ///< bytes, 16 or more, and random
    std::uint32_t iterations = 0;
    secret_string stored_key{};  ///< as many bytes as the mechanism's digest
    secret_string server_key{};  ///< as many
};

namespace detail {

/// Bytes as a secret string; the array is wiped.
template <std::size_t N>
secret_string take_secret(std::array<char, N> bytes) {
    secret_string taken(digest::view(bytes));
    secure_wipe(bytes);
    return taken;
}

}  // namespace detail

/// The keys that follow from a SaltedPassword (RFC 5802 3), which PBKDF2 has made of the password.
template <scram_mechanism M>
scram_keys scram_keys_from(std::string_view salted_password, std::string_view salt, std::uint32_t iterations) {
    using hash = typename M::hash;
    return {std::string(salt), iterations,
            detail::take_secret(digest::authenticate<hash>(salted_password, "Client Key")),
            detail::take_secret(digest::authenticate<hash>(salted_password, "Server Key"))};
}

/// What a server keeps of the user whose keys these are.
template <scram_mechanism M>
scram_verifier scram_verifier_from(scram_keys const& keys) {
    return {keys.salt, keys.iterations, detail::take_secret(digest::compute<typename M::hash>(keys.client_key)),
            keys.server_key};
}

/// Whether `text`, a user name or a password, is what SASLprep (RFC 4013) makes of it. That is so of printable ASCII,
/// which it leaves as it is. Of other texts it is not found out here: they are refused (`text_not_prepared`), unless
/// the user says that they are prepared; then only what cannot be is refused, controls and what is not UTF-8.
inline bool is_prepared_for_scram(std::string_view text, bool said_to_be_prepared) noexcept {
    bool const controls = std::any_of(text.begin(), text.end(), [](char c) { return is_control({&c, 1}); });
    return !controls && (is_ascii(text) || (said_to_be_prepared && is_utf8(text)));
}

/// The keys of a password, by PBKDF2: this takes its time, all at once. `iterations`: 4096 or more. `is_prepared`: the
/// password may have other characters than ASCII, and is as SASLprep makes it. Throws `std::system_error` with
/// `text_not_prepared`.
template <scram_mechanism M>
scram_keys derive_scram_keys(std::string_view password, std::string_view salt,
                             std::uint32_t iterations = scram_least_iterations, bool is_prepared = false) {
    if (!is_prepared_for_scram(password, is_prepared))
        RUNNEL_THROW(std::system_error(scram_errc::text_not_prepared, "password"));
    digest::pbkdf2<typename M::hash> salted(password, salt, iterations);
    salted.advance(iterations);
    return scram_keys_from<M>(salted.key(), salt, iterations);
}

/// A nonce: 18 bytes of the system's cryptographic source, in base64. Throws as `fill_random` does.
inline std::string scram_nonce() {
    char bytes[18];
    fill_random(bytes, sizeof(bytes));
    return digest::encode_base64({bytes, sizeof(bytes)});
}

}  // namespace runnel::mqtt
