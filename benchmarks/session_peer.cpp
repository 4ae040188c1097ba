// The other side of the session benchmarks: speaks just enough of MQTT 3.1.1 to acknowledge what is published, and to
// send messages as fast as they are taken to whoever subscribes. So cheap that the client is the bottleneck: raw
// sockets and epoll, one thread, acknowledgements of all that one read has brought in one write.
//
// It ends connections whose clients do not ping in time. Prints its port, and runs until its standard input ends.

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string>
#include <string_view>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <unordered_map>

namespace {

using clock_type = std::chrono::steady_clock;

// Many whole PUBLISH packets of QoS 0, to be sent again and again.
std::string flood() {
    std::string const packet =
        "\x30\x62" + std::string("\0\x20", 2) + "sensors/building-7/room-12/temp1" + std::string(64, 'x');
    std::string all;
    for (int i = 0; i < 1000; ++i) all += packet;
    return all;
}

struct connection {
    int fd;
    std::string in;
    std::string out;
    std::size_t flooded = 0;  // how far the flood has got
    bool floods = false;
    bool waits = false;  // for room
    std::chrono::seconds keep_alive{0};
    clock_type::time_point heard = clock_type::now();
};

class peer {
  public:
    peer() : epoll_(::epoll_create1(0)), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof(address);
        auto* const a = reinterpret_cast<sockaddr*>(&address);
        if (::bind(listener_, a, size) != 0 || ::listen(listener_, 4096) != 0 ||
            ::getsockname(listener_, a, &size) != 0)
            fail("listening");
        watch(listener_, EPOLLIN, EPOLL_CTL_ADD);
        watch(STDIN_FILENO, EPOLLIN, EPOLL_CTL_ADD);
        std::printf("%d\n", ntohs(address.sin_port));
        std::fflush(stdout);
    }

    void run() {
        std::array<epoll_event, 256> events;
        auto next_look = clock_type::now();
        for (;;) {
            int const n = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 500);
            for (int i = 0; i < n; ++i) {
                int const fd = events[static_cast<std::size_t>(i)].data.fd;
                if (fd == STDIN_FILENO) return;
                if (fd == listener_)
                    accept();
                else
                    serve(fd);
            }
            if (clock_type::now() < next_look) continue;
            next_look = clock_type::now() + std::chrono::milliseconds(500);
            end_silent();
        }
    }

  private:
    [[noreturn]] static void fail(char const* what) {
        std::perror(what);
        std::exit(1);
    }

    void watch(int fd, std::uint32_t what, int how) {
        epoll_event e{};
        e.events = what;
        e.data.fd = fd;
        if (::epoll_ctl(epoll_, how, fd, &e) != 0 && errno != EPERM) fail("epoll_ctl");
    }

    void accept() {
        for (;;) {
            int const fd = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK);
            if (fd < 0) return;
            int const on = 1;
            ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
            connections_.emplace(fd, std::make_unique<connection>(connection{.fd = fd, .in = {}, .out = {}}));
            watch(fd, EPOLLIN, EPOLL_CTL_ADD);
        }
    }

    void end(int fd) {
        ::close(fd);
        connections_.erase(fd);
    }

    void end_silent() {
        auto const now = clock_type::now();
        for (auto at = connections_.begin(); at != connections_.end();) {
            auto const& c = *(at++)->second;
            if (c.keep_alive.count() == 0 || now - c.heard < c.keep_alive * 3 / 2) continue;
            std::fprintf(stderr, "a client has not pinged in time\n");
            end(c.fd);
        }
    }

    void serve(int fd) {
        auto const found = connections_.find(fd);
        if (found == connections_.end()) return;
        auto& c = *found->second;
        ssize_t const n = ::recv(fd, room_.data(), room_.size(), 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) return end(fd);
        if (n > 0) {
            c.heard = clock_type::now();
            std::string_view input(room_.data(), static_cast<std::size_t>(n));
            if (!c.in.empty()) input = c.in.append(input);
            std::string_view const rest = handle(c, input);
            c.in = std::string(rest);
        }
        if (!send(c)) end(fd);
    }

    // Handles all whole packets; returns what is left.
    std::string_view handle(connection& c, std::string_view input) {
        for (;;) {
            std::size_t length = 0, at = 1;
            for (unsigned shift = 0;; ++at, shift += 7) {
                if (at >= input.size()) return input;
                auto const byte = static_cast<unsigned char>(input[at]);
                length |= static_cast<std::size_t>(byte & 0x7F) << shift;
                if (byte < 0x80) break;
            }
            ++at;
            if (input.size() - at < length) return input;
            handle_packet(c, static_cast<unsigned char>(input[0]), input.substr(at, length));
            input.remove_prefix(at + length);
        }
    }

    static void handle_packet(connection& c, unsigned char first, std::string_view body) {
        switch (first >> 4) {
            case 1:  // CONNECT
                c.keep_alive = std::chrono::seconds(static_cast<unsigned char>(body[8]) * 256 +
                                                    static_cast<unsigned char>(body[9]));
                c.out.append("\x20\x02\0\0", 4);
                break;
            case 3: {  // PUBLISH
                unsigned const qos = first >> 1 & 3;
                if (qos == 0) break;
                std::size_t const topic =
                    static_cast<unsigned char>(body[0]) * 256u + static_cast<unsigned char>(body[1]);
                c.out.append(qos == 1 ? "\x40\x02" : "\x50\x02").append(body.substr(2 + topic, 2));
                break;
            }
            case 6: c.out.append("\x70\x02").append(body.substr(0, 2)); break;  // PUBREL
            case 8:                                                             // SUBSCRIBE
                c.out.append("\x90\x03").append(body.substr(0, 2)).append(1, '\0');
                if (body.substr(4).starts_with("sensors")) c.floods = true;
                break;
            case 10: c.out.append("\xB0\x02").append(body.substr(0, 2)); break;  // UNSUBSCRIBE
            case 12: c.out.append("\xD0\0", 2); break;                           // PINGREQ
            default: break;
        }
    }

    bool send(connection& c) {
        static std::string const endless = flood();
        for (;;) {
            bool const own = !c.out.empty() && c.flooded == 0;
            std::string_view const bytes = own ? std::string_view(c.out) : std::string_view(endless).substr(c.flooded);
            if (!own && !c.floods) break;
            ssize_t const n = ::send(c.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN) return false;
            if (n < 0) return wait_for_room(c, true);
            if (own)
                c.out.erase(0, static_cast<std::size_t>(n));
            else
                c.flooded = (c.flooded + static_cast<std::size_t>(n)) % endless.size();
        }
        return wait_for_room(c, false);
    }

    bool wait_for_room(connection& c, bool waits) {
        if (waits != c.waits) watch(c.fd, waits ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
        c.waits = waits;
        return true;
    }

    int epoll_;
    int listener_;
    std::array<char, 256 * 1024> room_;
    std::unordered_map<int, std::unique_ptr<connection>> connections_;
};

}  // namespace

int main() {
    static peer only;
    only.run();
    return 0;
}
