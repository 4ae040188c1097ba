#include <runnel/aliyun/alink/detail/offers.hpp>
#include <runnel/digest/hex.hpp>

#include <doctest/doctest.h>

#include "support/alink_fixture.hpp"
#include <string>
#include <string_view>
#include <vector>

// Firmware and configurations, in memory.

namespace {

using test::alink_device;
using test::alink_fixture;
using test::json;
using test::task;
using test::thermostat;
namespace alink = test::alink;
namespace digest = runnel::digest;
using alink::errc;

struct fixture : alink_fixture {
    fixture() : device(session, thermostat, noting()) {}

    void start() {
        running.emplace(io, device.run());
        test::run(io, device.start());
    }
    template <class T>
    T run(asio::awaitable<T> operation) {
        return test::run(io, std::move(operation));
    }
    std::vector<std::string> steps() {
        settle();
        std::vector<std::string> all;
        for (auto const& p : cloud.thing(thermostat).progress) all.push_back(p["step"]);
        return all;
    }

    std::optional<task<void>> running;
    alink_device device;
};

template <class Hash>
std::string hex_of(std::string_view bytes) {
    Hash h;
    h.update(bytes);
    return digest::encode_hex(h.finish()).str();
}

std::string image() {
    std::string bytes(1000, '\0');
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7);
    return bytes;
}

json offer(std::string const& bytes) {
    return {{"version", "2.0.0"},     {"module", "MCU"},
            {"size", bytes.size()},   {"url", "https://example.com/image"},
            {"signMethod", "SHA256"}, {"sign", hex_of<digest::sha256>(bytes)}};
}

// Gets the bytes out of memory, in pieces of `size`.
auto fetcher(std::string bytes, std::size_t size) {
    return [bytes = std::move(bytes), size](alink::remote_file const&, alink::pieces& out) -> asio::awaitable<void> {
        for (std::size_t i = 0; i < bytes.size(); i += size) out(std::string_view(bytes).substr(i, size));
        co_return;
    };
}

}  // namespace

TEST_CASE("versions and progress are reported") {
    fixture p;
    p.run(p.device.report_version("1.0.1"));
    p.run(p.device.report_version("2.0", "MCU"));
    p.run(p.device.report_progress(50, "half of it", "MCU"));
    p.settle();
    CHECK(p.cloud.thing(thermostat).versions == json{{"default", "1.0.1"}, {"MCU", "2.0"}});
    CHECK(p.cloud.thing(thermostat).progress.at(0) == json{{"step", "50"}, {"desc", "half of it"}, {"module", "MCU"}});
}

TEST_CASE("an upgrade on offer is downloaded in pieces, checked, and reported on") {
    fixture p;
    bool installed = false;
    p.device.on_firmware([&](alink::firmware f) -> asio::awaitable<void> {
        CHECK(f.module == "MCU");
        co_await p.device.download(f, fetcher(image(), 33));
        installed = true;
        co_await p.device.report_version(f.version, f.module);
    });
    p.start();
    p.cloud.push_firmware(thermostat, offer(image()));
    REQUIRE(test::wait_until(p.io, [&] { return p.cloud.thing(thermostat).versions.contains("MCU"); }));
    CHECK(installed);
    auto const steps = p.steps();
    CHECK(steps.size() == 10);
    CHECK(steps.back() == "100");
    CHECK(p.faults.empty());
}

TEST_CASE("an upgrade of several files is downloaded file by file") {
    fixture p;
    std::vector<std::string> got;
    alink::firmware f;
    f.version = "3";
    for (auto const* text : {"first", "the second"})
        f.files.push_back({"https://example.com", text, std::string_view(text).size(), alink::digest_method::md5,
                           hex_of<digest::md5>(text)});
    p.run(p.device.download(f, [&](alink::remote_file const& file, alink::pieces& out) -> asio::awaitable<void> {
        got.push_back(file.name);
        out(file.name);
        co_return;
    }));
    CHECK(got == std::vector<std::string>{"first", "the second"});
    CHECK(p.steps() == std::vector<std::string>{"33", "100"});
}

TEST_CASE("what is wrong with a download comes to the caller and to the platform") {
    struct example {
        std::string bytes;
        errc error;
        std::string step;
    };
    auto changed = image();
    changed[500] = 'x';
    example const examples[] = {
        {changed, errc::digest_mismatch, "-3"},
        {image().substr(1), errc::size_mismatch, "-3"},
        {image() + "!", errc::size_mismatch, "-2"},
    };
    for (auto const& e : examples) {
        fixture p;
        alink::firmware f;
        REQUIRE(decode(offer(image()), f) == errc::ok);
        CHECK(test::error_of(p.io, p.device.download(f, fetcher(e.bytes, 100))) == e.error);
        CHECK(p.steps().back() == e.step);
    }
    fixture p;
    alink::firmware f;
    REQUIRE(decode(offer(image()), f) == errc::ok);
    auto const failing = [](alink::remote_file const&, alink::pieces&) -> asio::awaitable<void> {
        throw std::runtime_error("no route to host");
        co_return;
    };
    task<void> download(p.io, p.device.download(f, failing));
    CHECK_THROWS_WITH_AS(download.run(), "no route to host", std::runtime_error);
    CHECK(p.steps() == std::vector<std::string>{"-2"});
}

TEST_CASE("an upgrade can be asked for") {
    fixture p;
    CHECK_FALSE(p.run(p.device.query_firmware("MCU")));
    p.cloud.offer_firmware(thermostat, offer(image()));
    auto const found = p.run(p.device.query_firmware("MCU"));
    REQUIRE(found);
    CHECK(found->version == "2.0.0");
    CHECK(found->size() == 1000);
}

TEST_CASE("an offer that is not as it should be is a fault") {
    fixture p;
    int called = 0;
    p.device.on_firmware([&](alink::firmware) -> asio::awaitable<void> {
        ++called;
        co_return;
    });
    p.start();
    p.cloud.push_firmware(thermostat, {{"version", "2"}});
    p.cloud.publish("/ota/device/upgrade/a1B2c3D4e5F/thermostat-7", R"({"code":"1000"})");
    p.settle();
    CHECK(called == 0);
    CHECK(p.faults.size() == 2);
    p.cloud.offer_firmware(thermostat, {{"version", "2"}});
    CHECK(test::error_of(p.io, p.device.query_firmware()) == errc::member_missing);
}

TEST_CASE("a configuration is asked for, pushed, downloaded and checked") {
    fixture p;
    CHECK_FALSE(p.run(p.device.get_configuration()));
    std::string const bytes = "interval = 5\n";
    json const config = {
        {"configId", "c1"},       {"configSize", bytes.size()},      {"sign", hex_of<digest::sha256>(bytes)},
        {"signMethod", "Sha256"}, {"url", "https://example.com/c1"}, {"getType", "file"}};
    std::vector<std::string> applied;
    p.device.on_configuration([&](alink::configuration c) -> asio::awaitable<void> {
        co_await p.device.download(c, fetcher("interval = 5\n", 4));
        applied.push_back(c.id);
    });
    p.start();
    CHECK(p.run(p.cloud.push_config(thermostat, config))["code"] == 200);
    CHECK(applied == std::vector<std::string>{"c1"});
    auto const found = p.run(p.device.get_configuration());
    REQUIRE(found);
    CHECK(test::error_of(p.io, p.device.download(*found, fetcher("interval = 6\n", 4))) == errc::digest_mismatch);
    json const bad = {{"configId", "c2"}};
    CHECK(p.run(p.cloud.push_config(thermostat, bad))["code"] == 460);
    CHECK(applied.size() == 1);
}
