#include <runnel/transport/unix_socket.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/process.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"
#include <cerrno>
#include <functional>
#include <string>
#include <system_error>
#include <unistd.h>

namespace {

using namespace runnel;
using local = asio::local::stream_protocol;
static_assert(transport<unix_socket>);
static_assert(transport<basic_unix_socket<asio::io_context::executor_type>>);
static_assert(!network_transport<unix_socket>);

std::string error_text(asio::io_context& io, unix_socket const& to) {
    test::task opening(io, to.open(io.get_executor()));
    opening.run_for_error();
    return opening.error_text();
}

}  // namespace

TEST_CASE("a Unix domain socket carries bytes both ways, by path and by abstract name") {
    test::scratch_directory folder;
    for (bool const is_abstract : {false, true}) {
        auto const name = "runnel-test-" + std::to_string(::getpid());
        unix_socket const to{.path = is_abstract ? '@' + name : (folder.path() / "socket").string()};
        asio::io_context io;
        local::acceptor acceptor(io, is_abstract ? local::endpoint('\0' + name) : local::endpoint(to.path));
        auto client = test::run(io, to.open(io.get_executor()));
        asio_stream server(acceptor.accept());
        test::run(io, test::write_text(client, "there"));
        test::run(io, test::write_text(server, "and back"));
        CHECK(test::run(io, test::read_exactly(server, 5)) == "there");
        CHECK(test::run(io, test::read_exactly(client, 8)) == "and back");
    }
}

TEST_CASE("a Unix domain socket that cannot be connected to is named, with the reason") {
    asio::io_context io;
    auto const none = error_text(io, {.path = "/nowhere/broker.sock"});
    CHECK(none == "connecting to unix:///nowhere/broker.sock: No such file or directory");
    auto const error_of = [&](std::string path) {
        unix_socket const to{.path = std::move(path)};
        return test::error_of(io, to.open(io.get_executor()));
    };
    CHECK(error_of("") == asio::error::invalid_argument);
    CHECK(error_of('/' + std::string(107, 'x')) == asio::error::name_too_long);
    CHECK(error_of('/' + std::string(106, 'x')).value() == ENOENT);
    CHECK(error_of('@' + std::string(107, 'x')) == asio::error::name_too_long);
    CHECK(error_of('@' + std::string(106, 'x')) == asio::error::connection_refused);
}

TEST_CASE("connecting to a Unix domain socket can be cancelled, and its step is told") {
    asio::io_context io;
    unix_socket const to{.path = "/nowhere/broker.sock"};
    connect_progress progress;
    {
        test::task opening(io, to.open(io.get_executor(), &progress));
        opening.cancel();
        CHECK(opening.run_for_error());
    }
    CHECK(test::error_of(io, to.open(io.get_executor(), &progress)));
    CHECK(progress.step() == connect_step::connect);
    CHECK(progress.doing() == "connecting to unix:///nowhere/broker.sock");
}

TEST_CASE("a session over a Unix domain socket comes back after a cut") {
    test::scratch_directory folder;
    asio::io_context io;
    testing::broker broker(io.get_executor());
    unix_socket const to{.path = (folder.path() / "socket").string()};
    local::acceptor acceptor(io, local::endpoint(to.path));
    std::function<void()> accept = [&] {
        acceptor.async_accept([&](std::error_code error, asio::basic_stream_socket<local, asio::any_io_executor> s) {
            if (error) return;
            broker.attach(asio_stream(std::move(s)));
            accept();
        });
    };
    accept();
    mqtt::session<unix_socket> session(io.get_executor(), to, test::quick());
    test::task running(io, session.run());
    std::string received;
    test::run(io, session.subscribe("t", [&](mqtt::publish const& p) { received += p.payload; },
                                    {.maximum_qos = mqtt::qos::exactly_once}));
    test::run(io, session.publish("t", "a", {.qos = mqtt::qos::exactly_once}));
    broker.drop_client("client");
    test::run(io, session.publish("t", "b", {.qos = mqtt::qos::exactly_once}));
    CHECK(test::wait_until(io, [&] { return received == "ab"; }));
    CHECK(session.counters().connections == 2);
    test::run(io, session.disconnect());
    acceptor.close();
    broker.close();
    test::settle(io);
}
