#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/mqtt/protocol/traffic_counters.hpp>
#include <runnel/transport/connect_progress.hpp>
#include <runnel/transport/stream.hpp>
#include <runnel/transport/tapped_transport.hpp>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::mqtt {

namespace detail {

/// Counts what goes over one connection; a tap of its stream.
///
/// Nothing here suspends: a reader and a writer call it in one step each. While a coroutine is suspended, others may
/// write all that it counts: the other of the two, and other connections `*to_`.
class connection_meter {
  public:
    RUNNEL_COLD explicit connection_meter(std::shared_ptr<traffic_counters> to)
        : to_(std::move(to)), scanner_(std::make_unique<traffic_scanner>(*to_)) {}

    void sent(std::string_view bytes) noexcept { scanner_->sent(bytes); }
    void received(std::string_view bytes) noexcept { scanner_->received(bytes); }
    void failed(std::error_code, bool) noexcept {}
    void closed() noexcept {}

  private:
    std::shared_ptr<traffic_counters> to_;
    std::unique_ptr<traffic_scanner> scanner_;
};

}  // namespace detail

/// A transport that counts what goes over its connections by type of packet and QoS, which a session does not. What it
/// wraps is used as it is; programs that do not name this type pay nothing.
///
///     mqtt::metered<runnel::tcp> to({.host = "broker.example"});
///     mqtt::session<mqtt::metered<runnel::tcp>> session(executor, to, options);
///     ...
///     add_metrics(list, to.traffic());
///
/// It is the outermost layer, above TLS and WebSocket; in `traced<metered<tcp>>` or the other way round both look on.
/// Copies count together. Bytes are counted when they are handed to the stream below.
template <transport Next>
class metered : public tapped_transport<Next, detail::connection_meter> {
    using base = tapped_transport<Next, detail::connection_meter>;

  public:
    using typename base::executor_type;
    using typename base::stream_type;

    RUNNEL_COLD explicit metered(Next next) : base(std::move(next)), counters_(std::make_shared<traffic_counters>()) {}

    /// Of all connections so far. To be read in the executor's thread.
    traffic_counters const& traffic() const noexcept { return *counters_; }

    /// As that of what is wrapped, and throws what that throws.
    RUNNEL_COLD asio::awaitable<stream_type, executor_type> open(executor_type executor,
                                                                 connect_progress* progress = nullptr) const {
        auto opening = open_stream(this->next(), std::move(executor), progress);
        auto opened = co_await std::move(opening);
        co_return stream_type(std::move(opened), detail::connection_meter(counters_));
    }

    /// As the function of the same name for what is wrapped; the counters are the same.
    RUNNEL_COLD std::optional<metered> redirected(std::string_view reference) const {
        return base::redirect(*this, reference);
    }

    /// Equal if what they wrap is and they share the counters: a copy is equal to its original.
    friend bool operator==(metered const& a, metered const& b) {
        return a.next() == b.next() && a.counters_ == b.counters_;
    }

  private:
    std::shared_ptr<traffic_counters> counters_;
};

}  // namespace runnel::mqtt
