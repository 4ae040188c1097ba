#include <runnel/mqtt/store/session_store.hpp>

#include <doctest/doctest.h>

#include "support/memory_store.hpp"
#include <memory>
#include <string>

using namespace runnel::mqtt;

namespace {

// No more than the concept asks for.
struct archetype {
    archetype() = default;
    archetype(archetype const&) = delete;
    archetype& operator=(archetype const&) = delete;
    std::error_code load(store_reader&) { return store_errc::corrupt; }
    std::error_code apply(std::span<store_change const> all) {
        applied += all.size();
        return store_errc::in_use;
    }
    std::size_t applied = 0;
};
static_assert(session_store<archetype>);
static_assert(session_store<test::memory_store>);

// With the optional part.
struct pending_archetype : archetype {
    bool pending() const { return true; }
};
static_assert(session_store<pending_archetype>);

struct no_apply {
    std::error_code load(store_reader&);
};
struct no_result {
    std::error_code load(store_reader&);
    void apply(std::span<store_change const>);
};
static_assert(!session_store<no_apply>);
static_assert(!session_store<no_result>);
static_assert(!session_store<int>);

struct collector final : store_reader {
    std::string text;
    void record(std::uint64_t key, std::string_view value) override {
        text += std::to_string(key) + '=' + std::string(value) + ' ';
    }
};

}  // namespace

TEST_CASE("any session store is none until it is given one") {
    any_session_store none;
    CHECK_FALSE(none);
    any_session_store const some = std::make_shared<archetype>();
    CHECK(some);
}

TEST_CASE("any session store passes everything on to the store, and copies are the same store") {
    auto const store = std::make_shared<test::memory_store>();
    any_session_store first = store;
    any_session_store second = first;
    store_change const changes[] = {{7, "seven"}, {3, "three"}, {5, "five"}, {7, {}, true}};
    CHECK_FALSE(first.apply(changes));
    collector all;
    CHECK_FALSE(second.load(all));
    CHECK(all.text == "3=three 5=five ");

    store->failure = store_errc::corrupt;
    CHECK(first.load(all) == store_errc::corrupt);
    CHECK(first.apply(changes) == store_errc::corrupt);
}

TEST_CASE("a store is asked whether something is pending only if it can tell") {
    CHECK_FALSE(any_session_store(std::make_shared<archetype>()).pending());
    CHECK(any_session_store(std::make_shared<pending_archetype>()).pending());
}

TEST_CASE("one session at a time claims a store, over all its copies") {
    any_session_store first = std::make_shared<archetype>();
    any_session_store second = first;
    CHECK(first.claim());
    CHECK_FALSE(first.claim());
    CHECK_FALSE(second.claim());
    first.release();
    CHECK(second.claim());
}

TEST_CASE("each error of a store says in words what is wrong") {
    using enum store_errc;
    for (auto const e : {in_use, not_a_store, unsupported_format, corrupt, other_client, not_durable}) {
        std::error_code const code = e;
        CHECK(code);
        CHECK(std::string(code.category().name()) == "runnel.store");
        CHECK(code.message() != "unknown error");
        CHECK(code.message() != "success");
    }
    CHECK_FALSE(std::error_code(ok));
    CHECK(std::error_code(ok).message() == "success");
    CHECK(std::error_code(static_cast<store_errc>(99)).message() == "unknown error");
}
