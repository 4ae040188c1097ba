#pragma once

#include <runnel/core/printable.hpp>
#include <runnel/websocket/error.hpp>
#include <runnel/websocket/protocol/handshake.hpp>
#include <runnel/websocket/protocol/http_head.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::websocket {

/// Why a server did not open a WebSocket: its HTTP reply. The code is `errc::redirected`, or that of `errc_for_status`.
class handshake_refused : public std::system_error {
  public:
    /// `doing`: what was being done, with whom.
    handshake_refused(errc e, http_head const& reply, std::string body, std::string doing = {})
        : std::system_error(make_error_code(e), text_of(std::move(doing), reply, body)),
          status_(status_of(reply.start_line())),
          location_(reply.value("Location")),
          body_(std::move(body)) {}

    /// The status of the reply: 403, 404, 502, ...
    int status() const noexcept { return status_; }
    /// Where a redirection points; it is not followed.
    std::string const& location() const noexcept { return location_; }
    /// The first bytes of the reply's body, at most `max_body`, as far as they have come within half a second. Chunks
    /// are put together; empty where the body has another transfer coding.
    std::string const& body() const noexcept { return body_; }

    static constexpr std::size_t max_body = 1024;

  private:
    static std::string text_of(std::string text, http_head const& reply, std::string_view body) {
        if (!text.empty()) text += ": ";
        text += printable(reply.start_line().substr(std::min<std::size_t>(9, reply.start_line().size())));
        if (auto const to = reply.value("Location"); !to.empty()) text.append(" to ").append(printable(to));
        // One line of the body is enough for a log, or the title of a page.
        if (auto const title = body.find("<title>"); title != body.npos)
            body = body.substr(title + 7, body.substr(title + 7).find("</title>"));
        auto const line = body.substr(0, body.find_first_of("\r\n"));
        if (!line.empty()) text.append(": ").append(printable(line, 200));
        return text;
    }

    int status_;
    std::string location_;
    std::string body_;
};

}  // namespace runnel::websocket
