#include <runnel/mqtt/codec/user_properties.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace runnel::mqtt;

namespace {

std::vector<user_property> all(user_properties const& p) {
    auto const list = p.list();
    return {list.begin(), list.end()};
}

errc error_of(std::string const& name, std::string const& value) {
    try {
        user_properties().add(name, value);
    } catch (std::system_error const& e) {
        return static_cast<errc>(e.code().value());
    }
    return errc::ok;
}

}  // namespace

TEST_CASE("user properties that own their memory keep order, and names that repeat") {
    user_properties p = {{"b", "1"}, {"a", ""}};
    p.add("b", "2");
    CHECK(all(p) == std::vector<user_property>{{"b", "1"}, {"a", ""}, {"b", "2"}});
    auto const copy = p;
    CHECK(copy == p);
    p.clear();
    CHECK(p.empty());
    CHECK(all(p).empty());
    CHECK(all(copy).size() == 3);
}

TEST_CASE("user properties are copied from a list of objects, and of bytes") {
    std::string name = "a";
    user_property const pairs[] = {{name, "1"}, {"b", "2"}};
    user_properties const copy{user_property_list(pairs)};
    name = "x";
    CHECK(all(copy) == std::vector<user_property>{{"a", "1"}, {"b", "2"}});
    CHECK(user_properties(copy.list()) == copy);
    CHECK(user_properties(user_property_list()).empty());
}

TEST_CASE("user properties are sent as properties of a packet, and read again") {
    std::string const longest(65'535, 'x');
    user_properties const p = {{longest, longest}, {"k", "v"}};
    properties props;
    props.user_properties = p.list();
    CHECK(check(props, packet_type::connect) == errc::ok);
    properties objects;
    user_property const same[] = {{longest, longest}, {"k", "v"}};
    objects.user_properties = same;
    CHECK(props == objects);
    CHECK(property_length(props, packet_type::connect) == property_length(objects, packet_type::connect));
}

TEST_CASE("a user property that is too long is refused, and one that is no UTF-8 when it is checked") {
    std::string const too_long(65'536, 'x');
    CHECK(error_of(too_long, "") == errc::string_too_long);
    CHECK(error_of("", too_long) == errc::string_too_long);
    CHECK(error_of("", "") == errc::ok);
    properties props;
    user_properties const p = {{"k", "\xFF"}};
    props.user_properties = p.list();
    CHECK(check(props, packet_type::connect) == errc::invalid_utf8);
}
