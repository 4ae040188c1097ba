// One large message, published and received in pieces, and in one piece: how fast, and with how much memory. The other
// end is a process that writes and reads prepared bytes.
//
//     benchmark-pieces pieces|whole BYTES

#include <runnel/mqtt/client/pieces.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include "report.hpp"
#include <arpa/inet.h>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <netinet/in.h>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

namespace mqtt = runnel::mqtt;
using session = mqtt::session<mqtt::with_pieces<runnel::tcp>>;
constexpr std::string_view topic = "large";

// --- the other end, which blocks

struct other_end {
    int fd;
    std::string room = std::string(256 * 1024, 'x');

    // The next packet, without what of it is beyond `room`. False: the end.
    bool read_packet() {
        std::size_t header = 0;
        do {
            if (::recv(fd, room.data() + header, 1, MSG_WAITALL) != 1) return false;
            ++header;
        } while (header < 2 || (room[header - 1] & 0x80) != 0);
        std::size_t left = 0;
        for (std::size_t i = header; --i != 0;) left = left << 7 | static_cast<std::size_t>(room[i] & 0x7F);
        for (bool first = true; left != 0; first = false) {
            auto const at = first ? header : 64;
            auto const n = ::recv(fd, room.data() + at, std::min(left, room.size() - at), 0);
            if (n <= 0) return false;
            left -= static_cast<std::size_t>(n);
        }
        return true;
    }
    void write(std::string_view bytes) const {
        while (!bytes.empty()) {
            auto const n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (n <= 0) ::_exit(1);
            bytes.remove_prefix(static_cast<std::size_t>(n));
        }
    }
    // Serves one client: a message of `size` bytes follows each SUBACK.
    void serve(std::size_t size) {
        while (read_packet()) {
            std::string const identifier = room.substr(2, 2);
            switch (static_cast<unsigned char>(room[0]) >> 4) {
                case 1: write({"\x20\x02\x00\x00", 4}); break;
                case 3: write({"\x40\x02\x00\x01", 4}); break;
                case 8: {
                    write("\x90\x03" + identifier + '\0');
                    char header[5];
                    write({header, static_cast<std::size_t>(mqtt::write_fixed_header(header, mqtt::packet_type::publish,
                                                                                     0, 2 + topic.size() + size) -
                                                            header)});
                    write(std::string(1, '\0') + static_cast<char>(topic.size()) + std::string(topic));
                    std::string const block(64 * 1024, 'x');
                    for (auto left = size; left != 0; left -= std::min(left, block.size()))
                        write(std::string_view(block).substr(0, left));
                    break;
                }
                default: break;
            }
        }
    }
};

// The highest that this process has had in memory, in bytes.
double peak_memory() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.starts_with("VmHWM:")) return std::atof(line.c_str() + 6) * 1024;
    return 0;
}

// --- this end

struct source {
    std::size_t bytes;
    std::uint64_t size() const { return bytes; }
    std::size_t read(std::uint64_t, std::span<char> into) {
        std::memset(into.data(), 'x', into.size());
        return into.size();
    }
};
struct counter {
    std::uint64_t received = 0;
    bool is_whole = false;
    void begin(mqtt::publish const&, std::uint64_t) {}
    void piece(std::string_view bytes) { received += bytes.size(); }
    void end() { is_whole = true; }
    void aborted(std::error_code) noexcept {}
};

double seconds_since(std::chrono::steady_clock::time_point begin) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

asio::awaitable<void> converse(session& s, asio::io_context& io, bool in_pieces, std::size_t size, double& sending,
                               double& receiving) {
    co_await s.connected();
    auto begin = std::chrono::steady_clock::now();
    if (in_pieces) {
        source from{size};
        co_await mqtt::publish_pieces(s, topic, from, {.qos = mqtt::qos::at_least_once});
    } else {
        std::string const payload(size, 'x');
        co_await s.publish(topic, payload, {.qos = mqtt::qos::at_least_once});
    }
    sending = seconds_since(begin);
    begin = std::chrono::steady_clock::now();
    auto inbox = co_await s.subscribe(topic);
    if (in_pieces) {
        counter to;
        auto stop = [&](std::exception_ptr) {};
        asio::co_spawn(io, mqtt::receive_pieces(s, inbox, to), stop);
        while (!to.is_whole) {
            auto pause = runnel::sleep_for(s.get_executor(), std::chrono::milliseconds(1));
            co_await std::move(pause);
        }
        receiving = seconds_since(begin);
        co_await s.disconnect();
        co_return;
    }
    auto const message = co_await inbox.receive();
    if (message.payload().size() != size) throw std::runtime_error("another message has come");
    receiving = seconds_since(begin);
    co_await s.disconnect();
}

}  // namespace

int main(int argc, char** argv) {
    std::string const how = argc > 1 ? argv[1] : "pieces";
    std::size_t const size = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 64 * 1024 * 1024;
    int const listening = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    if (::bind(listening, reinterpret_cast<sockaddr*>(&address), length) != 0 || ::listen(listening, 1) != 0 ||
        ::getsockname(listening, reinterpret_cast<sockaddr*>(&address), &length) != 0)
        return 1;
    auto const child = ::fork();
    if (child == 0) {
        other_end{::accept(listening, nullptr, nullptr)}.serve(size);
        ::_exit(0);
    }
    ::close(listening);

    asio::io_context io{1};
    mqtt::session_options o;
    o.credentials.client_id = "large";
    o.maximum_packet_size = mqtt::max_variable_integer + 5;
    o.maximum_queued = 2 * std::size_t{o.maximum_packet_size};
    session s(io.get_executor(), {{.host = "127.0.0.1", .port = ntohs(address.sin_port)}}, o);
    auto const rethrow = [](std::exception_ptr e) {
        if (e) std::rethrow_exception(e);
    };
    double const before = peak_memory();
    double sending = 0, receiving = 0;
    asio::co_spawn(io, s.run(), rethrow);
    asio::co_spawn(io, converse(s, io, how == "pieces", size, sending, receiving), rethrow);
    io.run();
    auto const figure = [&](char const* unit, double value) {
        report::figure("pieces", "large_message", how == "pieces" ? "runnel" : "runnel, in one piece", unit, value);
    };
    auto const bytes = static_cast<double>(size);
    figure("sent, MB/s", bytes / 1e6 / sending);
    figure("received, MB/s", bytes / 1e6 / receiving);
    figure("peak memory, KiB", (peak_memory() - before) / 1024);
    ::waitpid(child, nullptr, 0);
    return 0;
}
