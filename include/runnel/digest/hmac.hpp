#pragma once

#include <runnel/digest/hash.hpp>

namespace runnel::digest {

/// HMAC (RFC 2104) with the hash function `Hash`: `hmac<sha256>`.
///
/// An object made from a key can be copied to authenticate many messages without going through the key again. What was
/// derived from the key is wiped from memory when the object is destroyed, as are the temporaries.
template <hash Hash>
class hmac {
  public:
    static constexpr std::size_t digest_size = Hash::digest_size;
    using digest_type = std::array<char, digest_size>;

    /// Starts with `key`, of any length.
    constexpr explicit hmac(std::string_view key) {
        std::array<char, Hash::block_size> block{};
        if (key.size() > block.size()) {
            auto shortened = compute<Hash>(key);
            std::copy_n(shortened.data(), shortened.size(), block.data());
            secure_wipe(shortened);
        } else {
            std::copy_n(key.data(), key.size(), block.data());
        }
        for (char& c : block) c = static_cast<char>(c ^ 0x36);
        inner_.update({block.data(), block.size()});
        for (char& c : block) c = static_cast<char>(c ^ (0x36 ^ 0x5c));
        outer_.update({block.data(), block.size()});
        secure_wipe(block);
    }

    constexpr hmac(hmac const&) = default;
    constexpr hmac& operator=(hmac const&) = default;
    constexpr ~hmac() {
        // A hash of another kind is its own keeper.
        if constexpr (std::is_trivially_copyable_v<Hash>) {
            secure_wipe(inner_);
            secure_wipe(outer_);
        }
    }

    /// Adds `bytes` to the message.
    constexpr void update(std::string_view bytes) { inner_.update(bytes); }

    /// The authentication code of the message. The object must then be assigned to before it is used again.
    constexpr digest_type finish() {
        digest_type inner = inner_.finish();
        outer_.update(view(inner));
        secure_wipe(inner);
        return outer_.finish();
    }

  private:
    Hash inner_{};
    Hash outer_{};
};

/// The HMAC of `message` under `key` in one go: `authenticate<sha256>(key, message)`.
template <hash Hash>
constexpr std::array<char, Hash::digest_size> authenticate(std::string_view key, std::string_view message) {
    hmac<Hash> h(key);
    h.update(message);
    return h.finish();
}

}  // namespace runnel::digest
