#include <runnel/aliyun/detail/json_text.hpp>

#include <doctest/doctest.h>

#include <string>

using runnel::aliyun::detail::find_json_text;

TEST_CASE("a text is found behind members of every kind") {
    std::string const json =
        R"( { "a" : "1", "b":[1,{"x":"no"},"]"], "c":{"x":"no","y":[[]]}, "d":-1.5e3, "e":null,"x":"yes"} )";
    CHECK(find_json_text(json, "a") == "1");
    CHECK(find_json_text(json, "x") == "yes");
    CHECK_FALSE(find_json_text(json, "b").has_value());
    CHECK_FALSE(find_json_text(json, "d").has_value());
    CHECK_FALSE(find_json_text(json, "y").has_value());
}

TEST_CASE("escapes are what they stand for") {
    CHECK(find_json_text(R"({"x":"\"\\\/\b\f\n\r\t"})", "x") == "\"\\/\b\f\n\r\t");
    CHECK(find_json_text(R"({"x":"\u0041\u00e9\u20AC\ud83d\ude00"})", "x") == "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    CHECK(find_json_text(R"({"\u0078":"y"})", "x") == "y");
}

TEST_CASE("what is not JSON has no texts, wherever it is cut off") {
    std::string const json = R"({"a":[1,{"b":"c"}],"d":"\u00e9","x":"y"})";
    for (std::size_t size = 0; size + 2 < json.size(); ++size)
        CHECK_FALSE(find_json_text(json.substr(0, size), "x").has_value());
    for (auto const* bad : {"", "[]", "{", "{}", "{x:\"y\"}", "{\"x\" \"y\"}", "{\"a\":,\"x\":\"y\"}",
                            "{\"a\":],\"x\":\"y\"}", "{\"x\":\"\\q\"}", "{\"x\":\"\\u12\"}", "{\"x\":\"\\ud800\"}",
                            "{\"x\":\"\\udc00\"}", "{\"x\":\"\\ud800\\u0041\"}", "{\"x\":\"a\nb\"}"})
        CHECK_MESSAGE(!find_json_text(bad, "x").has_value(), bad);
}

TEST_CASE("nesting costs no stack") {
    std::string const deep = "{\"a\":" + std::string(1'000'000, '[') + std::string(1'000'000, ']') + ",\"x\":\"y\"}";
    CHECK(find_json_text(deep, "x") == "y");
}
