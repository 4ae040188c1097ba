#pragma once

#include <runnel/mqtt/protocol/detail/scram_text.hpp>
#include <runnel/mqtt/protocol/scram.hpp>

#include <cassert>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::mqtt {

/// Who a client is, for SCRAM.
struct scram_credentials {
    std::string user_name{};   ///< one character or more
    secret_string password{};  ///< empty: there are only keys
    /// Keys that were made before. As long as the server asks for their salt and iterations, no password is needed.
    std::optional<scram_keys> keys{};
    /// User name and password may have other characters than printable ASCII: they are as SASLprep (RFC 4013) makes
    /// them, which somebody else has done.
    bool is_prepared = false;
};

/// How many iterations a server may ask a client for. Each is two compressions of the hash function, so `most` bounds
/// what a server that is not to be trusted can cost: docs/sessions.md has the times.
struct scram_limits {
    std::uint32_t least = scram_least_iterations;  ///< 4096 or more
    std::uint32_t most = 2'000'000;                ///< `least` or more
};

/// The client's side of SCRAM (RFC 5802, RFC 7677), without I/O: messages go in and come out. Without channel binding.
///
/// | state      | event                                             | then       |
/// |------------|---------------------------------------------------|------------|
/// | any        | `begin`                                           | begun      |
/// | begun      | `challenge`: the server's first message           | challenged |
/// | challenged | `answer`, once the keys are there                 | answered   |
/// | answered   | `verify`: the server's signature is right         | verified   |
/// | any        | `challenge`, `verify`: a message that is not right | idle       |
///
/// `challenge` and `answer` may be called again with the same message, and so may `verify`: then they do the same.
///
/// Keys that have been derived are kept, for as long as the server asks for the same salt and iterations. All secrets
/// are wiped from memory when they are not needed any more.
template <scram_mechanism M>
class scram_client {
  public:
    enum class stage : std::uint8_t { idle, begun, challenged, answered, verified };

    /// Throws `std::system_error` with what is wrong about the credentials, `std::out_of_range` for limits.
    explicit scram_client(scram_credentials who, scram_limits limits = {}) : who_(std::move(who)), limits_(limits) {
        if (auto const e = check(who_); e != scram_errc::ok) RUNNEL_THROW(std::system_error(e, "scram_credentials"));
        if (limits.least < scram_least_iterations || limits.most < limits.least)
            RUNNEL_THROW(std::out_of_range("scram_limits: least must be 4096 or more, and most not less than that"));
    }

    stage at() const noexcept { return at_; }

    /// The client's first message. `nonce` is printable ASCII without commas, and never the same again (`scram_nonce`).
    std::string begin(std::string_view nonce) {
        assert(detail::is_scram_nonce(nonce));
        at_ = stage::begun;
        nonce_ = nonce;
        refusal_.clear();
        bare_ = "n=" + detail::escape_scram_name(who_.user_name) + ",r=" + nonce_;
        return std::string(gs2_header) + bare_;
    }

    /// Reads the server's first message.
    scram_errc challenge(std::string_view server_first) {
        bool const again = at_ != stage::idle && at_ != stage::begun;
        if (again && server_first == server_first_) return scram_errc::ok;
        auto const e = at_ != stage::begun ? scram_errc::message_not_due : read_challenge(server_first);
        if (e != scram_errc::ok) return fail(e);
        server_first_ = server_first;
        at_ = stage::challenged;
        return e;
    }

    /// Whether the keys have to be derived before `answer`.
    bool needs_keys() const noexcept { return !has_keys(salt_, iterations_); }
    /// Does at most so many iterations of what is to be done for the keys. True: they are there.
    bool derive(std::uint32_t iterations) {
        if (!needs_keys()) return true;
        if (!deriving_) deriving_.emplace(who_.password, salt_, iterations_);
        if (!deriving_->advance(iterations)) return false;
        who_.keys = scram_keys_from<M>(deriving_->key(), salt_, iterations_);
        deriving_.reset();
        return true;
    }
    /// The keys, once there are any.
    std::optional<scram_keys> const& keys() const noexcept { return who_.keys; }

    /// The client's last message, once the keys are there.
    std::string answer() {
        assert(at_ != stage::idle && at_ != stage::begun && !needs_keys());
        std::string const without_proof = "c=" + digest::encode_base64(gs2_header) + ",r=" + nonce_;
        std::string const all = bare_ + "," + server_first_ + "," + without_proof;  // AuthMessage
        auto const& keys = *who_.keys;
        auto const stored = detail::take_secret(digest::compute<hash>(keys.client_key));
        auto proof = detail::take_secret(digest::authenticate<hash>(stored, all));
        for (std::size_t i = 0; i < proof.size(); ++i) proof[i] = static_cast<char>(proof[i] ^ keys.client_key[i]);
        signature_ = detail::take_secret(digest::authenticate<hash>(keys.server_key, all));
        at_ = stage::answered;
        return without_proof + ",p=" + digest::encode_base64(proof);
    }

