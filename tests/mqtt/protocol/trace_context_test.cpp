#include <runnel/mqtt/protocol/trace_context.hpp>

#include <doctest/doctest.h>

#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

using namespace runnel::mqtt;
using namespace std::string_view_literals;

namespace {

constexpr auto example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"sv;

// Checked while compiling: reading and writing need no memory.
constexpr auto parsed = parse_traceparent(example);
static_assert(parsed && parsed->is_sampled() && parsed->trace_id[0] == 0x4b && parsed->trace_id[15] == 0x36);
static_assert(parsed->parent_id[1] == 0xf0 && parsed->parent_id[7] == 0xb7);
static_assert([] {
    auto const text = format_traceparent(*parsed);
    return std::string_view(text.data(), text.size()) == example;
}());
static_assert(is_tracestate_key("congo") && !is_tracestate_key("Congo") && is_tracestate_value("t61rcWkgMzE"));

std::vector<user_property> all(user_properties const& p) {
    auto const list = p.list();
    return {list.begin(), list.end()};
}

std::string text_of(std::string_view list) {
    auto const state = tracestate::parse(list);
    return state ? state->text() : "(none)";
}

std::string members(int first, int last) {
    std::string list;
    for (int i = first; i <= last; ++i) list += (i == first ? "k" : ",k") + std::to_string(i) + "=v";
    return list;
}

}  // namespace

TEST_CASE("a traceparent that the specification allows comes back as it was") {
    for (auto const text : {"00-12345678901234567890123456789012-1234567890123456-01"sv,
                            "00-12345678901234567890123456789012-1234567890123456-00"sv,
                            "00-12345678901234567890123456789012-1234567890123456-03"sv,
                            "00-00000000000000000000000000000001-0000000000000001-02"sv,
                            "00-ffffffffffffffffffffffffffffffff-ffffffffffffffff-00"sv, example}) {
        CAPTURE(text);
        auto const p = parse_traceparent(text);
        REQUIRE(p);
        CHECK(to_string(*p) == text);
        CHECK(p->is_sampled() == ((text.back() & 1) != 0));
    }
}

TEST_CASE("what the specification forbids is no traceparent") {
    for (auto const text : {""sv,
                            "00"sv,
                            "ff-12345678901234567890123456789012-1234567890123456-01"sv,
                            ".0-12345678901234567890123456789012-1234567890123456-01"sv,
                            "0.-12345678901234567890123456789012-1234567890123456-01"sv,
                            "0A-12345678901234567890123456789012-1234567890123456-01"sv,
                            "000-12345678901234567890123456789012-1234567890123456-01"sv,
                            "0000-12345678901234567890123456789012-1234567890123456-01"sv,
                            "0-12345678901234567890123456789012-1234567890123456-01"sv,
                            "00-00000000000000000000000000000000-1234567890123456-01"sv,
                            "00-.2345678901234567890123456789012-1234567890123456-01"sv,
                            "00-1234567890123456789012345678901.-1234567890123456-01"sv,
                            "00-1234567890123456789012345678901A-1234567890123456-01"sv,
                            "00-123456789012345678901234567890123-1234567890123456-01"sv,
                            "00-1234567890123456789012345678901-1234567890123456-01"sv,
                            "00-12345678901234567890123456789012-0000000000000000-01"sv,
                            "00-12345678901234567890123456789012-.234567890123456-01"sv,
                            "00-12345678901234567890123456789012-123456789012345.-01"sv,
                            "00-12345678901234567890123456789012-123456789012345F-01"sv,
                            "00-12345678901234567890123456789012-12345678901234567-01"sv,
                            "00-12345678901234567890123456789012-123456789012345-01"sv,
                            "00-12345678901234567890123456789012-1234567890123456-.0"sv,
                            "00-12345678901234567890123456789012-1234567890123456-0."sv,
                            "00-12345678901234567890123456789012-1234567890123456-0A"sv,
                            "00-12345678901234567890123456789012-1234567890123456-001"sv,
                            "00-12345678901234567890123456789012-1234567890123456-1"sv,
                            "00-12345678901234567890123456789012-1234567890123456-01."sv,
                            "00-12345678901234567890123456789012-1234567890123456-01-"sv,
                            "00-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like"sv,
                            "00_12345678901234567890123456789012-1234567890123456-01"sv,
                            "00-12345678901234567890123456789012_1234567890123456-01"sv,
                            "00-12345678901234567890123456789012-1234567890123456_01"sv,
                            " 00-12345678901234567890123456789012-1234567890123456-01"sv,
                            "00-12345678901234567890123456789012-1234567890123456-01 "sv,
                            "cc-12345678901234567890123456789012-1234567890123456-01.what-the-future-will-be-like"sv,
                            "cc-12345678901234567890123456789012-1234567890123456-0"sv}) {
        CAPTURE(text);
        CHECK(!parse_traceparent(text));
    }
    for (std::size_t size = 0; size < example.size(); ++size) CHECK(!parse_traceparent(example.substr(0, size)));
}

