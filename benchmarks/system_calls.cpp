// Takes the place of the C library's functions, and calls them: the next of that name.

#include "system_calls.hpp"

#include <atomic>
#include <cstdarg>
#include <dlfcn.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

std::atomic<std::size_t> count{0};

// The function that a call was meant for, found at the first one, which may come before `main`.
template <class Function>
class counted {
  public:
    constexpr explicit counted(char const* name) noexcept : name_(name) {}

    template <class... Arguments>
    auto operator()(Arguments... arguments) {
        count.fetch_add(1, std::memory_order_relaxed);
        Function* f = found_.load(std::memory_order_relaxed);
        if (f == nullptr) found_ = f = reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name_));
        return f(arguments...);
    }

  private:
    char const* name_;
    std::atomic<Function*> found_{nullptr};
};

constinit counted<ssize_t(int, void*, std::size_t)> next_read("read");
constinit counted<ssize_t(int, iovec const*, int)> next_readv("readv");
constinit counted<ssize_t(int, void*, std::size_t, int)> next_recv("recv");
constinit counted<ssize_t(int, void*, std::size_t, int, sockaddr*, socklen_t*)> next_recvfrom("recvfrom");
constinit counted<ssize_t(int, msghdr*, int)> next_recvmsg("recvmsg");
constinit counted<ssize_t(int, void const*, std::size_t)> next_write("write");
constinit counted<ssize_t(int, iovec const*, int)> next_writev("writev");
constinit counted<ssize_t(int, void const*, std::size_t, int)> next_send("send");
constinit counted<ssize_t(int, void const*, std::size_t, int, sockaddr const*, socklen_t)> next_sendto("sendto");
constinit counted<ssize_t(int, msghdr const*, int)> next_sendmsg("sendmsg");
constinit counted<int(pollfd*, nfds_t, int)> next_poll("poll");
constinit counted<int(pollfd*, nfds_t, timespec const*, sigset_t const*)> next_ppoll("ppoll");
constinit counted<int(int, fd_set*, fd_set*, fd_set*, timeval*)> next_select("select");
constinit counted<int(int, fd_set*, fd_set*, fd_set*, timespec const*, sigset_t const*)> next_pselect("pselect");
constinit counted<int(int, epoll_event*, int, int)> next_epoll_wait("epoll_wait");
constinit counted<int(int, epoll_event*, int, int, sigset_t const*)> next_epoll_pwait("epoll_pwait");
constinit counted<int(int, int, int, epoll_event*)> next_epoll_ctl("epoll_ctl");
constinit counted<int(int, int, itimerspec const*, itimerspec*)> next_timerfd_settime("timerfd_settime");
constinit counted<int(int, int, int, void*, socklen_t*)> next_getsockopt("getsockopt");
constinit counted<int(int, int, int, void const*, socklen_t)> next_setsockopt("setsockopt");
constinit counted<int(int, sockaddr*, socklen_t*)> next_getsockname("getsockname");
constinit counted<int(int, sockaddr*, socklen_t*)> next_getpeername("getpeername");
constinit counted<int(int, unsigned long, ...)> next_ioctl("ioctl");

}  // namespace

std::size_t system_calls() noexcept { return count.load(std::memory_order_relaxed); }

extern "C" {

ssize_t read(int fd, void* to, std::size_t n) { return next_read(fd, to, n); }
ssize_t readv(int fd, iovec const* to, int n) { return next_readv(fd, to, n); }
ssize_t recv(int fd, void* to, std::size_t n, int flags) { return next_recv(fd, to, n, flags); }
ssize_t recvfrom(int fd, void* to, std::size_t n, int flags, sockaddr* from, socklen_t* size) {
    return next_recvfrom(fd, to, n, flags, from, size);
}
ssize_t recvmsg(int fd, msghdr* message, int flags) { return next_recvmsg(fd, message, flags); }
ssize_t write(int fd, void const* from, std::size_t n) { return next_write(fd, from, n); }
ssize_t writev(int fd, iovec const* from, int n) { return next_writev(fd, from, n); }
ssize_t send(int fd, void const* from, std::size_t n, int flags) { return next_send(fd, from, n, flags); }
ssize_t sendto(int fd, void const* from, std::size_t n, int flags, sockaddr const* to, socklen_t size) {
    return next_sendto(fd, from, n, flags, to, size);
}
ssize_t sendmsg(int fd, msghdr const* message, int flags) { return next_sendmsg(fd, message, flags); }

int poll(pollfd* fds, nfds_t n, int limit) { return next_poll(fds, n, limit); }
int ppoll(pollfd* fds, nfds_t n, timespec const* limit, sigset_t const* signals) {
    return next_ppoll(fds, n, limit, signals);
}
int select(int n, fd_set* in, fd_set* out, fd_set* other, timeval* limit) {
    return next_select(n, in, out, other, limit);
}
int pselect(int n, fd_set* in, fd_set* out, fd_set* other, timespec const* limit, sigset_t const* signals) {
    return next_pselect(n, in, out, other, limit, signals);
}
int epoll_wait(int epoll, epoll_event* events, int n, int limit) { return next_epoll_wait(epoll, events, n, limit); }
int epoll_pwait(int epoll, epoll_event* events, int n, int limit, sigset_t const* signals) {
    return next_epoll_pwait(epoll, events, n, limit, signals);
}
int epoll_ctl(int epoll, int how, int fd, epoll_event* event) noexcept { return next_epoll_ctl(epoll, how, fd, event); }
int timerfd_settime(int fd, int flags, itimerspec const* to, itimerspec* before) noexcept {
    return next_timerfd_settime(fd, flags, to, before);
}

int getsockopt(int fd, int level, int name, void* value, socklen_t* size) noexcept {
    return next_getsockopt(fd, level, name, value, size);
}
int setsockopt(int fd, int level, int name, void const* value, socklen_t size) noexcept {
    return next_setsockopt(fd, level, name, value, size);
}
int getsockname(int fd, sockaddr* address, socklen_t* size) noexcept { return next_getsockname(fd, address, size); }
int getpeername(int fd, sockaddr* address, socklen_t* size) noexcept { return next_getpeername(fd, address, size); }
int ioctl(int fd, unsigned long request, ...) noexcept {
    std::va_list arguments;
    va_start(arguments, request);
    void* const argument = va_arg(arguments, void*);
    va_end(arguments);
    return next_ioctl(fd, request, argument);
}
}
