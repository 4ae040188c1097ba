#pragma once

#include <runnel/mqtt/protocol/detail/scram_text.hpp>
#include <runnel/mqtt/protocol/scram.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace runnel::mqtt {

/// The server's side of SCRAM (RFC 5802, RFC 7677), without I/O: messages go in and come out. Without channel binding.
///
/// | state      | event                                          | then       |
/// |------------|------------------------------------------------|------------|
/// | idle       | `begin`: the client's first message            | begun      |
/// | begun      | `challenge`                                    | challenged |
/// | challenged | `finish`: the client's proof is right          | idle       |
/// | any        | `begin`, `finish`: a message that is not right | idle       |
///
/// Between the two steps of a client, all that is known of the exchange is a text (`memory`), which is the caller's to
/// keep, and no secret.
class scram_server {
  public:
    /// Goes on from `memory`, which is empty at first. It must outlive this object.
    explicit scram_server(std::string& memory) : memory_(memory) {}

    /// Reads the client's first message.
    scram_errc begin(std::string_view client_first) {
        auto const e = read_first(client_first);
        memory_ = e == scram_errc::ok ? std::string(client_first) : std::string();
        return e;
    }

    /// The user whom the client's first message names, from `begin` until the end; empty at other times.
    std::string user_name() const {
        auto const name = detail::scram_reader(bare().substr(0, bare().find(','))).take('n');
        return detail::unescape_scram_name(name.value_or("")).value_or("");
    }

    /// The server's first message. `nonce` is printable ASCII without commas, and never the same again (`scram_nonce`).
    /// `salt` is not empty; `iterations`: 4096 or more. Only after `begin`.
    std::string challenge(std::string_view nonce, std::string_view salt, std::uint32_t iterations) {
        detail::scram_reader reader(bare());
        reader.take('n');
        std::string message = "r=" + std::string(reader.take('r').value_or(""));
        message.append(nonce).append(",s=").append(digest::encode_base64(salt));
        message.append(",i=").append(std::to_string(iterations));
        memory_ += '\0' + message;
        return message;
    }

    /// Reads the client's last message. If its proof is right, `answer` becomes the server's last one. `verifier` is
    /// that of the user, by whose salt and iterations it was challenged.
    template <scram_mechanism M>
    scram_errc finish(std::string_view client_final, scram_verifier const& verifier, std::string& answer) {
        auto const e = check<M>(client_final, verifier, answer);
        memory_.clear();
        return e;
    }

  private:
    // The memory is the client's first message, and behind U+0000 the server's.
    std::string_view first() const noexcept { return std::string_view(memory_).substr(0, memory_.find('\0')); }
    static std::string_view header_of(std::string_view first) noexcept {
        auto const comma = first.find(',');
        auto const end = comma == std::string_view::npos ? comma : first.find(',', comma + 1);
        return end == std::string_view::npos ? std::string_view() : first.substr(0, end + 1);
    }
    std::string_view bare() const noexcept { return first().substr(header_of(first()).size()); }

    static scram_errc read_first(std::string_view message) {
        auto const header = header_of(message);
        if (!detail::is_scram_text(message) || header.empty()) return scram_errc::message_malformed;
        // "y": the client thinks that the server has no channel binding, which is so.
        if (header.starts_with("p=")) return scram_errc::channel_binding_not_supported;
        if (!header.starts_with("n,") && !header.starts_with("y,")) return scram_errc::message_malformed;
        detail::scram_reader reader(message.substr(header.size()));
        if (reader.is_next('m')) return scram_errc::extension_required;
        auto const name = reader.take('n');
        auto const nonce = reader.take('r');
        auto const user = detail::unescape_scram_name(name.value_or(""));
        if (!name || !user || !nonce || !detail::is_scram_nonce(*nonce) || !reader.skip_extensions())
            return scram_errc::message_malformed;
        auto const other = header.substr(2, header.size() - 3);
        return other.empty() || other == "a=" + std::string(*name) ? scram_errc::ok : scram_errc::identity_not_allowed;
    }

    template <scram_mechanism M>
    scram_errc check(std::string_view message, scram_verifier const& verifier, std::string& answer) const {
        using hash = typename M::hash;
        auto const end = memory_.find('\0');
        if (end == std::string::npos) return scram_errc::message_not_due;
        auto const server_first = std::string_view(memory_).substr(end + 1);
        if (!detail::is_scram_text(message)) return scram_errc::message_malformed;

        auto const proof_at = message.rfind(",p=");
        auto const without_proof = message.substr(0, proof_at);
        detail::scram_reader reader(without_proof);
        auto const binding = reader.take('c');
        auto const nonce = reader.take('r');
        bool const whole = proof_at != std::string_view::npos && binding && nonce && reader.skip_extensions();
        auto const proof = whole ? digest::decode_base64(message.substr(proof_at + 3)) : std::nullopt;
        if (!proof || proof->size() != hash::digest_size) return scram_errc::message_malformed;
        if (*binding != digest::encode_base64(header_of(first()))) return scram_errc::channel_binding_not_supported;
        if (*nonce != detail::scram_reader(server_first).take('r')) return scram_errc::nonce_wrong;

        std::string all(bare());  // AuthMessage
        all.append(",").append(server_first).append(",").append(without_proof);
        auto client_key = detail::take_secret(digest::authenticate<hash>(verifier.stored_key, all));
        for (std::size_t i = 0; i < client_key.size(); ++i)
            client_key[i] = static_cast<char>(client_key[i] ^ (*proof)[i]);
        auto const stored = detail::take_secret(digest::compute<hash>(client_key));
        if (!equal_in_constant_time(stored, verifier.stored_key)) return scram_errc::proof_wrong;
        auto const signature = digest::authenticate<hash>(verifier.server_key, all);
        answer = "v=" + digest::encode_base64(digest::view(signature));
        return scram_errc::ok;
    }

    std::string& memory_;
};

}  // namespace runnel::mqtt
