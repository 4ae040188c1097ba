#include <runnel/testing/certificate.hpp>
#include <runnel/transport/asio_stream.hpp>
#include <runnel/websocket/stream.hpp>

#include <asio/ip/tcp.hpp>
#include <asio/local/connect_pair.hpp>
#include <asio/local/stream_protocol.hpp>
#include <asio/ssl/context.hpp>
#include <asio/ssl/stream.hpp>
#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"
#include <memory>
#include <string>
#include <utility>

// WebSockets over Asio's own streams, which the user has connected.

using namespace runnel::websocket;

namespace {

template <class Socket>
using over_socket = stream<runnel::asio_stream<Socket>>;

// Opens a WebSocket between two connected streams, exchanges messages, and closes it.
template <class Socket>
void converse(asio::io_context& io, Socket one, Socket other) {
    using ws = over_socket<Socket>;
    static_assert(runnel::stream<ws>);
    client_options asked;
    asked.host = "localhost";
    server_options offered;
    test::task opening(io, ws::handshake(runnel::asio_stream(std::move(one)), asked));
    test::task accepting(io, ws::accept(runnel::asio_stream(std::move(other)), offered));
    ws client = opening.run();
    ws server = accepting.run();
    for (std::string const& sent : {std::string("short"), test::noise(300'000)}) {
        test::task writing(io, client.write_message(message_kind::binary, sent));
        std::string const got(test::run(io, server.read_message()).data);
        CHECK((got == sent));
        CHECK_FALSE(writing.run_for_error());
        test::task answering(io, server.write_message(message_kind::text, "got it"));
        CHECK(test::run(io, client.read_message()).data == "got it");
        CHECK_FALSE(answering.run_for_error());
    }
    test::task closing(io, client.close(close_code{4000}, "done"));
    CHECK(test::error_of(io, server.read_message()) == errc::closed_by_peer);
    CHECK(server.received_reason() == "done");
    test::run(io, server.shutdown());
    CHECK_FALSE(closing.run_for_error());
    CHECK(client.received_code() == close_code{4000});
}

using local_socket = asio::local::stream_protocol::socket;

std::pair<local_socket, local_socket> local_pair(asio::io_context& io) {
    std::pair<local_socket, local_socket> result{local_socket(io), local_socket(io)};
    asio::local::connect_pair(result.first, result.second);
    return result;
}

}  // namespace

TEST_CASE("a WebSocket runs over a TCP socket of the user's") {
    using asio::ip::tcp;
    asio::io_context io;
    tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
    tcp::socket one(io);
    one.connect(acceptor.local_endpoint());
    tcp::socket other = acceptor.accept();
    converse(io, std::move(one), std::move(other));
}

TEST_CASE("a WebSocket runs over a local socket of the user's") {
    asio::io_context io;
    auto [one, other] = local_pair(io);
    converse(io, std::move(one), std::move(other));
}

TEST_CASE("over sockets no message allocates in steady state") {
    using ws = over_socket<local_socket>;
    asio::io_context io;
    auto [one, other] = local_pair(io);
    ws client(runnel::asio_stream(std::move(one)), role::client, {});
    ws server(runnel::asio_stream(std::move(other)), role::server, {});
    std::size_t bytes = 0;
    auto const exchange = [&](int rounds) -> asio::awaitable<void> {
        for (int i = 0; i < rounds; ++i) {
            co_await client.write_message(message_kind::binary, "a question");
            message const asked = co_await server.read_message();
            co_await server.write_message(message_kind::text, "an answer");
            message const answered = co_await client.read_message();
            bytes += asked.data.size() + answered.data.size();
        }
    };
    auto const allocations = [&](int rounds) {
        std::size_t const before = runnel::testing::allocation_count();
        test::run(io, exchange(rounds));
        return runnel::testing::allocation_count() - before;
    };
    allocations(100);
    CHECK(allocations(1010) == allocations(10));  // what it costs to run a coroutine at all
    CHECK(bytes == 1120 * 19);
}

TEST_CASE("a WebSocket runs over an asio::ssl::stream of the user's") {
    namespace ssl = asio::ssl;
    runnel::testing::certificate_authority const authority;
    auto const own = authority.issue_server();
    ssl::context trusting(ssl::context::tls_client);
    trusting.add_certificate_authority(asio::buffer(authority.certificate_pem()));
    ssl::context proving(ssl::context::tls_server);
    proving.use_certificate_chain(asio::buffer(own.certificate_pem));
    proving.use_private_key(asio::buffer(own.private_key_pem), ssl::context::pem);

    asio::io_context io;
    auto [below_one, below_other] = local_pair(io);
    ssl::stream<local_socket> one(std::move(below_one), trusting);
    ssl::stream<local_socket> other(std::move(below_other), proving);
    one.set_verify_mode(ssl::verify_peer);
    test::task connecting(io, one.async_handshake(ssl::stream_base::client, asio::use_awaitable));
    test::task accepting(io, other.async_handshake(ssl::stream_base::server, asio::use_awaitable));
    connecting.run();
    accepting.run();
    converse(io, std::move(one), std::move(other));
}
