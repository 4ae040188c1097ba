// A process for kill_test.cpp to kill: a session with a SQLite store, which publishes or receives numbered messages.
//
// usage: durable_client publish PORT VERSION DIRECTORY COUNT   publishes COUNT more messages, and ends when all are
//                                                              acknowledged
//        durable_client receive PORT VERSION DIRECTORY         writes down what it receives, and ends after "end"
//        durable_client subscribe PORT VERSION DIRECTORY       ends as soon as the subscription is granted
#include <runnel/mqtt/client/session.hpp>
#include <runnel/mqtt/store/sqlite_store.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>

#include <cstdint>
#include <cstdio>
#include <deque>
#include <fcntl.h>
#include <memory>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <utility>

namespace {

namespace mqtt = runnel::mqtt;
using session = mqtt::session<runnel::tcp>;

constexpr char published_topic[] = "kill/published";
constexpr char received_topic[] = "kill/received";

struct settings {
    std::string mode;
    std::uint16_t port;
    mqtt::protocol_version version;
    std::string directory;
    std::uint64_t count;
};

// How many messages are known to be stored: survives kill -9, as the store must.
class note {
  public:
    explicit note(std::string const& file) : file_(::open(file.c_str(), O_RDWR | O_CREAT, 0644)) {}
    note(note const&) = delete;
    note& operator=(note const&) = delete;
    ~note() { ::close(file_); }

    std::uint64_t read() const {
        std::uint64_t value = 0;
        return ::pread(file_, &value, sizeof value, 0) == sizeof value ? value : 0;
    }
    void write(std::uint64_t value) const {
        if (::pwrite(file_, &value, sizeof value, 0) != sizeof value) throw std::runtime_error("note");
    }

  private:
    int file_;
};

asio::awaitable<void> turn() { co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable); }

asio::awaitable<void> publish(session& s, settings const& with) {
    note const stored(with.directory + "/note");
    if (s.accepted() < stored.read()) throw std::runtime_error("messages that were stored have gone");
    auto const end = s.accepted() + with.count;
    while (s.accepted() < end) {
        auto const number = s.accepted();
        std::string const payload = std::to_string(number) + ' ' + std::string(number * 37 % 300, 'x');
        auto const quality = number % 2 == 0 ? mqtt::qos::exactly_once : mqtt::qos::at_least_once;
        if (!s.try_publish(published_topic, payload, {.qos = quality})) {
            co_await runnel::sleep_for<asio::any_io_executor>(s.get_executor(), std::chrono::milliseconds(1));
        } else if (number % 19 == 0) {
            s.save();
            stored.write(number + 1);
        } else if (number % 7 == 0) {
            co_await turn();
        }
    }
    for (auto now = s.counters(); !s.is_connected() || now.queued_bytes != 0 || now.in_flight != 0; now = s.counters())
        co_await runnel::sleep_for<asio::any_io_executor>(s.get_executor(), std::chrono::milliseconds(1));
    std::printf("%llu\n", static_cast<unsigned long long>(s.accepted()));
    co_await s.disconnect();
}

// In the transaction in which the message becomes taken.
void write_down(mqtt::sqlite_store& store, mqtt::message const& m) {
    std::string const sql = "INSERT INTO taken VALUES(" + std::string(m.payload().substr(0, m.payload().find(' '))) +
                            ',' + std::to_string(static_cast<int>(m.qos())) + ')';
    if (sqlite3_exec(store.transaction(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK)
        throw std::runtime_error(sql);
}

asio::awaitable<void> receive(session& s, mqtt::sqlite_store& store, settings const& with) {
    sqlite3_exec(store.transaction(), "CREATE TABLE IF NOT EXISTS taken(number INTEGER, quality INTEGER)", nullptr,
                 nullptr, nullptr);
    auto inbox = co_await s.subscribe(received_topic);
    if (with.mode == "subscribe") {
        co_await s.disconnect();
        co_return;
    }
    // Some messages wait a while until they are taken.
    std::deque<mqtt::message> held;
    for (bool ended = false; !ended || !held.empty();) {
        if (!ended) {
            auto m = co_await inbox.receive();
            ended = m.payload() == "end";
            if (!ended) held.push_back(std::move(m));
        }
        while (held.size() > (ended ? 0u : 3u)) {
            write_down(store, held.front());
            held.pop_front();
        }
    }
    co_await s.disconnect();
}

int run(settings const& with) {
    auto const store = std::make_shared<mqtt::sqlite_store>(with.directory + "/store.db",
                                                            mqtt::sqlite_options{.lock_wait = std::chrono::seconds(5)});
    mqtt::session_options options;
    options.credentials.client_id = with.mode == "publish" ? "publisher" : "receiver";
    options.version = with.version;
    options.maximum_queued = 16 * 1024;
    options.maximum_in_flight = 100;
    // Debian's mosquitto 2.0.11 sends again more than the receive maximum allows.
    options.receive_maximum = 65535;
    options.reconnect.initial = options.reconnect.maximum = std::chrono::milliseconds(5);
    options.store = store;

    asio::io_context context;
    session s(context.get_executor(), runnel::tcp{.host = "127.0.0.1", .port = with.port}, options);
    int running = 2;
    std::exception_ptr failure;
    auto const on_end = [&](std::exception_ptr error) {
        if (error && !failure) failure = error;
        --running;
    };
    // The subscription is there before the first message can be.
    asio::co_spawn(context, with.mode == "publish" ? publish(s, with) : receive(s, *store, with), on_end);
    asio::co_spawn(context, s.run(), on_end);
    while (running > 0 && !failure) context.run_one();
    if (failure) std::rethrow_exception(failure);
    return 0;
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc < 5) throw std::runtime_error("usage: durable_client MODE PORT VERSION DIRECTORY [COUNT]");
    settings with;
    with.mode = argv[1];
    with.port = static_cast<std::uint16_t>(std::stoi(argv[2]));
    with.version = static_cast<mqtt::protocol_version>(std::stoi(argv[3]));
    with.directory = argv[4];
    with.count = argc > 5 ? std::stoull(argv[5]) : 0;
    return run(with);
} catch (std::exception const& error) {
    std::fprintf(stderr, "durable_client: %s\n", error.what());
    return 1;
}
