#include <runnel/aliyun/alink/alink.hpp>
#include <runnel/aliyun/alink/detail/mailbox.hpp>

#include <asio/any_io_executor.hpp>
#include <asio/io_context.hpp>
#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

// What a hostile platform can make a device hold by its messages: docs/hostile-peers.md.

namespace {

namespace aliyun = runnel::aliyun;
namespace alink = runnel::aliyun::alink;
namespace mqtt = runnel::mqtt;
using runnel::testing::memory_watch;
using box = alink::detail::mailbox<asio::any_io_executor>;

constexpr aliyun::device thermostat{"a1B2c3D4e5F", "thermostat-7", "a secret between us"};
constexpr std::string_view property_set = "/sys/a1B2c3D4e5F/thermostat-7/thing/service/property/set";
constexpr std::string_view post_reply = "/sys/a1B2c3D4e5F/thermostat-7/thing/event/property/post_reply";
constexpr std::size_t kib = 1024;

// The mailbox of a device, and the faults that it tells of.
struct fixture {
    explicit fixture(alink::options o = {}) {
        o.on_fault = [this](alink::fault const& f) {
            last = f.why;
            longest = std::max(longest, f.detail.size());
            ++faults;
        };
        to = std::make_shared<box>(io.get_executor(), thermostat, std::move(o));
    }
    void receive(std::string_view topic, std::string_view payload) {
        to->receive(mqtt::publish{.topic = topic, .payload = payload});
    }

    asio::io_context io;
    std::error_code last;
    std::size_t longest = 0;
    std::size_t faults = 0;
    std::shared_ptr<box> to;
};

std::string filled(std::string_view head, std::string_view again, std::string_view tail, std::size_t size) {
    std::string all(head);
    while (all.size() + again.size() + tail.size() <= size) all += again;
    return all.append(tail);
}

}  // namespace

TEST_CASE("a message longer than the platform's is a fault, and is neither kept nor read") {
    fixture p;
    for (auto const topic : {property_set, post_reply}) {
        auto const text = filled("{\"id\":\"1\",\"code\":200,\"data\":[", "[],", "[]]}", 16 * 1024 * kib);
        memory_watch const watch;
        p.receive(topic, text);
        CHECK(p.last == alink::errc::payload_too_long);
        CHECK(p.longest <= 1000);
        CHECK_FALSE(p.to->pop());
        CHECK(watch.peak() < 4 * kib);
    }
    CHECK(p.faults == 2);
    p.receive(property_set, std::string(aliyun::max_payload_size, ' '));
    CHECK(p.to->pop());
}

TEST_CASE("JSON of the longest message costs 32 times as much at most, whatever it is made of") {
    fixture p;
    std::string names;  // each name is another one
    for (int i = 0; names.size() < 250 * kib; ++i) names += '"' + std::to_string(i) + "\":0,";
    for (auto const& text :
         {filled("{\"id\":\"1\",\"code\":200,\"data\":[", "[],", "[]]}", aliyun::max_payload_size),
          filled("{\"id\":\"1\",\"code\":200,\"data\":[", "{},", "{}]}", aliyun::max_payload_size),
          filled("{\"id\":\"1\",\"code\":200,\"data\":[", "0,", "0]}", aliyun::max_payload_size),
          filled("{\"id\":\"1\",\"code\":200,\"data\":[", "\"\",", "\"\"]}", aliyun::max_payload_size),
          "{\"id\":\"1\",\"code\":200,\"data\":{" + names + "\"x\":1}}"}) {
        auto const before = p.to->counters.unmatched_replies;
        memory_watch const watch;
        p.receive(post_reply, text);
        CHECK(p.to->counters.unmatched_replies == before + 1);
        CHECK(watch.peak() < 32 * text.size() + 64 * 1024);
        CHECK(watch.held() < kib);
    }
    CHECK(p.faults == 0);
}

TEST_CASE("calls that wait are bounded in number and size, and those beyond are dropped and told of") {
    alink::options o;
    o.maximum_waiting = 16;
    fixture p(std::move(o));
    std::string const text(aliyun::max_payload_size, 'x');
    memory_watch const watch;
    for (int i = 0; i < 1'000; ++i) p.receive(property_set, text);
    CHECK(p.to->counters.dropped == 1'000 - 16);
    CHECK(p.last == alink::errc::too_many_calls);
    CHECK(watch.peak() < 17 * text.size());
}

TEST_CASE("replies that nobody waits for, and those that are none, are counted and forgotten") {
    fixture p;
    memory_watch const watch;
    for (int i = 0; i < 20'000; ++i) {
        p.receive(post_reply, "{\"id\":\"7\",\"code\":200,\"data\":{}}");
        p.receive(post_reply, "[");
    }
    CHECK(p.to->counters.unmatched_replies == 20'000);
    CHECK(p.faults == 20'000);
    CHECK(p.last == alink::errc::not_json);
    CHECK(watch.peak() < 16 * kib);
}
