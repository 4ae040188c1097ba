#pragma once

#include <asio/io_context.hpp>
#include <asio/ip/address.hpp>
#include <asio/ip/tcp.hpp>

#include <optional>
#include <sys/socket.h>

namespace test {

/// A listener that answers nobody, as a firewall that drops packets: its queue is full.
struct black_hole {
    explicit black_hole(asio::io_context& io, char const* address = "127.0.0.3") : acceptor(io) {
        acceptor.open(asio::ip::tcp::v4());
        acceptor.bind({asio::ip::make_address(address), 0});
        acceptor.listen(0);
        // Linux queues one connection more than asked for; later SYNs are not answered.
        for (auto& socket : fillers) {
            socket.emplace(io);
            socket->open(asio::ip::tcp::v4());
            socket->native_non_blocking(true);
            auto const to = acceptor.local_endpoint();
            ::connect(socket->native_handle(), to.data(), static_cast<socklen_t>(to.size()));
        }
    }
    asio::ip::tcp::endpoint where() const { return acceptor.local_endpoint(); }
    /// From now on there is room for one that asks once more: those that were to fill the queue do not.
    void answer() {
        for (auto& socket : fillers) socket.reset();
        acceptor.accept();
    }

    asio::ip::tcp::acceptor acceptor;
    std::optional<asio::ip::tcp::socket> fillers[3];
};

}  // namespace test
