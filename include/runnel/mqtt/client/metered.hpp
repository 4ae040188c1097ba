#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/mqtt/protocol/traffic_counters.hpp>
#include <runnel/transport/connect_progress.hpp>
#include <runnel/transport/redirect.hpp>
#include <runnel/transport/stream.hpp>
#include <runnel/transport/tapped_stream.hpp>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::mqtt {

namespace detail {

/// Counts what goes over one connection; a tap of its stream.
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
class metered {
  public:
    using executor_type = typename Next::executor_type;
    using stream_type = tapped_stream<typename Next::stream_type, detail::connection_meter>;
    static constexpr bool secure = Next::secure;

    RUNNEL_COLD explicit metered(Next next) : next_(std::move(next)), counters_(std::make_shared<traffic_counters>()) {}

    Next const& next() const noexcept { return next_; }
    /// That of what is wrapped.
    std::string url() const { return next_.url(); }
    /// The same of where the next `open` begins, if what is wrapped tells: of a `failover`.
    std::string next_url() const
    requires requires(Next const& n) { n.next_url(); }
    {
        return next_.next_url();
    }
    /// Of all connections so far. To be read in the executor's thread.
    traffic_counters const& traffic() const noexcept { return *counters_; }

    /// As that of what is wrapped, and throws what that throws.
    RUNNEL_COLD asio::awaitable<stream_type, executor_type> open(executor_type executor,
                                                                 connect_progress* progress = nullptr) const {
        auto opening = open_stream(next_, std::move(executor), progress);
        auto opened = co_await std::move(opening);
        co_return stream_type(std::move(opened), detail::connection_meter(counters_));
    }

    /// For what is wrapped, if that wants to know: see `reporting_transport`.
    void report(bool well)
    requires reporting_transport<Next>
    {
        next_.report(well);
    }

    /// As the function of the same name for what is wrapped; the counters are the same.
    RUNNEL_COLD std::optional<metered> redirected(std::string_view reference) const {
        auto other = runnel::redirected(next_, reference);
        if (!other) return std::nullopt;
        metered copy = *this;
        copy.next_ = std::move(*other);
        return copy;
    }

    /// Equal if what they wrap is and they share the counters: a copy is equal to its original.
    friend bool operator==(metered const& a, metered const& b) {
        return a.next_ == b.next_ && a.counters_ == b.counters_;
    }

  private:
    Next next_;
    std::shared_ptr<traffic_counters> counters_;
};

}  // namespace runnel::mqtt
