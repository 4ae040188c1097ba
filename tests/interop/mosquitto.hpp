#pragma once

#include <runnel/testing/certificate.hpp>

#include "support/process.hpp"
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace test {

struct mosquitto_options {
    /// User names and passwords. If there are any, nobody else is let in.
    std::vector<std::pair<std::string, std::string>> users;
    /// Messages of QoS 1 and 2 on their way to a client at a time; 0: any number. (Debian's 2.0.11 stalls when a burst
    /// of more QoS 2 messages than this goes to one client, so the tests of other things leave it 0.)
    int max_inflight_messages = 0;
    /// Keeps sessions, subscriptions and queued messages over `stop` and `start`.
    bool persistence = false;
    /// Whether `log` has all packets, or only errors.
    bool log_packets = true;
    /// Lines added to the configuration.
    std::string configuration;
    /// Lines added to that of each listener.
    std::string listener_configuration;
    /// Its name, or where it is.
    std::string program = "mosquitto";
};

/// A real broker, Debian's mosquitto, on free loopback ports: an unprivileged process with a configuration,
/// certificates and a password file made on the spot. Ready when the constructor returns; ends with the object.
class mosquitto {
  public:
    /// Whether the program is installed.
    static bool available() { return !child_process::find("mosquitto").empty(); }

    explicit mosquitto(mosquitto_options options = {}) : options_(std::move(options)) {
        directory_.write("ca.crt", authority_.certificate_pem());
        auto const own = authority_.issue_server();
        directory_.write("server.crt", own.certificate_pem);
        directory_.write("server.key", own.private_key_pem);
        write_passwords();
        // Somebody else may take a port between its choice and its use.
        for (int attempt = 0; attempt < 5; ++attempt) {
            choose_ports();
            directory_.write("mosquitto.conf", configuration());
            if (try_start()) return;
        }
        throw std::runtime_error("mosquitto does not start:\n" + log());
    }

    /// Ports on 127.0.0.1: plain, TLS, WebSocket, WebSocket Secure, and TLS with client certificates.
    std::uint16_t port_tcp() const noexcept { return ports_[0]; }
    std::uint16_t port_tls() const noexcept { return ports_[1]; }
    std::uint16_t port_ws() const noexcept { return ports_[2]; }
    std::uint16_t port_wss() const noexcept { return ports_[3]; }
    std::uint16_t port_mutual_tls() const noexcept { return ports_[4]; }

    /// Who signed the server's certificate (for localhost, 127.0.0.1, ::1), and whose client certificates are accepted
    /// on `port_mutual_tls`.
    runnel::testing::certificate_authority const& authority() const noexcept { return authority_; }

    /// Asks it to end and waits; what `persistence` keeps has then been written.
    void stop() { process_->terminate(); }
    /// Ends it at once, as a crash does.
    void kill() { process_->kill(); }
    /// Starts it again on the same ports. It must have been ended.
    void start() {
        if (!try_start()) throw std::runtime_error("mosquitto does not start again:\n" + log());
    }
    /// Other lines for each listener, from the next `start` on.
    void configure_listeners(std::string lines) {
        options_.listener_configuration = std::move(lines);
        directory_.write("mosquitto.conf", configuration());
    }
    bool running() { return process_->running(); }
    pid_t pid() const noexcept { return process_->pid(); }

    /// What it has logged so far: connections, and the packets of clients that are let in.
    std::string log() const { return directory_.read("log"); }

  private:
    bool try_start() {
        process_.emplace(
            std::vector<std::string>{options_.program, "-c", (directory_.path() / "mosquitto.conf").string()},
            (directory_.path() / "log").string());
        return wait_until_ready(*process_, {ports_.begin(), ports_.end()});
    }

    void choose_ports() {
        ports_.clear();
        while (ports_.size() < 5) ports_.push_back(free_port());
    }

    void write_passwords() {
        if (options_.users.empty()) return;
        auto const file = directory_.write("passwords", {});
        auto const log_file = (directory_.path() / "log").string();
        for (auto const& [name, password] : options_.users) {
            child_process adding({"mosquitto_passwd", "-b", file, name, password}, log_file, rights::same);
            if (!adding.wait(std::chrono::seconds(60)) || adding.exit_status() != 0)
                throw std::runtime_error("mosquitto_passwd failed:\n" + log());
        }
        directory_.write("passwords", directory_.read("passwords"));  // gives it back to the broker's account
    }

    std::string configuration() const {
        auto const file = [&](char const* name) { return (directory_.path() / name).string(); };
        auto const tls = "certfile " + file("server.crt") + "\nkeyfile " + file("server.key") + '\n';
        auto const listener = [&](std::uint16_t port) {
            return "listener " + std::to_string(port) + " 127.0.0.1\n" + options_.listener_configuration;
        };
        std::string text = "per_listener_settings false\nlog_dest stderr\nsys_interval 0\n";
        text += options_.log_packets ? "log_type all\n" : "log_type error\n";
        text += "max_inflight_messages " + std::to_string(options_.max_inflight_messages) + '\n';
        text += "max_queued_messages 0\n";
        text += options_.users.empty() ? "allow_anonymous true\n"
                                       : "allow_anonymous false\npassword_file " + file("passwords") + '\n';
        if (options_.persistence)
            text += "persistence true\nautosave_interval 1\npersistence_location " + directory_.path().string() + "/\n";
        else
            text += "persistence false\n";
        if (!options_.configuration.empty()) text += options_.configuration + '\n';
        text += listener(port_tcp()) + "protocol mqtt\n";
        text += listener(port_tls()) + "protocol mqtt\n" + tls;
        // Without socket_domain a websockets listener ignores its address and listens everywhere.
        text += listener(port_ws()) + "protocol websockets\nsocket_domain ipv4\n";
        text += listener(port_wss()) + "protocol websockets\nsocket_domain ipv4\n" + tls;
        text += listener(port_mutual_tls()) + "protocol mqtt\n" + tls + "cafile " + file("ca.crt") +
                "\nrequire_certificate true\n";
        return text;
    }

    mosquitto_options options_;
    runnel::testing::certificate_authority authority_;
    scratch_directory directory_;
    std::vector<std::uint16_t> ports_;
    std::optional<child_process> process_;
};

}  // namespace test
