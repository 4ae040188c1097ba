// The simulated IoT Platform as a program: any MQTT client can be tried against it. Answers the thing model and the
// other services if nlohmann-json was there at compile time.
#if __has_include(<nlohmann/json.hpp>)
#include <runnel/testing/aliyun_cloud.hpp>
using platform_type = runnel::testing::aliyun_cloud;
#else
#include <runnel/testing/aliyun_platform.hpp>
using platform_type = runnel::testing::aliyun_platform;
#endif
#include <runnel/aliyun/signer.hpp>
#include <runnel/testing/certificate.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/testing/over_websocket.hpp>

#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>

#include <charconv>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
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

// A mistake in the settings.
struct usage_error : std::runtime_error {
    using runtime_error::runtime_error;
};

std::map<std::string, std::string> read_settings(int argc, char** argv) {
    std::map<std::string, std::string> given;
    for (int i = 1; i < argc; i += 2) {
        std::string const name = argv[i];
        if (!name.starts_with("--") || std::string(usage).find("\n  " + name + " ") == std::string::npos)
            throw usage_error("there is no setting '" + name + "'");
        if (i + 1 == argc) throw usage_error(name + " needs a value");
        given[name.substr(2)] = argv[i + 1];
    }
    return given;
}

std::uint16_t port_in(std::string const& text) {
    std::uint16_t port = 0;
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (error != std::errc{} || end != text.data() + text.size()) throw usage_error("'" + text + "' is no port");
    return port;
}

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

runnel::tls_context make_context(std::map<std::string, std::string> const& given) {
    runnel::tls_options options;
    if (given.contains("cert") != given.contains("key")) throw usage_error("--cert and --key go together");
    if (given.contains("cert")) {
        options.certificate_file = given.at("cert");
        options.private_key_file = given.at("key");
        return runnel::tls_context(options);
    }
    testing::certificate_authority const authority;
    auto const own = authority.issue_server();
    options.certificate_pem = own.certificate_pem;
    options.private_key_pem = own.private_key_pem;
    if (given.contains("ca-out")) std::ofstream(given.at("ca-out")) << authority.certificate_pem();
    return runnel::tls_context(options);
}

void listen(platform_type& platform, std::map<std::string, std::string> const& given) {
    bool any = false;
    auto const open = [&](std::string const& name, auto make_layer) {
        if (!given.contains(name)) return;
        std::printf("%s on 127.0.0.1:%u\n", name.c_str(),
                    static_cast<unsigned>(platform.listen(make_layer(), port_in(given.at(name)))));
        any = true;
    };
    using testing::over_tcp, testing::over_tls, testing::over_websocket;
    open("tcp", [] { return over_tcp(); });
    open("ws", [] { return over_websocket(); });
    if (given.contains("tls") || given.contains("wss")) {
        auto const context = make_context(given);
        open("tls", [&] { return over_tls(context); });
        open("wss", [&] { return over_websocket(over_tls(context)); });
    }
    if (!any) throw usage_error("one of --tcp, --tls, --ws, --wss is needed");
}

int main(int argc, char** argv) try {
    if (argc == 2 && (std::string(argv[1]) == "--help" || std::string(argv[1]) == "-h")) {
        std::fputs(usage, stdout);
        return 0;
    }
    auto const given = read_settings(argc, argv);
    if (!given.contains("devices")) throw usage_error("--devices is missing");
    if (given.contains("limits") && given.at("limits") != "on" && given.at("limits") != "off")
        throw usage_error("--limits is on or off");

    asio::io_context context;
    platform_type platform(context.get_executor());
    platform.limit_rates(!given.contains("limits") || given.at("limits") == "on");
    platform.hooks().log = [](std::string_view line) {
        std::printf("%.*s\n", static_cast<int>(line.size()), line.data());
        std::fflush(stdout);
    };
    for (auto const& row : read_table(given.at("devices"), 3)) {
        auto const d = aliyun::make_device(row[0], row[1], row[2]);
        platform.add_device(d);
        print_login(d);
    }
    if (given.contains("products"))
        for (auto const& row : read_table(given.at("products"), 2)) platform.add_product({row[0], row[1]});
    listen(platform, given);
    std::fflush(stdout);

    asio::signal_set signals(context, SIGINT, SIGTERM);
    signals.async_wait([&](std::error_code, int) { platform.close(); });
    context.run();
} catch (usage_error const& mistake) {
    std::fprintf(stderr, "%s\n\n%s", mistake.what(), usage);
    return 2;
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
