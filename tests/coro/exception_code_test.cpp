#include <runnel/coro/exception_code.hpp>

#include <doctest/doctest.h>

#include <exception>
#include <new>
#include <ostream>
#include <stdexcept>
#include <system_error>

using runnel::exception_code;

TEST_CASE("an exception is told as an error code") {
    auto const of = [](auto e) { return exception_code(std::make_exception_ptr(e)); };
    CHECK_FALSE(exception_code(nullptr));
    CHECK(of(std::system_error(std::make_error_code(std::errc::timed_out))) == std::errc::timed_out);
    CHECK(of(std::bad_alloc()) == std::errc::not_enough_memory);
    CHECK(of(std::runtime_error("the user's")) == std::errc::state_not_recoverable);
    CHECK(of(1) == std::errc::state_not_recoverable);
#ifdef RUNNEL_USE_BOOST_ASIO
    CHECK(of(boost::system::system_error(boost::asio::error::eof)) == boost::asio::error::eof);
#endif
}
