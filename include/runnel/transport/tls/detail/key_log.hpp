#pragma once

#include <runnel/transport/error.hpp>

#include <cerrno>
#include <fcntl.h>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <system_error>
#ifdef _WIN32
#include <io.h>
#else
#include <sys/uio.h>
#include <unistd.h>
#endif

namespace runnel::detail {

/// A file to which the secrets of connections are appended, a line at a time: `tls_options::key_log_file`. May be used
/// by several threads and processes, whose lines are not mixed up.
class tls_key_log {
  public:
    /// Throws `std::system_error` with `transport_errc::file_unreadable` if the file cannot be opened, or cannot be
    /// made its owner's alone.
    explicit tls_key_log(std::string const& file) : descriptor_(open(file.c_str())) {
        if (descriptor_ >= 0 && is_private()) return;
        std::string const why = std::generic_category().message(errno);
        close();
        throw std::system_error(transport_errc::file_unreadable, "key_log_file '" + file + "' (" + why + ")");
    }
    tls_key_log(tls_key_log const&) = delete;
    tls_key_log& operator=(tls_key_log const&) = delete;
    ~tls_key_log() { close(); }

    /// Appends a line, in one system call. No copies of it are made.
    void write(std::string_view line) noexcept {
#ifdef _WIN32
        // There is nothing that writes two pieces at once.
        ::_write(descriptor_, line.data(), static_cast<unsigned>(line.size()));
        ::_write(descriptor_, "\n", 1);
#else
        char end[] = "\n";
        iovec const parts[] = {{const_cast<char*>(line.data()), line.size()}, {end, 1}};
        while (::writev(descriptor_, parts, 2) < 0 && errno == EINTR) {
        }
#endif
    }

  private:
#ifdef _WIN32
    static int open(char const* file) {
        return ::_open(file, _O_WRONLY | _O_CREAT | _O_APPEND | _O_BINARY | _O_NOINHERIT, _S_IREAD | _S_IWRITE);
    }
    // The folder says who may read it.
    bool is_private() const noexcept { return true; }
    void close() const noexcept {
        if (descriptor_ >= 0) ::_close(descriptor_);
    }
#else
    static int open(char const* file) {
        return ::open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK,
                      S_IRUSR | S_IWUSR);
    }
    // A device keeps its rights, and is refused.
    bool is_private() const noexcept {
        struct stat found{};
        if (::fstat(descriptor_, &found) != 0) return false;
        if (!S_ISREG(found.st_mode) || found.st_nlink != 1) {
            errno = EINVAL;
            return false;
        }
        if (found.st_uid != ::geteuid()) {
            errno = EPERM;
            return false;
        }
        return ::fchmod(descriptor_, S_IRUSR | S_IWUSR) == 0;
    }
    void close() const noexcept {
        if (descriptor_ >= 0) ::close(descriptor_);
    }
#endif

    int const descriptor_;
};

}  // namespace runnel::detail
