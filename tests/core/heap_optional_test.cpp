#include <runnel/core/heap_optional.hpp>

#include <doctest/doctest.h>

#include <string>
#include <utility>

namespace {

struct point {
    int x = 0;
    std::string name;
};
using optional_point = runnel::heap_optional<point>;

static_assert(sizeof(optional_point) == sizeof(void*));

}  // namespace

TEST_CASE("an optional value on the heap: empty, a value, emptied again") {
    optional_point p;
    CHECK_FALSE(p);
    CHECK_FALSE(p.has_value());
    p.emplace().x = 3;
    REQUIRE(p);
    CHECK(p->x == 3);
    p.emplace(4, "four");
    CHECK((*p).name == "four");
    p.reset();
    CHECK_FALSE(p);
}

TEST_CASE("an optional value on the heap is assigned in braces, as std::optional is") {
    optional_point p;
    p = {.x = 5, .name = "five"};
    REQUIRE(p);
    CHECK(p->name == "five");
    p = point{.x = 6, .name = {}};
    CHECK(p->x == 6);
    p = std::nullopt;
    CHECK_FALSE(p);
    p.emplace();
    p = {};
    CHECK_FALSE(p);
}

TEST_CASE("a copy of an optional value on the heap is its own, and what is moved is empty") {
    optional_point a(point{.x = 1, .name = "a"});
    optional_point b = a;
    b->name = "b";
    CHECK(a->name == "a");
    a = b;
    CHECK(a->name == "b");
    a = std::as_const(a);
    CHECK(a->name == "b");
    optional_point const c = std::move(a);
    CHECK(c->name == "b");
    CHECK_FALSE(a);  // NOLINT: that is what is looked at
    CHECK_FALSE(optional_point(a));
}
