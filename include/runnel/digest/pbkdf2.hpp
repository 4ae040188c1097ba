#pragma once

#include <runnel/digest/hmac.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace runnel::digest {

/// PBKDF2 (RFC 8018 5.2) with HMAC: a key of `Hash::digest_size` bytes, of a password. It is made to take long, so it
/// is done in portions: `while (!key.advance(4096)) {...}`. Two compressions of `Hash` an iteration;
/// docs/sessions.md has figures. What was derived from the password is wiped from memory when the object is
/// destroyed.
template <hash Hash>
class pbkdf2 {
  public:
    using digest_type = std::array<char, Hash::digest_size>;

    /// Does the first of `iterations`, 1 or more. `password` and `salt`, of any length, are not needed afterwards.
    constexpr pbkdf2(std::string_view password, std::string_view salt, std::uint32_t iterations)
        : keyed_(password), left_(iterations - 1) {
        hmac<Hash> first = keyed_;
        first.update(salt);
        first.update({"\0\0\0\1", 4});  // the number of this block of the key: there is no other
        last_ = key_ = first.finish();
    }
    constexpr pbkdf2(pbkdf2 const&) = default;
    constexpr pbkdf2& operator=(pbkdf2 const&) = default;
    constexpr ~pbkdf2() {
        secure_wipe(last_);
        secure_wipe(key_);
    }

    /// Does at most `iterations` more. True: all have been done.
    constexpr bool advance(std::uint32_t iterations) {
        std::uint32_t const now = (std::min)(iterations, left_);
        for (std::uint32_t i = 0; i < now; ++i) {
            hmac<Hash> next = keyed_;
            next.update(view(last_));
            last_ = next.finish();
            for (std::size_t at = 0; at < key_.size(); ++at) key_[at] = static_cast<char>(key_[at] ^ last_[at]);
        }
        left_ -= now;
        return left_ == 0;
    }

    /// The key, once all iterations have been done. As long as this object lives.
    constexpr std::string_view key() const noexcept { return view(key_); }

  private:
    hmac<Hash> keyed_;
    digest_type last_{};
    digest_type key_{};
    std::uint32_t left_;
};

}  // namespace runnel::digest
