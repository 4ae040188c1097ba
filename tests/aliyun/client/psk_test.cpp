#include <runnel/aliyun/connect.hpp>
#include <runnel/aliyun/signer.hpp>
#include <runnel/mqtt/client/session.hpp>
#include <runnel/testing/aliyun/platform.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/tls.hpp>

#include <doctest/doctest.h>

#include "support/run.hpp"
#include <string>
#include <system_error>

// A device that has no authorities to trust: both sides prove that they know the key made of the device's secret.

namespace {

using namespace runnel;

constexpr aliyun::device thermostat{"a1B2c3D4e5F", "thermostat-7", "a secret between us"};

tls_context context_of(aliyun::psk_credentials const& c) {
    tls_options options;
    options.psk_identity = c.identity.str();
    options.psk_key = c.key.str();
    return tls_context(options);
}

std::error_code connect(aliyun::psk_credentials const& device, aliyun::psk_credentials const& server) {
    asio::io_context io;
    testing::aliyun_platform platform(io.get_executor());
    platform.add_device(thermostat);
    mqtts transport;
    transport.host = "localhost";
    transport.port = platform.listen(testing::over_tls(context_of(server)));
    transport.context = context_of(device);
    auto options = aliyun::session_options<mqtts>(thermostat);
    options.reconnect.attempts = 1;
    mqtt::session<mqtts> session(io.get_executor(), transport, options);
    test::task<void> running(io, session.run());
    test::task<void> connected(io, session.connected());
    if (connected.run_for_error()) return running.run_for_error();
    test::run(io, session.disconnect());
    return running.run_for_error();
}

}  // namespace

TEST_CASE("a device connects by its pre-shared key") {
    CHECK_FALSE(connect(aliyun::sign_psk(thermostat), aliyun::sign_psk(thermostat)));
}

TEST_CASE("a device with another secret does not connect") {
    auto const wrong = aliyun::sign_psk({"a1B2c3D4e5F", "thermostat-7", "another secret"});
    CHECK(connect(wrong, aliyun::sign_psk(thermostat)));
}
