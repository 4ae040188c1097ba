// The bound for the session benchmark: the same bytes through a bare socket, prepared, 20 messages a write; QoS 1
// waits for the 20 acknowledgements; what is received is not looked at.

#include "session_client.hpp"
#include <array>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

char const* const who = "raw socket";
constexpr std::size_t pack = 20;

struct client {
    bench::options const& o;
    bench::meter meter{o, who};
    int fd = -1;
    std::array<char, 64 * 1024> room{};

    void send(std::string_view bytes) {
        while (!bytes.empty()) {
            ssize_t const n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (n <= 0) std::exit(1);
            bytes.remove_prefix(static_cast<std::size_t>(n));
        }
    }
    std::size_t receive() {
        ssize_t const n = ::recv(fd, room.data(), room.size(), 0);
        if (n <= 0) std::exit(1);
        return static_cast<std::size_t>(n);
    }
    void receive(std::size_t bytes) {
        while (bytes > 0) bytes -= std::min(bytes, receive());
    }

    void connect() {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(o.port);
        fd = ::socket(AF_INET, SOCK_STREAM, 0);
        int const on = 1;
        ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) std::exit(1);
        send(std::string_view("\x10\x0f\0\x04MQTT\x04\x02\0\0\0\x03raw", 17));
        receive(4);
    }

    // Messages with identifiers from 1.
    std::string publishes() const {
        std::string all;
        for (std::size_t i = 1; i <= pack; ++i) {
            auto const qos = o.qos();
            all.append({static_cast<char>(0x30 | qos << 1), static_cast<char>(qos == 0 ? 98 : 100), '\0', '\x20'});
            all.append(bench::topic);
            if (qos != 0) all.append({'\0', static_cast<char>(i)});
            all.append(bench::payload);
        }
        return all;
    }

    void run() {
        connect();
        bool last = false;
        auto const bytes = publishes();
        if (o.is("publish")) {
            while (!last) {
                send(bytes);
                if (o.qos() != 0) receive(4 * pack);
                for (std::size_t i = 0; i < pack; ++i) last = meter.count() || last;
            }
        } else {
            send(std::string_view("\x82\x0e\0\x01\0\x09sensors/#\0", 16));
            receive(5);
            for (std::size_t rest = 0; !last;) {
                rest += receive();
                for (; rest >= 100; rest -= 100) last = meter.count() || last;
            }
        }
    }
};

}  // namespace

int main(int argc, char** argv) {
    bench::options const o(argc, argv);
    client{o}.run();
    return 0;
}
