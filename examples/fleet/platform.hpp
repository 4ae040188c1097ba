#pragma once

#include <runnel/testing/aliyun/platform.hpp>
#include <runnel/testing/certificate.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/testing/over_websocket.hpp>

#include <asio/io_context.hpp>
#include <asio/post.hpp>

#include <cstdint>
#include <string>
#include <thread>
#include <vector>

namespace fleet {

/// The simulated IoT Platform, on a thread of its own.
class platform {
  public:
    platform(std::vector<runnel::aliyun::device> const& devices, bool ssl, bool websocket)
        : simulator_(io_.get_executor()) {
        for (auto const& d : devices) simulator_.add_device(d);
        using runnel::testing::over_tls, runnel::testing::over_websocket;
        if (ssl)
            port_ = websocket ? simulator_.listen(over_websocket(over_tls(authority_)))
                              : simulator_.listen(over_tls(authority_));
        else
            port_ = websocket ? simulator_.listen(over_websocket()) : simulator_.listen_tcp();
        thread_ = std::thread([this] { io_.run(); });
    }
    platform(platform const&) = delete;
    platform& operator=(platform const&) = delete;
    ~platform() {
        asio::post(io_, [this] { simulator_.close(); });
        thread_.join();
    }

    /// Where it listens, on 127.0.0.1.
    std::uint16_t port() const noexcept { return port_; }
    /// The authority that has signed its certificate (PEM).
    std::string authority_pem() const { return authority_.certificate_pem(); }

  private:
    using executor = asio::io_context::executor_type;

    runnel::testing::certificate_authority authority_;
    asio::io_context io_{1};
    runnel::testing::basic_aliyun_platform<executor> simulator_;
    std::uint16_t port_ = 0;
    std::thread thread_;
};

}  // namespace fleet
