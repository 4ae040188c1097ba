#include <runnel/transport/tcp.hpp>

#include <asio/ip/tcp.hpp>
#include <asio/local/stream_protocol.hpp>
#include <asio/strand.hpp>
#include <doctest/doctest.h>

#include "support/run.hpp"
#include "support/streams.hpp"
#include <memory>
#include <string>
#include <sys/socket.h>

namespace {

using socket_type = asio::ip::tcp::socket;
using stream_type = runnel::tcp::stream_type;
static_assert(runnel::network_transport<runnel::tcp>);
static_assert(runnel::network_transport<runnel::basic_tcp<asio::io_context::executor_type>>);
static_assert(runnel::stream<runnel::asio_stream<asio::local::stream_protocol::socket>>);

struct listening {
    asio::io_context io;
    asio::ip::tcp::acceptor acceptor{io, {asio::ip::make_address("127.0.0.1"), 0}};
    runnel::tcp transport{.host = "127.0.0.1", .port = acceptor.local_endpoint().port()};

    std::pair<stream_type, stream_type> connect() {
        auto client = test::run(io, transport.open(io.get_executor()));
        return {std::move(client), stream_type(acceptor.accept())};
    }
};

// A loopback port on which nobody listens.
std::uint16_t closed_port() {
    asio::io_context io;
    asio::ip::tcp::acceptor acceptor(io, {asio::ip::make_address("127.0.0.1"), 0});
    return acceptor.local_endpoint().port();
}

}  // namespace

TEST_CASE("tcp connects to an address and carries bytes both ways") {
    listening l;
    auto [client, server] = l.connect();
    test::run(l.io, test::write_text(client, "there"));
    test::run(l.io, test::write_text(server, "and back"));
    CHECK(test::run(l.io, test::read_exactly(server, 5)) == "there");
    CHECK(test::run(l.io, test::read_exactly(client, 8)) == "and back");
}

TEST_CASE("tcp resolves names and tries their addresses until one answers") {
    // Where localhost is ::1 first, nobody listens there.
    listening l;
    l.transport.host = "localhost";
    auto [client, server] = l.connect();
    test::run(l.io, test::write_text(client, "hi"));
    CHECK(test::run(l.io, test::read_exactly(server, 2)) == "hi");
}

TEST_CASE("tcp works with a concrete executor") {
    listening l;
    runnel::basic_tcp<asio::io_context::executor_type> transport;
    transport.host = l.transport.host;
    transport.port = l.transport.port;
    bool opened = false;
    auto const open = [&]() -> asio::awaitable<void, asio::io_context::executor_type> {
        auto const stream = co_await transport.open(l.io.get_executor());
        opened = true;
    };
    asio::co_spawn(l.io, open(), [](std::exception_ptr) {});
    l.io.restart();
    l.io.run();
    CHECK(opened);
}

TEST_CASE("tcp sets the socket's options") {
    listening l;
    l.transport.keep_alive = true;
    l.transport.receive_buffer_size = 8192;
    auto [client, server] = l.connect();
    asio::ip::tcp::no_delay no_delay;
    asio::socket_base::keep_alive keep_alive;
    asio::socket_base::receive_buffer_size size;
    client.next_layer().get_option(no_delay);
    client.next_layer().get_option(keep_alive);
    client.next_layer().get_option(size);
    CHECK(no_delay.value());
    CHECK(keep_alive.value());
    CHECK(size.value() <= 2 * 8192);  // Linux doubles it
    l.transport.no_delay = false;
    auto [other, other_server] = l.connect();
    other.next_layer().get_option(no_delay);
    CHECK_FALSE(no_delay.value());
}

TEST_CASE("a refused connection says so and names the address") {
    asio::io_context io;
    runnel::tcp const transport{.host = "127.0.0.1", .port = closed_port()};
    test::task opening(io, transport.open(io.get_executor()));
    CHECK(opening.run_for_error() == asio::error::connection_refused);
    CHECK(opening.error_text().find(transport.url()) != std::string::npos);
}

TEST_CASE("a name that does not exist says so and names it") {
    asio::io_context io;
    runnel::tcp const transport{.host = "no-such-host.invalid"};
    test::task opening(io, transport.open(io.get_executor()));
    auto const error = opening.run_for_error();
    CHECK((error == asio::error::host_not_found || error == asio::error::host_not_found_try_again));
    CHECK(opening.error_text().find("no-such-host.invalid") != std::string::npos);
}

TEST_CASE("a host with a NUL, a space or a line's end in it is no host, whatever stands in front of that") {
    using namespace std::string_literals;
    for (auto const& host : {"127.0.0.1\0.example"s, "127.0.0.1 "s, "127.0.0.1\n"s, "localhost\0"s}) {
        listening l;
        l.transport.host = host;
        test::task opening(l.io, l.transport.open(l.io.get_executor()));
        CHECK(opening.run_for_error() == asio::error::host_not_found);
        CHECK(opening.error_text().starts_with("resolving "));
        CHECK(opening.error_text().find_first_of("\0\n"s) == std::string::npos);
    }
}

