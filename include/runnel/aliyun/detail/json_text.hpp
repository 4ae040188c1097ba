#pragma once

#include <runnel/core/secret.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

// As much of JSON as the answer to a registration takes: the texts in one object. Whoever needs more has a library.

namespace runnel::aliyun::detail {

/// Reads the texts that are members of a JSON object (RFC 8259), of which one may be a secret. Does not throw; does not
/// recurse.
class json_text_reader {
  public:
    explicit json_text_reader(std::string_view json) noexcept : rest_(json) {}

    /// The value of the first member `name` that is a text; nothing if there is none, or what is before it is not JSON.
    std::optional<secret_string> find(std::string_view name) {
        if (!take('{')) return std::nullopt;
        do {
            auto const key = text();
            if (!key || !take(':')) return std::nullopt;
            skip_space();
            if (*key == name && rest_.starts_with('"')) return text();
            if (!skip_value()) return std::nullopt;
        } while (take(','));
        return std::nullopt;
    }

  private:
    void skip_space() noexcept { rest_.remove_prefix((std::min)(rest_.find_first_not_of(" \t\r\n"), rest_.size())); }

    bool take(char c) noexcept {
        skip_space();
        if (!rest_.starts_with(c)) return false;
        rest_.remove_prefix(1);
        return true;
    }

    std::optional<secret_string> text() {
        if (!take('"')) return std::nullopt;
        // All at once, as what a string grows out of is not wiped.
        std::size_t size = 0;
        while (size < rest_.size() && rest_[size] != '"') size += rest_[size] == '\\' ? 2 : 1;
        secret_string value;
        value.reserve((std::min)(size, rest_.size()));
        while (!rest_.empty()) {
            char const c = rest_.front();
            rest_.remove_prefix(1);
            if (c == '"') return value;
            if (static_cast<unsigned char>(c) < 0x20) return std::nullopt;
            if (c != '\\')
                value += c;
            else if (!escape(value))
                return std::nullopt;
        }
        return std::nullopt;
    }

    bool escape(std::string& value) {
        if (rest_.empty()) return false;
        char const c = rest_.front();
        rest_.remove_prefix(1);
        constexpr std::string_view letters = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
        if (auto const at = letters.find(c); at != letters.npos) {
            value += meant[at];
            return true;
        }
        std::uint32_t code = 0;
        if (c != 'u' || !four_digits(code)) return false;
        if (code >= 0xD800 && code < 0xDC00) {
            std::uint32_t low = 0;
            if (!rest_.starts_with("\\u")) return false;
            rest_.remove_prefix(2);
            if (!four_digits(low) || low < 0xDC00 || low > 0xDFFF) return false;
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        } else if (code >= 0xDC00 && code <= 0xDFFF) {
            return false;
        }
        append_utf8(value, code);
        return true;
    }

    bool four_digits(std::uint32_t& code) noexcept {
        if (rest_.size() < 4) return false;
        for (char const c : rest_.substr(0, 4)) {
            int const digit = c >= '0' && c <= '9'   ? c - '0'
                              : c >= 'a' && c <= 'f' ? c - 'a' + 10
                              : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                     : -1;
            if (digit < 0) return false;
            code = code << 4 | static_cast<std::uint32_t>(digit);
        }
        rest_.remove_prefix(4);
        return true;
    }

    static void append_utf8(std::string& to, std::uint32_t code) {
        auto const tail = [&](int shift) { to += static_cast<char>(0x80 | (code >> shift & 0x3F)); };
        if (code < 0x80) {
            to += static_cast<char>(code);
        } else if (code < 0x800) {
            to += static_cast<char>(0xC0 | code >> 6);
            tail(0);
        } else if (code < 0x10000) {
            to += static_cast<char>(0xE0 | code >> 12);
            tail(6), tail(0);
        } else {
            to += static_cast<char>(0xF0 | code >> 18);
            tail(12), tail(6), tail(0);
        }
    }

    // A text, a number or word, or an object or array with all that is in it, whose brackets are counted only.
    bool skip_value() {
        std::size_t depth = 0;
        do {
            skip_space();
            if (rest_.empty()) return false;
            char const c = rest_.front();
            if (c == '"') {
                if (!text()) return false;
                continue;
            }
            if (c == '{' || c == '[') {
                ++depth;
                rest_.remove_prefix(1);
            } else if (c == '}' || c == ']') {
                if (depth == 0) return false;
                --depth;
                rest_.remove_prefix(1);
            } else if (depth > 0 && (c == ',' || c == ':')) {
                rest_.remove_prefix(1);
            } else {
                auto const end = (std::min)(rest_.find_first_of(",:{}[]\" \t\r\n"), rest_.size());
                if (end == 0) return false;
                rest_.remove_prefix(end);
            }
        } while (depth > 0);
        return true;
    }

    std::string_view rest_;
};

/// The text that is the member `name` of the JSON object `json`; nothing if there is none.
inline std::optional<secret_string> find_json_text(std::string_view json, std::string_view name) {
    return json_text_reader(json).find(name);
}

}  // namespace runnel::aliyun::detail
