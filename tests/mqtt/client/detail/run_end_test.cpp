#include <runnel/mqtt/client/detail/run_end.hpp>

#include <doctest/doctest.h>

#include <exception>
#include <stdexcept>
#include <string>
#include <system_error>

namespace {

using namespace runnel::mqtt;

std::string text_of(std::exception_ptr const& failure, std::error_code expected) {
    std::error_code code = errc::disconnected;
    auto const text = detail::end_text(failure, code);
    CHECK(code == expected);
    return text;
}

}  // namespace

TEST_CASE("the end of run is told with what has ended it, and with its code if it has one") {
    CHECK(text_of(nullptr, errc::disconnected) == "run has ended by disconnect");
    std::system_error const refused(make_error_code(reason_code::banned), "tcp://a:1");
    CHECK(text_of(std::make_exception_ptr(refused), reason_code::banned) ==
          std::string("run has ended: ") + refused.what());
    CHECK(text_of(std::make_exception_ptr(std::runtime_error("no database")), errc::disconnected) ==
          "run has ended: no database");
    CHECK(text_of(std::make_exception_ptr(1), errc::disconnected) == "run has ended: an exception");
}

TEST_CASE("the text of the end of run goes with the error of that end, and with no other") {
    publish_details by;
    by.reason_string = "run has ended by disconnect";
    std::string const with_text = detail::ended(errc::disconnected, &by).what();
    CHECK(with_text.find(by.reason_string) != std::string::npos);
    CHECK(detail::ended(errc::disconnected, &by).code() == errc::disconnected);
    for (std::error_code const code : {make_error_code(errc::message_expired), make_error_code(errc::session_lost)}) {
        CHECK(detail::ended(code, &by).code() == code);
        CHECK(std::string(detail::ended(code, &by).what()) == std::system_error(code).what());
    }
    CHECK(std::string(detail::ended(errc::disconnected, nullptr).what()) ==
          std::system_error(errc::disconnected).what());
}