TEST_CASE("of a later version what is known is read, and sent on as version 00 without flags of the future") {
    for (auto const text : {"cc-12345678901234567890123456789012-1234567890123456-01"sv,
                            "01-12345678901234567890123456789012-1234567890123456-f9"sv,
                            "fe-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like"sv}) {
        CAPTURE(text);
        auto const p = parse_traceparent(text);
        REQUIRE(p);
        CHECK(to_string(*p) == "00-12345678901234567890123456789012-1234567890123456-01");
    }
    CHECK(to_string(*parse_traceparent("00-12345678901234567890123456789012-1234567890123456-ff")).ends_with("-03"));
}

TEST_CASE("a trace begins with random identifiers, and its steps share the first") {
    std::set<std::string> seen;
    for (int i = 0; i < 100; ++i) {
        auto const first = begin_trace(i % 2 == 0);
        CHECK(first.is_sampled() == (i % 2 == 0));
        CHECK((first.flags & traceparent::random_trace_id) != 0);
        CHECK(parse_traceparent(to_string(first)) == first);
        auto const second = next_step(first);
        CHECK(second.trace_id == first.trace_id);
        CHECK(second.flags == first.flags);
        CHECK(second.parent_id != first.parent_id);
        seen.insert(to_string(first));
        seen.insert(to_string(second));
    }
    CHECK(seen.size() == 200);
}

TEST_CASE("a tracestate is a list of keys and values, by the grammar") {
    CHECK(text_of("") == "");
    CHECK(text_of("foo=1") == "foo=1");
    CHECK(text_of("foo=1,bar=2") == "foo=1,bar=2");
    CHECK(text_of("foo=1 \t , \t bar=2, \t baz=3") == "foo=1,bar=2,baz=3");
    CHECK(text_of(" \tfoo=1\t ") == "foo=1");
    CHECK(text_of(",, foo=1, ,") == "foo=1");
    CHECK(text_of(" , \t") == "");
    CHECK(text_of("foo=  1") == "foo=  1");  // leading spaces are part of the value
    CHECK(text_of("foo@=1,0foo@@bar=2,t@v*/_-=3") == "foo@=1,0foo@@bar=2,t@v*/_-=3");
    CHECK(text_of("foo=1,foo=2,bar=3") == "foo=1,bar=3");
    std::string value;
    for (char c = 0x20; c <= 0x7E; ++c)
        if (c != ',' && c != '=') value += c;
    CHECK(text_of("abcdefghijklmnopqrstuvwxyz0123456789_-*/=" + value) ==
          "abcdefghijklmnopqrstuvwxyz0123456789_-*/=" + value);
    for (auto const list : {"foo"sv, "foo="sv, "=1"sv, "foo =1"sv, "FOO=1"sv, "foo.bar=1"sv, "@foo=1"sv,
                            "foo=bar=baz"sv, "foo=1,bar"sv, "foo=1;bar\x7f=2"sv, "foo=\x01"sv, "foo=a\tb"sv,
                            "foo=\xC3\xA4"sv, "foo=1,=,bar=2"sv, "\nfoo=1"sv, "_foo=1"sv, "foo=\x7f"sv}) {
        CAPTURE(list);
        CHECK(text_of(list) == "(none)");
    }
}

