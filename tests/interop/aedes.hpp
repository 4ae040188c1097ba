#pragma once

#include "support/npm.hpp"
#include "support/process.hpp"
#include <cstdint>
#include <fstream>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace test {

/// Aedes (0.51), a broker of npm for node, which speaks 3.1.1 and refuses MQTT 5 by a CONNACK of 3.1.1 with return code
/// 1, on a free loopback port. Ready when the constructor returns; ends with the object. RUNNEL_AEDES_MODULES in the
/// environment names a `node_modules` with it, which then is not installed.
class aedes {
  public:
    /// Whether it is there, or npm could install it: asks for that once.
    static bool available() { return !modules().empty(); }

    aedes() {
        std::ostringstream script;
        script << std::ifstream(RUNNEL_INTEROP_DIRECTORY "/aedes_peer.js").rdbuf();
        // Somebody else may take a port between its choice and its use.
        for (int attempt = 0; attempt < 3; ++attempt) {
            port_ = free_port();
            process_.emplace(std::vector<std::string>{"env", "NODE_PATH=" + modules(), "node",
                                                      directory_.write("broker", script.str()), std::to_string(port_)},
                             (directory_.path() / "log").string());
            if (wait_until_ready(*process_, {port_})) return;
        }
        throw std::runtime_error("Aedes does not start:\n" + directory_.read("log"));
    }

    std::uint16_t port_tcp() const noexcept { return port_; }

  private:
    static std::string const& modules() {
        static std::string const found = npm_modules("RUNNEL_AEDES_MODULES", "aedes@0.51");
        return found;
    }

    scratch_directory directory_;
    std::uint16_t port_ = 0;
    std::optional<child_process> process_;
};

}  // namespace test
