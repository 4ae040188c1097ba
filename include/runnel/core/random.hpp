#pragma once

#include <runnel/core/compiler.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <system_error>

#if defined(__linux__)
#include <fcntl.h>
#include <pthread.h>
#include <sys/random.h>
#include <unistd.h>
#elif defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <unistd.h>
#if defined(__APPLE__)
#include <sys/random.h>
#endif
#else
#include <random>
#endif

namespace runnel {

/// Fills `size` bytes at `out` from the system's cryptographic source: a system call or more. Throws
/// `std::system_error` if there is none.
RUNNEL_COLD inline void read_system_entropy(char* out, std::size_t size) {
#if defined(__linux__)
    while (size > 0) {
        ssize_t const n = ::getrandom(out, size, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) break;  // a kernel before 3.17, or a sandbox that forbids the call
        out += n;
        size -= static_cast<std::size_t>(n);
    }
    if (size == 0) return;
    int const file = ::open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    if (file < 0) RUNNEL_THROW(std::system_error(errno, std::generic_category(), "/dev/urandom"));
    while (size > 0) {
        ssize_t const n = ::read(file, out, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            int const error = n < 0 ? errno : EIO;
            ::close(file);
            RUNNEL_THROW(std::system_error(error, std::generic_category(), "/dev/urandom"));
        }
        out += n;
        size -= static_cast<std::size_t>(n);
    }
    ::close(file);
#elif defined(__unix__) || defined(__APPLE__)
    for (std::size_t n = 0; size > 0; out += n, size -= n) {
        n = std::min<std::size_t>(size, 256);  // getentropy's limit
        if (::getentropy(out, n) != 0) RUNNEL_THROW(std::system_error(errno, std::generic_category(), "getentropy"));
    }
#else
    std::random_device device;  // the system's source with every implementation for Windows in use
    for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<char>(device() & 0xFF);
#endif
}

/// A stock of system entropy, one a thread, so that a masking key of four bytes does not cost a system call.
///
/// A process made by `fork` must not hand out what its parent hands out: the child drops the stock. (Where a thread
/// calls `clone` itself, past the C library, that does not happen.)
class entropy_stock {
  public:
    /// Fills `size` bytes at `out`. Throws as `read_system_entropy` does.
    void take(char* out, std::size_t size) {
        if (size > sizeof(bytes_)) return read_system_entropy(out, size);
        if (left_ < size || generation_ != process_generation.load(std::memory_order_relaxed)) refill();
        char* const from = bytes_ + sizeof(bytes_) - left_;
        std::memcpy(out, from, size);
        std::memset(from, 0, size);  // what has been handed out cannot be read here later
        left_ -= size;
    }

    /// The calling thread's own.
    static entropy_stock& of_this_thread() noexcept {
        static thread_local constinit entropy_stock stock;
        return stock;
    }

  private:
    void refill() {
        watch_forks();
        generation_ = process_generation.load(std::memory_order_relaxed);
        left_ = 0;
        read_system_entropy(bytes_, sizeof(bytes_));
        left_ = sizeof(bytes_);
    }

    static void watch_forks() {
#if defined(__unix__) || defined(__APPLE__)
        static int const registered =
            ::pthread_atfork(nullptr, nullptr, [] { process_generation.fetch_add(1, std::memory_order_relaxed); });
        if (registered != 0) RUNNEL_THROW(std::system_error(registered, std::generic_category(), "pthread_atfork"));
#endif
    }

    inline static constinit std::atomic<std::uint32_t> process_generation{0};

    std::size_t left_ = 0;
    std::uint32_t generation_ = 0;
    char bytes_[2048] = {};
};

/// Fills `size` bytes at `out` with bytes that nobody can predict: for masking keys, nonces, identifiers. Throws
/// `std::system_error` if the system has no source of them.
inline void fill_random(char* out, std::size_t size) { entropy_stock::of_this_thread().take(out, size); }

/// 32 unpredictable bits.
inline std::uint32_t random_32() {
    std::uint32_t value;
    fill_random(reinterpret_cast<char*>(&value), sizeof(value));
    return value;
}

}  // namespace runnel