TEST_CASE("keys and values have up to 256 characters, lists up to 32 members") {
    std::string const z(256, 'z');
    CHECK(is_tracestate_key(z));
    CHECK(!is_tracestate_key(z + 'z'));
    CHECK(!is_tracestate_key(""));
    CHECK(is_tracestate_value(z));
    CHECK(!is_tracestate_value(z + 'z'));
    CHECK(!is_tracestate_value("a "));
    CHECK(text_of("foo=1," + z + "=1") == "foo=1," + z + "=1");
    CHECK(text_of("foo=1," + z + "z=1") == "(none)");
    CHECK(text_of("a=" + z) == "a=" + z);
    CHECK(text_of("a=" + z + "z") == "(none)");
    CHECK(text_of(members(1, 32)) == members(1, 32));
    CHECK(text_of(members(1, 33)) == "(none)");
    CHECK(text_of(members(1, 32) + ", ,") == members(1, 32));
}

TEST_CASE("a tracestate of more than 512 characters loses long members first, then those at the end") {
    auto const member = [](char key, std::size_t size) { return key + ("=" + std::string(size - 2, 'x')); };
    std::string const a = member('a', 100), b = member('b', 129), c = member('c', 128), d = member('d', 120),
                      e = member('e', 120), f = member('f', 140);
    CHECK(text_of(a + ',' + b + ',' + c + ',' + d) == a + ',' + b + ',' + c + ',' + d);
    CHECK(text_of(a + ',' + b + ',' + c + ',' + d + ',' + e) == a + ',' + c + ',' + d + ',' + e);
    CHECK(text_of(b + ',' + a + ',' + c + ',' + d + ',' + e) == a + ',' + c + ',' + d + ',' + e);
    CHECK(text_of(b + ',' + a + ',' + f + ',' + c) == b + ',' + a + ',' + f + ',' + c);
    CHECK(text_of(b + ',' + a + ',' + c + ',' + d + ',' + f) == b + ',' + a + ',' + c + ',' + d);
    CHECK(text_of(a + ',' + c + ',' + d + ',' + e + ",g=" + std::string(50, 'x')) == a + ',' + c + ',' + d + ',' + e);
    CHECK(text_of(std::string(256, 'k') + '=' + std::string(256, 'v')) == "");
    CHECK(text_of(std::string(256, 'k') + '=' + std::string(255, 'v')).size() == 512);
}

TEST_CASE("a value that is set comes first, once, and nothing else is lost for it unless there is no room") {
    auto state = *tracestate::parse("rojo=1,congo=2");
    state.set("congo", "3");
    CHECK(state.text() == "congo=3,rojo=1");
    CHECK(state.find("rojo") == "1");
    CHECK(!state.find("con"));
    auto full = *tracestate::parse(members(1, 32));
    full.set("new", "v");
    CHECK(full.text() == "new=v," + members(1, 31));
    full.set("k31", "w");
    CHECK(full.text() == "k31=w,new=v," + members(1, 30));
    auto const before = full;
    CHECK_THROWS_AS(full.set("K", "v"), std::invalid_argument);
    CHECK_THROWS_AS(full.set("k", ""), std::invalid_argument);
    CHECK_THROWS_AS(full.set("k", "a,b=c"), std::invalid_argument);
    CHECK_THROWS_AS(full.set(std::string(256, 'k'), std::string(256, 'v')), std::invalid_argument);
    CHECK(full == before);
    // Its own long member stays, others go.
    full.set("own", std::string(250, 'v'));
    CHECK(full.text().starts_with("own=" + std::string(250, 'v') + ",k31=w,new=v,k1=v"));
    CHECK(full.text().size() <= 512);
    full.set("more", std::string(256, 'w'));
    CHECK(full.text().starts_with("more=" + std::string(256, 'w') + ",k31=w,new=v,k1=v"));
    CHECK(!full.find("own"));
    tracestate own;
    for (auto const key : {"a", "b", "c"}) own.set(key, std::string(120, 'v'));
    own.set("own", std::string(250, 'v'));
    CHECK(own.find("own").has_value());
    CHECK(own.find("c").has_value());
    CHECK(!own.find("a").has_value());
}

