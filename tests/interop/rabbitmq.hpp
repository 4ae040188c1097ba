#pragma once

#include "support/process.hpp"
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace test {

/// Debian's RabbitMQ (3.10) with its plugin for MQTT, which speaks 3.1.1 and ends a connection that asks for MQTT 5
/// without an answer. A node of the tests' own account that nobody else knows, on free loopback ports, with an epmd and
/// a database of its own. Ready when the constructor returns, after ten seconds or so; ends with the object.
class rabbitmq {
  public:
    /// Whether it is installed.
    static bool available() { return !child_process::find("epmd").empty() && std::filesystem::exists(program); }

    rabbitmq() {
        // Somebody else may take a port between its choice and its use.
        for (int attempt = 0; attempt < 3; ++attempt) {
            ports_.clear();
            while (ports_.size() < 3) ports_.push_back(free_port());
            directory_.write("rabbitmq.conf",
                             "listeners.tcp = none\nloopback_users = none\nmqtt.allow_anonymous = true\n"
                             "mqtt.listeners.tcp.1 = 127.0.0.1:" +
                                 std::to_string(port_tcp()) + "\nlog.console = true\nlog.file = false\n");
            directory_.write("enabled_plugins", "[rabbitmq_mqtt].\n");
            if (try_start()) return;
        }
        throw std::runtime_error("RabbitMQ does not start:\n" + log());
    }

    rabbitmq(rabbitmq const&) = delete;
    rabbitmq& operator=(rabbitmq const&) = delete;
    ~rabbitmq() { process_->terminate(); }  // its script then ends the node

    std::uint16_t port_tcp() const noexcept { return ports_[0]; }
    std::string log() const { return directory_.read("log"); }

  private:
    static constexpr char const* program = "/usr/lib/rabbitmq/bin/rabbitmq-server";

    bool try_start() {
        auto const file = [&](char const* name) { return (directory_.path() / name).string(); };
        auto const port = [&](std::size_t i) { return std::to_string(ports_[i]); };
        std::vector<std::string> const with = {"env",
                                               "-C",
                                               directory_.path().string(),
                                               "HOME=" + directory_.path().string(),
                                               "ERL_EPMD_PORT=" + port(1),
                                               "ERL_EPMD_ADDRESS=127.0.0.1"};
        auto daemon = with, node = with;
        daemon.push_back("epmd");
        epmd_.emplace(daemon, file("epmd.log"), rights::same);
        for (auto const& [name, value] : std::vector<std::pair<std::string, std::string>>{
                 {"NODENAME", "runnel" + port(0) + "@localhost"},
                 {"CONFIG_FILE", file("rabbitmq.conf")},
                 {"MNESIA_BASE", file("mnesia")},
                 {"ENABLED_PLUGINS_FILE", file("enabled_plugins")},
                 {"LOG_BASE", file("log.d")},
                 {"CONF_ENV_FILE", "/dev/null"},
                 {"DIST_PORT", port(2)},
                 {"SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}"}})
            node.push_back("RABBITMQ_" + name + '=' + value);
        node.push_back(program);
        process_.emplace(node, file("log"), rights::same);
        return wait_until_ready(*process_, {port_tcp()}, std::chrono::seconds(120));
    }

    scratch_directory directory_;
    std::vector<std::uint16_t> ports_;
    std::optional<child_process> epmd_, process_;
};

}  // namespace test
