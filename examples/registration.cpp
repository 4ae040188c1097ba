// Dynamic registration: devices that leave the factory with nothing but their product's secret and a name get what they
// connect with from the platform, and connect with it.
//
// Without settings, against the simulated platform in this process: one device that is pre-registered, and one that is
// not. With ALIYUN_PRODUCT_KEY, ALIYUN_PRODUCT_SECRET and ALIYUN_DEVICE_NAME in the environment, on the real platform;
// further there: ALIYUN_REGION (default cn-shanghai) or ALIYUN_INSTANCE (iot-...), ALIYUN_PREREGISTERED (1 or 0,
// default 1), ALIYUN_CA (authorities to trust, PEM; port 8883 presents a certificate of Alibaba's own). What the
// platform gives out is printed: keep it.
#include <runnel/aliyun/client/registration.hpp>
#include <runnel/testing/aliyun/platform.hpp>
#include <runnel/testing/certificate.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/tls.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace aliyun = runnel::aliyun;
namespace mqtt = runnel::mqtt;
namespace testing = runnel::testing;
using transport_type = runnel::mqtts;

asio::awaitable<void> connect_once(mqtt::session<transport_type>& session) {
    co_await session.connected();
    std::printf("   connected\n");
    co_await session.disconnect();
}

// Registers one device, and connects with what it gets.
void enroll(asio::io_context& context, transport_type const& transport, aliyun::product const& product,
            std::string const& device_name, aliyun::registration_options const& how) {
    std::printf("%s, %s\n", device_name.c_str(), how.preregistered ? "pre-registered" : "not pre-registered");
    aliyun::registration got;
    std::exception_ptr failure;
    int running = 0;
    auto const finish = [&] {
        context.restart();
        while (running > 0) context.run_one();
        if (failure) std::rethrow_exception(failure);
    };
    auto const on_end = [&](std::exception_ptr error) {
        if (error && !failure) failure = error;
        --running;
    };

    running = 1;
    asio::co_spawn(
        context, aliyun::register_device<transport_type>(context.get_executor(), transport, product, device_name, how),
        [&](std::exception_ptr error, aliyun::registration result) {
            got = result;
            on_end(error);
        });
    finish();
    if (got.has_token())
        std::printf("   client identifier %s\n   device token      %s\n", got.client_id.c_str(),
                    got.device_token.c_str());
    else
        std::printf("   device secret     %s\n", got.device_secret.c_str());

    auto options = got.has_token() ? aliyun::token_options(got) : aliyun::session_options<transport_type>(got.device());
    options.reconnect.attempts = 1;
    mqtt::session<transport_type> session{context.get_executor(), transport, options};
    running = 2;
    asio::co_spawn(context, session.run(), on_end);
    asio::co_spawn(context, connect_once(session), on_end);
    finish();
}

std::string setting(char const* name, std::string const& otherwise = {}) {
    char const* const value = std::getenv(name);
    return value != nullptr ? value : otherwise;
}

void enroll_for_real() {
    auto const key = setting("ALIYUN_PRODUCT_KEY"), instance = setting("ALIYUN_INSTANCE");
    aliyun::product const product{key, setting("ALIYUN_PRODUCT_SECRET")};
    aliyun::endpoint where;
    if (!instance.empty())
        where = aliyun::instance_endpoint(instance);
    else
        aliyun::throw_unless_ok(aliyun::public_endpoint(key, setting("ALIYUN_REGION", "cn-shanghai"), where));
    runnel::tls_options trust;
    trust.ca_file = setting("ALIYUN_CA");
    auto transport = where.over<transport_type>();
    transport.context = runnel::tls_context(trust);
    asio::io_context context;
    enroll(context, transport, product, setting("ALIYUN_DEVICE_NAME"),
           {.preregistered = setting("ALIYUN_PREREGISTERED", "1") != "0", .instance_id = instance});
}

void enroll_in_simulation() {
    aliyun::product const product{"a1B2c3D4e5F", "the secret of the product"};
    testing::certificate_authority const authority;
    asio::io_context context;
    testing::aliyun_platform platform{context.get_executor()};
    platform.add_product({product.product_key, product.product_secret});
    platform.preregister_device(product.product_key, "thermostat-7");

    runnel::tls_options trust;
    trust.ca_pem = authority.certificate_pem();
    transport_type transport;
    transport.host = "localhost";
    transport.port = platform.listen(testing::over_tls(authority));
    transport.context = runnel::tls_context(trust);
    enroll(context, transport, product, "thermostat-7", {.preregistered = true});
    enroll(context, transport, product, "window-1", {.preregistered = false});
}

int main() try {
    if (setting("ALIYUN_PRODUCT_KEY").empty())
        enroll_in_simulation();
    else
        enroll_for_real();
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
