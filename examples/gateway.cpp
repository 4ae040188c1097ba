// A gateway with two sensors that have no connection of their own: it makes them known as its sub-devices, logs them
// in, and they report and are called over its session, each like any device.
//
// Without settings, against the simulated platform in this process. With ALIYUN_PRODUCT_KEY, ALIYUN_DEVICE_NAME and
// ALIYUN_DEVICE_SECRET of a gateway in the environment, on the real platform, and the same of one sub-device with
// ALIYUN_SUB_ instead of ALIYUN_; further there: ALIYUN_REGION (default cn-shanghai) or ALIYUN_INSTANCE (iot-...),
// ALIYUN_CA (authorities to trust, PEM).
#include <runnel/aliyun/alink/alink.hpp>
#include <runnel/testing/aliyun/cloud.hpp>
#include <runnel/testing/certificate.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/tls.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace aliyun = runnel::aliyun;
namespace alink = runnel::aliyun::alink;
namespace mqtt = runnel::mqtt;
namespace testing = runnel::testing;
using alink::json;
using session_type = mqtt::session<runnel::mqtts>;
using sub_device = alink::sub_device<session_type>;

// The gateway, its sensors, and what runs of them.
class house {
  public:
    house(session_type& session, aliyun::device const& who, std::vector<aliyun::device> const& sensors)
        : gateway_(session, who), identities_(sensors) {
        for (auto const& s : sensors) {
            sensors_.push_back(std::make_unique<sub_device>(gateway_, s));
            sensors_.back()->on_service("Blink", [name = s.device_name.str()](json) -> asio::awaitable<json> {
                std::printf("   %s blinks\n", name.c_str());
                co_return json::object();
            });
        }
    }

    // Starts what handles the platform's calls of the gateway, and of the sensors once they belong to it: the platform
    // lets a sub-device in only then. `start` is given each part.
    asio::awaitable<void> begin(std::function<void(asio::awaitable<void>)> const& start) {
        start(gateway_.run());
        co_await gateway_.add(identities_);
        std::printf("   the sensors belong to the gateway\n");
        for (auto const& s : sensors_) start(s->run());
    }

    asio::awaitable<void> report() {
        double humidity = 40;
        for (auto const& s : sensors_) {
            json const values = {{"Humidity", humidity++}};
            co_await s->post_properties(values);
            std::printf("   %s reports %s\n", s->identity().device_name.c_str(), values.dump().c_str());
        }
    }

  private:
    alink::gateway<session_type> gateway_;
    std::vector<aliyun::device> identities_;
    std::vector<std::unique_ptr<sub_device>> sensors_;
};

// Runs everything until `story` ends; rethrows what goes wrong.
void run(asio::io_context& context, runnel::mqtts const& transport, aliyun::device const& who,
         std::vector<aliyun::device> const& sensors, std::function<asio::awaitable<void>()> const& use = {}) {
    auto options = aliyun::session_options<runnel::mqtts>(who);
    options.reconnect.attempts = 3;
    session_type session{context.get_executor(), transport, options};
    house everything(session, who, sensors);
    std::exception_ptr failure;
    std::size_t running = 0;
    std::function<void(asio::awaitable<void>)> const start = [&](asio::awaitable<void> part) {
        ++running;
        asio::co_spawn(context, std::move(part), [&](std::exception_ptr error) {
            if (error && !failure) failure = error;
            --running;
        });
    };
    auto const story = [&]() -> asio::awaitable<void> {
        co_await everything.begin(start);
        co_await everything.report();
        if (use) co_await use();
        co_await session.disconnect();
    };
    start(session.run());
    start(story());
    while (running > 0 && !failure) context.run_one();
    if (failure) std::rethrow_exception(failure);
}

std::string setting(std::string const& name, std::string const& otherwise = {}) {
    char const* const value = std::getenv(name.c_str());
    return value != nullptr ? value : otherwise;
}

aliyun::device device_in_settings(std::string const& prefix) {
    return aliyun::make_device(setting(prefix + "PRODUCT_KEY"), setting(prefix + "DEVICE_NAME"),
                               setting(prefix + "DEVICE_SECRET"));
}

void run_for_real() {
    auto const who = device_in_settings("ALIYUN_"), sensor = device_in_settings("ALIYUN_SUB_");
    auto const instance = setting("ALIYUN_INSTANCE");
    auto const where = instance.empty() ? aliyun::public_endpoint(who, setting("ALIYUN_REGION", "cn-shanghai"))
                                        : aliyun::instance_endpoint(instance);
    runnel::tls_options trust;
    trust.ca_file = setting("ALIYUN_CA");
    auto transport = where.over<runnel::mqtts>();
    transport.context = runnel::tls_context(trust);
    asio::io_context context;
    run(context, transport, who, {sensor});
}

void run_in_simulation() {
    constexpr aliyun::device who{"a1B2c3D4e5F", "gateway-1", "the secret of the gateway"};
    std::vector<aliyun::device> const sensors = {{"b2C3d4E5f6G", "sensor-1", "the secret of one sensor"},
                                                 {"b2C3d4E5f6G", "sensor-2", "the secret of another"}};
    testing::certificate_authority const authority;
    asio::io_context context;
    testing::aliyun_cloud cloud{context.get_executor()};
    cloud.add_device(who);
    for (auto const& s : sensors) cloud.add_device(s);
    runnel::tls_options trust;
    trust.ca_pem = authority.certificate_pem();
    runnel::mqtts transport;
    transport.host = "localhost";
    transport.port = cloud.listen(testing::over_tls(authority));
    transport.context = runnel::tls_context(trust);

    int blinked = 0;
    run(context, transport, who, sensors, [&]() -> asio::awaitable<void> {
        json const none = json::object();
        for (auto const& s : sensors) {
            json const reply = co_await cloud.call_service(s, "Blink", none);
            std::printf("application: %s answers %s\n", s.device_name.c_str(), reply.dump().c_str());
            if (reply["code"] == 200) ++blinked;
        }
    });
    for (auto const& s : sensors)
        std::printf("the platform knows %s of %s\n", cloud.thing(s).properties.dump().c_str(), s.device_name.c_str());
    if (blinked != 2 || cloud.thing(sensors[1]).properties["Humidity"] != 41)
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
