#pragma once

#include <runnel/aliyun/connect.hpp>
#include <runnel/aliyun/device.hpp>
#include <runnel/mqtt/client/session_options.hpp>
#include <runnel/mqtt/codec/topic.hpp>
#include <runnel/transport/tls/context.hpp>

#include "../settings.hpp"
#include "client.hpp"
#include "machine.hpp"
#include "plan.hpp"
#include <cstdio>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace fleet {

/// All that the command line says.
struct options {
    plan p;
    std::vector<std::string> hosts;
    std::uint16_t port = 0;
    bool embedded = false;
    bool ssl = false;
    bool ws = false;
    std::string path;
    runnel::tls_options trust;

    runnel::mqtt::session_options common;  ///< of each session
    std::string prefix;
    bool has_user_name = false;
    bool has_password = false;
    std::string user_name;
    std::string password;
    bool signs = false;
    std::vector<runnel::aliyun::device> devices;  ///< one a client, if they sign
    runnel::aliyun::connect_options how;

    std::string topic;
    std::string share;

    client_names names_of(unsigned index) const {
        client_names names;
        names.number = p.first_number + index;
        if (signs) {
            auto const& d = devices[index];
            names.product_key = d.product_key.str();
            names.device_name = d.device_name.str();
            names.user_name = names.device_name + '&' + names.product_key;
            names.client_id = names.product_key + '.' + names.device_name;
        } else {
            names.client_id = prefix + std::to_string(names.number);
            names.user_name = expand(user_name, names);
        }
        return names;
    }
};

/// Reads the options, step by step.
class options_reader {
  public:
    options_reader(std::string_view usage, int argc, char** argv)
        : has_command_(argc > 1 && argv[1][0] != '-'),
          command_(has_command_ ? argv[1] : "both"),
          given_(usage, argc, argv, has_command_ ? 2 : 1) {}

    options read() {
        o_.p.publishes = command_ == "pub" || command_ == "both";
        o_.p.subscribes = command_ == "sub" || command_ == "both";
        if (!o_.p.publishes && !o_.p.subscribes && command_ != "conn")
            throw example::usage_error("the first argument must be conn, pub, sub or both, not '" + command_ + "'");
        read_server();
        read_clients();
        read_devices();
        read_session();
        read_messages();
        check_machine();
        return std::move(o_);
    }

  private:
    template <class T>
    T number(char const* name, T otherwise, std::uint64_t minimum, std::uint64_t maximum) const {
        return static_cast<T>(given_.number(name, otherwise, minimum, maximum));
    }
    bool yes(char const* name, bool otherwise) const {
        return given_.choice(name, otherwise ? "true" : "false", {"true", "false"}) == "true";
    }

    void read_server() {
        o_.embedded = given_.has("embedded") || !given_.has("host");
        if (given_.has("embedded"))
            for (auto const* name : {"host", "devices"})
                if (given_.has(name)) throw example::usage_error(std::string("--embedded goes without --") + name);
        std::istringstream names(o_.embedded ? "localhost" : given_.required("host"));
        for (std::string name; std::getline(names, name, ',');) o_.hosts.push_back(name);
        o_.ssl = given_.has("ssl");
        o_.ws = given_.has("ws");
        o_.port = number<std::uint16_t>("port", 0, 1, 65535);
        o_.path = given_.get("path", "/mqtt");
        o_.trust.ca_file = given_.get("cacertfile");
        o_.trust.certificate_file = given_.get("certfile");
        o_.trust.private_key_file = given_.get("keyfile");
        if (given_.has("insecure")) o_.trust.verify = runnel::tls_verify::none_insecure;
    }

