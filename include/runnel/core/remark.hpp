#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/printable.hpp>

#include <string>
#include <string_view>
#include <system_error>

namespace runnel {

/// The text that an exception adds to its code's message: what was being done, with whom. Nothing if there is none.
RUNNEL_COLD inline std::string remark_of(std::system_error const& e) {
    std::string_view text = e.what();
    auto const message = e.code().message();
    if (text.ends_with(message)) text.remove_suffix(message.size());
    if (text.size() >= 2 && text[text.size() - 2] == ':') text.remove_suffix(2);
    return printable(text);
}

/// Adds another remark to one, if there is any.
RUNNEL_COLD inline void add_remark(std::string& text, std::string_view more) {
    if (!text.empty() && !more.empty()) text += ": ";
    text += more;
}

/// What an answer is that is not of the protocol expected, and which port it speaks for, put as a question. `bytes` are
/// the answer's first, or all there were.
RUNNEL_COLD RUNNEL_NOINLINE inline std::string strange_answer(std::string_view bytes) {
    if (bytes.substr(0, 5) == "HTTP/") return "the server speaks HTTP: is this a WebSocket port?";
    // A record of an alert or a handshake, of any version since SSL 3 (RFC 8446 5.1).
    bool const is_record = !bytes.empty() && (bytes[0] == '\x15' || bytes[0] == '\x16') && bytes.substr(1, 1) == "\3";
    if (is_record) return "the server speaks TLS: is this a TLS port?";
    return "the server's answer begins with \"" + printable(bytes, 40) + "\": is this the right port?";
}

}  // namespace runnel