    /// Reads the server's last message: whether it knows the user, too.
    scram_errc verify(std::string_view server_final) {
        bool const due = at_ == stage::answered || at_ == stage::verified;
        auto const e = due ? read_signature(server_final) : scram_errc::signature_missing;
        if (e != scram_errc::ok) return fail(e);
        at_ = stage::verified;
        return e;
    }

    /// Why the server has refused, in its own words, if it has said so (`scram_errc::refused`).
    std::string const& refusal() const noexcept { return refusal_; }

  private:
    using hash = typename M::hash;
    static constexpr std::string_view gs2_header = "n,,";  // no channel binding, no other identity

    static scram_errc check(scram_credentials const& who) noexcept {
        if (who.user_name.empty()) return scram_errc::user_name_missing;
        if (who.password.empty() && !who.keys) return scram_errc::password_missing;
        for (std::string const* const text : {&who.user_name, static_cast<std::string const*>(&who.password)})
            if (!is_prepared_for_scram(*text, who.is_prepared)) return scram_errc::text_not_prepared;
        if (who.keys &&
            (who.keys->client_key.size() != hash::digest_size || who.keys->server_key.size() != hash::digest_size))
            return scram_errc::keys_invalid;
        return scram_errc::ok;
    }

    scram_errc fail(scram_errc e) noexcept {
        at_ = stage::idle;
        return e;
    }

    bool has_keys(std::string_view salt, std::uint32_t iterations) const noexcept {
        return who_.keys && who_.keys->iterations == iterations && who_.keys->salt == salt;
    }

    scram_errc read_challenge(std::string_view message) {
        if (!detail::is_scram_text(message)) return scram_errc::message_malformed;
        detail::scram_reader reader(message);
        if (reader.is_next('e')) return read_refusal(reader);
        if (reader.is_next('m')) return scram_errc::extension_required;
        auto const nonce = reader.take('r');
        auto const salt = digest::decode_base64(reader.take('s').value_or(""));
        auto const iterations = detail::read_scram_number(reader.take('i').value_or(""));
        if (!nonce || !salt || salt->empty() || !iterations || !reader.skip_extensions())
            return scram_errc::message_malformed;
        bool const ours = nonce->size() > nonce_.size() && nonce->starts_with(nonce_) && detail::is_scram_nonce(*nonce);
        if (!ours) return scram_errc::nonce_wrong;
        if (*iterations < limits_.least) return scram_errc::too_few_iterations;
        if (*iterations > limits_.most) return scram_errc::too_many_iterations;
        if (who_.password.empty() && !has_keys(*salt, *iterations)) return scram_errc::keys_of_another_salt;
        if (salt_ != *salt || iterations_ != *iterations) deriving_.reset();  // else it goes on
        nonce_ = *nonce;
        salt_ = *salt;
        iterations_ = *iterations;
        return scram_errc::ok;
    }

    scram_errc read_signature(std::string_view message) {
        if (message.empty()) return scram_errc::signature_missing;
        if (!detail::is_scram_text(message)) return scram_errc::message_malformed;
        detail::scram_reader reader(message);
        if (reader.is_next('e')) return read_refusal(reader);
        auto const signature = digest::decode_base64(reader.take('v').value_or(""));
        if (!signature || signature->empty() || !reader.skip_extensions()) return scram_errc::message_malformed;
        return equal_in_constant_time(*signature, signature_) ? scram_errc::ok : scram_errc::signature_wrong;
    }

    scram_errc read_refusal(detail::scram_reader& reader) {
        refusal_ = reader.take('e').value_or("");
        return scram_errc::refused;
    }

    scram_credentials who_;
    scram_limits limits_;
    std::string nonce_{};         // the client's, and from `challenge` on both
    std::string bare_{};          // the client's first message without its header
    std::string server_first_{};  // from `challenge` on
    std::string salt_{};
    std::string refusal_{};
    secret_string signature_{};  // that the server must send
    std::optional<digest::pbkdf2<hash>> deriving_{};
    std::uint32_t iterations_ = 0;
    stage at_ = stage::idle;
};

}  // namespace runnel::mqtt
