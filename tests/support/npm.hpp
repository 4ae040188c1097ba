#pragma once

#include "support/process.hpp"
#include <chrono>
#include <cstdlib>
#include <string>

namespace test {

/// The `node_modules` with a package of npm: that of the environment's `variable` where it is set, else one that npm
/// installs into a directory that is gone when the program ends. Empty: there is no node, or npm cannot install it.
inline std::string npm_modules(char const* variable, std::string const& package) {
    if (child_process::find("node").empty()) return {};
    if (char const* const given = std::getenv(variable)) return given;
    if (child_process::find("npm").empty()) return {};
    static scratch_directory const directory;
    std::string const prefix = (directory.path() / package).string();
    child_process installing({"npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel", "error",
                              "--prefix", prefix, package},
                             (directory.path() / "npm.log").string(), rights::same);
    if (!installing.wait(std::chrono::seconds(90)) || installing.exit_status() != 0) return {};
    return prefix + "/node_modules";
}

}  // namespace test
