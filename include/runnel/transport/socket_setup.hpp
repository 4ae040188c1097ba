#pragma once

#include <runnel/core/compiler.hpp>

#include <cstdint>
#include <memory>
#include <system_error>
#include <utility>

namespace runnel {

struct socket_options;

/// What is done to a socket before it connects, beyond a transport's usual options: nothing, or `socket_options`, whose
/// header is <runnel/transport/socket_options.hpp>. A value: without options it takes the room of a pointer, and
/// nothing of them is compiled into a program that has none.
class socket_setup {
  public:
#ifdef _WIN32
    using handle = std::uintptr_t;  ///< of a socket, as the system knows it
#else
    using handle = int;  ///< of a socket, as the system knows it
#endif

    /// How `socket_options` are known here.
    class base {
      public:
        virtual ~base() = default;
        virtual std::unique_ptr<base> clone() const = 0;
        virtual bool equals(base const& other) const noexcept = 0;
        virtual std::error_code apply(handle socket, bool is_v6) const = 0;
    };

    socket_setup() noexcept = default;
    /// Checks the options: see there for what it throws. Needs their header.
    socket_setup(socket_options const& options);
    // Out of line, so that those who copy transports are not larger for it.
    RUNNEL_COLD RUNNEL_NOINLINE socket_setup(socket_setup const& o) : setup_(o.setup_ ? o.setup_->clone() : nullptr) {}
    socket_setup(socket_setup&&) noexcept = default;
    RUNNEL_COLD RUNNEL_NOINLINE ~socket_setup() {}
    socket_setup& operator=(socket_setup const& o) { return *this = socket_setup(o); }
    socket_setup& operator=(socket_setup&&) noexcept = default;

    /// Sets a socket up that is open and not connected. An error if its address family is not that of the options'
    /// address; other errors are thrown, as they do not depend on the address that is connected to.
    std::error_code apply(handle socket, bool is_v6) const {
        return setup_ ? setup_->apply(socket, is_v6) : std::error_code();
    }

    friend bool operator==(socket_setup const& a, socket_setup const& b) noexcept {
        return a.setup_ && b.setup_ ? a.setup_->equals(*b.setup_) : a.setup_ == b.setup_;
    }

  private:
    std::unique_ptr<base> setup_{};
};

}  // namespace runnel
