#include <runnel/mqtt/codec/topic.hpp>

#include <doctest/doctest.h>

#include "support/packets.hpp"
#include "support/random_source.hpp"
#include <string>
#include <string_view>
#include <vector>

using namespace runnel::mqtt;
using namespace std::string_view_literals;

static_assert(check_topic_name("sensors/1/temperature") == errc::ok);
static_assert(check_topic_name("sensors/+/temperature") == errc::wildcard_in_topic_name);
static_assert(check_topic_filter("sensors/+/temperature/#") == errc::ok);
static_assert(matches("sensors/+/temperature", "sensors/1/temperature"));

namespace {

std::vector<std::string_view> levels(std::string_view text) {
    std::vector<std::string_view> result;
    for (std::size_t at = 0; true;) {
        auto const slash = text.find('/', at);
        result.push_back(text.substr(at, slash - at));
        if (slash == std::string_view::npos) return result;
        at = slash + 1;
    }
}

// The rules of 4.7, level by level.
bool matches_naively(std::string_view filter, std::string_view topic) {
    auto const f = levels(filter);
    auto const t = levels(topic);
    if (topic[0] == '$' && (f[0] == "+" || f[0] == "#")) return false;
    for (std::size_t i = 0; i < f.size(); ++i) {
        if (f[i] == "#") return true;
        if (i == t.size()) return false;
        if (f[i] != "+" && f[i] != t[i]) return false;
        if (i + 1 == t.size() && i + 2 == f.size() && f[i + 1] == "#") return true;
    }
    return f.size() == t.size();
}

}  // namespace

TEST_CASE("names and strings are checked to their last byte and no further, whatever can be read behind them") {
    for (std::size_t size = 0; size < 40; ++size) {
        std::string const behind = std::string(size, 'a') + std::string(20, '\xFF');
        for (std::size_t readable = size; readable <= behind.size(); ++readable) {
            std::string const all = behind.substr(0, readable);
            std::string_view const name = std::string_view(all).substr(0, size);
            CAPTURE(size);
            CAPTURE(readable);
            CHECK(check_string(name, readable) == errc::ok);
            CHECK(check_topic_name(name, readable) == (size == 0 ? errc::topic_empty : errc::ok));
            for (std::size_t at = 0; at < size; ++at) {
                for (char const byte : {'+', '#', '\0', '\x80', '\xFF'}) {
                    std::string wrong = all;
                    wrong[at] = byte;
                    std::string_view const text = std::string_view(wrong).substr(0, size);
                    bool const wildcard = byte == '+' || byte == '#';
                    errc const fault = byte == '\0' ? errc::null_character : errc::invalid_utf8;
                    if (check_string(text, readable) != (wildcard ? errc::ok : fault)) FAIL_CHECK("string, at " << at);
                    if (check_topic_name(text, readable) != (wildcard ? errc::wildcard_in_topic_name : fault))
                        FAIL_CHECK("name, at " << at);
                }
            }
        }
    }
}

TEST_CASE("topics have at least one character [MQTT-4.7.3-1] [MQTT-4.7.3-1 of 3.1.1]") {
    CHECK(check_topic_name("") == errc::topic_empty);
    CHECK(check_topic_filter("") == errc::topic_empty);
    CHECK(check_topic_name(" ") == errc::ok);
    CHECK(check_topic_name("/") == errc::ok);
    CHECK(check_topic_filter("/") == errc::ok);
}

TEST_CASE("topics do not contain U+0000 [MQTT-4.7.3-2] [MQTT-4.7.3-2 of 3.1.1]") {
    CHECK(check_topic_name("a\0"sv) == errc::null_character);
    CHECK(check_topic_filter("\0a"sv) == errc::null_character);
    CHECK(check_topic_name("a longer topic name\0with more"sv) == errc::null_character);
    CHECK(check_topic_name("h\xC3\xA9\0"sv) == errc::null_character);
}

