#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/coro/asio.hpp>

#include RUNNEL_ASIO(error.hpp)
#include RUNNEL_ASIO_IP(tcp.hpp)

#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel {

/// An address that was tried, and why it could not be connected to.
struct connect_attempt {
    asio::ip::tcp::endpoint endpoint{};
    std::error_code error{};
};

/// None of a host's addresses could be connected to: the text names each with its error. The code is that of the last
/// one which failed otherwise than by being unreachable, if there is such a one: a host without IPv6 says "network is
/// unreachable" of every IPv6 address, and that is not the news.
class connect_failed : public std::system_error {
  public:
    RUNNEL_COLD connect_failed(std::string const& doing, std::vector<connect_attempt> attempts)
        : system_error(code_of(attempts), doing + describe(attempts)),
          attempts_(std::make_shared<std::vector<connect_attempt> const>(std::move(attempts))) {}

    /// The addresses, in the order in which they failed.
    std::vector<connect_attempt> const& attempts() const noexcept { return *attempts_; }

  private:
    RUNNEL_COLD static std::error_code code_of(std::vector<connect_attempt> const& attempts) noexcept {
        std::error_code code = asio::error::host_not_found;
        bool telling = false;
        for (auto const& [endpoint, error] : attempts) {
            bool const unreachable = error == asio::error::network_unreachable ||
                                     error == asio::error::host_unreachable ||
                                     error == asio::error::address_family_not_supported;
            if (telling && unreachable) continue;
            code = error;
            telling = !unreachable;
        }
        return code;
    }

    RUNNEL_COLD static std::string describe(std::vector<connect_attempt> const& attempts) {
        std::string text;
        for (auto const& [endpoint, error] : attempts) {
            text += text.empty() ? " (" : "; ";
            text += endpoint.address().to_string();
            text += ": ";
            text += error.message();
        }
        if (!text.empty()) text += ')';
        return text;
    }

    std::shared_ptr<std::vector<connect_attempt> const> attempts_;  // so that copying throws nothing
};

}  // namespace runnel
