#include <runnel/transport/memory.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/tls.hpp>

#include <asio/ip/tcp.hpp>
#include <doctest/doctest.h>

#include "support/sample.hpp"
#include "support/stream_life.hpp"
#include "support/tls_pair.hpp"
#include <optional>

namespace {

using memory = runnel::memory_stream<>;
using over_memory = runnel::tls_stream<memory>;
using tcp_stream = runnel::tcp::stream_type;
using over_tcp = runnel::tls_stream<tcp_stream>;

template <runnel::stream Next>
using ends_of = std::pair<runnel::tls_stream<Next>, runnel::tls_stream<Next>>;

// Made once, as each costs a reading of certificates.
runnel::tls_context const& client_context(bool v1_2) {
    static auto const make = [](bool old) {
        auto options = test::client_options();
        if (old) options.maximum = runnel::tls_version::v1_2;
        return runnel::tls_context(options);
    };
    static runnel::tls_context const current = make(false), old = make(true);
    return v1_2 ? old : current;
}
runnel::tls_context const& server_context() {
    static runnel::tls_context const context(test::server_options());
    return context;
}

template <runnel::stream Next>
ends_of<Next> before_handshake(Next one, Next other, bool v1_2) {
    return {runnel::tls_stream<Next>(std::move(one), client_context(v1_2), runnel::tls_role::client, "localhost"),
            runnel::tls_stream<Next>(std::move(other), server_context(), runnel::tls_role::server)};
}

template <runnel::stream Next>
ends_of<Next> shake_hands(asio::io_context& io, ends_of<Next> ends) {
    test::task client(io, ends.first.handshake()), server(io, ends.second.handshake());
    client.run();
    server.run();
    return ends;
}

ends_of<memory> memory_ends(asio::io_context& io, bool v1_2 = false) {
    auto ends = memory::pair(io.get_executor());
    ends.first.outgoing().capacity = 9'000;
    return before_handshake(std::move(ends.first), std::move(ends.second), v1_2);
}

ends_of<memory> connected_in_memory(asio::io_context& io) { return shake_hands(io, memory_ends(io)); }

ends_of<tcp_stream> connected_by_tcp(asio::io_context& io) {
    auto ends = test::tcp_sockets(io);
    return shake_hands(io,
                       before_handshake(tcp_stream(std::move(ends.first)), tcp_stream(std::move(ends.second)), false));
}

template <runnel::stream S>
void try_all(std::pair<S, S> (*connect)(asio::io_context&)) {
    test::life_test<S> const life{.connect = connect, .apart = test::every(3)};
    life.run_all({test::reads<S>, test::writes<S>});
    life.run_all({test::writes<S>, test::writes<S>});
    life.run_all({test::shuts_down<S>, test::reads_on<S>});
    life.run_inside({test::reads<S>, test::writes<S>});
    life.run_inside({test::writes<S>, test::reads_on<S>});
}

template <runnel::stream S>
asio::awaitable<void> handshakes(test::stream_user<S>& user) {
    return user.stream.handshake();
}

}  // namespace

TEST_CASE("a TLS stream may go at each point of its operations") { try_all<over_memory>(connected_in_memory); }

TEST_CASE("a TLS stream over TCP may go at each point of its operations") { try_all<over_tcp>(connected_by_tcp); }

TEST_CASE("a TLS stream may go at each point of a handshake") {
    for (bool const v1_2 : {false, true}) {
        for (auto what : {test::interruption::destroy, test::interruption::destroy_with_context,
                          test::interruption::cancel, test::interruption::shut_down})
            for (int point = 0; point < 60; ++point) {
                CAPTURE(point);
                asio::io_context io;
                auto ends = memory_ends(io, v1_2);
                auto client = std::make_unique<over_memory>(std::move(ends.first));
                auto server = std::make_unique<over_memory>(std::move(ends.second));
                test::task at_client(io, client->handshake()), at_server(io, server->handshake());
                auto& ours = v1_2 ? client : server;
                auto& ending = v1_2 ? at_client : at_server;
                for (int i = 0; i < point; ++i) io.poll_one();
                bool const was_done = ending.done();
                if (what == test::interruption::cancel) ending.cancel();
                if (what == test::interruption::shut_down) test::error_of(io, ours->shutdown());
                ours.reset();
                if (what == test::interruption::destroy_with_context) {
                    (v1_2 ? server : client).reset();
                    continue;
                }
                auto const error = ending.run_for_error();
                if (!was_done && what == test::interruption::destroy && error)
                    CHECK(error == asio::error::operation_aborted);
                at_client.run_for_error();
                at_server.run_for_error();
                io.restart();
                io.poll();
            }
    }
}

