#include <runnel/aliyun/connect.hpp>
#include <runnel/aliyun/registration_request.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/run.hpp"
#include <cstring>
#include <functional>
#include <memory>
#include <string>

// What a session leaves behind of a password in memory that it gives back.

namespace {

namespace mqtt = runnel::mqtt;
using namespace std::chrono_literals;

// A server that keeps nothing of what it gets: it accepts the connection, and then is silent.
struct silent_server {
    bool takes_connect = true;
    std::size_t written = 0;
    std::string_view answer{"\x20\x02\0\0", 4};
};

class silent_stream {
  public:
    using executor_type = asio::any_io_executor;
    static constexpr std::size_t headroom = 0;

    silent_stream(executor_type executor, silent_server& server) : server_(&server), executor_(std::move(executor)) {}

    executor_type get_executor() const { return executor_; }

    asio::awaitable<std::size_t> read_some(asio::mutable_buffer into) {
        auto& s = *server_;
        while (s.written == 0) co_await runnel::sleep_for<executor_type>(executor_, 1ms);
        if (!answered_) {
            answered_ = true;
            std::memcpy(into.data(), s.answer.data(), s.answer.size());
            co_return s.answer.size();
        }
        co_await runnel::sleep_for<executor_type>(executor_, std::chrono::hours::max());
        throw std::system_error(asio::error::eof);
    }
    asio::awaitable<void> write(runnel::send_buffer& out) {
        if (!server_->takes_connect) throw std::system_error(asio::error::broken_pipe);
        server_->written += out.size();
        out.clear();
        co_return;
    }
    asio::awaitable<void> shutdown() { co_return; }

  private:
    silent_server* server_;
    executor_type executor_;
    bool answered_ = false;
};
static_assert(runnel::stream<silent_stream>);

struct silent_transport {
    using executor_type = asio::any_io_executor;
    using stream_type = silent_stream;
    static constexpr bool secure = false;
    silent_server* server = nullptr;
    [[maybe_unused]] friend bool operator==(silent_transport const&, silent_transport const&) = default;
    std::string url() const { return "silent://"; }
    asio::awaitable<stream_type> open(executor_type executor) const { co_return stream_type(executor, *server); }
};

std::size_t left_behind(std::string const& password, bool takes_connect, bool makes_credentials) {
    silent_server server{.takes_connect = takes_connect};
    asio::io_context io;
    runnel::testing::freed_memory_search const search(password.c_str());
    {
        mqtt::session_options o;
        o.reconnect.attempts = 1;
        o.close_timeout = 20ms;
        mqtt::credentials who{.client_id = "client", .user_name = "user", .password = password};
        if (makes_credentials)
            o.make_credentials = [who] { return who; };
        else
            o.credentials = std::move(who);
        mqtt::session<silent_transport> session(io.get_executor(), {&server}, std::move(o));
        test::task running(io, session.run());
        io.run_for(50ms);
        CHECK((server.written > password.size()) == takes_connect);
        running.cancel();
        io.restart();
        io.run_for(50ms);
    }
    return search.found();
}

}  // namespace

TEST_CASE("a session leaves no password behind, whether CONNECT is written or not, and however it is made") {
    std::string const password = "a password of more than fifteen bytes";
    for (bool const takes_connect : {true, false})
        for (bool const makes_credentials : {true, false})
            CHECK(left_behind(password, takes_connect, makes_credentials) == 0);
}

TEST_CASE("a session that authenticates again leaves nothing of what it has sent behind") {
    std::string const token = "a token of more than fifteen bytes";
    struct bearer {
        std::string method() const { return "T"; }
        asio::awaitable<std::string> begin() {
            co_return std::string(times++ == 0 ? std::string_view("hello") : token);
        }
        asio::awaitable<std::string> answer(std::string) { co_return std::string(token); }
        asio::awaitable<void> finish(std::string) { co_return; }
        std::string_view token;
        int times = 0;
    };
    silent_server server{.answer = {"\x20\x07\0\0\x04\x15\0\x01T", 9}};
    asio::io_context io;
    runnel::testing::freed_memory_search const search(token.c_str());
    {
        mqtt::session_options o;
        o.version = mqtt::protocol_version::v5;
        mqtt::session<silent_transport> session(io.get_executor(), {&server}, std::move(o));
        session.set_authenticator(bearer{token});
        test::task running(io, session.run());
        test::run(io, session.connected());
        io.restart();
        while (io.poll() != 0) {
        }
        auto const before = server.written;
        test::task again(io, session.reauthenticate());
        io.restart();
        while (io.poll() != 0) {
        }
        CHECK(server.written > before + token.size());
        running.cancel();
        CHECK(running.run_for_error());
        again.run_for_error();
    }
    CHECK(search.found() == 0);
}

TEST_CASE("who reads the answer to a registration leaves nothing of the secret behind") {
    char const* const secret = "0123456789abcdef0123456789abcdef";
    runnel::testing::freed_memory_search const search(secret);
    {
        constexpr char answer[] =
            R"({"deviceSecret":"0123456789abcdef0123456789abcdef","productKey":"a1B2c3D4e5F","deviceName":"\u0064evice"})";
        auto const got = std::make_unique<runnel::aliyun::registration>();
        CHECK(runnel::aliyun::read_registration(answer, {"a1B2c3D4e5F", "s"}, "device", *got) ==
              runnel::aliyun::errc::ok);
        CHECK(got->device_secret == secret);
        got->wipe();
    }
    CHECK(search.found() == 0);
}

TEST_CASE("what signs for an Aliyun device leaves nothing of its secret behind") {
    char const* const secret = "0123456789abcdef0123456789abcdef";
    constexpr runnel::aliyun::device who{"a1B2c3D4e5F", "thermostat-7", "0123456789abcdef0123456789abcdef"};
    runnel::testing::freed_memory_search const search(secret);
    {
        auto const signer = std::make_unique<runnel::aliyun::device_signer>(who, runnel::aliyun::secure_mode::tls);
        auto const copy = std::make_unique<runnel::aliyun::device_signer>(*signer);
        std::function<mqtt::credentials()> const provider = *copy;
        CHECK(provider().password->size() == 64);
    }
    CHECK(search.found() == 0);
}