    void read_clients() {
        auto const processors = std::max(1u, std::thread::hardware_concurrency());
        o_.p.count = number("count", 200u, 1, 1'000'000);
        o_.p.threads = std::min(number("threads", std::min(processors, 256u), 1, 256), o_.p.count);
        o_.p.first_number = number("startnumber", 0u, 0, 1'000'000'000);
        auto const rate = number("connrate", std::uint64_t(0), 0, 1'000'000);
        auto const interval = number("interval", std::uint64_t(10), 0, 3'600'000);
        o_.p.connect_interval = rate != 0 ? std::chrono::nanoseconds(1'000'000'000 / rate)
                                          : std::chrono::nanoseconds(std::chrono::milliseconds(interval));
        // So that two processes do not throw each other's clients out.
        o_.prefix = given_.get("prefix", "fleet-" + std::to_string(std::random_device()() % 100'000) + '-');
        o_.has_user_name = given_.has("username");
        o_.has_password = given_.has("password");
        o_.user_name = given_.get("username");
        o_.password = given_.get("password");
    }

    void read_devices() {
        o_.signs = o_.embedded || given_.has("devices");
        if (!o_.signs) return;
        for (auto const* name : {"username", "password"})
            if (given_.has(name)) throw example::usage_error(std::string("devices sign: they have no --") + name);
        auto const prefix = given_.get("prefix", "device-");
        for (unsigned i = 0; o_.embedded && i < o_.p.count; ++i) {
            auto const name = prefix + std::to_string(o_.p.first_number + i);
            o_.devices.push_back(runnel::aliyun::make_device("fleet000001", name, "the secret of " + name));
        }
        if (o_.embedded) return;
        std::ifstream file(given_.get("devices"));
        if (!file) throw example::usage_error("cannot read " + given_.get("devices"));
        for (std::string line; std::getline(file, line);) {
            std::string key, name, secret;
            std::istringstream words(line);
            if (!(words >> key) || key.starts_with('#')) continue;
            if (!(words >> name >> secret)) throw example::usage_error("three words are needed in '" + line + "'");
            o_.devices.push_back(runnel::aliyun::make_device(key, name, secret));
        }
        if (!given_.has("count")) o_.p.count = static_cast<unsigned>(o_.devices.size());
        if (o_.devices.empty() || o_.devices.size() < o_.p.count)
            throw example::usage_error("--count must be a number from 1 to " + std::to_string(o_.devices.size()) +
                                       ", as many as there are devices in the file");
        o_.p.threads = std::min(o_.p.threads, o_.p.count);
    }

    void read_session() {
        using runnel::mqtt::protocol_version;
        auto const version = given_.choice("version", o_.signs ? "4" : "5", {"4", "5"});
        o_.how.version = version == "5" ? protocol_version::v5 : protocol_version::v3_1_1;
        o_.how.keep_alive =
            std::chrono::seconds(o_.signs ? number("keepalive", 300u, 30, 1200) : number("keepalive", 300u, 0, 65535));
        if (o_.signs && !o_.embedded)
            o_.common = runnel::aliyun::platform_options(o_.how);  // with the platform's pauses
        auto& c = o_.common;
        c.version = o_.how.version;
        c.keep_alive = o_.how.keep_alive;
        c.clean_start = yes("clean", true);
        auto const expiry = number("session-expiry", std::uint64_t(0), 0, 0xFFFF'FFFF);
        if (version == "5" || expiry != 0) c.session_expiry = std::chrono::seconds(expiry);
        c.reconnect.attempts = number("attempts", 5u, 0, 1'000'000);
        c.connect_timeout = std::chrono::seconds(60);  // a crowd takes its time
    }

    void read_messages() {
        using runnel::mqtt::qos;
        auto& p = o_.p;
        bool const both = p.publishes && p.subscribes;
        o_.topic = given_.get("topic", o_.signs ? "/%p/%d/user/fleet" : "fleet/%i");
        o_.share = given_.get("share");
        p.qos = static_cast<qos>(number("qos", 0u, 0, o_.signs ? 1 : 2));
        p.size = number("size", std::size_t(256), both ? sizeof(stamp) : 0, 16 * 1024 * 1024);
        p.retain = yes("retain", false);
        p.limit = number("limit", std::uint64_t(0), 0, 1'000'000'000'000);
        p.in_flight = number("inflight", 1u, 1, 1000);
        p.wait = both || given_.has("wait-before-publishing");
        auto const shortest = o_.signs && !o_.embedded ? p.qos == qos::at_most_once ? 34u : 100u : 0u;
        p.publish_interval =
            std::chrono::milliseconds(number("interval_of_msg", std::uint64_t(1000), shortest, 86'400'000));
        p.duration = std::chrono::seconds(number("seconds", p.limit == 0 ? 10u : 0u, 0, 31'536'000));
        bool const own_topics = expand(o_.topic, o_.names_of(0)) != expand(o_.topic, o_.names_of(p.count - 1));
        p.fan_out = own_topics || !o_.share.empty() || p.count == 1 ? 1 : p.count;
        auto const filter = runnel::mqtt::split_shared("$share/" + o_.share + "/x");
        if (!o_.share.empty() && (o_.common.version != runnel::mqtt::protocol_version::v5 || !filter.is_shared()))
            throw example::usage_error("--share needs --version 5 and a group without / + #");
    }

    // What the system must allow.
    void check_machine() const {
        std::uint64_t const files = std::uint64_t(o_.p.count) * (o_.embedded ? 2 : 1) + o_.p.threads * 4 + 64;
        if (auto const allowed = raise_open_files(); files > allowed)
            throw example::usage_error("--count " + std::to_string(o_.p.count) + " needs " + std::to_string(files) +
                                       " open files, and the hard limit is " + std::to_string(allowed) +
                                       ": raise it with ulimit -Hn, or in limits.conf");
        auto const ports = local_ports();
        auto const needed = (o_.p.count + o_.hosts.size() - 1) / o_.hosts.size();
        if (ports != 0 && needed > ports)
            throw example::usage_error("--count " + std::to_string(o_.p.count) + " needs " + std::to_string(needed) +
                                       " local ports a host, and there are " + std::to_string(ports) +
                                       ": raise net.ipv4.ip_local_port_range, or name several hosts");
    }

    bool has_command_;
    std::string command_;
    example::settings given_;
    options o_;
};

inline options read_options(std::string_view usage, int argc, char** argv) {
    return options_reader(usage, argc, argv).read();
}

}  // namespace fleet
