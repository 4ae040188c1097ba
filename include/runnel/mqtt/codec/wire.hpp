#pragma once

#include <runnel/core/bytes.hpp>
#include <runnel/core/compiler.hpp>
#include <runnel/core/utf8.hpp>
#include <runnel/mqtt/codec/error.hpp>
#include <runnel/mqtt/codec/types.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

namespace runnel::mqtt {

// How MQTT represents data (1.5): big-endian integers, variable byte integers, and strings and binary data behind a
// two-byte length.

/// Bytes that `value` (at most `max_variable_integer`) takes as a variable byte integer: 1 to 4.
constexpr std::uint8_t variable_integer_size(std::uint32_t value) noexcept {
    if (value <= 0x7F) return 1;
    return static_cast<std::uint8_t>(2 + (value > 0x3FFF) + (value > 0x1F'FFFF));
}

/// Writes `value` (at most `max_variable_integer`) as a variable byte integer; returns the end of what was written.
constexpr char* write_variable_integer(char* out, std::uint32_t value) noexcept {
    if (value > 0x7F) {
        do {
            *out++ = static_cast<char>(static_cast<unsigned char>(value | 0x80));
            value >>= 7;
        } while (value > 0x7F);
    }
    *out = static_cast<char>(value);
    return out + 1;
}

/// A variable byte integer that was read.
struct variable_integer {
    std::uint32_t value = 0;
    std::uint8_t size = 0;  ///< bytes read; 0 if there was none: either the input ends too early, or `error` says why
    errc error = errc::ok;  ///< not `ok`: no input that begins like this is a variable byte integer
};

/// Reads a variable byte integer from the beginning of `input`.
constexpr variable_integer read_variable_integer(std::string_view input) noexcept {
    auto const byte = [&](std::size_t i) { return static_cast<unsigned char>(input[i]); };
    // [MQTT-1.5.5-1]: the minimum number of bytes, so the last is not 0 (unless it is the only one).
    auto const end = [&](std::uint32_t value, std::uint8_t size) {
        return value >> (7 * (size - 1)) == 0 ? variable_integer{0, 0, errc::variable_integer_not_minimal}
                                              : variable_integer{value, size, errc::ok};
    };
    if (input.empty()) return {};
    std::uint32_t value = byte(0);
    if (value < 0x80) return {value, 1, errc::ok};
    if (input.size() < 2) return {};
    value = value - 0x80 + byte(1) * 0x80u;
    if (byte(1) < 0x80) return end(value, 2);
    if (input.size() < 3) return {};
    value = value - 0x4000 + byte(2) * 0x4000u;
    if (byte(2) < 0x80) return end(value, 3);
    if (input.size() < 4) return {};
    value = value - 0x20'0000 + byte(3) * 0x20'0000u;
    if (byte(3) < 0x80) return end(value, 4);
    return {0, 0, errc::variable_integer_too_long};
}

/// Copies `bytes` to `out`; returns the end of the copy.
constexpr char* write_bytes(char* out, std::string_view bytes) noexcept {
    if (std::is_constant_evaluated()) return std::copy(bytes.begin(), bytes.end(), out);
    if (!bytes.empty()) std::memcpy(out, bytes.data(), bytes.size());
    return out + bytes.size();
}

/// Copies `n` bytes, at least `Half` and at most twice as many: two moves, which may overlap.
template <std::size_t Half>
RUNNEL_ALWAYS_INLINE inline void copy_by_ends(char* out, char const* from, std::size_t n) noexcept {
    char ends[2][Half];
    std::memcpy(ends[0], from, Half);
    std::memcpy(ends[1], from + n - Half, Half);
    std::memcpy(out, ends[0], Half);
    std::memcpy(out + n - Half, ends[1], Half);
}

/// Like `write_bytes`, without a call where there are 4 to 32 bytes, as nearly always in a topic or a property.
RUNNEL_ALWAYS_INLINE constexpr char* write_short_bytes(char* out, std::string_view bytes) noexcept {
    std::size_t const n = bytes.size();
    if (std::is_constant_evaluated() || n < 4 || n > 32) return write_bytes(out, bytes);
    if (n > 16)
        copy_by_ends<16>(out, bytes.data(), n);
    else if (n >= 8)
        copy_by_ends<8>(out, bytes.data(), n);
    else
        copy_by_ends<4>(out, bytes.data(), n);
    return out + n;
}

/// Bytes that a string or binary field takes.
constexpr std::size_t field_size(std::string_view field) noexcept { return 2 + field.size(); }

/// Writes a string or binary field of at most `max_string_size` bytes; returns the end of what was written.
constexpr char* write_field(char* out, std::string_view field) noexcept {
    return write_bytes(write_big_endian(out, static_cast<std::uint16_t>(field.size())), field);
}

/// Like `write_field`, for the hot path: inline, and without a call where there are 4 to 32 bytes.
RUNNEL_ALWAYS_INLINE constexpr char* write_short_field(char* out, std::string_view field) noexcept {
    return write_short_bytes(write_big_endian(out, static_cast<std::uint16_t>(field.size())), field);
}

/// What is wrong with a string of any bytes, if anything.
RUNNEL_NOINLINE constexpr errc find_string_error(std::string_view text) noexcept {
    if (text.size() > max_string_size) return errc::string_too_long;
    if (!is_utf8(text)) return errc::invalid_utf8;
    return text.find('\0') == std::string_view::npos ? errc::ok : errc::null_character;
}

/// Checks a string: UTF-8 [MQTT-1.5.4-1] without U+0000 [MQTT-1.5.4-2] and not longer than 65,535 bytes. `readable`
/// bytes, at least those of `text`, can be read where it begins.
RUNNEL_ALWAYS_INLINE constexpr errc check_string(std::string_view text, std::size_t readable) noexcept {
    constexpr auto test = [](auto word) { return test_ascii_without_null(word); };
    if (text.size() <= max_string_size && is_ascii(text, test, readable)) [[likely]]
        return errc::ok;
    return find_string_error(text);
}

/// Checks a string.
constexpr errc check_string(std::string_view text) noexcept { return check_string(text, text.size()); }

/// Reads the fields of a packet one after another. The first violation is kept, and every later read gives zeros and
/// empty views; so decoders read straight on and ask once at the end.
class wire_reader {
  public:
    explicit constexpr wire_reader(std::string_view bytes) noexcept : rest_(bytes) {}

    /// A big-endian integer. (Before its uses, for clang's constant expressions.)
    template <class T>
    constexpr T read_integer() noexcept {
        if (rest_.size() < sizeof(T)) {
            fail(errc::truncated_packet);
            return 0;
        }
        T const value = read_big_endian<T>(rest_.data());
        rest_.remove_prefix(sizeof(T));
        return value;
    }

    constexpr std::uint8_t read_byte() noexcept { return read_integer<std::uint8_t>(); }
    constexpr std::uint16_t read_two_bytes() noexcept { return read_integer<std::uint16_t>(); }
    constexpr std::uint32_t read_four_bytes() noexcept { return read_integer<std::uint32_t>(); }

    constexpr std::uint32_t read_variable_integer() noexcept {
        auto const integer = mqtt::read_variable_integer(rest_);
        if (integer.size == 0) fail(integer.error == errc::ok ? errc::truncated_packet : integer.error);
        rest_.remove_prefix(integer.size);
        return integer.value;
    }

    /// A packet identifier, which is never 0 ([MQTT-2.2.1-3], [MQTT-2.3.1-1] in 3.1.1).
    constexpr std::uint16_t read_packet_identifier() noexcept {
        auto const value = read_two_bytes();
        if (value == 0) fail(errc::packet_identifier_zero);
        return value;
    }

    /// The next `n` bytes.
    constexpr std::string_view read_bytes(std::size_t n) noexcept {
        if (rest_.size() < n) {
            fail(errc::truncated_packet);
            return {};
        }
        std::string_view const bytes(rest_.data(), n);
        rest_.remove_prefix(n);
        return bytes;
    }

    /// Binary data: any bytes behind a two-byte length.
    constexpr std::string_view read_binary() noexcept { return read_bytes(read_two_bytes()); }

    /// A string, checked by `check_string`.
    constexpr std::string_view read_string() noexcept {
        auto const text = read_binary();
        require(check_string(text));
        return text;
    }

    /// Takes all that is left.
    constexpr std::string_view read_rest() noexcept { return read_bytes(rest_.size()); }

    constexpr bool empty() const noexcept { return rest_.empty(); }
    constexpr std::size_t size() const noexcept { return rest_.size(); }
    constexpr std::string_view rest() const noexcept { return rest_; }

    /// Records a violation, if it is one and the first.
    constexpr void require(errc error) noexcept {
        if (error != errc::ok) fail(error);
    }

    /// Records a violation unless `condition` holds.
    constexpr void require(bool condition, errc error) noexcept {
        if (!condition) fail(error);
    }

    constexpr void fail(errc error) noexcept {
        if (error_ == errc::ok) error_ = error;
        rest_.remove_prefix(rest_.size());
    }

    /// The first violation so far.
    constexpr errc error() const noexcept { return error_; }

    /// The first violation; bytes that are left over are one too.
    constexpr errc finish() noexcept {
        require(rest_.empty(), errc::trailing_bytes);
        return error_;
    }

  private:
    std::string_view rest_;
    errc error_ = errc::ok;
};

}  // namespace runnel::mqtt
