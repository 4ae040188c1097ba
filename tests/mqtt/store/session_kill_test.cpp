#include <runnel/mqtt/client/session.hpp>
#include <runnel/mqtt/store/sqlite_store.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/awaitable.hpp>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <doctest/doctest.h>

#include "support/faulty_files.hpp"
#include "support/process.hpp"
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

// A process with a session and its store, which is killed (SIGKILL) at the n-th write of the store, for each n, and
// another that goes on with the same file. The broker is in this process, and counts.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::qos;

constexpr std::size_t messages = 24;

// Messages in turn of QoS 1 and 2, two of each kind before the first of them is waited for.
qos quality_of(std::size_t i) noexcept { return i % 2 == 0 ? qos::at_least_once : qos::exactly_once; }

// What the process does that may be killed: sends those of the numbered messages that have not been accepted by the
// session of an earlier one.
asio::awaitable<void> send_all(mqtt::session<runnel::tcp>& s) {
    while (s.accepted() < messages) {
        for (std::size_t n = 0; n < 4 && s.accepted() < messages; ++n) {
            auto const i = static_cast<std::size_t>(s.accepted());
            s.try_publish("t", std::to_string(i), {.qos = quality_of(i)});
        }
        auto draining = s.drained();
        co_await std::move(draining);
    }
    auto draining = s.drained();
    co_await std::move(draining);
    auto disconnecting = s.disconnect();
    co_await std::move(disconnecting);
}

[[noreturn]] void be_client(std::uint16_t port, std::string const& file, test::file_plan plan) {
    ::close_range(3, ~0u, 0);  // what belongs to the broker
    bool well = true;
    try {
        test::faulty_files const files(plan);
        asio::io_context io;
        mqtt::session_options o;
        o.credentials.client_id = "client";
        o.version = mqtt::protocol_version::v5;
        o.store = std::make_shared<mqtt::sqlite_store>(file);
        o.reconnect.initial = o.reconnect.maximum = std::chrono::milliseconds(5);
        mqtt::session s(io.get_executor(), runnel::tcp{.host = "127.0.0.1", .port = port}, std::move(o));
        auto const note = [&](std::exception_ptr e) { well = well && !e; };
        asio::co_spawn(io, s.run(), note);
        asio::co_spawn(io, send_all(s), note);
        io.run();
    } catch (std::exception const&) {
        well = false;
    }
    ::_exit(well ? 0 : 1);
}

struct counting_broker {
    counting_broker() {
        broker.hooks().on_publish = [this](auto const&, mqtt::publish const& m) {
            ++arrived.at(std::stoul(std::string(m.payload)));
        };
    }
    ~counting_broker() {
        broker.close();
        io.restart();
        io.run();
    }
    // Returns the status with which the process ends.
    int serve(std::string const& file, test::file_plan plan) {
        auto const child = ::fork();
        if (child == 0) be_client(port, file, plan);
        int status = 0;
        while (::waitpid(child, &status, WNOHANG) == 0) {
            io.restart();
            io.run_for(std::chrono::milliseconds(1));
        }
        io.restart();
        io.poll();
        return status;
    }
    asio::io_context io;
    runnel::testing::broker broker{io.get_executor()};
    std::uint16_t port = broker.listen_tcp();
    std::vector<std::size_t> arrived = std::vector<std::size_t>(messages);
};

}  // namespace

TEST_CASE("a process that is killed at any write of its store loses no message, and no QoS 2 message comes twice") {
    std::size_t second_kills = 0, repeated = 0;
    auto const steps = test::writes | test::deletes;
    auto const first_kills = test::kill_at_each(steps, [&](std::string const& file, test::file_plan const& plan) {
        counting_broker b;
        bool const killed = test::was_killed(b.serve(file, plan));
        // The next process is killed sooner or later than this one, the last is not.
        if (killed && test::was_killed(b.serve(file, {.at = plan.at / 2 + 3, .where = steps, .half = !plan.half}))) {
            ++second_kills;
            CHECK_FALSE(test::was_killed(b.serve(file, {})));
        }
        for (std::size_t i = 0; i < messages; ++i) {
            CAPTURE(i);
            CHECK(b.arrived[i] >= 1);
            if (quality_of(i) == qos::exactly_once) CHECK(b.arrived[i] == 1);
            repeated += b.arrived[i] - 1;
        }
        CHECK(b.broker.counters().protocol_errors == 0);
        return killed;
    });
    auto const kills = first_kills + second_kills;
    MESSAGE(kills << " kills, " << repeated << " messages of QoS 1 came twice");
    CHECK(kills > 90 / test::every(7));
}
