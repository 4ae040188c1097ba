#include <runnel/digest/base64.hpp>
#include <runnel/mqtt/client/scram_authenticator.hpp>
#include <runnel/testing/broker/scram.hpp>

#include <asio/ip/tcp.hpp>
#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/process.hpp"
#include "support/skip.hpp"
#include <chrono>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

// SCRAM against another implementation, Debian's libauthen-scram-perl, as server and as client; scram_peer.pl is its
// side of it. Its messages travel in MQTT, from a session to the embedded broker.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::reason_code;
using mqtt::scram_sha_1;
using mqtt::scram_sha_256;
using mqtt::scram_sha_512;
using test::child_process;
using test::task;

constexpr auto v5 = mqtt::protocol_version::v5;
char const* const perl = "/usr/bin/perl";

bool installed() {
    if (child_process::find(perl).empty()) return false;
    child_process trying({perl, "-MAuthen::SCRAM::Client", "-MAuthen::SCRAM::Server", "-e", "1"}, "/dev/null");
    return trying.wait(std::chrono::seconds(30)) && trying.exit_status() == 0;
}

test::skip_unless const ready(installed, "libauthen-scram-perl is not installed");

// The program, once for all tests.
class peer_process {
  public:
    static std::string port() {
        static peer_process const started;
        return started.port_;
    }

  private:
    peer_process() {
        std::ostringstream text;
        text << std::ifstream(RUNNEL_INTEROP_DIRECTORY "/scram_peer.pl").rdbuf();
        process_.emplace(std::vector<std::string>{perl, directory_.write("peer", text.str())},
                         (directory_.path() / "log").string());
        std::string const announced = "listening on ";
        for (int i = 0; i < 4000 && !directory_.read("log").ends_with('\n'); ++i)
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        auto const log = directory_.read("log");
        if (!log.starts_with(announced)) throw std::runtime_error("the peer does not start: " + log);
        port_ = log.substr(announced.size(), log.find('\n') - announced.size());
    }

    test::scratch_directory directory_;
    std::optional<child_process> process_;
    std::string port_;
};

// One exchange of the peer's.
class peer {
  public:
    peer(std::string_view role, std::string_view mechanism, std::string_view user, std::string_view password,
         std::uint32_t iterations = 4096)
        : stream_("127.0.0.1", peer_process::port()) {
        stream_ << role << ' ' << mechanism.substr(6) << ' ' << runnel::digest::encode_base64(user) << ' '
                << runnel::digest::encode_base64(password) << ' ' << iterations << std::endl;
    }

    void say(std::string_view message) { stream_ << runnel::digest::encode_base64(message) << std::endl; }
    /// What it says; nothing: it does not go on.
    std::optional<std::string> hear() {
        std::string line;
        if (!std::getline(stream_, line)) return {};
        return runnel::digest::decode_base64(line);
    }

  private:
    asio::ip::tcp::iostream stream_;
};

// A broker whose users the peer knows.
struct peers_broker : test::memory_fixture {
    peers_broker(std::string_view mechanism, std::string user, std::string password, std::uint32_t iterations) {
        broker.hooks().authenticate = [=, this](runnel::testing::authentication_attempt& a) {
            if (a.step == 0) server.emplace("server", mechanism, user, password, iterations);
            server->say(a.data.value_or(""));
            a.reply = server->hear();
            if (!a.reply) return reason_code::not_authorized;
            return a.step == 0 ? reason_code::continue_authentication : reason_code::success;
        };
    }
    std::optional<peer> server;
};

// A session's side that is the peer's.
template <class M>
struct peers_authenticator {
    std::string method() const { return std::string(M::name); }
    asio::awaitable<std::string> begin() {
        client = std::make_unique<peer>("client", M::name, user, password);
        co_return client->hear().value();
    }
    asio::awaitable<std::string> answer(std::string data) {
        client->say(data);
        co_return client->hear().value();
    }
    asio::awaitable<void> finish(std::string data) {
        client->say(data);
        if (!client->hear()) throw std::runtime_error("the peer does not accept the signature");
        co_return;
    }

    std::string user, password;
    std::unique_ptr<peer> client{};
};

// Commas and equals signs in names it escapes with small letters, which RFC 5802 5.1 does not allow.
std::string const users[] = {"user", "a user's name; with signs"};

}  // namespace

TEST_CASE_TEMPLATE("a session authenticates to Perl's server", M, scram_sha_1, scram_sha_256, scram_sha_512) {
    for (auto const& user : users) {
        peers_broker p(M::name, user, "pencil =,", 4096);
        test::memory_session s(p.io.get_executor(), p.transport, test::quick("client", v5));
        s.set_authenticator(mqtt::scram_authenticator<M>({.user_name = user, .password = "pencil =,"}));
        task<void> running(p.io, s.run());
        test::run(p.io, s.connected());
        test::run(p.io, s.reauthenticate());
        test::run(p.io, s.disconnect());
        CHECK_FALSE(running.run_for_error());
    }
}

TEST_CASE("a session with a wrong password is refused by Perl's server") {
    peers_broker p(scram_sha_256::name, "user", "pencil", 10'000);
    test::memory_session s(p.io.get_executor(), p.transport, test::quick("client", v5));
    s.set_authenticator(mqtt::scram_authenticator<scram_sha_256>({.user_name = "user", .password = "pen"}));
    task<void> running(p.io, s.run());
    CHECK(running.run_for_error() == reason_code::not_authorized);
}

TEST_CASE("names and passwords that are prepared mean to Perl's server what they mean here") {
    peers_broker p(scram_sha_256::name, "grün", "密码", 4096);
    test::memory_session s(p.io.get_executor(), p.transport, test::quick("client", v5));
    s.set_authenticator(
        mqtt::scram_authenticator<scram_sha_256>({.user_name = "grün", .password = "密码", .is_prepared = true}));
    task<void> running(p.io, s.run());
    test::run(p.io, s.connected());
    test::run(p.io, s.disconnect());
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE_TEMPLATE("Perl's client authenticates to the embedded broker, with the right password only", M, scram_sha_1,
                   scram_sha_256, scram_sha_512) {
    for (auto const& user : users) {
        test::memory_fixture p;
        auto const kept = mqtt::scram_verifier_from<M>(mqtt::derive_scram_keys<M>("pencil", "salt of sixteen."));
        p.broker.hooks().authenticate = runnel::testing::scram_authentication<M>(
            [&](auto const&, std::string_view name) { return name == user ? std::optional(kept) : std::nullopt; });
        for (auto const& password : {"pencil", "pen"}) {
            test::memory_session s(p.io.get_executor(), p.transport, test::quick("client", v5));
            s.set_authenticator(peers_authenticator<M>{user, password});
            task<void> running(p.io, s.run());
            if (std::string_view(password) == "pencil") {
                test::run(p.io, s.connected());
                test::run(p.io, s.reauthenticate());
                test::run(p.io, s.disconnect());
                CHECK_FALSE(running.run_for_error());
            } else {
                CHECK(running.run_for_error() == reason_code::not_authorized);
            }
        }
    }
}
