#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/coro/asio.hpp>

#include <exception>
#include <new>
#include <system_error>

namespace runnel {

/// The error code of an exception that a coroutine has ended with, for whoever takes no exceptions: none of a null
/// pointer, that of a `std::system_error` or of Boost's, `std::errc::not_enough_memory` of `std::bad_alloc`, and
/// `std::errc::state_not_recoverable` of any other, which is the user's own.
RUNNEL_COLD inline std::error_code exception_code(std::exception_ptr const& exception) noexcept {
    if (!exception) return {};
    try {
        std::rethrow_exception(exception);
    } catch (std::system_error const& e) {
        return e.code();
#ifdef RUNNEL_USE_BOOST_ASIO
    } catch (boost::system::system_error const& e) {
        return e.code();
#endif
    } catch (std::bad_alloc const&) {
        return std::make_error_code(std::errc::not_enough_memory);
    } catch (...) {
        return std::make_error_code(std::errc::state_not_recoverable);
    }
}

}  // namespace runnel
