#include <runnel/aliyun/client/device_session.hpp>
#include <runnel/aliyun/client/registration.hpp>
#include <runnel/coro/capture_error.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/mqtt/client/pieces.hpp>
#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/any_transport.hpp>
#include <runnel/transport/failover.hpp>
#include <runnel/transport/memory.hpp>
#include <runnel/transport/proxy/http.hpp>
#include <runnel/transport/proxy/socks5.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/transport/transport_factory.hpp>
#include <runnel/transport/unix_socket.hpp>
#include <runnel/websocket/reconnecting_client.hpp>
#include <runnel/websocket/transport.hpp>

#include <asio/steady_timer.hpp>
#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include <chrono>
#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

// "Any operation gives its error to a variable instead by `co_await runnel::capture_error(operation, error)`;
// `publish`, `request`, `receive`, and `subscribe` with one filter and no function, also by a `std::error_code&` as
// last argument." (README.md)

namespace {

using namespace runnel;
using mqtt::qos;
using text = std::string_view;
using web = websocket::over<tcp>;

// Each of these lists all operations of a type that complete by `co_await`. Those of TLS are in
// transport/tls/tls_test.cpp, those of Alink and its cloud in aliyun/alink/device_test.cpp.

template <class Session>
concept session_captures = requires(Session& s, typename Session::subscription& inbox, std::span<text const> filters,
                                    mqtt::publish const& asked, std::chrono::milliseconds t, std::error_code& e) {
    capture_error(s.run(), e);
    capture_error(s.connected(), e);
    capture_error(s.connected(1), e);
    capture_error(s.disconnect(), e);
    { capture_error(s.publish("t", "p"), e) } -> std::same_as<asio::awaitable<mqtt::publish_result>>;
    capture_error(s.publish(std::string(), std::string()), e);
    { capture_error(s.subscribe("t"), e) } -> std::same_as<asio::awaitable<typename Session::subscription>>;
    capture_error(s.subscribe("t", [](mqtt::publish const&) {}), e);
    capture_error(s.subscribe(filters), e);
    capture_error(s.subscribe(filters, [](mqtt::publish const&) {}), e);
    capture_error(s.unsubscribe(inbox), e);
    { capture_error(inbox.receive(), e) } -> std::same_as<asio::awaitable<mqtt::message>>;
    // These have the form themselves.
    { s.publish("t", "p", {}, e) } -> std::same_as<asio::awaitable<mqtt::publish_result>>;
    s.publish(std::string(), std::string(), {}, e);
    { s.subscribe("t", {}, e) } -> std::same_as<asio::awaitable<typename Session::subscription>>;
    { inbox.receive(e) } -> std::same_as<asio::awaitable<mqtt::message>>;
};
template <class Session>
concept mqtt_session_captures = session_captures<Session> && requires(Session& s, mqtt::publish const& asked,
                                                                      std::chrono::milliseconds t, std::error_code& e) {
    capture_error(s.drained(), e);
    capture_error(s.reauthenticate(), e);
    capture_error(s.request("t", "p", t), e);
    capture_error(s.request(std::string(), std::string(), t), e);
    capture_error(s.respond(asked, "p"), e);
    capture_error(s.respond(asked, std::string()), e);
    capture_error(s.events().next(), e);
    { s.request("t", "p", t, {}, e) } -> std::same_as<asio::awaitable<mqtt::message>>;
    s.request(std::string(), std::string(), t, {}, e);
};
template <class Session>
concept device_session_captures =
    session_captures<Session> && requires(Session& s, std::span<text const> filters, std::error_code& e) {
        capture_error(s.subscribe_all(filters, [](mqtt::publish const&) {}), e);
        capture_error(s.mqtt_session().drained(), e);
    };
static_assert(mqtt_session_captures<mqtt::session<tcp>>);
static_assert(mqtt_session_captures<mqtt::session<web>>);
static_assert(mqtt_session_captures<mqtt::session<any_transport>>);
static_assert(device_session_captures<aliyun::device_session<tcp>>);

// Gets messages in pieces; what it gets is no matter here.
struct pieces_handler {
    void begin(mqtt::publish const&, std::uint64_t) {}
    void piece(std::string_view) {}
    void end() {}
    void aborted(std::error_code) {}
};
template <class Session>
concept pieces_capture = requires(Session& s, typename Session::subscription inbox, mqtt::span_source& source,
                                  pieces_handler& handler, std::error_code& e) {
    { capture_error(mqtt::publish_pieces(s, "t", source), e) } -> std::same_as<asio::awaitable<mqtt::publish_result>>;
    { capture_error(mqtt::receive_pieces(s, inbox, handler), e) } -> std::same_as<asio::awaitable<void>>;
};
static_assert(pieces_capture<mqtt::session<mqtt::with_pieces<tcp>>>);

// As transports of TLS are, so far as it matters here.
struct secure_transport : memory_transport {
    static constexpr bool secure = true;
};
static_assert(requires(secure_transport t, test::executor on, aliyun::product of, std::error_code& e) {
    {
        capture_error(aliyun::register_device(on, t, of, "thermostat-7"), e)
    } -> std::same_as<asio::awaitable<captured<aliyun::registration>>>;
});

template <class Stream>
concept stream_captures = requires(Stream& s, asio::mutable_buffer into, send_buffer& out, std::error_code& e) {
    { capture_error(s.read_some(into), e) } -> std::same_as<asio::awaitable<std::size_t>>;
    { capture_error(s.write(out), e) } -> std::same_as<asio::awaitable<void>>;
    { capture_error(s.shutdown(), e) } -> std::same_as<asio::awaitable<void>>;
};
template <class Transport>
concept transport_captures =
    stream_captures<typename Transport::stream_type> &&
    requires(Transport& t, test::executor on, std::error_code& e) { capture_error(t.open(on), e); };
static_assert(transport_captures<tcp>);
static_assert(transport_captures<memory_transport>);
static_assert(transport_captures<web>);
static_assert(transport_captures<any_transport>);
static_assert(transport_captures<failover<tcp>>);
static_assert(transport_captures<transport_factory<tcp>>);
static_assert(transport_captures<http_proxy<tcp>>);
static_assert(transport_captures<socks5_proxy<tcp>>);
#if RUNNEL_HAS_LOCAL_SOCKETS
static_assert(transport_captures<unix_socket>);
#endif

template <class Stream>
concept websocket_captures = requires(Stream& s, typename tcp::stream_type below, websocket::client_options asks,
                                      websocket::server_options answers, send_buffer& out, std::error_code& e) {
    capture_error(Stream::handshake(std::move(below), asks), e);
    capture_error(Stream::accept(std::move(below), answers), e);
    capture_error(s.read_message(), e);
    capture_error(s.write_message(websocket::message_kind::text, "p"), e);
    capture_error(s.write_packed(out), e);
    capture_error(s.ping(), e);
    capture_error(s.close(websocket::close_code::normal), e);
};
static_assert(websocket_captures<web::stream_type>);

template <class Client>
concept websocket_client_captures = requires(Client& c, std::error_code& e) {
    capture_error(c.run(), e);
    capture_error(c.send(websocket::message_kind::text, "p"), e);
    capture_error(c.send_text("p"), e);
    capture_error(c.send_binary("p"), e);
    { capture_error(c.next(), e) } -> std::same_as<asio::awaitable<websocket::received_message>>;
};
static_assert(websocket_client_captures<websocket::reconnecting_client<tcp>>);

static_assert(requires(asio::awaitable<int> task, test::executor on, std::error_code& e) {
    { capture_error(within(std::chrono::seconds(1), std::move(task)), e) } -> std::same_as<asio::awaitable<int>>;
    capture_error(sleep_for(on, std::chrono::seconds(1)), e);
});

// A result of which there is no empty one, as a stream is.
struct made {
    explicit made(int v) : value(v) {}
    int value;
};
static_assert(std::same_as<captured<made>, std::optional<made>>);
static_assert(std::same_as<captured<int>, int>);
static_assert(std::same_as<captured<void>, void>);

asio::awaitable<int> give(int value) { co_return value; }
asio::awaitable<int> fail(std::error_code with) {
    throw std::system_error(with);
    co_return 1;
}
asio::awaitable<made> make(bool succeeds) {
    if (!succeeds) throw std::system_error(asio::error::eof);
    co_return made(3);
}
asio::awaitable<void> do_nothing() { co_return; }
asio::awaitable<void> fail_otherwise() {
    throw std::runtime_error("another");
    co_return;
}
asio::awaitable<void> sleep() {
    asio::steady_timer timer(co_await asio::this_coro::executor, std::chrono::hours(1));
    co_await timer.async_wait(asio::use_awaitable);
}

}  // namespace

