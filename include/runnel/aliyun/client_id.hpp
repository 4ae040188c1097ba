#pragma once

#include <runnel/aliyun/error.hpp>
#include <runnel/aliyun/limits.hpp>

#include <algorithm>
#include <optional>
#include <string_view>

// The platform's client identifier has two parts: "12345|securemode=2,signmethod=hmacsha256|" is the identifier 12345
// with extended parameters between two bars.

namespace runnel::aliyun {

/// The two parts of a client identifier, as views into it.
struct client_id_parts {
    /// What is before the first bar.
    std::string_view client_id{};
    /// What is between the bars: `name=value`, separated by commas.
    std::string_view parameters{};
};

/// Takes the first `name=value` off the front of `parameters`. False if what is there is none (no `=`, no name, a bar,
/// a control character).
constexpr bool next_parameter(std::string_view& parameters, std::string_view& name, std::string_view& value) noexcept {
    std::string_view const item = parameters.substr(0, parameters.find(','));
    parameters.remove_prefix((std::min)(item.size() + 1, parameters.size()));
    auto const equals = item.find('=');
    if (equals == item.npos || equals == 0) return false;
    name = item.substr(0, equals);
    value = item.substr(equals + 1);
    return std::none_of(item.begin(), item.end(),
                        [](char c) { return c == '|' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

/// Checks extended parameters: none, or `name=value` separated by commas. One comma may follow the last, as the
/// vendor's SDK writes it.
constexpr errc check_parameters(std::string_view parameters) noexcept {
    for (std::string_view name, value; !parameters.empty();)
        if (!next_parameter(parameters, name, value)) return errc::parameters_invalid;
    return errc::ok;
}

/// The value of the extended parameter `name`; nothing if there is none of that name.
constexpr std::optional<std::string_view> find_parameter(std::string_view parameters, std::string_view name) noexcept {
    for (std::string_view found, value; !parameters.empty();)
        if (next_parameter(parameters, found, value) && found == name) return value;
    return std::nullopt;
}

/// Splits a client identifier as the platform receives it. Fails if the bars are not where they belong, the first part
/// is too long, or the parameters are not of their form.
constexpr errc split_client_id(std::string_view text, client_id_parts& out) noexcept {
    auto const bar = text.find('|');
    if (bar == text.npos || bar + 1 == text.size() || text.back() != '|') return errc::client_id_invalid;
    client_id_parts const parts{text.substr(0, bar), text.substr(bar + 1, text.size() - bar - 2)};
    errc e = check_client_id(parts.client_id);
    if (e == errc::ok) e = check_parameters(parts.parameters);
    if (e == errc::ok) out = parts;
    return e;
}

}  // namespace runnel::aliyun
