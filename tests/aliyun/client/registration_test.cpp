#include <runnel/aliyun/client/registration.hpp>
#include <runnel/mqtt/client/session.hpp>
#include <runnel/testing/aliyun/platform.hpp>

#include <doctest/doctest.h>

#include <optional>
#include <string>
#include <string_view>
#include <support/memory_sessions.hpp>
#include <support/streams.hpp>
#include <vector>

// Registration against the simulated platform.

namespace {

using namespace runnel;
using namespace std::chrono_literals;

constexpr aliyun::product goods{"a1B2c3D4e5F", "the secret of the product"};

// A connection in memory that counts as one over TLS.
struct secure_memory : memory_transport {
    using memory_transport::memory_transport;
    static constexpr bool secure = true;
};

struct fixture {
    fixture() : platform(io.get_executor()) {
        platform.add_product({goods.product_key, goods.product_secret});
        platform.preregister_device("a1B2c3D4e5F", "thermostat-7");
        platform.hooks().log = [this](std::string_view line) { log = line; };
    }

    auto enroll(std::string device_name, aliyun::registration_options how = {}, aliyun::product p = goods) {
        return aliyun::register_device<secure_memory>(io.get_executor(), transport, p, std::move(device_name), how,
                                                      500ms);
    }
    // Connects once by these options; the error, if it was not accepted.
    std::error_code connect(mqtt::session_options options) {
        options.reconnect.attempts = 1;
        mqtt::session<secure_memory> session(io.get_executor(), transport, options);
        test::task<void> running(io, session.run());
        test::task<void> connected(io, session.connected());
        auto const error = connected.run_for_error();
        if (error) return running.run_for_error();
        test::run(io, session.disconnect());
        return running.run_for_error();
    }

    asio::io_context io;
    testing::aliyun_platform platform;
    std::string log;
    secure_memory transport{[this](memory_stream<> s) { platform.attach(std::move(s), {"tls", "", true}); }};
};

}  // namespace

TEST_CASE("a device that is known gets a secret, with each method, and connects with it") {
    for (auto const method :
         {aliyun::sign_method::hmacmd5, aliyun::sign_method::hmacsha1, aliyun::sign_method::hmacsha256}) {
        fixture p;
        auto const got = test::run(p.io, p.enroll("thermostat-7", {.method = method}));
        CHECK_FALSE(got.has_token());
        CHECK(got.device().device_name == "thermostat-7");
        CHECK(got.device().device_secret.size() == 32);
        CHECK_FALSE(p.connect(aliyun::session_options<secure_memory>(got.device())));
    }
}

TEST_CASE("the secret that was given out last counts, and after its first use no other is") {
    fixture p;
    auto const first = test::run(p.io, p.enroll("thermostat-7"));
    auto const second = test::run(p.io, p.enroll("thermostat-7"));
    CHECK(p.connect(aliyun::session_options<secure_memory>(first.device())) ==
          mqtt::reason_code::bad_user_name_or_password);
    CHECK_FALSE(p.connect(aliyun::session_options<secure_memory>(second.device())));
    CHECK(test::error_of(p.io, p.enroll("thermostat-7")) == mqtt::reason_code::bad_user_name_or_password);
    CHECK(p.log.find("activated") != std::string::npos);
    p.platform.reset_device(second.device());
    CHECK_FALSE(test::error_of(p.io, p.enroll("thermostat-7")));
}

TEST_CASE("a device that is not known gets a token, and connects with it") {
    fixture p;
    auto const got = test::run(p.io, p.enroll("new-1", {.preregistered = false}));
    CHECK(got.has_token());
    CHECK_THROWS_AS(got.device(), std::system_error);
    CHECK_FALSE(p.connect(aliyun::token_options(got)));
    auto wrong = got;
    wrong.device_token = "another";
    CHECK(p.connect(aliyun::token_options(wrong)) == mqtt::reason_code::bad_user_name_or_password);
}

TEST_CASE("what the platform refuses is an error, with the reason") {
    fixture p;
    auto const bad = mqtt::reason_code::bad_user_name_or_password;
    CHECK(test::error_of(p.io, p.enroll("nobody")) == bad);
    CHECK(test::error_of(p.io, p.enroll("thermostat-7", {}, {"a1B2c3D4e5F", "a wrong secret"})) == bad);
    CHECK(test::error_of(p.io, p.enroll("thermostat-7", {}, {"unknown", "a wrong secret"})) == bad);
    p.platform.add_product({goods.product_key, goods.product_secret, false});
    CHECK(test::error_of(p.io, p.enroll("thermostat-7")) == bad);
    CHECK(p.log.find("switched off") != std::string::npos);
    CHECK(test::error_of(p.io, p.enroll("a name with spaces")) == aliyun::errc::device_name_invalid);
}

TEST_CASE("a platform that says nothing is not waited for forever, and one that hangs up is an error") {
    fixture p;
    std::vector<memory_stream<>> kept;
    p.transport = secure_memory([&](memory_stream<> s) { kept.push_back(std::move(s)); });
    CHECK(test::error_of(p.io, p.enroll("thermostat-7")) == asio::error::timed_out);
    test::task<aliyun::registration> task(p.io, p.enroll("thermostat-7"));
    p.io.restart();
    p.io.poll();
    kept.clear();
    CHECK(task.run_for_error() == aliyun::errc::registration_unanswered);
}

TEST_CASE("a platform that announces 256 MiB as an answer is left") {
    fixture p;
    std::optional<memory_stream<>> far;
    p.transport = secure_memory([&](memory_stream<> s) { far.emplace(std::move(s)); });
    test::task<aliyun::registration> task(p.io, p.enroll("thermostat-7"));
    p.io.restart();
    p.io.poll();
    test::run(p.io, test::write_text(*far, std::string("\x20\2\0\0\x30\xFF\xFF\xFF\x7F", 9)));
    CHECK(task.run_for_error() == mqtt::errc::packet_too_large);
}
