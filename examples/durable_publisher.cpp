// A publisher whose messages survive it: a session with a SQLite store. Three processes, one after the other, publish
// numbered readings; the first never reaches a server, the second ends in the middle of its work, without a word to
// anybody (as kill -9 would end it), and the third goes on where it stopped. The server, which is in this process too,
// has then got every reading, each once.
//
// Here the "processes" are sessions in one process, so that the example runs anywhere; tests/interop/kill_test.cpp
// kills real ones.
#include <runnel/mqtt/client/session.hpp>
#include <runnel/mqtt/store/sqlite_store.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>
#include <exception>
#include <filesystem>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace mqtt = runnel::mqtt;
using session = mqtt::session<runnel::tcp>;

namespace {

// The store's file, which must be on a local disk. Only one process at a time can open it.
mqtt::session_options options_with(std::string const& file) {
    mqtt::session_options options;
    options.credentials.client_id = "meter-7";  // the same in every process, or the session is another one
    options.store = std::make_shared<mqtt::sqlite_store>(file);
    return options;
}

// Publishes readings until there are `end`. How many there are already is what the store remembers.
void publish_readings(session& meter, std::uint64_t end) {
    std::printf("   %llu readings accepted before, %zu of them not acknowledged yet\n",
                static_cast<unsigned long long>(meter.accepted()), meter.restored());
    while (meter.accepted() < end) {
        auto const reading = std::to_string(meter.accepted());
        if (!meter.try_publish("readings", reading, {.qos = mqtt::qos::exactly_once})) break;
    }
    meter.save();  // from here on they survive; while `run` runs that happens by itself
}

// Runs a session until the server has acknowledged everything.
void finish(asio::io_context& context, session& meter) {
    std::exception_ptr failure;
    bool running = true;
    asio::co_spawn(context, meter.run(), [&](std::exception_ptr error) {
        failure = error;
        running = false;
    });
    while (running && (!meter.is_connected() || meter.counters().queued_bytes + meter.counters().in_flight != 0))
        context.run_one();
    if (running) asio::co_spawn(context, meter.disconnect(), [](std::exception_ptr) {});
    while (running) context.run_one();
    if (failure) std::rethrow_exception(failure);
}

void demonstrate(std::string const& file) {
    asio::io_context context;
    runnel::testing::broker server(context.get_executor());
    std::vector<std::string> arrived;
    server.hooks().on_publish = [&](auto const&, mqtt::publish const& m) { arrived.emplace_back(m.payload); };
    runnel::tcp const address{.host = "127.0.0.1", .port = server.listen_tcp()};

    std::printf("The first process has no network:\n");
    {
        session meter(context.get_executor(), address, options_with(file));
        publish_readings(meter, 100);
    }

    std::printf("The second one has, and ends in the middle:\n");
    {
        session meter(context.get_executor(), address, options_with(file));
        publish_readings(meter, 200);
        asio::cancellation_signal end;
        bool running = true;
        asio::co_spawn(context, meter.run(),
                       asio::bind_cancellation_slot(end.slot(), [&](std::exception_ptr) { running = false; }));
        while (arrived.size() < 50) context.run_one();
        end.emit(asio::cancellation_type::terminal);
        while (running) context.run_one();
        std::printf("   the server has %zu readings\n", arrived.size());
    }

    std::printf("The third one goes on:\n");
    {
        session meter(context.get_executor(), address, options_with(file));
        publish_readings(meter, 300);
        finish(context, meter);
    }

    std::printf("The server has %zu readings.\n", arrived.size());
    for (std::size_t i = 0; i < arrived.size(); ++i)
        if (arrived[i] != std::to_string(i)) throw std::runtime_error("a reading is missing or came twice");
    if (arrived.size() != 300) throw std::runtime_error("readings are missing");
}

}  // namespace

int main() try {
    auto const directory =
        std::filesystem::temp_directory_path() / ("runnel-durable-publisher-" + std::to_string(std::random_device{}()));
    std::filesystem::create_directory(directory);
    demonstrate((directory / "meter.db").string());
    std::filesystem::remove_all(directory);
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
