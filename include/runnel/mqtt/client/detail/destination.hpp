#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/codec/reason_code.hpp>
#include <runnel/transport/connect_progress.hpp>
#include <runnel/transport/redirect.hpp>
#include <runnel/transport/stream.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::mqtt::detail {

/// Where a session connects to: the transport it was given, or the server that this one has named.
template <transport Transport>
class destination {
  public:
    using executor_type = typename Transport::executor_type;
    using stream_type = typename Transport::stream_type;

    RUNNEL_COLD explicit destination(Transport home) : home_(std::move(home)) {}

    RUNNEL_COLD std::string url() const { return current().url(); }
    /// That of the server with which the next attempt begins.
    RUNNEL_COLD std::string next_url() const {
        if constexpr (requires { current().next_url(); })
            return current().next_url();
        else
            return url();
    }
    RUNNEL_COLD asio::awaitable<stream_type, executor_type> open(executor_type const& executor, connect_budget budget) {
        if (!progress_) progress_ = std::make_unique<connect_progress>();
        progress_->begin(budget);
        return open_stream(current(), executor, progress_.get());
    }

    /// Another attempt is to be made: nothing is known of it yet.
    void begin_attempt() {
        if (progress_) progress_->begin({});
    }

    /// What is known of the attempt to connect; nullptr: there is none, or the server has accepted the connection.
    connect_progress* progress() const noexcept { return progress_.get(); }

    /// Follows a server that has refused with `use_another_server`, for the next connection, or with `server_moved`,
    /// for good (4.11). False: it has not, it has named none that can be reached, or too many in a row have done so, in
    /// CONNACK or soon behind it.
    RUNNEL_COLD bool redirect(std::error_code why, std::string_view reference) {
        constexpr std::uint32_t maximum = 5;
        bool const moved = why == reason_code::server_moved;
        if (!moved && why != reason_code::use_another_server) return false;
        auto other = redirected(current(), reference);
        if (!other || ++redirects_ > maximum) return false;
        if (moved) {
            home_ = std::move(*other);
            elsewhere_.reset();
        } else {
            elsewhere_ = std::make_unique<Transport>(std::move(*other));
        }
        return true;
    }

    /// The server has accepted the connection.
    void accepted() {
        progress_.reset();
        report(true);
    }

    /// The connection has lasted: redirections from now on are no more of that row.
    void lasted() noexcept { redirects_ = 0; }

    /// The server has refused, or the connection has not lasted, or, if not `tried`, the transport itself knows that
    /// there was none. `tried` is also an attempt whose time was over. Of a server that was named by another one that
    /// one is told: it does not serve itself, and the next of several may.
    RUNNEL_COLD void failed(bool tried) {
        redirects_ = 0;
        bool const was_elsewhere = elsewhere_ != nullptr;
        elsewhere_.reset();
        if (progress_) progress_->leave_address();
        if (tried || was_elsewhere) report(false);
    }

  private:
    Transport const& current() const noexcept { return elsewhere_ ? *elsewhere_ : home_; }

    void report(bool well) {
        if constexpr (reporting_transport<Transport>)
            if (!elsewhere_) home_.report(well);
    }

    Transport home_;
    std::unique_ptr<Transport> elsewhere_{};
    std::unique_ptr<connect_progress> progress_{};
    std::uint32_t redirects_ = 0;  // in a row
};

}  // namespace runnel::mqtt::detail
