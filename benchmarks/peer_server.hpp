#pragma once

#include "peer_channel.hpp"
#include "peer_mqtt.hpp"
#include "peer_websocket.hpp"
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string>
#include <string_view>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <unordered_map>

/// The other side of the session benchmarks: speaks just enough of MQTT to acknowledge what is published, and to send
/// messages as fast as they are taken to whoever subscribes; over TCP, WebSocket, or either of them over TLS, which the
/// first bytes of a connection tell apart. So cheap that the client is the bottleneck: raw sockets and epoll, one
/// thread, acknowledgements of all that one read has brought in one write. It ends connections whose clients do not
/// ping in time.
namespace peer {

using clock_type = std::chrono::steady_clock;

/// What one client is told, from the first byte on.
class conversation {
  public:
    conversation(int fd, std::size_t floods) noexcept : channel_(fd), floods_left_(floods) {}

    /// Reads what is there, and answers. False: the connection has ended.
    bool serve(tls_settings const& settings) {
        static std::array<char, 256 * 1024> room;
        for (ssize_t n = 1; n > 0;) {
            n = channel_.read(room.data(), room.size(), settings);
            if (n < 0) return false;
            if (n > 0 && !take(room.data(), static_cast<std::size_t>(n))) return false;
            if (!channel_.holds_more()) break;
        }
        return send();
    }

    /// Whether it has more to send, and is to be served when there is room to write, too.
    bool waits_for_room() const noexcept { return waits_; }

    bool is_silent(clock_type::time_point now) const noexcept {
        return mqtt_.keep_alive().count() != 0 && now - heard_ >= mqtt_.keep_alive() * 3 / 2;
    }

  private:
    enum class framing { unknown, none, websocket };

    bool take(char* bytes, std::size_t size) {
        heard_ = clock_type::now();
        if (framing_ == framing::unknown) {
            framing_ = bytes[0] == 'G' ? framing::websocket : framing::none;
            upgrades_ = framing_ == framing::websocket;
        }
        if (upgrades_) {
            in_.append(bytes, size);
            if (!in_.ends_with("\r\n\r\n")) return true;  // a client waits for the answer before it sends more
            out_ = answer_upgrade(in_);
            in_.clear();
            upgrades_ = false;
            return !out_.empty();
        }
        if (framing_ == framing::websocket) size = frames_.unframe(bytes, size);
        std::string_view input(bytes, size);
        if (!in_.empty()) input = in_.append(input);
        answers_.clear();
        std::string rest(mqtt_.handle(input, framing_ == framing::websocket ? answers_ : out_));
        in_ = std::move(rest);
        if (!answers_.empty()) append_frame(out_, answers_);
        if (mqtt_.floods() && flood_.empty() && floods_left_ != 0)
            mqtt_.flood([this](std::string_view packet) {
                framing_ == framing::websocket ? append_frame(flood_, packet) : void(flood_.append(packet));
            });
        return !frames_.closed() && !mqtt_.has_left();
    }

    bool send() {
        for (std::size_t room = flood_at_once;;) {
            // Answers go between two turns of the flood; what TLS has not taken yet must be offered again.
            if (!refused_) answering_ = !out_.empty() && flooded_ == 0;
            waits_ = answering_ || !flood_.empty();
            if (!waits_ || (!answering_ && room == 0)) return true;
            ssize_t const n = channel_.write(answering_ ? out_ : std::string_view(flood_).substr(flooded_, room));
            if (n < 0) return false;
            refused_ = n == 0;
            if (refused_) return true;
            auto const size = static_cast<std::size_t>(n);
            if (answering_) {
                out_.erase(0, size);
                continue;
            }
            room -= size;
            flooded_ = (flooded_ + size) % flood_.size();
            if (flooded_ == 0 && --floods_left_ == 0) flood_.clear();
        }
    }

    // Less than a TCP connection's first window on loopback, so that how much comes at once is no matter of time.
    static constexpr std::size_t flood_at_once = 60'000;

    channel channel_;
    framing framing_ = framing::unknown;
    bool upgrades_ = false;
    bool waits_ = false;      // for room, or for the next turn
    bool refused_ = false;    // what was offered last
    bool answering_ = false;  // and not flooding
    unframer frames_;
    acknowledger mqtt_;
    std::string in_;
    std::string out_;
    std::string answers_;
    std::string flood_;
    std::size_t flooded_ = 0;  // how far the flood has got
    std::size_t floods_left_;  // of the same again
    clock_type::time_point heard_ = clock_type::now();
};

/// All clients of one port.
class server {
  public:
    /// Whoever subscribes is sent so many thousand messages.
    explicit server(std::size_t thousands = static_cast<std::size_t>(-1))
        : thousands_(thousands),
          epoll_(::epoll_create1(0)),
          listener_(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof(address);
        auto* const a = reinterpret_cast<sockaddr*>(&address);
        if (::bind(listener_, a, size) != 0 || ::listen(listener_, 4096) != 0 ||
            ::getsockname(listener_, a, &size) != 0)
            fail("listening");
        watch(listener_, EPOLLIN, EPOLL_CTL_ADD);
        port_ = ntohs(address.sin_port);
    }

    std::uint16_t port() const noexcept { return port_; }
    /// From now on `turn` tells when this descriptor can be read from.
    void watch(int fd) { watch(fd, EPOLLIN, EPOLL_CTL_ADD); }

    /// Serves whoever has something for it, for which it waits at most so long, in milliseconds. False: what is watched
    /// can be read from.
    bool turn(int limit) {
        std::array<epoll_event, 256> events;
        int const n = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), limit);
        for (int i = 0; i < n; ++i) {
            int const fd = events[static_cast<std::size_t>(i)].data.fd;
            if (fd == listener_)
                accept();
            else if (!serve(fd))
                return false;
        }
        if (clock_type::now() < next_look_) return true;
        next_look_ = clock_type::now() + std::chrono::milliseconds(500);
        end_silent();
        return true;
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
            conversations_.emplace(fd, std::make_unique<conversation>(fd, thousands_));
            watch(fd, EPOLLIN, EPOLL_CTL_ADD);
        }
    }

    bool serve(int fd) {
        auto const found = conversations_.find(fd);
        if (found == conversations_.end()) return false;
        auto& c = *found->second;
        bool const waited = c.waits_for_room();
        if (!c.serve(settings_))
            conversations_.erase(found);
        else if (c.waits_for_room() != waited)
            watch(fd, waited ? EPOLLIN : EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
        return true;
    }

    void end_silent() {
        auto const now = clock_type::now();
        auto const ended = std::erase_if(conversations_, [&](auto const& each) { return each.second->is_silent(now); });
        if (ended != 0) std::fprintf(stderr, "%zu clients have not pinged in time\n", ended);
    }

    std::size_t thousands_;
    int epoll_;
    int listener_;
    std::uint16_t port_ = 0;
    clock_type::time_point next_look_{};
    tls_settings settings_;
    std::unordered_map<int, std::unique_ptr<conversation>> conversations_;
};

}  // namespace peer
