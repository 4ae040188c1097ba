// A file as one message: sent piece by piece as the network takes it, with progress, and received into another file,
// with no more than a few pieces of 64 KiB in memory at either end.
//
// The broker runs in this process, and keeps whole messages; so does every broker that takes them.
#include <runnel/mqtt/client/pieces.hpp>
#include <runnel/runnel.hpp>
#include <runnel/testing/broker/broker.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <unistd.h>

namespace mqtt = runnel::mqtt;
using session = mqtt::session<mqtt::with_pieces<runnel::tcp>>;

// The payload of a message: a file, from any place of it, so that it can be sent again after a lost connection.
class file_source {
  public:
    explicit file_source(std::filesystem::path const& path)
        : size_(std::filesystem::file_size(path)), file_(path, std::ios::binary) {
        file_.exceptions(std::ios::badbit | std::ios::failbit);
    }
    std::uint64_t size() const { return size_; }
    std::size_t read(std::uint64_t offset, std::span<char> into) {
        file_.seekg(static_cast<std::streamoff>(offset));
        file_.read(into.data(), static_cast<std::streamsize>(into.size()));
        return into.size();
    }

  private:
    std::uint64_t size_;
    std::ifstream file_;
};

// Takes messages into files. What is not whole has another name, and does not stay.
class file_sink {
  public:
    explicit file_sink(std::filesystem::path folder) : folder_(std::move(folder)) {}

    void begin(mqtt::publish const& head, std::uint64_t size) {
        auto const name = head.topic.substr(head.topic.rfind('/') + 1);
        std::printf("receiving %s: %llu bytes\n", std::string(name).c_str(), static_cast<unsigned long long>(size));
        path_ = folder_ / name;
        file_.open(part(), std::ios::binary | std::ios::trunc);
        file_.exceptions(std::ios::badbit | std::ios::failbit);
    }
    void piece(std::string_view bytes) {
        file_.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        largest = (std::max)(largest, bytes.size());
    }
    void end() {
        file_.close();
        std::filesystem::rename(part(), path_);
        ++received;
    }
    void aborted(std::error_code why) noexcept {
        std::printf("not whole: %s\n", why.message().c_str());
        file_.exceptions(std::ios::goodbit);
        file_.close();
        std::error_code ignored;
        std::filesystem::remove(part(), ignored);
    }

    std::size_t largest = 0;
    int received = 0;

  private:
    std::filesystem::path part() const { return path_.string() + ".part"; }

    std::filesystem::path folder_;
    std::filesystem::path path_;
    std::ofstream file_;
};

mqtt::session_options options(std::string client_id) {
    mqtt::session_options o;
    o.credentials.client_id = std::move(client_id);
    o.version = mqtt::protocol_version::v5;
    o.maximum_packet_size = 268'435'460;  // the largest that MQTT has
    return o;
}

asio::awaitable<void> send(session& s, std::filesystem::path path) {
    file_source source(path);
    int told = -1;
    auto progress = [&](std::uint64_t taken, std::uint64_t size) {
        int const percent = static_cast<int>(taken * 100 / size);
        if (percent / 25 != told / 25 || told < 0) std::printf("sent: %d %%\n", percent);
        told = percent;
    };
    auto sending =
        mqtt::publish_pieces(s, "files/video.mp4", source, {.qos = mqtt::qos::at_least_once}, std::move(progress));
    co_await std::move(sending);
    std::puts("sent, and acknowledged");
}

void require(bool condition, char const* what) {
    if (!condition) throw std::runtime_error(what);
}

int main() try {
    auto const folder = std::filesystem::temp_directory_path() / ("runnel-pieces-" + std::to_string(::getpid()));
    std::filesystem::create_directory(folder);
    constexpr std::size_t size = 8 * 1024 * 1024 + 5;
    {
        std::ofstream file(folder / "original", std::ios::binary);
        std::string block(4096, 'x');
        for (std::size_t left = size; left != 0; left -= (std::min)(left, block.size())) {
            block[left % 4096] = static_cast<char>(left >> 12);
            file.write(block.data(), static_cast<std::streamsize>((std::min)(left, block.size())));
        }
    }

    asio::io_context context;
    runnel::testing::broker broker(context.get_executor());
    runnel::tcp const server{.host = "127.0.0.1", .port = broker.listen_tcp()};
    session receiver(context.get_executor(), {server}, options("receiver"));
    session sender(context.get_executor(), {server}, options("sender"));
    file_sink sink(folder);
    auto const report = [](std::exception_ptr) {};
    asio::co_spawn(context, receiver.run(), report);
    asio::co_spawn(context, sender.run(), report);
    auto const rethrow = [](std::exception_ptr error) {
        if (error) std::rethrow_exception(error);
    };
    auto const all = [&]() -> asio::awaitable<void> {
        auto files = co_await receiver.subscribe("files/#");
        asio::co_spawn(context, mqtt::receive_pieces(receiver, files, sink), report);
        co_await send(sender, folder / "original");
        while (sink.received == 0) {
            auto pause = runnel::sleep_for(receiver.get_executor(), std::chrono::milliseconds(1));
            co_await std::move(pause);
        }
        co_await sender.disconnect();
        co_await receiver.disconnect();
        broker.close();
    };
    asio::co_spawn(context, all(), rethrow);
    context.run();

    std::ifstream before(folder / "original", std::ios::binary), after(folder / "video.mp4", std::ios::binary);
    bool const same = std::equal(std::istreambuf_iterator<char>(before), {}, std::istreambuf_iterator<char>(after), {});
    require(same, "the file has arrived as another one");
    require(sink.largest <= mqtt::piece_size, "a piece is too large");
    std::printf("the same file, in pieces of up to %zu bytes\n", sink.largest);
    std::filesystem::remove_all(folder);
    return 0;
} catch (std::exception const& e) {
    std::printf("%s\n", e.what());
    return 1;
}