TEST_CASE("a trace context comes back from the user properties that it was put into") {
    trace_context context{*parse_traceparent(example), *tracestate::parse("congo=t61rcWkgMzE")};
    user_properties p{{"a", "1"}, {"b", "2"}};
    inject(context, p);
    CHECK(all(p) == std::vector<user_property>{
                        {"a", "1"}, {"b", "2"}, {"traceparent", example}, {"tracestate", "congo=t61rcWkgMzE"}});
    CHECK(extract(p.list()) == context);
    // Put in again, it takes the place of the one before.
    context.state = {};
    context.parent.flags = 0;
    inject(context, p);
    CHECK(all(p).size() == 3);
    CHECK(extract(p.list()) == context);
}

TEST_CASE("a trace context is not taken from what is missing, not valid or there twice") {
    user_property_list const none;
    CHECK(!extract(none));
    auto const of = [](user_properties const& p) { return extract(p.list()); };
    CHECK(!of({{"tracestate", "foo=1"}}));
    CHECK(!of({{"traceparent", example}, {"traceparent", example}}));
    CHECK(!of({{"traceparent", "00-x"}, {"traceparent", example}}));
    CHECK(!of({{"traceparent", "00-x"}, {"tracestate", "foo=1"}}));
    CHECK(!of({{"Traceparent", example}}));
    CHECK(!of({{"trace-parent", example}}));
    CHECK(!of({{"traceparent", ""}}));
    CHECK(of({{"traceparent", example}, {"x", "y"}}));
}

TEST_CASE("several tracestate are one list in their order, wherever they stand, and a wrong one loses the list only") {
    auto const state = [](user_properties const& p) { return extract(p.list()).value().state.text(); };
    CHECK(state({{"tracestate", "foo=1,bar=2"}, {"traceparent", example}, {"tracestate", "rojo=1"}}) ==
          "foo=1,bar=2,rojo=1");
    CHECK(state({{"traceparent", example}, {"tracestate", ""}, {"tracestate", "foo=1"}}) == "foo=1");
    CHECK(state({{"traceparent", example}, {"tracestate", "foo=1"}, {"tracestate", ""}}) == "foo=1");
    CHECK(state({{"traceparent", example}, {"tracestate", "foo=1"}, {"tracestate", "foo=2"}}) == "foo=1");
    CHECK(state({{"traceparent", example}, {"tracestate", "foo=1"}, {"tracestate", "@=2"}}) == "");
    CHECK(state({{"traceparent", example}, {"tracestate", members(1, 20)}, {"tracestate", members(21, 33)}}) == "");
    CHECK(state({{"traceparent", example}, {"TRACESTATE", "foo=1"}}) == "");
}

TEST_CASE("no bytes of a peer's make reading fail") {
    std::uint32_t seed = 7;
    auto const next = [&] { return seed = seed * 1664525 + 1013904223; };
    constexpr auto characters = "0123456789abcdef-=, \tzZ@\x00\xff"sv;
    for (int i = 0; i < 20'000; ++i) {
        std::string text(i % 2 == 0 ? std::string(example) : "foo=1,bar=2");
        for (std::uint32_t changes = next() >> 29; changes > 0; --changes)
            text[(next() >> 8) % text.size()] = characters[(next() >> 8) % characters.size()];
        auto const p = parse_traceparent(text);
        if (p) CHECK(parse_traceparent(to_string(*p)).has_value());
        auto const s = tracestate::parse(text);
        if (s) CHECK(tracestate::parse(s->text()) == *s);
    }
}