TEST_CASE("a TLS stream may go while it answers its peer") {
    auto const ask = [](over_memory& peer) {
        if (peer.protocol_version() == "TLSv1.3") {
            SSL_key_update(peer.native_handle(), SSL_KEY_UPDATE_REQUESTED);
        } else {
            SSL_clear_options(peer.native_handle(), SSL_OP_NO_RENEGOTIATION);
            SSL_renegotiate(peer.native_handle());
        }
        SSL_do_handshake(peer.native_handle());
    };
    for (bool const v1_2 : {false, true}) {
        test::life_test<over_memory> life{
            [v1_2](asio::io_context& io) { return shake_hands(io, memory_ends(io, v1_2)); }};
        life.before_write = ask;
        life.prepare = [](over_memory& s) { s.next_layer().outgoing().capacity = 10; };
        for (auto what :
             {test::interruption::destroy, test::interruption::destroy_with_context, test::interruption::cancel})
            life.run({test::reads<over_memory>}, what);
    }
}

TEST_CASE("a TLS stream may go while its writer looks for the reason of a failure") {
    test::life_test<over_tcp> life{connected_by_tcp};
    life.prepare = [](over_tcp& s) { s.next_layer().next_layer().shutdown(asio::socket_base::shutdown_send); };
    life.run_all({test::writes<over_tcp>, test::reads<over_tcp>});
}

TEST_CASE("after a failed write the data that arrives is read as it was sent") {
    asio::io_context io;
    auto ends = connected_by_tcp(io);
    test::run(io, test::write_text(ends.second, "t"));
    test::run(io, test::read_exactly(ends.first, 1));  // behind the session tickets
    ends.first.next_layer().next_layer().shutdown(asio::socket_base::shutdown_send);
    test::task writing(io, test::write_text(ends.first, "x"));
    io.restart();
    io.poll();
    CHECK_FALSE(writing.done());  // it looks for a reason
    std::string const text = test::noise(60'000);
    test::task reading(io, test::read_exactly(ends.first, text.size()));
    io.restart();
    io.poll();
    test::task serving(io, test::write_text(ends.second, text));
    CHECK(reading.run() == text);
    CHECK(writing.run_for_error() == asio::error::broken_pipe);
}

TEST_CASE("a peer that asks again and again and does not take the answers is not read from any further") {
    for (bool const v1_2 : {false, true})
        for (bool const client_asks : {false, true}) {
            if (v1_2 && client_asks) continue;  // OpenSSL's client waits for the answer to its first question
            CAPTURE(v1_2);
            CAPTURE(client_asks);
            asio::io_context io;
            auto ends = shake_hands(io, memory_ends(io, v1_2));
            auto& asking = client_asks ? ends.first : ends.second;
            auto& answering = client_asks ? ends.second : ends.first;
            asking.next_layer().outgoing().capacity = runnel::memory_flow::unlimited;
            answering.next_layer().outgoing().capacity = 1;
            test::task writing(io, test::write_text(answering, "x"));  // is not read
            test::task reading(io, test::read_to_end(answering));
            SSL_clear_options(asking.native_handle(), SSL_OP_NO_RENEGOTIATION);
            for (int i = 0; i < 5'000; ++i) {
                if (v1_2)
                    SSL_renegotiate(asking.native_handle());
                else
                    SSL_key_update(asking.native_handle(), SSL_KEY_UPDATE_REQUESTED);
                SSL_do_handshake(asking.native_handle());
                test::run(io, test::write_text(asking, "y"));
            }
            io.restart();
            io.poll();
            CHECK(answering.backlog() > 4'000);
            CHECK(answering.backlog() < 6'000);
            CHECK_FALSE(reading.done());
            answering.next_layer().outgoing().capacity = 100'000;
            auto const served = test::run(io, test::read_exactly(asking, 1));
            CHECK(served == "x");
        }
}

TEST_CASE("a reader that waits to answer goes on when that cannot be written, to what the peer has said last") {
    asio::io_context io;
    auto ends = connected_in_memory(io);
    auto& answering = ends.first;
    std::optional<over_memory> asking(std::move(ends.second));
    asking->next_layer().outgoing().capacity = runnel::memory_flow::unlimited;
    answering.next_layer().outgoing().capacity = 1;
    test::task writing(io, test::write_text(answering, "x"));  // is not read
    test::task reading(io, test::read_to_end(answering));
    for (int i = 0; i < 500; ++i) {
        SSL_key_update(asking->native_handle(), SSL_KEY_UPDATE_REQUESTED);
        SSL_do_handshake(asking->native_handle());
        test::run(io, test::write_text(*asking, "y"));
    }
    test::run(io, asking->shutdown());
    io.restart();
    io.poll();
    CHECK_FALSE(reading.done());
    asking.reset();
    io.restart();
    io.poll();
    CHECK(reading.done());  // without waiting for any time limit
    CHECK(writing.done());
    auto const got = reading.run();
    CHECK(got.text.size() == 500);
    CHECK(got.end == asio::error::eof);
    CHECK(writing.run_for_error() == asio::error::broken_pipe);
}
