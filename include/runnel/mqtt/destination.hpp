#pragma once

#include <runnel/mqtt/reason_code.hpp>
#include <runnel/transport/redirect.hpp>
#include <runnel/transport/stream.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::mqtt {

/// Where a session connects to: the transport it was given, or the server that this one has named.
template <transport Transport>
class destination {
  public:
    using executor_type = typename Transport::executor_type;
    using stream_type = typename Transport::stream_type;

    explicit destination(Transport home) : home_(std::move(home)) {}

    std::string url() const { return current().url(); }
    asio::awaitable<stream_type, executor_type> open(executor_type const& executor) { return current().open(executor); }

    /// Follows a server that has refused with `use_another_server`, for the next connection, or with `server_moved`,
    /// for good (4.11). False: it has not, it has named none that can be reached, or too many in a row have done so.
    bool redirect(std::error_code why, std::string_view reference) {
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
        redirects_ = 0;
        report(true);
    }

    /// The server has refused, or the connection has not lasted; or there was none, if not `opened`.
    void failed(bool opened) {
        redirects_ = 0;
        elsewhere_.reset();
        if (opened) report(false);
    }

  private:
    Transport const& current() const noexcept { return elsewhere_ ? *elsewhere_ : home_; }

    void report(bool well) {
        if constexpr (reporting_transport<Transport>)
            if (!elsewhere_) home_.report(well);
    }

    Transport home_;
    std::unique_ptr<Transport> elsewhere_;
    std::uint32_t redirects_ = 0;  // in a row
};

}  // namespace runnel::mqtt
