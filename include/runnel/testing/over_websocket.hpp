#pragma once

#include <runnel/testing/broker/broker.hpp>
#include <runnel/transport/stream.hpp>
#include <runnel/websocket/stream.hpp>

#include <string>
#include <string_view>
#include <utility>

namespace runnel::testing {

/// Lets a broker listen for WebSockets, on TCP or another layer:
///
///     broker.listen(runnel::testing::over_websocket());
///     broker.listen(runnel::testing::over_websocket(runnel::testing::over_tls(authority)));
template <class Next = over_tcp>
class over_websocket {
  public:
    static constexpr bool secure = Next::secure;

    explicit over_websocket(Next next = Next()) : next_(std::move(next)) {}

    /// The only path that is not answered with 404; empty: any will do. A query behind it is ignored.
    std::string path{};

    std::string name() const { return secure ? "wss" : "ws"; }

    /// Performs the server's part of the handshakes. Clients must offer the subprotocol "mqtt" [MQTT-6.0.0-3].
    template <stream S>
    auto open(S connection) const -> asio::awaitable<
        websocket::stream<typename decltype(std::declval<Next const&>().open(std::declval<S>()))::value_type>,
        typename S::executor_type> {
        auto opening = next_.open(std::move(connection));
        auto below = co_await std::move(opening);
        websocket::server_options options;
        options.subprotocols = "mqtt";
        options.require_subprotocol = true;
        options.stream.accept_text = false;
        options.stream.max_message = 0;
        auto judge = [wanted = std::string_view(path)](websocket::server_request const& request) {
            std::string_view const asked = request.target();
            return wanted.empty() || asked.substr(0, asked.find('?')) == wanted ? 101 : 404;
        };
        using opened_type = websocket::stream<decltype(below)>;
        auto accepting = opened_type::accept(std::move(below), std::move(options), judge);
        co_return co_await std::move(accepting);
    }

  private:
    // While a coroutine is suspended, nobody writes this, nor `path`: each connection has a copy of the layer.
    Next next_;
};

}  // namespace runnel::testing
