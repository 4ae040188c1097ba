#include <runnel/aliyun/error.hpp>

#include <doctest/doctest.h>

#include <ostream>
#include <set>
#include <string>

using namespace runnel::aliyun;

TEST_CASE("every error of the Aliyun floor has a text of its own") {
    std::set<std::string> texts;
    int value = 0;
    for (; value <= static_cast<int>(errc::registration_answer_invalid); ++value) {
        std::error_code const error = static_cast<errc>(value);
        CHECK(error.category().name() == std::string("runnel.aliyun"));
        CHECK(error.message() != "unknown error");
        texts.insert(error.message());
    }
    CHECK(texts.size() == static_cast<std::size_t>(value));
    CHECK(make_error_code(static_cast<errc>(value)).message() == "unknown error");
}

TEST_CASE("success is no error and is not thrown") {
    CHECK_FALSE(make_error_code(errc::ok));
    CHECK_NOTHROW(throw_unless_ok(errc::ok));
}

TEST_CASE("an error is thrown with its code") {
    try {
        throw_unless_ok(errc::client_id_too_long);
        FAIL("nothing was thrown");
    } catch (std::system_error const& e) {
        CHECK(e.code() == errc::client_id_too_long);
    }
}
