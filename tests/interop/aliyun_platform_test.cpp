#include <runnel/aliyun/signer.hpp>

#include <doctest/doctest.h>

#include "support/process.hpp"
#include "support/skip.hpp"
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

// The program examples/aliyun_platform with clients that others have written: mosquitto_pub, mosquitto_sub, MQTT.js.

namespace {

namespace aliyun = runnel::aliyun;
using namespace std::chrono_literals;

constexpr aliyun::device thermostat{"a1B2c3D4e5F", "thermostat-7", "a-secret-between-us"};
std::string const own = "/a1B2c3D4e5F/thermostat-7/user/";
std::string const post = "/sys/a1B2c3D4e5F/thermostat-7/thing/event/property/post";

bool has(char const* program) { return !test::child_process::find(program).empty(); }

test::skip_unless const ready([] { return has("mosquitto_pub") && has("mosquitto_sub"); },
                              "mosquitto-clients are not installed");

// The program, on four free ports.
class platform {
  public:
    explicit platform(std::string const& limits = "off") {
        auto const devices =
            directory_.write("devices", "# one device\n\na1B2c3D4e5F thermostat-7 a-secret-between-us\n");
        process_.emplace(std::vector<std::string>{RUNNEL_ALIYUN_PLATFORM, "--devices", devices, "--tcp", "0", "--tls",
                                                  "0", "--ws", "0", "--wss", "0", "--ca-out", ca(), "--limits", limits},
                         (directory_.path() / "log").string(), test::rights::same);
        for (auto const* name : {"tcp", "ws", "tls", "wss"})
            if (!logs(std::string("\n") + name + " on 127.0.0.1:")) throw std::runtime_error("no platform: " + log());
        if (!logs(std::string("wss on 127.0.0.1:")) || !logs("\n")) throw std::runtime_error(log());
    }

    std::string port(std::string const& transport) const {
        auto const text = log(), name = "\n" + transport + " on 127.0.0.1:";
        return std::to_string(std::stoul(text.substr(text.find(name) + name.size())));
    }
    std::string ca() const { return (directory_.path() / "ca.pem").string(); }
    std::string log() const { return directory_.read("log"); }
    bool logs(std::string const& text) const {
        for (int i = 0; i < 4000; ++i) {
            if (log().find(text) != std::string::npos) return true;
            std::this_thread::sleep_for(5ms);
        }
        return false;
    }
    /// Asks it to end; its exit status.
    int end() {
        process_->terminate();
        return process_->exit_status();
    }

  private:
    test::scratch_directory directory_;
    std::optional<test::child_process> process_;
};

// A client as a process, with its output.
class client {
  public:
    explicit client(std::vector<std::string> arguments)
        : process_(std::move(arguments), (directory_.path() / "log").string(), test::rights::same) {}
    /// Its exit status once it has ended; -1 if it does not.
    int ends() { return process_.wait(60s) ? process_.exit_status() : -1; }
    std::string output() const { return directory_.read("log"); }

  private:
    test::scratch_directory directory_;
    test::child_process process_;
};

std::vector<std::string> mosquitto(std::string const& program, platform const& p, bool secure,
                                   std::string const& version, std::vector<std::string> more,
                                   aliyun::device const& who = thermostat) {
    auto const c = aliyun::sign(who, {.mode = secure ? aliyun::secure_mode::tls : aliyun::secure_mode::plain});
    std::vector<std::string> all{program,
                                 "-h",
                                 "localhost",
                                 "-p",
                                 p.port(secure ? "tls" : "tcp"),
                                 "-V",
                                 version,
                                 "-i",
                                 c.client_id.str(),
                                 "-u",
                                 c.user_name.str(),
                                 "-P",
                                 c.password.str()};
    if (secure) all.insert(all.end(), {"--cafile", p.ca()});
    all.insert(all.end(), more.begin(), more.end());
    return all;
}

// MQTT.js in a directory of its own, once; nothing if there is no npm, or it cannot reach its registry.
std::optional<std::filesystem::path> const& mqtt_js() {
    static test::scratch_directory const directory;
    static auto const installed = []() -> std::optional<std::filesystem::path> {
        if (!has("npm") || !has("node")) return std::nullopt;
        directory.write("package.json", R"({"private":true,"type":"module"})");
        client npm({"npm", "install", "--prefix", directory.path().string(), "--no-audit", "--no-fund", "mqtt@5"});
        if (npm.ends() != 0) return std::nullopt;
        std::filesystem::copy_file(RUNNEL_INTEROP_DIRECTORY "/mqtt_js_peer.mjs", directory.path() / "peer.mjs");
        return directory.path();
    }();
    return installed;
}

}  // namespace