TEST_CASE("topics are UTF-8 of at most 65,535 bytes [MQTT-4.7.3-3] [MQTT-4.7.3-3 of 3.1.1]") {
    CHECK(check_topic_name(std::string(65'535, 'a')) == errc::ok);
    CHECK(check_topic_name(std::string(65'536, 'a')) == errc::string_too_long);
    CHECK(check_topic_filter(std::string(65'535, 'a')) == errc::ok);
    CHECK(check_topic_filter(std::string(65'536, 'a')) == errc::string_too_long);
    CHECK(check_topic_name("gr\xC3\xBC\xC3\x9F"
                           "e") == errc::ok);
    CHECK(check_topic_name("\xED\xA0\x80") == errc::invalid_utf8);
    CHECK(check_topic_filter("\xC0\x80") == errc::invalid_utf8);
}

TEST_CASE("topic names contain no wildcard at any place [MQTT-4.7.0-1] [MQTT-4.7.1-1 of 3.1.1]") {
    for (std::size_t size = 1; size < 70; ++size) {
        for (std::size_t at = 0; at < size; ++at) {
            for (char const wildcard : {'+', '#'}) {
                std::string topic(size, 'a');
                topic[at] = wildcard;
                if (check_topic_name(topic) != errc::wildcard_in_topic_name) FAIL_CHECK(topic);
            }
        }
        // Neighbours of the wildcards in ASCII, and bytes that differ from them in one bit, are no wildcards.
        for (char const c : {'"', '$', '*', ',', '\'', '!', '3', ';', 'c', 'k', '\x01', '\x7F'})
            CHECK(check_topic_name(std::string(size, c)) == errc::ok);
    }
    CHECK(check_topic_name("h\xC3\xA9/+") == errc::wildcard_in_topic_name);
}

TEST_CASE("the multi-level wildcard is the whole last level [MQTT-4.7.1-1] [MQTT-4.7.1-2 of 3.1.1]") {
    for (auto const* filter : {"#", "/#", "a/#", "a/b/#", "+/#", "a//#"}) CHECK(check_topic_filter(filter) == errc::ok);
    for (auto const* filter : {"a#", "#/a", "a/#/b", "##", "a/b#", "#a", "a/#/", "#+", "+#"}) {
        CAPTURE(filter);
        CHECK(check_topic_filter(filter) == errc::invalid_topic_filter);
    }
}

TEST_CASE("the single-level wildcard is a whole level [MQTT-4.7.1-2] [MQTT-4.7.1-3 of 3.1.1]") {
    for (auto const* filter : {"+", "+/", "/+", "a/+", "+/a", "a/+/b", "+/+/+"})
        CHECK(check_topic_filter(filter) == errc::ok);
    for (auto const* filter : {"a+", "+a", "a+/b", "a/b+", "++", "+/a+"}) {
        CAPTURE(filter);
        CHECK(check_topic_filter(filter) == errc::invalid_topic_filter);
    }
}

TEST_CASE("a shared subscription has a share name without wildcards and a filter [MQTT-4.8.2-1] [MQTT-4.8.2-2]") {
    for (auto const* filter :
         {"$share/g/a", "$share/g/#", "$share/g/+/b", "$share/g//", "$share/g g/a", "$shared/g", "$sharing"})
        CHECK(check_topic_filter(filter) == errc::ok);
    for (auto const* filter : {"$share", "$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/#"}) {
        CAPTURE(filter);
        CHECK(check_topic_filter(filter) == errc::invalid_shared_subscription);
    }
    CHECK(check_topic_filter("$share/g+/a") == errc::invalid_topic_filter);
}

TEST_CASE("MQTT 3.1.1 knows no shared subscriptions, so any filter may begin with $share") {
    CHECK(check_topic_filter("$share/g", protocol_version::v3_1_1) == errc::ok);
    CHECK(check_topic_filter("$share/+/a", protocol_version::v3_1_1) == errc::ok);
}

TEST_CASE("the filter of a shared subscription is taken apart") {
    auto const shared = split_shared("$share/workers/jobs/#");
    CHECK(shared.is_shared());
    CHECK(shared.group == "workers");
    CHECK(shared.filter == "jobs/#");
    CHECK(split_shared("$share/workers//").filter == "/");
    CHECK_FALSE(split_shared("jobs/$share/a").is_shared());
    CHECK(split_shared("jobs/#").filter == "jobs/#");
    CHECK(split_shared("$share/workers").filter == "$share/workers");
}

TEST_CASE("the specification's examples of wildcards match as it says (4.7.1.2, 4.7.1.3)") {
    for (auto const* topic :
         {"sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"})
        CHECK(matches("sport/tennis/player1/#", topic));
    CHECK(matches("sport/#", "sport"));
    CHECK(matches("sport/tennis/+", "sport/tennis/player1"));
    CHECK_FALSE(matches("sport/tennis/+", "sport/tennis/player1/ranking"));
    CHECK_FALSE(matches("sport/+", "sport"));
    CHECK(matches("sport/+", "sport/"));
    CHECK(matches("+/+", "/finance"));
    CHECK(matches("/+", "/finance"));
    CHECK_FALSE(matches("+", "/finance"));
}

TEST_CASE("wildcards in the first level do not match topics that begin with $ [MQTT-4.7.2-1] [MQTT-4.7.2-1 of 3.1.1]") {
    CHECK_FALSE(matches("#", "$SYS"));
    CHECK_FALSE(matches("#", "$SYS/monitor/Clients"));
    CHECK_FALSE(matches("+/monitor/Clients", "$SYS/monitor/Clients"));
    CHECK(matches("$SYS/#", "$SYS/monitor/Clients"));
    CHECK(matches("$SYS/monitor/+", "$SYS/monitor/Clients"));
    CHECK(matches("a/+", "a/$b"));
}

TEST_CASE("topics match character by character, without any normalization [MQTT-4.7.3-4] [MQTT-4.7.3-4 of 3.1.1]") {
    CHECK_FALSE(matches("ACCOUNTS", "Accounts"));
    CHECK_FALSE(matches("/finance", "finance"));
    CHECK_FALSE(matches("finance", "finance/"));
    CHECK(matches("Accounts payable", "Accounts payable"));
    CHECK_FALSE(matches("\xC3\xA9", "e\xCC\x81"));  // composed and decomposed
}

TEST_CASE("a prefix is compared in all of its bytes, whatever its size") {
    std::string const text = "0123456789abcdefghijklmnopqrstuvwxyz";
    for (std::size_t size = 0; size <= text.size(); ++size) {
        auto const prefix = text.substr(0, size);
        CHECK(begins_with(text, prefix));
        CHECK(begins_with(prefix, prefix));
        for (std::size_t i = 0; i < size; ++i) {
            auto other = prefix;
            other[i] = '!';
            CHECK_FALSE(begins_with(text, other));
            std::vector<char> const shorter(prefix.begin(), prefix.begin() + static_cast<std::ptrdiff_t>(i));
            CHECK_FALSE(begins_with({shorter.data(), shorter.size()}, prefix));
        }
    }
}

TEST_CASE("matching agrees with the rules applied level by level") {
    test::random_source random(20'260'101);
    std::size_t matched = 0;
    for (int i = 0; i < 100'000; ++i) {
        auto const text = [&](std::string_view characters) {
            auto result = random.string_of(characters, 7);
            return result.empty() ? std::string("/") : result;
        };
        auto const filter = text("ab/+#/$");
        auto const topic = text("ab/$");
        if (check_topic_filter(filter, protocol_version::v3_1_1) != errc::ok) continue;
        if (matches(filter, topic)) ++matched;
        if (matches(filter, topic) != matches_naively(filter, topic)) FAIL_CHECK(filter << " and " << topic);
        if (topic_pattern(filter).matches(topic) != matches(filter, topic))
            FAIL_CHECK("pattern " << filter << " and " << topic);
    }
    CHECK(matched > 1'000);
}
