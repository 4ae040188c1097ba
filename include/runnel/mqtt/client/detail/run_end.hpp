#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/client/publish_result.hpp>
#include <runnel/mqtt/codec/error.hpp>

#include <exception>
#include <memory>
#include <string>
#include <system_error>

namespace runnel::mqtt::detail {

/// What has ended a session's `run`, in its text; that is empty before. Shared by all that may outlive the session, and
/// of a type that a call of `publish` carries anyway.
using run_end = std::shared_ptr<publish_details>;

/// What to throw for `code`: with the text of the details, if there is one.
RUNNEL_COLD inline std::system_error error_with(std::error_code code, publish_details const* details) {
    if (details == nullptr || details->reason_string.empty()) return std::system_error(code);
    return {code, details->reason_string};
}

/// The same: where `code` is the end of `run`, the text says what has ended it.
RUNNEL_COLD inline std::system_error ended(std::error_code code, publish_details const* by) {
    return error_with(code, code == errc::disconnected ? by : nullptr);
}

/// What has ended `run`, which throws `failure`, if that is not null; and its code, if it has one.
RUNNEL_COLD RUNNEL_NOINLINE inline std::string end_text(std::exception_ptr const& failure, std::error_code& code) {
    if (failure == nullptr) return "run has ended by disconnect";
    std::string text = "run has ended: ";
    try {
        std::rethrow_exception(failure);
    } catch (std::system_error const& e) {
        code = e.code();
        text += e.what();
    } catch (std::exception const& e) {
        text += e.what();
    } catch (...) {
        text += "an exception";
    }
    return text;
}

}  // namespace runnel::mqtt::detail