TEST_CASE("an operation that succeeds clears the error and gives its value") {
    asio::io_context io;
    std::error_code error = asio::error::eof;
    CHECK(test::run(io, capture_error(give(7), error)) == 7);
    CHECK_FALSE(error);
    error = asio::error::eof;
    test::run(io, capture_error(do_nothing(), error));
    CHECK_FALSE(error);
}

TEST_CASE("an operation that throws a system_error gives its code, and an empty value") {
    asio::io_context io;
    std::error_code error;
    CHECK(test::run(io, capture_error(fail(asio::error::eof), error)) == 0);
    CHECK(error == asio::error::eof);
}

TEST_CASE("a value that cannot be empty is an optional one") {
    asio::io_context io;
    std::error_code error;
    CHECK(test::run(io, capture_error(make(true), error))->value == 3);
    CHECK_FALSE(error);
    CHECK_FALSE(test::run(io, capture_error(make(false), error)).has_value());
    CHECK(error == asio::error::eof);
}

TEST_CASE("the error is not touched before the operation begins") {
    asio::io_context io;
    std::error_code error = asio::error::eof;
    auto operation = capture_error(do_nothing(), error);
    CHECK(error == asio::error::eof);
    test::run(io, std::move(operation));
    CHECK_FALSE(error);
}

