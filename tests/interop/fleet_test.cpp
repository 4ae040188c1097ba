#include <doctest/doctest.h>

#include "interop/mosquitto.hpp"
#include "support/process.hpp"
#include "support/skip.hpp"
#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

// The program examples/fleet, a load generator, against mosquitto.

namespace {

using namespace std::chrono_literals;

test::skip_unless const ready(test::mosquitto::available, "mosquitto is not installed");

// The program, with its output.
class fleet {
  public:
    explicit fleet(std::vector<std::string> arguments) {
        arguments.insert(arguments.begin(), RUNNEL_FLEET);
        process_.emplace(std::move(arguments), (directory_.path() / "log").string(), test::rights::same);
    }

    /// Its exit status once it has ended; -1 if it does not.
    int ends() { return process_->wait(60s) ? process_->exit_status() : -1; }
    std::string output() const { return directory_.read("log"); }
    bool prints(std::string const& text) const {
        for (int i = 0; i < 4000; ++i) {
            if (output().find(text) != std::string::npos) return true;
            std::this_thread::sleep_for(5ms);
        }
        return false;
    }
    void interrupt() const { ::kill(process_->pid(), SIGINT); }

  private:
    test::scratch_directory directory_;
    std::optional<test::child_process> process_;
};

bool has(std::string const& text, std::string const& part) { return text.find(part) != std::string::npos; }

std::vector<std::string> at(std::uint16_t port, std::vector<std::string> const& more) {
    std::vector<std::string> all = more;
    for (auto const& argument : {std::string("-h"), std::string("127.0.0.1"), std::string("-p"), std::to_string(port)})
        all.push_back(argument);
    return all;
}

}  // namespace

TEST_CASE("the fleet loses nothing over any transport, with any QoS, in both versions") {
    test::mosquitto broker;
    test::scratch_directory directory;
    auto const ca = directory.write("ca.pem", broker.authority().certificate_pem());
    std::vector<std::string> const common = {"both", "-c", "30", "-i", "0", "-I", "10", "-L", "600", "--threads", "3"};
    auto const loses_nothing = [&](std::uint16_t port, std::vector<std::string> const& more) {
        auto all = at(port, common);
        all.insert(all.end(), more.begin(), more.end());
        fleet program(std::move(all));
        auto const status = program.ends();
        auto const output = program.output();
        CAPTURE(output);
        CHECK(status == 0);
        CHECK(has(output, "sent          600,"));
        CHECK(has(output, "received      600,"));
        CHECK(has(output, "good: 0 lost"));
    };
    SUBCASE("tcp, QoS 0, MQTT 3.1.1") { loses_nothing(broker.port_tcp(), {"-q", "0", "-V", "4"}); }
    SUBCASE("tcp, QoS 2, MQTT 5") { loses_nothing(broker.port_tcp(), {"-q", "2", "-V", "5", "--inflight", "4"}); }
    SUBCASE("tls, QoS 1, MQTT 5") { loses_nothing(broker.port_tls(), {"-q", "1", "-S", "--cacertfile", ca}); }
    SUBCASE("ws, QoS 2, MQTT 3.1.1") { loses_nothing(broker.port_ws(), {"-q", "2", "--ws", "-V", "4"}); }
    SUBCASE("wss, QoS 1, MQTT 5") { loses_nothing(broker.port_wss(), {"-q", "1", "--ws", "--ssl", "--insecure"}); }
}

TEST_CASE("the fleet counts on each client for the messages of all, and on one of a group") {
    test::mosquitto broker;
    SUBCASE("all get all") {
        fleet program(at(broker.port_tcp(), {"-c", "10", "-i", "0", "-I", "5", "-L", "100", "-t", "runnel/all"}));
        CHECK(program.ends() == 0);
        CHECK(has(program.output(), "received      1000,"));
    }
    SUBCASE("each message goes to one") {
        fleet program(at(broker.port_tcp(), {"-c", "10", "-i", "0", "-I", "5", "-L", "100", "-t", "runnel/jobs",
                                             "--share", "workers", "-q", "1"}));
        CHECK(program.ends() == 0);
        CHECK(has(program.output(), "received      100,"));
    }
}

TEST_CASE("what one fleet publishes another one receives, under the names that the topic's variables stand for") {
    test::mosquitto broker;
    fleet receiver(at(broker.port_tcp(), {"sub", "-c", "4", "-n", "10", "-i", "0", "-t", "runnel/%i/%u", "-u", "user%i",
                                          "-q", "1", "--seconds", "0"}));
    REQUIRE(receiver.prints("4 clients are there"));
    fleet sender(at(broker.port_tcp(), {"pub", "-c", "4", "-n", "10", "-i", "0", "-t", "runnel/%i/%u", "-u", "user%i",
                                        "-q", "1", "-L", "40", "-I", "1", "-w"}));
    CHECK(sender.ends() == 0);
    CHECK(has(sender.output(), "sent          40,"));
    std::this_thread::sleep_for(1s);  // the broker has them all
    receiver.interrupt();
    CHECK(receiver.ends() == 0);
    CHECK(has(receiver.output(), "received      40,"));
}

TEST_CASE("the fleet only connects, at the rate asked for, and pings while nothing else goes on") {
    test::mosquitto broker;
    fleet program(
        at(broker.port_tcp(), {"conn", "-c", "100", "-R", "100", "-k", "1", "--seconds", "3", "--prefix", "pinging-"}));
    CHECK(program.ends() == 0);
    CHECK(has(program.output(), "connected     100 of 100"));
    CHECK(has(program.output(), "0 reconnects"));
    CHECK(has(broker.log(), "Received PINGREQ from pinging-99"));
    CHECK_FALSE(has(broker.log(), "exceeded timeout"));
}

TEST_CASE("the fleet tells what went wrong, by kinds, and its exit status says that something did") {
    std::optional<test::mosquitto> broker(std::in_place);
    fleet program(
        at(broker->port_tcp(), {"-c", "5", "-i", "0", "-I", "10", "-q", "1", "--seconds", "3600", "--attempts", "1"}));
    REQUIRE(program.prints("5 clients are there"));
    broker.reset();
    CHECK(program.ends() == 1);
    CHECK(has(program.output(), " times: "));
    CHECK(has(program.output(), "5 clients gave up"));
    CHECK(has(program.output(), "NOT GOOD"));
}

TEST_CASE("the fleet tells the range of a setting that is out of it") {
    auto const says = [](std::vector<std::string> arguments, std::string const& what) {
        fleet program(std::move(arguments));
        CHECK(program.ends() == 2);
        CAPTURE(program.output());
        CHECK(has(program.output(), what));
    };
    says({"--count", "0"}, "--count must be a number from 1 to 1000000");
    says({"--qos", "2"}, "--qos must be a number from 0 to 1");
    says({"pub", "-h", "localhost", "-q", "3"}, "--qos must be a number from 0 to 2");
    says({"--keepalive", "20"}, "--keepalive must be a number from 30 to 1200");
    says({"--size=8"}, "--size must be a number from 32 to 16777216");
    says({"--version", "3"}, "--version must be 4 or 5");
    says({"--share", "group"}, "--share needs --version 5");
    says({"--colour", "red"}, "there is no setting '--colour'");
    says({"--ws=yes"}, "--ws has no value");
    says({"--port"}, "--port needs a value");
    says({"talk"}, "the first argument must be conn, pub, sub or both");
}
