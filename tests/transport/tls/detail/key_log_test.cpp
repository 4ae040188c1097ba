#include <runnel/transport/tls/tls.hpp>

#include <doctest/doctest.h>

#include "support/process.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"
#include "support/tls_pair.hpp"
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <sstream>
#include <string>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace {

using runnel::tls_context;
using runnel::tls_options;
using runnel::tls_version;
using runnel::transport_errc;
using test::client_options;
using test::server_options;
using test::tls_pair;

std::vector<std::string> lines_of(std::string const& text) {
    std::istringstream in(text);
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
}

std::string hex(unsigned char const* bytes, std::size_t size) {
    std::string text;
    for (std::size_t i = 0; i < size; ++i) {
        char digits[3];
        std::snprintf(digits, sizeof(digits), "%02x", bytes[i]);
        text += digits;
    }
    return text;
}

std::string client_random(SSL const* ssl) {
    unsigned char bytes[32];
    return hex(bytes, SSL_get_client_random(ssl, bytes, sizeof(bytes)));
}

unsigned mode_of(std::string const& file) {
    struct stat found{};
    CHECK(::stat(file.c_str(), &found) == 0);
    return found.st_mode & 07777u;
}

std::string failure_of(std::string const& file) {
    auto o = client_options();
    o.key_log_file = file;
    try {
        tls_context const made(o);
    } catch (std::system_error const& e) {
        CHECK(e.code() == transport_errc::file_unreadable);
        return e.what();
    }
    return {};
}

}  // namespace

TEST_CASE("the key log has the secrets of TLS 1.2 as the connection has them, by its client random") {
    test::scratch_directory const files;
    auto o = client_options();
    o.maximum = tls_version::v1_2;
    o.key_log_file = (files.path() / "keys").string();
    tls_pair c(o, server_options());
    c.connect();
    auto const lines = lines_of(files.read("keys"));
    REQUIRE(lines.size() == 1);
    unsigned char master[48];
    auto const size = SSL_SESSION_get_master_key(SSL_get_session(c.server->native_handle()), master, sizeof(master));
    CHECK(lines[0] == "CLIENT_RANDOM " + client_random(c.server->native_handle()) + ' ' + hex(master, size));
}

TEST_CASE("client and server log the same secrets of TLS 1.3, a line each") {
    test::scratch_directory const files;
    auto at_client = client_options();
    auto at_server = server_options();
    at_client.key_log_file = (files.path() / "client").string();
    at_server.key_log_file = (files.path() / "server").string();
    tls_pair c(at_client, at_server);
    c.connect();
    auto mine = lines_of(files.read("client"));
    auto theirs = lines_of(files.read("server"));
    REQUIRE(mine.size() == 5);
    std::sort(mine.begin(), mine.end());
    std::sort(theirs.begin(), theirs.end());
    CHECK(mine == theirs);
    for (auto const& line : mine) CHECK(line.find(' ' + client_random(c.client->native_handle()) + ' ') > 0);
    CHECK(mine[0].starts_with("CLIENT_HANDSHAKE_TRAFFIC_SECRET "));
    CHECK(mine[1].starts_with("CLIENT_TRAFFIC_SECRET_0 "));
}

TEST_CASE("the key log is its owner's alone, also if it was there, and is appended to") {
    test::scratch_directory const files;
    auto const file = files.write("keys", "# of before\n");
    REQUIRE(::chown(file.c_str(), ::geteuid(), ::getegid()) == 0);  // one of somebody else's is refused
    REQUIRE(::chmod(file.c_str(), 0666) == 0);
    auto o = client_options();
    o.key_log_file = file;
    tls_context const context(o);
    CHECK(mode_of(file) == 0600);
    tls_context const server{server_options()};
    for (int i = 0; i < 2; ++i) {
        tls_pair c(context, server);
        c.connect();
    }
    CHECK(files.read("keys").starts_with("# of before\n"));
    CHECK(lines_of(files.read("keys")).size() == 11);
    o.key_log_file = (files.path() / "new").string();
    auto const before = ::umask(0);
    tls_context const fresh(o);
    ::umask(before);
    CHECK(mode_of(o.key_log_file) == 0600);
}

TEST_CASE("no environment variable makes a key log") {
    test::scratch_directory const files;
    auto const file = (files.path() / "keys").string();
    ::setenv("SSLKEYLOGFILE", file.c_str(), 1);
    tls_pair c(client_options(), server_options());
    c.connect();
    ::unsetenv("SSLKEYLOGFILE");
    CHECK_FALSE(std::filesystem::exists(file));
}

TEST_CASE("a key log that cannot be opened, is a link, or no file, is said by its name") {
    test::scratch_directory const files;
    CHECK(failure_of("no/such/keys").find("key_log_file 'no/such/keys'") != std::string::npos);
    auto const link = (files.path() / "link").string();
    REQUIRE(::symlink(files.write("target", {}).c_str(), link.c_str()) == 0);
    CHECK_FALSE(failure_of(link).empty());
    CHECK_FALSE(failure_of(files.path().string()).empty());
    // A device of the test's own: one of the machine's would lose its rights where the library forgot to look.
    int const terminal = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    REQUIRE(terminal >= 0);
    REQUIRE(::grantpt(terminal) == 0);
    REQUIRE(::unlockpt(terminal) == 0);
    std::string const device = ::ptsname(terminal);
    REQUIRE(::chmod(device.c_str(), 0620) == 0);
    CHECK_FALSE(failure_of(device).empty());
    CHECK(mode_of(device) == 0620);
    ::close(terminal);
}

TEST_CASE("a disk that is full costs the key log, not the connection") {
    test::scratch_directory const files;
    auto o = client_options();
    o.key_log_file = (files.path() / "keys").string();
    tls_context const context(o);
    // Signals of the limit are ignored, so that writing fails.
    ::signal(SIGXFSZ, SIG_IGN);
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    rlimit none = before;
    none.rlim_cur = 0;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &none) == 0);
    tls_pair c(context, tls_context(server_options()));
    auto const result = c.handshake();
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
    CHECK_FALSE(result.client);
    CHECK(files.read("keys").empty());
}
