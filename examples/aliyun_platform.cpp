// The simulated IoT Platform as a program: any MQTT client can be tried against it. Answers the thing model and the
// other services if nlohmann-json was there at compile time.
#if __has_include(<nlohmann/json.hpp>)
#include <runnel/testing/aliyun/cloud.hpp>
using platform_type = runnel::testing::aliyun_cloud;
#else
#include <runnel/testing/aliyun/platform.hpp>
using platform_type = runnel::testing::aliyun_platform;
#endif
#include <runnel/aliyun/signer.hpp>
#include <runnel/testing/certificate.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/testing/over_websocket.hpp>

#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>

#include "settings.hpp"
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace aliyun = runnel::aliyun;
namespace testing = runnel::testing;

constexpr char usage[] = R"(usage: aliyun_platform --devices FILE [--NAME VALUE]...

Simulates Alibaba Cloud's IoT Platform on 127.0.0.1 until it is interrupted.

  --devices FILE    lines "product_key device_name device_secret"; empty lines and those with # in front do not count
  --products FILE   lines "product_key product_secret": their devices may register
  --tcp PORT        MQTT over TCP
  --tls PORT        MQTT over TLS
  --ws PORT         MQTT over WebSocket, at any path
  --wss PORT        MQTT over WebSocket Secure, at any path
  --cert FILE       the server's certificate (PEM), with
  --key FILE        its private key; by default one for localhost is made on the spot
  --ca-out FILE     writes the authority that clients have to trust then
  --limits on|off   whether messages above 30 (QoS 0) and 10 (QoS 1) a second, and connections above 5 a minute, are
                    refused; default on

At least one of the four ports; 0 stands for any that is free. What is listened on is printed, and how each device logs in.
)";

using example::settings, example::usage_error;

// The words of each line of a file.
std::vector<std::vector<std::string>> read_table(std::string const& file, std::size_t columns) {
    std::ifstream in(file);
    if (!in) throw usage_error("cannot read " + file);
    std::vector<std::vector<std::string>> rows;
    int number = 0;
    for (std::string line; std::getline(in, line);) {
        ++number;
        std::istringstream words(line);
        std::vector<std::string> row;
        for (std::string word; words >> word;) row.push_back(word);
        if (row.empty() || row[0].starts_with('#')) continue;
        if (row.size() != columns)
            throw usage_error(file + ", line " + std::to_string(number) + ": " + std::to_string(columns) +
                              " words are needed");
        rows.push_back(std::move(row));
    }
    return rows;
}

void print_login(aliyun::device const& d) {
    for (auto const mode : {aliyun::secure_mode::plain, aliyun::secure_mode::tls}) {
        auto const c = aliyun::sign(d, {.mode = mode});
        std::printf("login over %s: -i '%s' -u '%s' -P %s\n", mode == aliyun::secure_mode::tls ? "tls, wss" : "tcp, ws",
                    c.client_id.c_str(), c.user_name.c_str(), c.password.c_str());
    }
}

runnel::tls_context make_context(settings const& given) {
    runnel::tls_options options;
    if (given.has("cert") != given.has("key")) throw usage_error("--cert and --key go together");
    if (given.has("cert")) {
        options.certificate_file = given.get("cert");
        options.private_key_file = given.get("key");
        return runnel::tls_context(options);
    }
    testing::certificate_authority const authority;
    auto const own = authority.issue_server();
    options.certificate_pem = own.certificate_pem;
    options.private_key_pem = own.private_key_pem;
    if (given.has("ca-out")) std::ofstream(given.get("ca-out")) << authority.certificate_pem();
    return runnel::tls_context(options);
}

void listen(platform_type& platform, settings const& given) {
    bool any = false;
    auto const open = [&](std::string const& name, auto make_layer) {
        if (!given.has(name)) return;
        std::printf("%s on 127.0.0.1:%u\n", name.c_str(),
                    static_cast<unsigned>(
                        platform.listen(make_layer(), static_cast<std::uint16_t>(given.number(name, 0, 0, 65535)))));
        any = true;
    };
    using testing::over_tcp, testing::over_tls, testing::over_websocket;
    open("tcp", [] { return over_tcp(); });
    open("ws", [] { return over_websocket(); });
    if (given.has("tls") || given.has("wss")) {
        auto const context = make_context(given);
        open("tls", [&] { return over_tls(context); });
        open("wss", [&] { return over_websocket(over_tls(context)); });
    }
    if (!any) throw usage_error("one of --tcp, --tls, --ws, --wss is needed");
    for (auto const* name : {"cert", "key", "ca-out"})
        if (given.has(name) && !given.has("tls") && !given.has("wss"))
            throw usage_error("--" + std::string(name) + " goes with --tls or --wss");
}

int start(settings const& given) {
    bool const limits = given.choice("limits", "on", {"on", "off"}) == "on";
    auto const devices = read_table(given.required("devices"), 3);

    asio::io_context context;
    platform_type platform(context.get_executor());
    platform.limit_rates(limits);
    platform.hooks().log = [](std::string_view line) {
        std::printf("%.*s\n", static_cast<int>(line.size()), line.data());
        std::fflush(stdout);
    };
    for (auto const& row : devices) {
        auto const d = aliyun::make_device(row[0], row[1], row[2]);
        platform.add_device(d);
        print_login(d);
    }
    if (given.has("products"))
        for (auto const& row : read_table(given.get("products"), 2)) platform.add_product({row[0], row[1]});
    listen(platform, given);
    std::fflush(stdout);

    asio::signal_set signals(context, SIGINT, SIGTERM);
    signals.async_wait([&](std::error_code, int) { platform.close(); });
    context.run();
    return 0;
}

int main(int argc, char** argv) {
    return example::run(usage, argc, argv, [&] { return start(settings(usage, argc, argv)); });
}