TEST_CASE("other exceptions pass") {
    asio::io_context io;
    std::error_code error;
    CHECK_THROWS_AS(test::run(io, capture_error(fail_otherwise(), error)), std::runtime_error);
    CHECK_FALSE(error);
}

TEST_CASE("cancelling it cancels the operation, whose error is operation_aborted") {
    asio::io_context io;
    std::error_code error;
    test::task sleeping(io, capture_error(sleep(), error));
    io.poll();
    CHECK_FALSE(sleeping.done());
    sleeping.cancel();
    CHECK_FALSE(sleeping.run_for_error());
    CHECK(error == asio::error::operation_aborted);
}

TEST_CASE("it can be destroyed while the operation waits") {
    std::error_code error;
    asio::io_context io;
    asio::co_spawn(io, capture_error(sleep(), error), [](std::exception_ptr) {});
    io.poll();
}

TEST_CASE("the operations of a session whose run has ended give its error to a variable") {
    test::connected_session s;
    auto inbox = test::run(s.io, s.session.subscribe("t"));
    test::run(s.io, s.session.disconnect());
    s.running.run();
    std::error_code error;
    auto const check = [&](auto operation) {
        error.clear();
        test::task task(s.io, capture_error(std::move(operation), error));
        CHECK_FALSE(task.run_for_error());
        CHECK(error == mqtt::errc::disconnected);
    };
    check(s.session.publish("t", "p", {.qos = qos::at_least_once}));
    check(s.session.publish(std::string("t"), std::string("p"), {.qos = qos::at_least_once}));
    check(s.session.subscribe("u"));
    check(s.session.connected());
    check(inbox.receive());
}