TEST_CASE("mosquitto_pub and mosquitto_sub log in with signed credentials, over TCP and TLS") {
    platform p;
    for (bool const secure : {false, true}) {
        for (std::string const version : {"mqttv311", "mqttv5"}) {
            CAPTURE(version);
            client subscribing(mosquitto("mosquitto_sub", p, secure, version, {"-t", own + "get", "-q", "1", "-E"}));
            CHECK_MESSAGE(subscribing.ends() == 0, subscribing.output());
            // A device has one connection, so that what one program publishes another gets only if it is retained.
            std::vector<std::string> message{"-t", own + "get", "-q", "1", "-m", "hello"};
            if (version == "mqttv5") message.push_back("-r");
            client publishing(mosquitto("mosquitto_pub", p, secure, version, message));
            CHECK_MESSAGE(publishing.ends() == 0, publishing.output());
        }
        client receiving(mosquitto("mosquitto_sub", p, secure, "mqttv5", {"-t", own + "get", "-C", "1", "-W", "20"}));
        CHECK(receiving.ends() == 0);
        CHECK(receiving.output() == "hello\n");
    }
    CHECK(p.end() == 0);
}

#ifdef RUNNEL_ALIYUN_PLATFORM_ANSWERS
TEST_CASE("mosquitto_rr posts a property and gets the platform's answer") {
    platform p;
    client asking(mosquitto("mosquitto_rr", p, false, "mqttv5",
                            {"-t", post, "-e", post + "_reply", "-m", R"({"id":"7","params":{"celsius":21.5}})"}));
    CHECK_MESSAGE(asking.ends() == 0, asking.output());
    CHECK(asking.output().find(R"("code":200)") != std::string::npos);
    CHECK(asking.output().find(R"("id":"7")") != std::string::npos);
}
#endif

TEST_CASE("a wrong signature is refused to mosquitto_pub") {
    platform p;
    aliyun::device const impostor{"a1B2c3D4e5F", "thermostat-7", "another secret"};
    client publishing(mosquitto("mosquitto_pub", p, false, "mqttv311", {"-t", own + "x", "-m", "x"}, impostor));
    CHECK(publishing.ends() != 0);
    CHECK(p.logs("the signature does not match"));
}

TEST_CASE("the sixth connection within a minute is refused") {
    platform p("on");
    auto const publish = [&] {
        client publishing(mosquitto("mosquitto_pub", p, false, "mqttv311", {"-t", own + "x", "-m", "x"}));
        return publishing.ends();
    };
    for (int i = 0; i < 5; ++i) CHECK(publish() == 0);
    CHECK(publish() != 0);
    CHECK(p.logs("more than 5 connections a minute"));
}

#ifdef RUNNEL_ALIYUN_PLATFORM_ANSWERS
TEST_CASE("MQTT.js posts a property and gets the platform's answer, over all four transports, in both versions") {
    if (!mqtt_js()) {
        MESSAGE("skipped: npm cannot install MQTT.js here");
        return;
    }
    platform p;
    struct way {
        std::string scheme, transport;
        bool secure;
    };
    for (way const& w :
         {way{"mqtt", "tcp", false}, way{"mqtts", "tls", true}, way{"ws", "ws", false}, way{"wss", "wss", true}}) {
        for (std::string const version : {"4", "5"}) {
            CAPTURE(w.scheme);
            CAPTURE(version);
            auto const c =
                aliyun::sign(thermostat, {.mode = w.secure ? aliyun::secure_mode::tls : aliyun::secure_mode::plain});
            std::vector<std::string> arguments{"node",
                                               (*mqtt_js() / "peer.mjs").string(),
                                               w.scheme + "://localhost:" + p.port(w.transport) + "/mqtt",
                                               version,
                                               c.client_id.str(),
                                               c.user_name.str(),
                                               c.password.str(),
                                               "a1B2c3D4e5F/thermostat-7"};
            if (w.secure) arguments.push_back(p.ca());
            client js(arguments);
            CHECK(js.ends() == 0);
            CHECK(js.output() == "code 200\n");
        }
    }
}
#endif

TEST_CASE("settings that make no sense are explained") {
    for (std::vector<std::string> const& arguments :
         {std::vector<std::string>{}, {"--devices", "/nowhere", "--tcp", "0"}, {"--devices"}, {"--colour", "blue"}}) {
        auto all = arguments;
        all.insert(all.begin(), RUNNEL_ALIYUN_PLATFORM);
        client program(all);
        CHECK(program.ends() == 2);
        CHECK(program.output().find("usage: aliyun_platform") != std::string::npos);
    }
}
