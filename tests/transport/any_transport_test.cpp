#include <runnel/transport/any_transport.hpp>
#include <runnel/transport/failover.hpp>
#include <runnel/transport/memory.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/buffer.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/read.hpp>
#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/run.hpp"
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace {

using namespace runnel;
static_assert(stream<any_stream>);
static_assert(transport<any_transport>);
static_assert(reporting_transport<any_transport>);
static_assert(!network_transport<any_transport>);
static_assert(!std::is_convertible_v<int, any_transport>);
static_assert(!std::is_convertible_v<any_stream, any_transport>);
static_assert(!std::is_convertible_v<basic_tcp<asio::io_context::executor_type>, any_transport>);  // another executor

// Cannot be opened, but knows its number and what was reported.
struct numbered {
    using executor_type = asio::any_io_executor;
    using stream_type = memory_stream<>;
    static constexpr bool secure = true;
    int number = 0;
    std::vector<bool> reports{};

    std::string url() const { return "numbered://" + std::to_string(number); }
    asio::awaitable<stream_type> open(executor_type) const {
        throw std::system_error(asio::error::connection_refused, url());
        co_return memory_stream<>::pair({}).first;
    }
    void report(bool well) { reports.push_back(well); }
    friend bool operator==(numbered const& a, numbered const& b) { return a.number == b.number; }
};

}  // namespace

TEST_CASE("any_transport is what is in it: its URL, its security, its equality") {
    any_transport const a = tcp{.host = "a.example"};
    any_transport const b = numbered{2};
    CHECK(a.url() == "tcp://a.example:1883");
    CHECK_FALSE(a.is_secure());
    CHECK(b.is_secure());
    CHECK(a == any_transport(tcp{.host = "a.example"}));
    CHECK(a != any_transport(tcp{.host = "b.example"}));
    CHECK(a != b);
    CHECK(b != a);
    CHECK(b == any_transport(numbered{2}));
    REQUIRE(a.target<tcp>() != nullptr);
    CHECK(a.target<tcp>()->host == "a.example");
    CHECK(a.target<numbered>() == nullptr);
}

TEST_CASE("a copy of any_transport has a copy of what is in it") {
    any_transport a = numbered{1};
    any_transport b = a;
    a.report(true);
    CHECK(a.target<numbered>()->reports.size() == 1);
    CHECK(b.target<numbered>()->reports.empty());
    b = a;
    b.report(false);
    CHECK(b.target<numbered>()->reports == std::vector{true, false});
    CHECK(a.target<numbered>()->reports.size() == 1);
    auto const c = std::move(b);
    CHECK(c.target<numbered>()->reports.size() == 2);
    a = any_transport(tcp{.host = "x"});
    a.report(true);  // nobody wants to know
    CHECK(a.url() == "tcp://x:1883");
}

TEST_CASE("any_transport that has been moved from is empty, and says so when it is opened") {
    asio::io_context io;
    any_transport a = numbered{1};
    any_transport const b = std::move(a);
    CHECK(a.url().empty());
    CHECK_FALSE(a.is_secure());
    CHECK(a.target<numbered>() == nullptr);
    a.report(false);
    CHECK_FALSE(a.redirected("b.example"));
    CHECK(a != b);
    CHECK(b != a);
    any_transport c = a;
    CHECK(c == a);
    try {
        test::run(io, a.open(io.get_executor()));
        FAIL("it has been opened");
    } catch (std::system_error const& e) {
        CHECK(e.code() == std::errc::invalid_argument);
        CHECK(std::string(e.what()).starts_with("any_transport is empty: "));
    }
    mqtt::session<any_transport> session(io.get_executor(), c, test::quick());
    test::task running(io, session.run());
    CHECK(running.run_for_error() == std::errc::invalid_argument);
    a = b;
    CHECK(a == b);
    CHECK(a.url() == "numbered://1");
}

TEST_CASE("any_transport throws what opening what is in it throws") {
    asio::io_context io;
    any_transport const to = numbered{7};
    test::task opening(io, to.open(io.get_executor()));
    CHECK(opening.run_for_error() == asio::error::connection_refused);
    CHECK(opening.error_text() == "numbered://7: Connection refused");
}

TEST_CASE("any_transport follows a server's reference if what is in it can") {
    any_transport const a = tcp{.host = "a.example"};
    auto const b = redirected(a, "b.example:1884");
    REQUIRE(b);
    CHECK(b->url() == "tcp://b.example:1884");
    CHECK_FALSE(redirected(a, "b.example:x"));
    CHECK_FALSE(redirected(any_transport(numbered{1}), "b.example"));
    any_transport const several = failover<tcp>({{.host = "a.example"}, {.host = "c.example"}});
    auto const other = redirected(several, "b.example");
    REQUIRE(other);
    CHECK(other->url() == "tcp://b.example:1883");
}

TEST_CASE("a session over any_transport publishes, subscribes and comes back, as over what is in it") {
    test::memory_fixture fixture;
    any_transport const to = memory_transport([&](memory_stream<> s) { fixture.broker.attach(std::move(s)); });
    mqtt::session<any_transport> session(fixture.io.get_executor(), to, test::quick());
    test::task running(fixture.io, session.run());
    std::string received;
    test::run(fixture.io, session.subscribe("t", [&](mqtt::publish const& p) { received += p.payload; },
                                            {.maximum_qos = mqtt::qos::exactly_once}));
    test::run(fixture.io, session.publish("t", "a", {.qos = mqtt::qos::exactly_once}));
    fixture.broker.drop_client("client");
    test::run(fixture.io, session.publish("t", "b", {.qos = mqtt::qos::exactly_once}));
    CHECK(test::wait_until(fixture.io, [&] { return received == "ab"; }));
    test::run(fixture.io, session.disconnect());
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("a session tells failover in any_transport how its connections turn out") {
    test::memory_fixture fixture;
    memory_transport const good([&](memory_stream<> s) { fixture.broker.attach(std::move(s)); });
    memory_transport const bad([](memory_stream<>) { throw std::system_error(asio::error::connection_refused); });
    any_transport const to = failover<memory_transport>({bad, good});
    mqtt::session<any_transport> session(fixture.io.get_executor(), to, test::quick());
    test::task running(fixture.io, session.run());
    test::run(fixture.io, session.connected());
    CHECK(session.counters().connections == 1);
    test::run(fixture.io, session.disconnect());
}

TEST_CASE("a session over any_transport writes at once what a socket takes at once, and leaves others as they are") {
    asio::io_context io;
    asio::ip::tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
    any_transport const to = tcp{.host = "127.0.0.1", .port = acceptor.local_endpoint().port()};
    auto over_socket = test::run(io, to.open(io.get_executor()));
    auto peer = acceptor.accept();
    send_buffer out;
    out.append("bytes");
    CHECK(over_socket.write_directly(out));
    CHECK(out.empty());
    std::string got(5, '\0');
    asio::read(peer, asio::buffer(got));
    CHECK(got == "bytes");

    any_stream in_memory(memory_stream<>::pair(io.get_executor()).first);
    out.append("bytes");
    CHECK_FALSE(in_memory.write_directly(out));
    CHECK(out.size() == 5);
}
