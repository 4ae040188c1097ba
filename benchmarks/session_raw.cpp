// The bound for the session benchmark: the same bytes through a bare socket, or one with TLS, prepared, 20 messages a
// write (in one frame over WebSocket); QoS 1 waits for the 20 acknowledgements; what is received is not looked at.
// `sessions_N` does that over N sockets, MESSAGES in all, for fleet.cpp.

#include <openssl/ssl.h>

#include "openssl_memory.hpp"
#include "session_client.hpp"
#include <array>
#include <memory>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

namespace {

constexpr std::size_t pack = 20;

// One binary message of a client, masked with a key of zeros, which leaves its bytes as they are.
std::string frame(std::string_view payload) {
    std::string all = "\x82";
    if (payload.size() < 126)
        all += static_cast<char>(0x80 | payload.size());
    else
        all.append({'\xFE', static_cast<char>(payload.size() >> 8), static_cast<char>(payload.size())});
    return all.append(4, '\0').append(payload);
}

struct client {
    bench::options const& o;
    bool const websocket = o.group == "ws" || o.group == "wss";
    bool const secure = o.group == "wss";
    bench::meter meter{o, secure ? "raw TLS" : "raw socket"};
    int fd = -1;
    SSL* tls = nullptr;
    static inline std::array<char, 64 * 1024> room{};

    void send(std::string_view bytes) {
        while (!bytes.empty()) {
            ssize_t const n = secure ? SSL_write(tls, bytes.data(), static_cast<int>(bytes.size()))
                                     : ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (n <= 0) std::exit(1);
            bytes.remove_prefix(static_cast<std::size_t>(n));
        }
    }
    void send_packets(std::string_view bytes) { send(websocket ? frame(bytes) : std::string(bytes)); }

    std::size_t receive() {
        ssize_t const n = secure ? SSL_read(tls, room.data(), static_cast<int>(room.size()))
                                 : ::recv(fd, room.data(), room.size(), 0);
        if (n <= 0) std::exit(1);
        return static_cast<std::size_t>(n);
    }
    // The packets of so many bytes, in one frame.
    void receive_packets(std::size_t bytes) {
        if (websocket) bytes += 2;
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
        if (secure) begin_tls();
        if (websocket) upgrade();
        send_packets(std::string_view("\x10\x0f\0\x04MQTT\x04\x02\0\0\0\x03raw", 17));
        receive_packets(4);
    }

    void begin_tls() {
        SSL_CTX* const context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_read_ahead(context, 1);
        SSL_CTX_set_default_read_buffer_len(context, 64 * 1024);
        tls = SSL_new(context);
        SSL_set_fd(tls, fd);
        if (SSL_connect(tls) != 1) std::exit(1);
    }

    void upgrade() {
        send(
            "GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n");
        for (std::string answer; !answer.ends_with("\r\n\r\n");) {
            std::size_t const n = receive();
            answer.append(room.data(), n);
        }
    }

    // Messages with identifiers from 1.
    std::string publishes() const {
        std::string all;
        for (std::size_t i = 1; i <= pack; ++i) {
            auto const qos = o.qos();
            all += static_cast<char>(0x30 | qos << 1);
            std::size_t rest = 2 + bench::topic.size() + (qos == 0 ? 0 : 2) + o.payload.size();
            for (; rest >= 128; rest >>= 7) all += static_cast<char>(0x80 | rest);
            all.append({static_cast<char>(rest), '\0', '\x20'});
            all.append(bench::topic);
            if (qos != 0) all.append({'\0', static_cast<char>(i)});
            all.append(o.payload);
        }
        return all;
    }

    void run() {
        connect();
        bool last = false;
        if (o.is("publish")) {
            auto const packets = publishes();
            auto const bytes = websocket ? frame(packets) : packets;
            while (!last) {
                send(bytes);
                if (o.qos() != 0) receive_packets(4 * pack);
                for (std::size_t i = 0; i < pack; ++i) last = meter.count() || last;
            }
        } else {
            send_packets(std::string_view("\x82\x0e\0\x01\0\x09sensors/#\0", 16));
            receive_packets(5);
            std::size_t const size = websocket ? 102 : 100;
            for (std::size_t rest = 0; !last;) {
                rest += receive();
                for (; rest >= size; rest -= size) last = meter.count() || last;
            }
        }
    }
};

// Whoever is answered sends the next pack.
void sessions(bench::options const& o) {
    bench::meter meter(o, "raw socket");
    int const epoll = ::epoll_create1(0);
    auto const n = static_cast<std::size_t>(std::stoull(o.name.substr(o.name.find('_') + 1)));
    std::vector<std::unique_ptr<client>> all;
    for (std::size_t i = 0; i < n; ++i) {
        all.push_back(std::make_unique<client>(client{o}));
        all.back()->connect();
        epoll_event e{};
        e.events = EPOLLIN;
        e.data.ptr = all.back().get();
        ::epoll_ctl(epoll, EPOLL_CTL_ADD, all.back()->fd, &e);
    }
    auto const bytes = all.front()->publishes();
    for (auto& each : all) each->send(bytes);
    std::array<epoll_event, 128> events;
    for (bool last = false; !last;) {
        int const ready = ::epoll_wait(epoll, events.data(), static_cast<int>(events.size()), -1);
        for (int i = 0; i < ready; ++i) {
            auto& c = *static_cast<client*>(events[static_cast<std::size_t>(i)].data.ptr);
            c.receive_packets(4 * pack);
            for (std::size_t m = 0; m < pack; ++m) last = meter.count() || last;
            c.send(bytes);
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    bench::options const o(argc, argv);
    bench::tell_openssl_apart();
    if (o.is("sessions"))
        sessions(o);
    else
        client{o}.run();
    return 0;
}
