#pragma once

#include <runnel/testing/certificate.hpp>

#include "support/process.hpp"
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

namespace test {

/// Another real broker, Debian's ejabberd (its module mod_mqtt), on free loopback ports: an unprivileged Erlang process
/// that knows no other node, with a configuration, certificates and a database of its own. Ready when the constructor
/// returns, after a second or two; ends with the object. It lets in everybody who names any user and any password.
class ejabberd {
  public:
    /// Whether it and its Erlang are installed.
    static bool available() { return !child_process::find("erl").empty() && !libraries().empty(); }

    ejabberd() {
        auto const own = authority_.issue_server();
        directory_.write("server.pem", own.certificate_pem + own.private_key_pem);
        // Somebody else may take a port between its choice and its use.
        for (int attempt = 0; attempt < 3; ++attempt) {
            ports_.clear();
            while (ports_.size() < 4) ports_.push_back(free_port());
            directory_.write("ejabberd.yml", configuration());
            if (try_start()) return;
        }
        throw std::runtime_error("ejabberd does not start:\n" + log());
    }

    /// Ports on 127.0.0.1: plain, TLS, WebSocket and WebSocket Secure.
    std::uint16_t port_tcp() const noexcept { return ports_[0]; }
    std::uint16_t port_tls() const noexcept { return ports_[1]; }
    std::uint16_t port_ws() const noexcept { return ports_[2]; }
    std::uint16_t port_wss() const noexcept { return ports_[3]; }

    /// Who signed the server's certificate, for localhost, 127.0.0.1 and ::1.
    runnel::testing::certificate_authority const& authority() const noexcept { return authority_; }

    std::string log() const { return directory_.read("log"); }

  private:
    // Where Debian has ejabberd's modules, which depends on the architecture; empty if it is not installed.
    static std::string libraries() {
        std::error_code ignored;
        for (auto const& architecture : std::filesystem::directory_iterator("/usr/lib", ignored)) {
            for (auto const& entry : std::filesystem::directory_iterator(architecture, ignored)) {
                if (entry.path().filename().string().starts_with("ejabberd-")) return architecture.path().string();
            }
        }
        return {};
    }

    // `ejabberdctl` wants an account, a node name and epmd; started like this, ejabberd needs none of them.
    bool try_start() {
        auto const file = [&](char const* name) { return (directory_.path() / name).string(); };
        process_.emplace(
            std::vector<std::string>{"env", "-C", directory_.path().string(), "HOME=" + directory_.path().string(),
                                     "ERL_LIBS=" + libraries(), "EJABBERD_CONFIG_PATH=" + file("ejabberd.yml"),
                                     "EJABBERD_LOG_PATH=" + file("ejabberd.log"),
                                     "ERL_CRASH_DUMP=" + file("crash.dump"), "erl", "-noinput", "+K", "true", "-mnesia",
                                     "dir", '"' + file("spool") + '"', "-s", "ejabberd"},
            file("log"));
        return wait_until_ready(*process_, ports_, std::chrono::seconds(60));
    }

    std::string configuration() const {
        auto const listener = [&](std::size_t i, std::string const& rest) {
            return "  - {port: " + std::to_string(ports_[i]) + ", ip: \"127.0.0.1\", backlog: 100, " + rest + "}\n";
        };
        return "hosts: [localhost]\nloglevel: info\ncertfiles: [" + (directory_.path() / "server.pem").string() +
               "]\nauth_method: [anonymous]\nanonymous_protocol: login_anon\nallow_multiple_connections: true\n"
               "listen:\n" +
               listener(0, "module: mod_mqtt, max_payload_size: infinity") +
               listener(1, "module: mod_mqtt, max_payload_size: infinity, tls: true") +
               listener(2, "module: ejabberd_http, request_handlers: {/mqtt: mod_mqtt}") +
               listener(3, "module: ejabberd_http, tls: true, request_handlers: {/mqtt: mod_mqtt}") +
               "modules:\n  mod_mqtt: {}\n";
    }

    runnel::testing::certificate_authority authority_;
    scratch_directory directory_;
    std::vector<std::uint16_t> ports_;
    std::optional<child_process> process_;
};

}  // namespace test