TEST_CASE("opening a tcp stream can be cancelled after any number of steps, and ends once") {
    for (std::string const host : {"127.0.0.1", "localhost", "no-such-host.invalid"}) {
        for (int steps = 0; steps < 8; ++steps) {
            CAPTURE(host);
            CAPTURE(steps);
            listening l;
            l.transport.host = host;
            test::task opening(l.io, l.transport.open(l.io.get_executor()));
            for (int i = 0; i < steps; ++i) l.io.poll_one();
            opening.cancel();
            auto const error = opening.run_for_error(std::chrono::seconds(5));
            // Cancelled, or ended by itself just before.
            bool const exists = host != "no-such-host.invalid";
            CHECK((error == asio::error::operation_aborted || (exists && !error) ||
                   (!exists && error.category() == asio::error::get_netdb_category())));
            if (steps == 0) CHECK(error == asio::error::operation_aborted);
            CHECK(opening.ended() == 1);
        }
    }
}

TEST_CASE("a cancelled name resolution returns at once, and its late answer is dropped") {
    asio::io_context io;
    runnel::tcp const transport{.host = "no-such-host.invalid"};
    test::task opening(io, transport.open(io.get_executor()));
    io.poll_one();
    CHECK_FALSE(opening.done());
    opening.cancel();
    CHECK(opening.run_for_error() == asio::error::operation_aborted);
    io.restart();
    io.run();  // the late answer
    CHECK(opening.ended() == 1);
}

TEST_CASE("the end of a tcp stream is eof behind the last byte") {
    listening l;
    auto [client, server] = l.connect();
    test::run(l.io, test::write_text(client, "last"));
    test::run(l.io, client.shutdown());
    auto const got = test::run(l.io, test::read_to_end(server));
    CHECK(got.text == "last");
    CHECK(got.end == asio::error::eof);
    test::run(l.io, test::write_text(server, "still there"));
    CHECK(test::run(l.io, test::read_exactly(client, 11)) == "still there");
}

TEST_CASE("shutting a tcp stream down whose peer has gone throws nothing") {
    listening l;
    auto [client, server] = l.connect();
    {
        server.next_layer().set_option(asio::socket_base::linger(true, 0));
        stream_type const gone = std::move(server);
    }
    test::run(l.io, test::read_to_end(client));
    CHECK_FALSE(test::error_of(l.io, client.shutdown()));
}

TEST_CASE("a write to a tcp stream larger than the socket's buffers completes when all is taken") {
    listening l;
    l.transport.send_buffer_size = 4096;
    auto [client, server] = l.connect();
    std::string const text = test::noise(2'000'000);
    runnel::send_buffer out;
    out.append(text);
    test::task writing(l.io, client.write(out));
    l.io.poll();
    CHECK_FALSE(writing.done());
    CHECK((test::run(l.io, test::read_exactly(server, text.size())) == text));
    writing.run();
    CHECK(out.empty());
}

TEST_CASE("reads and writes of a tcp stream can be cancelled while they wait") {
    listening l;
    l.transport.send_buffer_size = 4096;
    auto [client, server] = l.connect();
    std::string const text = test::noise(8'000'000);
    test::task writing(l.io, test::write_text(client, text));
    test::task reading(l.io, test::read_exactly(client, 1));
    l.io.poll();
    reading.cancel();
    writing.cancel();
    CHECK(reading.run_for_error() == asio::error::operation_aborted);
    CHECK(writing.run_for_error() == asio::error::operation_aborted);
}

TEST_CASE("any Asio stream is wrapped by one line") {
    asio::io_context io;
    asio::local::stream_protocol::socket a(io);
    asio::local::stream_protocol::socket b(io);
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    a.assign(asio::local::stream_protocol(), ends[0]);
    b.assign(asio::local::stream_protocol(), ends[1]);
    runnel::asio_stream left(std::move(a));
    runnel::asio_stream right(std::move(b));
    test::run(io, test::write_text(left, "local"));
    CHECK(test::run(io, test::read_exactly(right, 5)) == "local");
    test::run(io, left.shutdown());
    CHECK(test::run(io, test::read_to_end(right)).end == asio::error::eof);
}

TEST_CASE("the url of a tcp transport names host and port, an IPv6 address in brackets, 1883 by default") {
    CHECK(runnel::tcp{.host = "broker.example"}.url() == "tcp://broker.example:1883");
    CHECK(runnel::tcp{.host = "::1", .port = 99}.url() == "tcp://[::1]:99");
}

TEST_CASE("tcp transports are equal if all their settings are") {
    runnel::tcp const a{.host = "a"};
    CHECK(a == runnel::tcp{.host = "a"});
    CHECK_FALSE(a == runnel::tcp{.host = "b"});
    CHECK_FALSE(a == runnel::tcp{.host = "a", .keep_alive = true});
}
