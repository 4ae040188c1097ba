#include <runnel/transport/any_transport.hpp>
#include <runnel/transport/asio_stream.hpp>
#include <runnel/transport/memory.hpp>
#include <runnel/transport/proxy/http.hpp>

#include <asio/ip/tcp.hpp>
#include <asio/local/connect_pair.hpp>
#include <asio/local/stream_protocol.hpp>
#include <doctest/doctest.h>

#include "support/sample.hpp"
#include "support/stream_life.hpp"

namespace {

using memory = runnel::memory_stream<>;

std::pair<memory, memory> memory_pair(asio::io_context& io) {
    auto ends = memory::pair(io.get_executor());
    ends.first.outgoing().capacity = 5'000;
    return ends;
}

template <class Protocol>
using socket_of = asio::basic_stream_socket<Protocol, test::executor>;

using tcp_socket = socket_of<asio::ip::tcp>;
using local_socket = socket_of<asio::local::stream_protocol>;

// A stream of the user's over a socket, which is no socket itself.
template <bool CanBeClosed>
class wrapper {
  public:
    using executor_type = test::executor;
    explicit wrapper(local_socket s) : socket_(std::move(s)) {}
    executor_type get_executor() { return socket_.get_executor(); }
    template <class Buffers, class Token>
    auto async_read_some(Buffers const& into, Token&& token) {
        return socket_.async_read_some(into, std::forward<Token>(token));
    }
    template <class Buffers, class Token>
    auto async_write_some(Buffers const& from, Token&& token) {
        return socket_.async_write_some(from, std::forward<Token>(token));
    }
    void close()
    requires CanBeClosed
    {
        socket_.close();
    }

  private:
    local_socket socket_;
};

template <class Next>
std::pair<runnel::asio_stream<Next>, runnel::asio_stream<Next>> local_pair(asio::io_context& io) {
    local_socket one(io.get_executor()), other(io.get_executor());
    asio::local::connect_pair(one, other);
    one.set_option(asio::socket_base::send_buffer_size(1));
    return {runnel::asio_stream<Next>(Next(std::move(one))), runnel::asio_stream<Next>(Next(std::move(other)))};
}

template <runnel::stream S>
void try_all(test::life_test<S> const& life) {
    life.run_all({test::reads<S>});
    life.run_all({test::writes<S>});
    life.run_all({test::shuts_down<S>});
    life.run_all({test::reads<S>, test::writes<S>});
    life.run_all({test::writes<S>, test::reads<S>});
    life.run_inside({test::reads<S>, test::writes<S>});
    life.run_inside({test::writes<S>, test::reads_on<S>});
}

}  // namespace

TEST_CASE("an in-memory stream may go at each point of its operations") { try_all<memory>({.connect = memory_pair}); }

TEST_CASE("a TCP stream may go at each point of its operations") {
    using stream = runnel::asio_stream<tcp_socket>;
    try_all<stream>({.connect = [](asio::io_context& io) {
        auto ends = test::tcp_sockets(io);
        return std::pair(stream(std::move(ends.first)), stream(std::move(ends.second)));
    }});
}

TEST_CASE("a stream of a type known only at run time may go at each point of its operations") {
    using stream = runnel::any_stream;
    auto const connect = [](asio::io_context& io) {
        auto ends = test::tcp_sockets(io);
        return std::pair(stream(runnel::asio_stream(std::move(ends.first))),
                         stream(runnel::asio_stream(std::move(ends.second))));
    };
    try_all<stream>({.connect = connect, .apart = test::every(3)});
}

TEST_CASE("a stream over one of the user's that can be closed may go at each point of its operations") {
    using stream = runnel::asio_stream<wrapper<true>>;
    test::life_test<stream> const life{.connect = local_pair<wrapper<true>>};
    for (auto what : {test::interruption::destroy, test::interruption::destroy_with_context}) {
        CHECK(life.run({test::reads<stream>, test::writes<stream>}, what) > 0);
        CHECK(life.run({test::writes<stream>}, what) > 0);
    }
}

TEST_CASE("a stream over one of the user's that cannot be closed may go at each point of its operations") {
    using stream = runnel::asio_stream<wrapper<false>>;
    test::life_test<stream> const life{.connect = local_pair<wrapper<false>>};
    for (auto what : {test::interruption::destroy, test::interruption::destroy_with_context}) {
        CHECK(life.run({test::reads<stream>, test::writes<stream>}, what) > 0);
        CHECK(life.run({test::writes<stream>}, what) > 0);
    }
}

TEST_CASE("a stream through a proxy may go before what came behind the proxy's answer has been read") {
    using stream = runnel::tunnel_stream<memory>;
    try_all<stream>({.connect = [](asio::io_context& io) {
        auto ends = memory_pair(io);
        std::pair result(stream(std::move(ends.first)), stream(std::move(ends.second)));
        result.first.put_back(std::string(1'500, 'e'));
        return result;
    }});
}

TEST_CASE("a stream can be moved while its operations are under way") {
    asio::io_context io;
    auto ends = test::tcp_sockets(io);
    runnel::asio_stream first(std::move(ends.first));
    runnel::asio_stream other(std::move(ends.second));
    test::task reading(io, test::read_exactly(first, 5));
    io.poll();
    auto moved = std::move(first);
    test::run(io, test::write_text(other, "hello"));
    CHECK(reading.run() == "hello");
    CHECK(moved.next_layer().is_open());
}
