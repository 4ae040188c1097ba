// The embedded broker and the platform simulator, tried by other people's clients: mosquitto_pub and mosquitto_sub.

#include <runnel/testing/aliyun/platform.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/testing/over_tls.hpp>

#include <asio/io_context.hpp>
#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <support/process.hpp>
#include <vector>

namespace {

using namespace runnel;
using arguments = std::vector<std::string>;

bool have_clients() {
    bool const found = !test::child_process::find("mosquitto_sub").empty();
    if (!found) MESSAGE("skipped: mosquitto_sub is not installed");
    return found;
}

struct fixture {
    // Runs the broker until `condition` holds; false if it does not in time.
    template <class Condition>
    bool wait(Condition condition) {
        auto const end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        while (!condition()) {
            if (std::chrono::steady_clock::now() > end) return false;
            io.restart();
            io.run_for(std::chrono::milliseconds(5));
        }
        return true;
    }
    test::child_process start(arguments a, std::string const& log) {
        return test::child_process(std::move(a), directory.write(log, ""));
    }
    // Runs a client to its end; its exit status.
    int run(arguments a, std::string const& log = "out") {
        auto child = start(std::move(a), log);
        return wait([&] { return !child.running(); }) ? child.exit_status() : -2;
    }

    asio::io_context io;
    test::scratch_directory directory;
};

arguments operator+(arguments a, arguments const& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

}  // namespace

TEST_CASE("mosquitto's clients exchange messages of each QoS through the embedded broker, over tcp and tls") {
    if (!have_clients()) return;
    fixture p;
    testing::certificate_authority authority;
    testing::broker broker(p.io.get_executor());
    auto const tcp_port = std::to_string(broker.listen_tcp());
    auto const tls_port = std::to_string(broker.listen(testing::over_tls(authority)));
    auto const ca = p.directory.write("ca.pem", authority.certificate_pem());
    for (auto const* version : {"mqttv311", "mqttv5"}) {
        for (auto const* quality : {"0", "1", "2"}) {
            for (bool const secure : {false, true}) {
                arguments where{"-h", "localhost", "-p", secure ? tls_port : tcp_port, "-V", version, "-q", quality};
                if (secure) where = where + arguments{"--cafile", ca};
                auto const before = broker.counters().accepted;
                auto subscriber = p.start(
                    arguments{"mosquitto_sub", "-i", "subscriber", "-t", "a/#", "-C", "1", "-F", "%t %q %p"} + where,
                    "sub");
                REQUIRE(p.wait([&] { return broker.counters().accepted > before && broker.subscribed("a/#"); }));
                CHECK(p.run(arguments{"mosquitto_pub", "-t", "a/b", "-m", "hello"} + where) == 0);
                CHECK(p.wait([&] { return !subscriber.running(); }));
                CHECK(p.directory.read("sub") == std::string("a/b ") + quality + " hello\n");
                REQUIRE(p.wait([&] { return broker.session_count() == 0; }));
            }
        }
    }
    CHECK(broker.counters().protocol_errors == 0);
}

TEST_CASE("mosquitto_sub gets a retained message, and mosquitto_pub's will") {
    if (!have_clients()) return;
    fixture p;
    testing::broker broker(p.io.get_executor());
    arguments const where{"-p", std::to_string(broker.listen_tcp()), "-V", "mqttv5"};
    CHECK(p.run(arguments{"mosquitto_pub", "-r", "-t", "kept", "-m", "retained"} + where) == 0);
    CHECK(p.run(arguments{"mosquitto_sub", "-C", "1", "-t", "kept", "-F", "%r %p"} + where, "sub") == 0);
    CHECK(p.directory.read("sub") == "1 retained\n");

    auto watcher = p.start(arguments{"mosquitto_sub", "-C", "1", "-t", "will"} + where, "watcher");
    REQUIRE(p.wait([&] { return broker.subscribed("will"); }));
    auto doomed = p.start(
        arguments{"mosquitto_sub", "-t", "x", "--will-topic", "will", "--will-payload", "gone"} + where, "doomed");
    REQUIRE(p.wait([&] { return broker.subscribed("x"); }));
    doomed.kill();
    CHECK(p.wait([&] { return !watcher.running(); }));
    CHECK(p.directory.read("watcher") == "gone\n");
}

TEST_CASE("the platform simulator lets mosquitto_pub in as a device, with the right password only") {
    if (!have_clients()) return;
    fixture p;
    testing::aliyun_platform platform(p.io.get_executor());
    aliyun::device const device{"a1B2c3D4e5F", "thermostat-7", "the device secret"};
    platform.add_device(device);
    auto const port = std::to_string(platform.listen_tcp());
    auto const c = aliyun::sign(device, {.mode = aliyun::secure_mode::plain});
    for (auto const* version : {"mqttv311", "mqttv5"}) {
        auto const publish = [&](std::string_view password) {
            return p.run({"mosquitto_pub", "-p", port, "-V", version, "-q", "1", "-i", std::string(c.client_id.view()),
                          "-u", std::string(c.user_name.view()), "-P", std::string(password), "-t",
                          "/a1B2c3D4e5F/thermostat-7/user/update", "-m", "21"});
        };
        CHECK(publish(c.password.view()) == 0);
        CHECK(publish("wrong") != 0);
    }
    CHECK(platform.counters().accepted == 2);
    CHECK(platform.counters().refused == 2);
    CHECK(platform.counters().messages_received == 2);
}
