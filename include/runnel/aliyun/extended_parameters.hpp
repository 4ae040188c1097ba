#pragma once

#include <runnel/aliyun/error.hpp>
#include <runnel/core/inline_string.hpp>

#include <string_view>

namespace runnel::aliyun {

/// What a device tells about itself in its client identifier, beside what signs it. Not signed, and all may be left
/// out:
///
///     options.parameters = runnel::aliyun::extended_parameters{.custom_rrpc = true, .language = "C++"}.text().str();
struct extended_parameters {
    /// `ext`, bit 0: requests over topics of the product's own (`/ext/rrpc/...`) are wanted.
    bool custom_rrpc = false;
    /// `ext`, bit 1: notices on `/ext/error/...` and the like are wanted.
    bool notices = false;
    /// `gw=1`: the device is a gateway.
    bool gateway = false;
    /// `lan`: the programming language.
    std::string_view language = {};
    /// `_v`: name and version of the software, "sdk-c-4.2.0" for instance.
    std::string_view version = {};
    /// Others, `name=value` separated by commas.
    std::string_view others = {};

    /// All of them, `name=value` separated by commas. Throws `std::length_error` above 160 bytes.
    constexpr inline_string<160> text() const {
        inline_string<160> made;
        auto const add = [&](std::string_view name, std::string_view value) {
            if (value.empty()) return;
            if (!made.empty()) made.append(",");
            made.append(name).append(value);
        };
        constexpr std::string_view bits[] = {"", "1", "2", "3"};
        add("ext=", bits[(custom_rrpc ? 1 : 0) + (notices ? 2 : 0)]);
        add("gw=", gateway ? "1" : "");
        add("lan=", language);
        add("_v=", version);
        add("", others);
        return made;
    }
};

}  // namespace runnel::aliyun
