#pragma once

#include <runnel/transport/detail/connect_race.hpp>
#include <runnel/transport/tcp.hpp>

#include "support/run.hpp"
#include <chrono>
#include <cstdint>
#include <string>
#include <system_error>
#include <vector>

namespace test {

/// TCP to a host that has the addresses which a test gives it, in that order, and is known under any name.
struct addresses {
    using executor_type = executor;
    using socket_type = asio::ip::tcp::socket;
    using stream_type = runnel::tcp::stream_type;
    static constexpr bool secure = false;
    std::string host;
    std::uint16_t port = 0;
    std::vector<asio::ip::tcp::endpoint> endpoints = {};
    /// As in `tcp`.
    std::chrono::milliseconds attempt_delay{250};

    std::string url() const { return "test://" + host; }
    asio::awaitable<stream_type> open(executor_type on, runnel::connect_progress* progress = nullptr) const {
        auto const open_socket = [](auto& socket, auto const& endpoint) {
            runnel::asio_error_code error;
            socket.open(endpoint.protocol(), error);
            return error;
        };
        return runnel::detail::connect_race<executor_type>::run<stream_type>(on, endpoints, attempt_delay, open_socket,
                                                                             "connecting to " + url(), progress);
    }
    [[maybe_unused]] friend bool operator==(addresses const&, addresses const&) = default;
};

}  // namespace test
