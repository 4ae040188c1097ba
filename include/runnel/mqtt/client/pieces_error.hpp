#pragma once

#include <runnel/core/error.hpp>

#include <system_error>

namespace runnel::mqtt {

/// Why a message cannot be published in pieces.
enum class pieces_errc {
    ok = 0,

    // What the user has asked for.
    source_cannot_restart,
    session_has_store,

    // What the source has done.
    source_ended_early,
    source_too_long,
};

/// The name of the layer's error category.
constexpr char const* category_name(pieces_errc) noexcept { return "runnel.pieces"; }

/// What `e` means, as a phrase.
constexpr char const* describe(pieces_errc e) noexcept {
    switch (e) {
        case pieces_errc::ok: return "no error";
        case pieces_errc::source_cannot_restart:
            return "a message of QoS 1 or 2 may have to be sent again, and its source cannot begin anew";
        case pieces_errc::session_has_store:
            return "a store cannot keep a message of QoS 1 or 2 that is published in pieces";
        case pieces_errc::source_ended_early: return "the source has ended before the size that it announced";
        case pieces_errc::source_too_long: return "the source has given more than was asked for";
    }
    return "unknown pieces error";
}

/// What `e` means to others: all stay wrong until somebody changes the program.
inline std::error_condition condition_of(pieces_errc e) noexcept {
    return e == pieces_errc::ok ? std::error_condition() : std::errc::invalid_argument;
}

/// Lets a `std::error_code` be made of one of these.
inline std::error_code make_error_code(pieces_errc e) noexcept { return make_layer_error(e); }

}  // namespace runnel::mqtt

template <>
struct std::is_error_code_enum<runnel::mqtt::pieces_errc> : std::true_type {};
