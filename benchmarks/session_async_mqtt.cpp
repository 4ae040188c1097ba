// The session benchmark with async_mqtt's client, with coroutines as its examples use it.

#include "session_client.hpp"
#include <async_mqtt/all.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace {

namespace asio = boost::asio;
namespace am = async_mqtt;
using client_type = am::client<am::protocol_version::v3_1_1, am::protocol::mqtt>;
using task = asio::awaitable<void>;

char const* const who = "async_mqtt";

task connect(client_type& c, bench::options const& o, std::string id) {
    co_await c.async_underlying_handshake("127.0.0.1", std::to_string(o.port), asio::use_awaitable);
    am::v3_1_1::connect_packet packet{true, 0, std::move(id), std::nullopt, std::nullopt, std::nullopt};
    co_await c.async_start(std::move(packet), asio::use_awaitable);
}

struct client {
    bench::options const& o;
    asio::io_context io{1};
    client_type c{io.get_executor()};
    bench::meter meter{o, who};
    std::size_t begun = 0;

    task publish_once() {
        auto const qos = static_cast<am::qos>(o.qos());
        am::packet_id_type id = 0;
        if (qos != am::qos::at_most_once) {
            auto const free = c.acquire_unique_packet_id();
            if (!free) std::exit(1);
            id = *free;
        }
        am::v3_1_1::publish_packet packet{id, std::string(bench::topic), o.payload, qos};
        co_await c.async_publish(std::move(packet), asio::use_awaitable);
    }

    task publish_on() {
        while (begun < meter.total()) {
            ++begun;
            auto one = publish_once();
            co_await std::move(one);
            if (meter.count()) io.stop();
        }
    }

    task receive() {
        std::vector<am::topic_subopts> filters{{std::string(bench::filter), am::qos::at_most_once}};
        am::v3_1_1::subscribe_packet packet{*c.acquire_unique_packet_id(), std::move(filters)};
        co_await c.async_subscribe(std::move(packet), asio::use_awaitable);
        for (bool last = false; !last; last = meter.count()) co_await c.async_recv(asio::use_awaitable);
        io.stop();
    }

    task round_trips() {
        bench::trips all(o.messages);
        for (std::size_t i = 0; i < o.messages; ++i) {
            all.begin();
            auto one = publish_once();
            co_await std::move(one);
            all.end();
        }
        all.report(who);
        io.stop();
    }

    void spawn(task t) {
        asio::co_spawn(io, std::move(t), [](std::exception_ptr error) {
            if (error) std::rethrow_exception(error);
        });
    }

    task begin() {
        auto connecting = connect(c, o, "async_mqtt");
        co_await std::move(connecting);
        if (o.is("receive")) {
            spawn(receive());
        } else if (o.is("publish")) {
            auto const window = o.qos() == 0 ? 20 : o.window();
            for (std::size_t i = 0; i < window; ++i) spawn(publish_on());
        } else {
            spawn(round_trips());
        }
    }

    void run() {
        spawn(begin());
        io.run();
    }
};

void idle(bench::options const& o) {
    asio::io_context io(1);
    std::vector<std::unique_ptr<client_type>> all;
    double const before = bench::heap_bytes();
    for (std::size_t i = 0; i < o.messages; ++i) {
        all.push_back(std::make_unique<client_type>(io.get_executor()));
        asio::co_spawn(io, connect(*all.back(), o, "async_mqtt-" + std::to_string(i)), [](std::exception_ptr error) {
            if (error) std::rethrow_exception(error);
        });
        io.poll();
    }
    io.run_for(std::chrono::seconds(3));
    report::figure("session", "idle", who, "bytes/session",
                   (bench::heap_bytes() - before) / static_cast<double>(o.messages));
    std::_Exit(0);
}

}  // namespace

int main(int argc, char** argv) {
    bench::options const o(argc, argv);
    if (o.is("idle")) {
        idle(o);
    } else {
        client c{o};
        c.run();
    }
    std::_Exit(0);
}
