#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/websocket/protocol/handshake.hpp>
#include <runnel/websocket/protocol/http_head.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>

namespace runnel::websocket {

/// The first part of the body behind a server's refusal, gathered from pieces cut anywhere, for people to read: as long
/// as the head says (RFC 9112 6.3), or until the connection ends. Chunks are taken apart (7.1); of a body with another
/// transfer coding nothing is taken, as it is no text.
class refusal_body {
  public:
    /// `most`: bytes that are kept, with the lines between chunks.
    RUNNEL_COLD refusal_body(http_head const& head, std::size_t most) : wanted_(most) {
        int const status = status_of(head.start_line());
        std::size_t const codings = head.count("Transfer-Encoding");
        is_chunked_ = codings == 1 && equal_ignoring_case(head.value("Transfer-Encoding"), "chunked");
        if (status == 204 || status == 304 || (codings != 0 && !is_chunked_)) wanted_ = 0;
        if (codings != 0) return;  // then there is no length, whatever is said of it
        std::string_view const length = head.value("Content-Length");
        std::size_t announced = 0;
        if (read(length, 10, announced) == length.size() && !length.empty()) wanted_ = (std::min)(wanted_, announced);
    }

    /// Takes bytes behind the head, as far as they are wanted.
    RUNNEL_COLD void write(std::string_view bytes) {
        raw_ += bytes.substr(0, wanted_ - raw_.size());
        if (is_chunked_ && !has_ended_) take_chunks();
    }

    /// Whether nothing more is wanted.
    bool complete() const noexcept { return raw_.size() == wanted_ || has_ended_; }
    /// What has come.
    std::string const& text() const noexcept { return is_chunked_ ? text_ : raw_; }

  private:
    // How many characters the number has; 0: it is none.
    static std::size_t read(std::string_view text, int base, std::size_t& value) noexcept {
        auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
        return error == std::errc() ? static_cast<std::size_t>(end - text.data()) : 0;
    }

    RUNNEL_COLD void take_chunks() {
        text_.clear();
        std::string_view rest = raw_;
        for (std::size_t line = 0; (line = rest.find("\r\n")) != rest.npos;) {
            std::size_t size = 0;
            if (read(rest.substr(0, line), 16, size) == 0) size = 0;  // it is none
            if (size == 0) has_ended_ = true;
            rest.remove_prefix(line + 2);
            text_ += rest.substr(0, size);
            if (has_ended_ || rest.size() < 2 || rest.size() - 2 < size) return;
            rest.remove_prefix(size + 2);
        }
    }

    std::size_t wanted_;
    std::string raw_{};
    std::string text_{};  // of the chunks
    bool is_chunked_ = false;
    bool has_ended_ = false;
};

}  // namespace runnel::websocket
