// A thermostat as the platform's thing model has it: it reports its temperature (property CurrentTemperature), lets the
// platform set the one to reach (property TargetTemperature, service Boost), and tells when it has (event
// TargetReached).
//
// Without settings, against the simulated platform in this process, where an application uses it. With
// ALIYUN_PRODUCT_KEY, ALIYUN_DEVICE_NAME and ALIYUN_DEVICE_SECRET in the environment, on the real platform, whose
// product needs such a thing model; further there: ALIYUN_REGION (default cn-shanghai) or ALIYUN_INSTANCE (iot-...),
// ALIYUN_CA (authorities to trust, PEM), ALIYUN_SECONDS (how long to go on, default 60).
#include <runnel/aliyun/alink/alink.hpp>
#include <runnel/testing/aliyun/cloud.hpp>
#include <runnel/testing/certificate.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/tls.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace aliyun = runnel::aliyun;
namespace alink = runnel::aliyun::alink;
namespace mqtt = runnel::mqtt;
namespace testing = runnel::testing;
using alink::json;
using session_type = mqtt::session<runnel::mqtts>;

class thermostat {
  public:
    thermostat(session_type& session, aliyun::device const& who) : device_(session, who) {
        device_.on_properties([this](json values) -> asio::awaitable<void> {
            set_target(values.at("TargetTemperature").get<double>());  // what is no number is refused with 460
            co_await report();
        });
        device_.on_service("Boost", [this](json input) -> asio::awaitable<json> {
            set_target(target_ + input.value("Degrees", 2.0));
            co_await report();
            json const output = {{"TargetTemperature", target_}};
            co_return output;
        });
    }

    // Handles what the platform asks for, until the session ends.
    asio::awaitable<void> run() { return device_.run(); }

    // Heats, or cools down, for so many steps.
    asio::awaitable<void> regulate(int steps, std::chrono::milliseconds pause) {
        co_await report();
        for (int i = 0; i < steps; ++i) {
            co_await runnel::sleep_for(device_.session().get_executor(), pause);
            if (current_ == target_) continue;
            current_ = current_ < target_ ? std::min(current_ + 0.5, target_) : std::max(current_ - 0.5, target_);
            co_await report();
            if (current_ != target_) continue;
            json const output = {{"Temperature", current_}};
            co_await device_.post_event("TargetReached", output);
            std::printf("   device: %.1f degrees reached\n", current_);
        }
    }

  private:
    void set_target(double degrees) {
        if (degrees < 5 || degrees > 30) throw alink::refusal(100001, "5 to 30 degrees are possible");
        target_ = degrees;
        std::printf("   device: %.1f degrees it is to be\n", target_);
    }

    asio::awaitable<void> report() {
        json const values = {{"CurrentTemperature", current_}, {"TargetTemperature", target_}};
        co_await device_.post_properties(values);
    }

    alink::device<session_type> device_;
    double current_ = 18;
    double target_ = 18;
};

// Runs the session and the device until `story` ends; rethrows what goes wrong.
template <class Story>
void run(asio::io_context& context, runnel::mqtts const& transport, aliyun::device const& who, Story story) {
    auto options = aliyun::session_options<runnel::mqtts>(who);
    options.reconnect.attempts = 3;
    session_type session{context.get_executor(), transport, options};
    thermostat device(session, who);
    std::exception_ptr failure;
    int running = 3;
    auto const on_end = [&](std::exception_ptr error) {
        if (error && !failure) failure = error;
        --running;
    };
    asio::co_spawn(context, session.run(), on_end);
    asio::co_spawn(context, device.run(), on_end);
    asio::co_spawn(context, story(session, device), on_end);
    while (running > 0 && !failure) context.run_one();
    if (failure) std::rethrow_exception(failure);
}

std::string setting(char const* name, std::string const& otherwise = {}) {
    char const* const value = std::getenv(name);
    return value != nullptr ? value : otherwise;
}

void run_for_real() {
    auto const who = aliyun::make_device(setting("ALIYUN_PRODUCT_KEY"), setting("ALIYUN_DEVICE_NAME"),
                                         setting("ALIYUN_DEVICE_SECRET"));
    auto const instance = setting("ALIYUN_INSTANCE");
    auto const where = instance.empty() ? aliyun::public_endpoint(who, setting("ALIYUN_REGION", "cn-shanghai"))
                                        : aliyun::instance_endpoint(instance);
    runnel::tls_options trust;
    trust.ca_file = setting("ALIYUN_CA");
    auto transport = where.over<runnel::mqtts>();
    transport.context = runnel::tls_context(trust);
    int const seconds = std::atoi(setting("ALIYUN_SECONDS", "60").c_str());
    asio::io_context context;
    run(context, transport, who, [seconds](session_type& session, thermostat& device) -> asio::awaitable<void> {
        co_await device.regulate(seconds / 5, std::chrono::seconds(5));
        co_await session.disconnect();
    });
}

// What an application that uses the platform does with the thermostat.
asio::awaitable<void> use(testing::aliyun_cloud& cloud, aliyun::device const& who) {
    auto const say = [](char const* what, json const& reply) {
        std::printf("application: %s: %s\n", what, reply.dump().c_str());
    };
    json const warm = {{"TargetTemperature", 19.5}}, hot = {{"TargetTemperature", 90}},
               odd = {{"TargetTemperature", "x"}};
    json const more = {{"Degrees", 1}};
    json reply = co_await cloud.set_properties(who, warm);
    say("19.5 degrees, please", reply);
    reply = co_await cloud.set_properties(who, hot);
    say("90 degrees, please", reply);
    reply = co_await cloud.set_properties(who, odd);
    say("x degrees, please", reply);
    reply = co_await cloud.call_service_synchronously(who, "Boost", more);
    say("one degree more, please", reply);
}

void run_in_simulation() {
    constexpr aliyun::device who{"a1B2c3D4e5F", "thermostat-7", "the secret of this device"};
    testing::certificate_authority const authority;
    asio::io_context context;
    testing::aliyun_cloud cloud{context.get_executor()};
    cloud.add_device(who);
    runnel::tls_options trust;
    trust.ca_pem = authority.certificate_pem();
    runnel::mqtts transport;
    transport.host = "localhost";
    transport.port = cloud.listen(testing::over_tls(authority));
    transport.context = runnel::tls_context(trust);
    run(context, transport, who, [&](session_type& session, thermostat& device) -> asio::awaitable<void> {
        co_await device.regulate(1, std::chrono::milliseconds(1));
        co_await use(cloud, who);
        co_await device.regulate(10, std::chrono::milliseconds(1));
        co_await session.disconnect();
    });
    auto const& known = cloud.thing(who);
    std::printf("the platform knows %s and of %zu event\n", known.properties.dump().c_str(), known.events.size());
    if (known.properties["CurrentTemperature"] != 20.5 || known.events.size() != 1)
        throw std::runtime_error("that is not what was to be");
}

int main() try {
    if (setting("ALIYUN_PRODUCT_KEY").empty())
        run_in_simulation();
    else
        run_for_real();
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
