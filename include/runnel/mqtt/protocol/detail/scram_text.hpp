#pragma once

#include <runnel/core/utf8.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

// The messages of SCRAM as text (RFC 5802 7).

namespace runnel::mqtt::detail {

/// Whether `text` may be a message: UTF-8 without U+0000.
inline bool is_scram_text(std::string_view text) noexcept {
    return text.find('\0') == std::string_view::npos && is_utf8(text);
}

/// Reads the attributes of a message, `a=value` with commas between, from left to right.
class scram_reader {
  public:
    explicit scram_reader(std::string_view text) noexcept : rest_(text), has_more_(!text.empty()) {}

    /// Whether the next attribute has this name.
    bool is_next(char name) const noexcept {
        return has_more_ && rest_.size() > 1 && rest_[0] == name && rest_[1] == '=';
    }

    /// The value of the next attribute, if it has this name and a value.
    std::optional<std::string_view> take(char name) noexcept {
        if (!is_next(name)) return {};
        auto const comma = (std::min)(rest_.find(','), rest_.size());
        auto const value = rest_.substr(2, comma - 2);
        has_more_ = comma < rest_.size();
        rest_.remove_prefix(has_more_ ? comma + 1 : comma);
        if (value.empty()) return {};
        return value;
    }

    /// Whether all that is left are extensions, which are optional and are passed over: attributes of one letter that
    /// RFC 5802 does not define.
    bool skip_extensions() noexcept {
        constexpr std::string_view defined = "anmrcsipve";
        while (has_more_) {
            char const name = rest_.empty() ? '\0' : rest_[0];
            bool const letter = (name >= 'a' && name <= 'z') || (name >= 'A' && name <= 'Z');
            if (!letter || defined.find(name) != std::string_view::npos || !take(name)) return false;
        }
        return true;
    }

  private:
    std::string_view rest_;
    bool has_more_;
};

/// Whether `nonce` has only what a nonce has: printable ASCII without commas.
inline bool is_scram_nonce(std::string_view nonce) noexcept {
    return !nonce.empty() &&
           std::all_of(nonce.begin(), nonce.end(), [](char c) { return c > ' ' && c < '\x7f' && c != ','; });
}

/// A user name as it stands in a message: without commas and equals signs.
inline std::string escape_scram_name(std::string_view name) {
    std::string escaped;
    for (char const c : name) {
        if (c == ',')
            escaped += "=2C";
        else if (c == '=')
            escaped += "=3D";
        else
            escaped += c;
    }
    return escaped;
}

/// The name that `escaped` stands for; nothing if an equals sign stands for neither of the two.
inline std::optional<std::string> unescape_scram_name(std::string_view escaped) {
    std::optional<std::string> name(std::in_place);
    for (std::size_t i = 0; i < escaped.size(); ++i) {
        auto const code = escaped.substr(i, 3);
        if (escaped[i] != '=') {
            *name += escaped[i];
        } else if (code == "=2C" || code == "=3D") {
            *name += code == "=2C" ? ',' : '=';
            i += 2;
        } else {
            return {};
        }
    }
    return name;
}

/// The number that `text` is: 1 or more, in decimal digits without a leading zero. One that is too large is the
/// largest.
inline std::optional<std::uint32_t> read_scram_number(std::string_view text) noexcept {
    if (text.empty() || text[0] == '0') return {};
    std::uint64_t number = 0;
    for (char const c : text) {
        if (c < '0' || c > '9') return {};
        number = (std::min)(number * 10 + static_cast<std::uint64_t>(c - '0'), std::uint64_t{0xFFFF'FFFF});
    }
    return static_cast<std::uint32_t>(number);
}

}  // namespace runnel::mqtt::detail
