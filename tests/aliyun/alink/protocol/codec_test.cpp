#include <runnel/aliyun/alink/options.hpp>
#include <runnel/aliyun/alink/protocol/codec.hpp>
#include <runnel/aliyun/alink/protocol/download.hpp>
#include <runnel/aliyun/alink/protocol/log.hpp>
#include <runnel/aliyun/alink/protocol/shadow.hpp>
#include <runnel/aliyun/alink/protocol/time.hpp>
#include <runnel/aliyun/alink/protocol/topology.hpp>

#include <doctest/doctest.h>

#include <set>
#include <string>
#include <string_view>

// Alink's messages as text, without any I/O.

namespace {

namespace aliyun = runnel::aliyun;
namespace alink = runnel::aliyun::alink;
using namespace std::chrono_literals;
using alink::errc;
using alink::json;

std::string nested(std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

}  // namespace

TEST_CASE("requests are read, and what is wrong with them is named") {
    struct example {
        std::string_view text;
        errc error;
        std::string_view id = "";
        std::string_view method = "";
        std::string_view params = "{}";
        bool wants_reply = true;
    };
    example const examples[] = {
        {R"({"id":"123","version":"1.0","params":{"a":1},"method":"thing.service.x"})", errc::ok, "123",
         "thing.service.x", R"({"a":1})"},
        {R"({"id":123,"params":[1]})", errc::ok, "123", "", "[1]"},
        {R"({"id":"1"})", errc::ok, "1"},
        {R"({"id":"1","params":null})", errc::ok, "1"},
        {R"({"id":"1","sys":{"ack":0}})", errc::ok, "1", "", "{}", false},
        {R"({"id":"1","sys":{"ack":1}})", errc::ok, "1"},
        {R"({"id":"1","sys":{"ack":"0"}})", errc::ok, "1", "", "{}", false},
        {"", errc::not_json},
        {"{", errc::not_json},
        {R"({"id":"1"} x)", errc::not_json},
        {"{\"id\":\"\xFF\"}", errc::not_json},
        {R"({"id":1e999})", errc::not_json},
        {"[]", errc::not_an_object},
        {"7", errc::not_an_object},
        {"{}", errc::id_missing},
        {R"({"id":""})", errc::id_missing},
        {R"({"id":null})", errc::id_missing},
        {R"({"id":{}})", errc::member_of_wrong_type},
        {R"({"id":1.5})", errc::member_of_wrong_type},
        {R"({"id":"1","params":7})", errc::member_of_wrong_type, "1"},
        {R"({"id":"1","params":"text"})", errc::member_of_wrong_type, "1"},
        {R"({"id":"1","method":7.5})", errc::member_of_wrong_type, "1"},
        {R"({"id":"1","sys":{"ack":"no"}})", errc::member_of_wrong_type, "1"},
    };
    for (auto const& e : examples) {
        CAPTURE(e.text);
        alink::call c;
        CHECK(decode(e.text, c) == e.error);
        CHECK(c.id == e.id);
        if (e.error != errc::ok) continue;
        CHECK(c.method == e.method);
        CHECK(c.params.dump() == e.params);
        CHECK(c.wants_reply == e.wants_reply);
    }
}

TEST_CASE("replies are read, and what is wrong with them is named") {
    struct example {
        std::string_view text;
        errc error;
        std::string_view id = "";
        int code = 200;
        std::string_view message = "";
        std::string_view data = "{}";
    };
    example const examples[] = {
        {R"({"id":"123","code":200,"data":{},"message":"success","version":"1.0"})", errc::ok, "123", 200, "success"},
        {R"({"id":7,"code":"460","message":"bad","data":[1]})", errc::ok, "7", 460, "bad", "[1]"},
        {R"({"id":"1","code":200,"data":""})", errc::ok, "1", 200, "", "\"\""},
        {R"({"id":"1","code":200,"data":null})", errc::ok, "1"},
        {"no", errc::not_json},
        {"[]", errc::not_an_object},
        {R"({"code":200})", errc::id_missing},
        {R"({"id":[],"code":200})", errc::member_of_wrong_type},
        {R"({"id":"1"})", errc::code_missing, "1"},
        {R"({"id":"1","code":null})", errc::code_missing, "1"},
        {R"({"id":"1","code":"ok"})", errc::member_of_wrong_type, "1"},
        {R"({"id":"1","code":99999999999})", errc::member_of_wrong_type, "1"},
        {R"({"id":"1","code":200,"message":{}})", errc::member_of_wrong_type, "1"},
    };
    for (auto const& e : examples) {
        CAPTURE(e.text);
        alink::reply r;
        CHECK(decode(e.text, r) == e.error);
        CHECK(r.id == e.id);
        CHECK(r.code == e.code);
        CHECK(r.message == e.message);
        CHECK(r.data.dump() == e.data);
    }
}

TEST_CASE("JSON nested too deeply is refused before it is parsed, brackets in texts do not count") {
    json out;
    CHECK(alink::parse(nested(alink::max_depth), out) == errc::ok);
    CHECK(alink::parse(nested(alink::max_depth + 1), out) == errc::too_deep);
    CHECK(alink::parse(std::string(1'000'000, '['), out) == errc::too_deep);
    CHECK(alink::parse("\"" + std::string(100, '[') + "\"", out) == errc::ok);
    CHECK(alink::parse(R"(["\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\"])", out) == errc::ok);
    CHECK(alink::parse("]]]][", out) == errc::not_json);
    CHECK(alink::parse("\"\\", out) == errc::not_json);
}

TEST_CASE("what is written can be read") {
    json const params = {{"Temperature", 21.5}};
    alink::call c;
    REQUIRE(decode(alink::encode_call("7", "thing.event.property.post", params), c) == errc::ok);
    CHECK(c.id == "7");
    CHECK(c.version == "1.0");
    CHECK(c.method == "thing.event.property.post");
    CHECK(c.params == params);
    CHECK(c.wants_reply);
    REQUIRE(decode(alink::encode_call("8", "", params, false), c) == errc::ok);
    CHECK(c.method.empty());
    CHECK_FALSE(c.wants_reply);
    alink::reply r;
    REQUIRE(decode(alink::encode({.id = "9", .code = 100001, .message = "stuck", .data = params}), r) == errc::ok);
    CHECK(r.id == "9");
    CHECK(r.code == 100001);
    CHECK(r.message == "stuck");
    CHECK(r.data == params);
}

TEST_CASE("a topic's method") {
    CHECK(alink::method_of("/sys/pk/dn/thing/service/property/set") == "thing.service.property.set");
    CHECK(alink::method_of("/sys/pk/dn/thing/event/overheated/post") == "thing.event.overheated.post");
    for (auto const* topic : {"/ext/session/pk/dn/combine/login", "/sys/pk/dn/rrpc/request/1", "/sys/pk", "/sys/pk/dn",
                              "/pk/dn/user/x", ""})
        CHECK(alink::method_of(topic).empty());
}

TEST_CASE("each error has a text of its own, and 200 is none") {
    CHECK(alink::make_error_code(errc::timed_out).category().name() == std::string("runnel.aliyun.alink"));
    CHECK_FALSE(alink::reply_error(200));
    CHECK(alink::reply_error(460) == errc::parameters_invalid);
    CHECK(alink::reply_error(460).message() == "the parameters are invalid (460)");
    CHECK(alink::reply_error(4711).message() == "a code that this library has no text for");
    std::set<std::string> texts;
    int named = 0;
    for (int code = 1; code < 7000; ++code) {
        auto const text = alink::reply_error(code == 200 ? 0 : code).message();
        if (text == "a code that this library has no text for" || text == "success") continue;
        ++named;
        CHECK_MESSAGE(texts.insert(text).second, text);
        if (code > 200) CHECK(text.find("(" + std::to_string(code) + ")") != text.npos);
    }
    CHECK(named > 40);
}

TEST_CASE("an offer of firmware is read in both its forms, and what is wrong with it is named") {
    std::string const md5(32, 'a'), sha(64, 'B');
    struct example {
        json data;
        errc error;
    };
    json const one = {{"size", 5},   {"version", "2.0"},          {"url", "https://x/f"},
                      {"sign", sha}, {"signMethod", "SHA256"},    {"module", "MCU"},
                      {"isDiff", 1}, {"extData", {{"note", "n"}}}};
    alink::firmware f;
    REQUIRE(decode(one, f) == errc::ok);
    CHECK(f.module == "MCU");
    CHECK(f.version == "2.0");
    CHECK(f.is_difference);
    CHECK(f.extra["note"] == "n");
    REQUIRE(f.files.size() == 1);
    CHECK(f.files[0].method == alink::digest_method::sha256);
    CHECK(f.files[0].digest == sha);
    CHECK(f.size() == 5);

    json const file = {{"fileUrl", "https://x/a"}, {"fileName", "a"}, {"fileSize", "7"}, {"fileMd5", md5}};
    json const two = {{"version", "3"}, {"signMethod", "Md5"}, {"files", {file, file}}};
    REQUIRE(decode(two, f) == errc::ok);
    CHECK(f.files.size() == 2);
    CHECK(f.files[1].name == "a");
    CHECK(f.size() == 14);

    auto const changed = [&](char const* name, json value) {
        json copy = one;
        copy[name] = std::move(value);
        return copy;
    };
    auto const without = [&](char const* name) {
        json copy = one;
        copy.erase(name);
        return copy;
    };
    example const examples[] = {
        {json::array(), errc::not_an_object},
        {without("version"), errc::member_missing},
        {without("url"), errc::member_missing},
        {without("size"), errc::member_missing},
        {without("sign"), errc::member_missing},
        {changed("size", "many"), errc::member_of_wrong_type},
        {changed("size", -1), errc::member_of_wrong_type},
        {changed("version", json::array()), errc::member_of_wrong_type},
        {changed("sign", std::string(64, 'x')), errc::member_of_wrong_type},
        {changed("sign", std::string(32, 'a')), errc::member_of_wrong_type},
        {changed("signMethod", "crc"), errc::digest_unsupported},
        {changed("files", 7), errc::member_of_wrong_type},
        {changed("files", json::array()), errc::member_missing},
        {changed("files", {7}), errc::member_missing},
    };
    for (auto const& e : examples) {
        CAPTURE(e.data.dump());
        CHECK(decode(e.data, f) == e.error);
        CHECK(f.version == "3");  // left alone
    }
}

TEST_CASE("an offer of a configuration is read") {
    json data = {{"configId", "c1"},       {"configSize", 3}, {"sign", std::string(64, '0')},
                 {"signMethod", "Sha256"}, {"url", "u"},      {"getType", "file"}};
    alink::configuration c;
    REQUIRE(decode(data, c) == errc::ok);
    CHECK(c.id == "c1");
    CHECK(c.file.size == 3);
    CHECK(c.file.url == "u");
    data.erase("configSize");
    CHECK(decode(data, c) == errc::member_missing);
    CHECK(decode(json("x"), c) == errc::not_an_object);
    data["configSize"] = true;
    CHECK(decode(data, c) == errc::member_of_wrong_type);
}

TEST_CASE("a download is checked over pieces of any size, by either digest") {
    std::string const text = "The quick brown fox jumps over the lazy dog";
    alink::remote_file file;
    file.size = text.size();
    for (auto const& [method, digest] :
         {std::pair{alink::digest_method::md5, "9E107D9D372BB6826BD81D3542A419D6"},
          {alink::digest_method::sha256, "d7a8fbb307d7809469ca9abcb0082e4f8d5651e46d3cdb762d02d0bf37c9e592"}}) {
        file.method = method;
        file.digest = digest;
        for (std::size_t size : {std::size_t{1}, std::size_t{7}, text.size()}) {
            alink::download_check check(file);
            for (std::size_t i = 0; i < text.size(); i += size) CHECK(check.add(text.substr(i, size)) == errc::ok);
            CHECK(check.bytes() == text.size());
            CHECK(check.finish() == errc::ok);
        }
        alink::download_check other(file);
        other.add(std::string(text.size(), 'x'));
        CHECK(other.finish() == errc::digest_mismatch);
        alink::download_check shorter(file);
        shorter.add("The");
        CHECK(shorter.finish() == errc::size_mismatch);
        alink::download_check longer(file);
        CHECK(longer.add(text) == errc::ok);
        CHECK(longer.add("!") == errc::size_mismatch);
        CHECK(longer.bytes() == text.size());
    }
}

TEST_CASE("the shadow's messages are read, and what is wrong with them is named") {
    using kind = alink::shadow_message::kind;
    struct example {
        std::string_view text;
        errc error;
        kind what = kind::done;
    };
    example const examples[] = {
        {R"({"method":"reply","payload":{"status":"success","version":1},"timestamp":1469564576})", errc::ok,
         kind::done},
        {R"({"method":"reply","payload":{"status":"success","state":{"reported":{"c":1},"desired":{"d":2}},"metadata":{"m":3}},"version":2,"timestamp":5})",
         errc::ok, kind::state},
        {R"({"method":"control","payload":{"state":{"desired":{"d":2}}},"version":2})", errc::ok, kind::control},
        {R"({"method":"reply","payload":{"status":"error","content":{"errorcode":"409","errormessage":"old"}}})",
         errc::ok, kind::failed},
        {R"({"method":"reply","payload":{"status":"error"}})", errc::ok, kind::failed},
        {"x", errc::not_json},
        {"[]", errc::not_an_object},
        {"{}", errc::member_missing},
        {R"({"method":"control","payload":{}})", errc::member_missing},
        {R"({"method":"other","payload":{}})", errc::method_mismatch},
        {R"({"method":7.5,"payload":{}})", errc::member_of_wrong_type},
        {R"({"method":"reply","payload":7})", errc::member_of_wrong_type},
        {R"({"method":"reply","payload":{"status":[]}})", errc::member_of_wrong_type},
        {R"({"method":"reply","payload":{"status":"error","content":{"errorcode":"x"}}})", errc::member_of_wrong_type},
        {R"({"method":"reply","payload":{"status":"success"},"version":"x"})", errc::member_of_wrong_type},
    };
    for (auto const& e : examples) {
        CAPTURE(e.text);
        alink::shadow_message m;
        CHECK(decode(e.text, m) == e.error);
        if (e.error == errc::ok) CHECK(m.what == e.what);
    }
    alink::shadow_message m;
    REQUIRE(decode(examples[1].text, m) == errc::ok);
    CHECK(m.shadow.reported == json{{"c", 1}});
    CHECK(m.shadow.desired == json{{"d", 2}});
    CHECK(m.shadow.metadata == json{{"m", 3}});
    CHECK(m.shadow.version == 2);
    CHECK(m.shadow.timestamp == 5);
    REQUIRE(decode(examples[3].text, m) == errc::ok);
    CHECK(m.code == 409);
    CHECK(m.text == "old");
}

TEST_CASE("the difference of two clocks") {
    // The platform is 1000 ms ahead; 30 ms there, 5 ms at work, 40 ms back.
    alink::time_answer const a{.device_sent = 100, .server_received = 1130, .server_sent = 1135};
    auto const d = alink::difference(a, 75ms);
    CHECK(d.offset == 995ms);
    CHECK(d.round_trip == 70ms);
    alink::time_answer read;
    CHECK(decode(R"({"deviceSendTime":"100","serverRecvTime":"1130","serverSendTime":1135})", read) == errc::ok);
    CHECK(read.server_sent == 1135);
    CHECK(decode(R"({"deviceSendTime":"100","serverRecvTime":"1130"})", read) == errc::member_missing);
    CHECK(decode(R"({"deviceSendTime":"x","serverRecvTime":"1","serverSendTime":"1"})", read) ==
          errc::member_of_wrong_type);
    CHECK(decode("x", read) == errc::not_json);
}

TEST_CASE("a time in the log is in UTC, with milliseconds") {
    using clock = std::chrono::system_clock;
    CHECK(alink::log_time(clock::time_point(0ms)) == "1970-01-01T00:00:00.000+0000");
    CHECK(alink::log_time(clock::time_point(951782399999ms)) == "2000-02-28T23:59:59.999+0000");
    CHECK(alink::log_time(clock::time_point(951782400000ms)) == "2000-02-29T00:00:00.000+0000");
}

TEST_CASE("a gateway proves that it knows a sub-device's secret") {
    aliyun::device const sensor{"pk", "sensor", "secret"};
    json const proof = alink::make_login(sensor, 1581417203000);
    aliyun::parameter const content{"clientIdpk&sensordeviceNamesensorproductKeypktimestamp1581417203000", ""};
    auto const sign = aliyun::sign_parameters(aliyun::sign_method::hmacsha256, "secret", {&content, 1});
    CHECK(proof == json{{"productKey", "pk"},
                        {"deviceName", "sensor"},
                        {"clientId", "pk&sensor"},
                        {"timestamp", "1581417203000"},
                        {"signMethod", "hmacSha256"},
                        {"sign", sign.view()},
                        {"cleanSession", "true"}});
    CHECK(alink::make_proof(sensor, 1, "signmethod", aliyun::sign_method::hmacmd5)["signmethod"] == "hmacMd5");
    CHECK(alink::make_proof(sensor, 1, "signmethod", aliyun::sign_method::hmacsha1)["signmethod"] == "hmacSha1");
}

TEST_CASE("files that are said to be larger than numbers go have the largest size together") {
    alink::firmware f;
    f.files.resize(2);
    f.files[0].size = ~std::uint64_t{0};
    f.files[1].size = 2;
    CHECK(f.size() == ~std::uint64_t{0});
}

TEST_CASE("lists of devices are read") {
    std::vector<alink::device_id> ids;
    CHECK(decode(json{{{"productKey", "pk"}, {"deviceName", "a"}}}, ids) == errc::ok);
    CHECK(ids == std::vector<alink::device_id>{{"pk", "a"}});
    CHECK(decode(json::object(), ids) == errc::answer_invalid);
    CHECK(decode(json{{{"productKey", "pk"}}}, ids) == errc::member_missing);
    CHECK(decode(json{{{"productKey", json::array()}}}, ids) == errc::member_of_wrong_type);
    CHECK(decode(json{7}, ids) == errc::member_missing);
    CHECK(ids.size() == 1);
    std::vector<aliyun::device> devices;
    CHECK(alink::decode(json{{{"productKey", "pk"}, {"deviceName", "a"}, {"deviceSecret", "s"}}}, devices) == errc::ok);
    CHECK(devices == std::vector<aliyun::device>{{"pk", "a", "s"}});
    CHECK(alink::decode(json{{{"productKey", "pk"}, {"deviceName", "a"}}}, devices) == errc::answer_invalid);
}

TEST_CASE("features stand for topics, each at most once, and fit into the platform's limit together") {
    aliyun::device const d{"pk", "dn", "s"};
    CHECK(alink::filters_of(alink::feature::none, d).empty());
    CHECK(alink::filters_of(alink::feature::ntp, d) == std::vector<std::string>{"/ext/ntp/pk/dn/response"});
    auto const all = alink::filters_of(static_cast<alink::feature>(0xFFFFFFFF), d);
    CHECK(std::set<std::string>(all.begin(), all.end()).size() == all.size());
    CHECK(all.size() <= aliyun::max_subscriptions);
    CHECK(alink::filters_of(alink::feature::usual, d).size() < 25);
}

TEST_CASE("a number is an integer, or a string with nothing but one") {
    int n = 0;
    CHECK(alink::read_number(json{{"n", 12}}, "n", n));
    CHECK(n == 12);
    CHECK(alink::read_number(json{{"n", "-13"}}, "n", n));
    CHECK(n == -13);
    for (auto const* text : {"14x", "x14", "", " 14", "14 ", "99999999999"}) {
        CAPTURE(text);
        CHECK_FALSE(alink::read_number(json{{"n", text}}, "n", n));
    }
    CHECK(alink::read_number(json::object(), "n", n));
    CHECK(n == -13);
}
