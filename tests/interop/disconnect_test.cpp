#include <runnel/mqtt/client/session.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/testing/over_websocket.hpp>

#include <doctest/doctest.h>

#include "interop/transports.hpp"
#include "support/run.hpp"
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

// Sessions that disconnect in good order, while both ends send as fast as they can: none leaves a will, and nothing
// that was accepted is lost. RUNNEL_ENDS in the environment: how many of each kind, instead of a few.

namespace {

namespace mqtt = runnel::mqtt;
using namespace std::chrono_literals;
using mqtt::protocol_version;
using mqtt::qos;

int ends() {
    auto const* const asked = std::getenv("RUNNEL_ENDS");
    return asked != nullptr ? std::atoi(asked) : 4;
}

mqtt::session_options options_for(std::string client_id, protocol_version version) {
    mqtt::session_options o;
    o.credentials.client_id = std::move(client_id);
    o.version = version;
    o.clean_start = true;
    o.close_timeout = 20s;
    return o;
}

// What a broker is told and sees, from another session: wills, and the last messages.
template <class Broker>
struct observer {
    observer(asio::io_context& context, Broker const& broker)
        : session(context.get_executor(), test::way<runnel::tcp>::to(broker),
                  options_for("observer", protocol_version::v5)),
          running(context, session.run()) {
        test::run(context,
                  session.subscribe("will", [this](mqtt::publish const& m) { wills.emplace_back(m.payload); }));
        test::run(context, session.subscribe("last", [this](mqtt::publish const&) { ++last; }));
    }
    mqtt::session<runnel::tcp> session;
    test::task<void> running;
    std::vector<std::string> wills;
    int last = 0;
};

template <class T>
asio::awaitable<void> live(mqtt::session<T>& s, qos quality) {
    auto inbox = co_await s.subscribe("echo", {.inbox = 10'000'000});
    std::string const payload(test::way<T>::large_payload / 1024, 'x');
    for (int i = 0; i < 200; ++i)
        if (!s.try_publish("echo", payload, {.qos = quality})) co_await s.publish("echo", payload, {.qos = quality});
    // Nobody waits for this one: it is only accepted.
    while (!s.try_publish("last", "the last one", {.qos = quality}))
        co_await runnel::sleep_for<test::executor>(co_await asio::this_coro::executor, 1ms);
    if (quality != qos::at_most_once) co_await s.drained();
    co_await s.disconnect();
}

template <class T, class Broker>
void end_often(asio::io_context& io, Broker const& broker) {
    observer<Broker> watching(io, broker);
    int all = 0;
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        for (auto const quality : {qos::at_most_once, qos::at_least_once, qos::exactly_once}) {
            for (int i = 0; i < ends(); ++i) {
                CAPTURE(static_cast<int>(version));
                CAPTURE(static_cast<int>(quality));
                auto options = options_for("leaver", version);
                options.will = mqtt::will_message_options{.topic = "will", .payload = "gone"};
                mqtt::session<T> s(io.get_executor(), test::way<T>::to(broker), options);
                test::task<void> running(io, s.run());
                test::run(io, live(s, quality));
                CHECK_FALSE(running.run_for_error());
                ++all;
            }
        }
    }
    for (int i = 0; i < 500 && watching.last < all; ++i)
        test::run(io, runnel::sleep_for<test::executor>(io.get_executor(), 10ms));
    CHECK(watching.last == all);
    CHECK(watching.wills.empty());
    test::run(io, watching.session.disconnect());
}

// The embedded broker, reached as others are.
struct embedded {
    explicit embedded(asio::io_context& context) : broker(context.get_executor()) {
        ports[0] = broker.listen_tcp();
        ports[1] = broker.listen(runnel::testing::over_tls(authority_));
        ports[2] = broker.listen(runnel::testing::over_websocket());
        ports[3] = broker.listen(runnel::testing::over_websocket(runnel::testing::over_tls(authority_)));
    }
    std::uint16_t port_tcp() const noexcept { return ports[0]; }
    std::uint16_t port_tls() const noexcept { return ports[1]; }
    std::uint16_t port_ws() const noexcept { return ports[2]; }
    std::uint16_t port_wss() const noexcept { return ports[3]; }
    runnel::testing::certificate_authority const& authority() const noexcept { return authority_; }

    runnel::testing::certificate_authority authority_;
    runnel::testing::broker broker;
    std::uint16_t ports[4]{};
};

}  // namespace

TEST_CASE_TEMPLATE("no graceful end leaves a will at mosquitto, under a flood", T, runnel::tcp, test::tls, test::ws,
                   test::wss) {
    test::mosquitto_options options;
    options.log_packets = false;
    test::mosquitto broker(std::move(options));
    asio::io_context io;
    end_often<T>(io, broker);
}

TEST_CASE_TEMPLATE("no graceful end leaves a will at the embedded broker, under a flood", T, runnel::tcp, test::tls,
                   test::ws, test::wss) {
    asio::io_context io;
    embedded broker(io);
    end_often<T>(io, broker);
    broker.broker.close();
    io.restart();
    io.run();
}
