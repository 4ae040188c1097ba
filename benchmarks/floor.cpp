// What a message costs at the least with a coroutine of Asio's a call: the frames, one copy of the bytes, the waiting,
// and the system calls of a client that writes once and reads once for each batch. Nothing is checked, decoded, kept
// for a reconnect, or bounded. The targets of the rows that are bound by these are 1.3 times what this costs.
//
//     benchmark-floor PORT CASE MESSAGES

#include <runnel/coro/wait_list.hpp>
#include <runnel/mqtt/client/publish_result.hpp>
#include <runnel/mqtt/client/session_options.hpp>

#include <asio/buffer.hpp>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/read.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>

#include "session_client.hpp"
#include <array>
#include <cstring>
#include <exception>
#include <string_view>

namespace {

using asio::ip::tcp;
namespace mqtt = runnel::mqtt;
template <class T>
using task = asio::awaitable<T>;

class client {
  public:
    explicit client(bench::options const& options) : o_(options), waiters_(io_.get_executor()) {
        socket_.connect({asio::ip::address_v4::loopback(), o_.port});
        socket_.set_option(tcp::no_delay(true));
        send(
            std::string_view("\x10\x11\0\x04MQTT\x04\x02\0\0\0\x05"
                             "floor",
                             19));
        asio::read(socket_, asio::buffer(room_, 4));
    }

    void run() {
        if (o_.is("receive")) {
            send(std::string_view("\x82\x0e\0\x01\0\x09sensors/#\0", 16));
            asio::read(socket_, asio::buffer(room_, 5));
            spawn(receive_all());
        } else if (o_.qos() == 0) {
            spawn(publish_all());
        } else {
            for (std::size_t i = 0; i < o_.window(); ++i) spawn(publish_all());
            spawn(exchange());
        }
        socket_.non_blocking(true);
        io_.run();
    }

  private:
    static constexpr std::size_t batch = 64 * 1024;

    void spawn(task<void> t) {
        asio::co_spawn(io_, std::move(t), [](std::exception_ptr e) {
            if (e) std::rethrow_exception(e);
        });
    }
    void send(std::string_view bytes) { asio::write(socket_, asio::buffer(bytes)); }

    // As a session's, with its arguments and its result.
    task<mqtt::publish_result> publish(std::string_view topic, std::string_view payload, mqtt::publish_options o) {
        append(topic, payload, o.qos);
        if (o.qos == mqtt::qos::at_most_once) {
            if (size_ > batch) {
                co_await asio::async_write(socket_, asio::buffer(out_, size_), asio::use_awaitable);
                size_ = 0;
            }
            co_return mqtt::publish_result{};
        }
        runnel::waiter<asio::any_io_executor> w;
        co_await waiters_.wait(w);
        co_return mqtt::publish_result{mqtt::publish_result::outcome::acknowledged, {}, {}};
    }

    // A packet of less than 16 KiB.
    void append(std::string_view topic, std::string_view payload, mqtt::qos qos) {
        char* at = out_.data() + size_;
        std::size_t const rest = 2 + topic.size() + (qos == mqtt::qos::at_most_once ? 0 : 2) + payload.size();
        *at++ = static_cast<char>(0x30 | static_cast<int>(qos) << 1);
        *at++ = static_cast<char>(0x80 | rest % 128);
        *at++ = static_cast<char>(rest / 128);
        *at++ = 0;
        *at++ = static_cast<char>(topic.size());
        at = static_cast<char*>(std::memcpy(at, topic.data(), topic.size())) + topic.size();
        if (qos != mqtt::qos::at_most_once) {
            *at++ = 0;
            *at++ = 1;
        }
        at = static_cast<char*>(std::memcpy(at, payload.data(), payload.size())) + payload.size();
        auto const end = static_cast<std::size_t>(at - out_.data());
        if (qos != mqtt::qos::at_most_once) std::memcpy(kept_.data(), out_.data() + size_, end - size_);
        size_ = end;
    }

    task<void> publish_all() {
        mqtt::publish_options const how{.qos = static_cast<mqtt::qos>(o_.qos())};
        while (begun_ < meter_.total()) {
            ++begun_;
            co_await publish(bench::topic, o_.payload, how);
            if (meter_.count()) io_.stop();
        }
    }

    // Writes what the publishers have left, reads what answers it, and lets them go on.
    task<void> exchange() {
        for (;;) {
            send({out_.data(), std::exchange(size_, 0)});
            co_await answers();
            if (o_.qos() == 2) {
                for (std::size_t i = 0; i < o_.window(); ++i) std::memcpy(out_.data() + 4 * i, "\x62\x02\0\x01", 4);
                send({out_.data(), 4 * o_.window()});
                co_await answers();
            }
            waiters_.queue()->begin_turn();
            waiters_.wake_all({});
            waiters_.queue()->end_turn();
        }
    }
    task<void> answers() {
        for (std::size_t n = 0; n < 4 * o_.window();)
            n += co_await socket_.async_read_some(asio::buffer(room_), asio::use_awaitable);
    }

    struct message {
        char const* at;
        std::size_t size;
    };

    task<message> receive() { co_return message{kept_.data() + taken_, *length_at(taken_)}; }

    task<void> receive_all() {
        std::size_t rest = 0;
        for (;;) {
            rest += co_await socket_.async_read_some(asio::buffer(room_.data() + rest, room_.size() - rest),
                                                     asio::use_awaitable);
            std::size_t at = 0;
            // The other side sends packets of less than 128 bytes.
            while (rest - at > 2 && rest - at >= 2 + std::size_t{static_cast<unsigned char>(room_[at + 1])}) {
                std::size_t const size = 2 + std::size_t{static_cast<unsigned char>(room_[at + 1])};
                std::memcpy(kept_.data() + at, room_.data() + at, size);
                at += size;
            }
            for (taken_ = 0; taken_ < at;) {
                auto const m = co_await receive();
                taken_ += 2 + m.size;
                if (meter_.count()) {
                    io_.stop();
                    co_return;
                }
            }
            std::memmove(room_.data(), room_.data() + at, rest - at);
            rest -= at;
        }
    }
    unsigned char const* length_at(std::size_t at) const noexcept {
        return reinterpret_cast<unsigned char const*>(kept_.data()) + at + 1;
    }

    bench::options const& o_;
    bench::meter meter_{o_, "floor"};
    asio::io_context io_{1};
    tcp::socket socket_{io_};
    runnel::wait_list<asio::any_io_executor> waiters_;
    std::size_t begun_ = 0;
    std::size_t size_ = 0;   // of what is to be written
    std::size_t taken_ = 0;  // of what has been read
    std::array<char, 4 * batch> out_;
    std::array<char, batch> room_;
    std::array<char, 4 * batch> kept_;
};

}  // namespace

int main(int argc, char** argv) {
    bench::options const o(argc, argv);
    std::make_unique<client>(o)->run();
    return 0;
}
