#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/memory_sessions.hpp"
#include "support/packets.hpp"
#include "support/sample.hpp"
#include "support/streams.hpp"
#include <cstddef>
#include <functional>
#include <string>

// What messages cost: allocations and writes.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::qos;
using test::memory_session;
using test::quick;
using test::task;

constexpr std::size_t rounds_in_all = 5;

std::size_t all_allocations() noexcept {
    return runnel::testing::allocation_count() + runnel::testing::aligned_allocation_count();
}

// A server that allocates nothing for a message: it acknowledges what it gets, and sends one message again and again.
struct frugal_server {
    explicit frugal_server(asio::io_context& context) : io(context) {}

    asio::io_context& io;
    std::optional<runnel::memory_stream<>> stream;
    runnel::send_buffer out;
    runnel::receive_buffer in;
    std::size_t messages = 0;
    runnel::memory_flow* incoming = nullptr;

    asio::awaitable<void> serve(runnel::memory_stream<>& s) {
        mqtt::session_state state(mqtt::role::server, mqtt::protocol_version::v3_1_1);
        bool accepted = false;
        struct handler : mqtt::session_handler {
            frugal_server& self;
            mqtt::session_state& state;
            handler(frugal_server& f, mqtt::session_state& st) : self(f), state(st) {}
            void on_message(mqtt::publish const& m, mqtt::delivery d) {
                ++self.messages;
                state.acknowledge(self.out, d);
                if (m.topic == "echo") state.publish(self.out, m);
            }
            void on_subscribe(mqtt::subscribe const& p) {
                static constexpr mqtt::reason_code granted[] = {mqtt::reason_code::granted_qos_2};
                state.suback(self.out, {p.packet_id, granted, {}});
            }
        };
        for (;;) {
            auto const room = in.prepare(64 * 1024);
            std::size_t const n = co_await s.read_some(asio::mutable_buffer(room.data(), room.size()));
            in.commit(n);
            auto input = in.data();
            if (!accepted) {
                auto const f = mqtt::next_frame(input);
                input.remove_prefix(f.total_size);
                state.accept(out, {}, mqtt::protocol_version::v3_1_1, {}, {});
                accepted = true;
            }
            state.receive(input, out, handler(*this, state));
            in.consume(in.data().size() - input.size());
            if (!out.empty()) co_await s.write(out);
        }
    }

    runnel::memory_transport transport{[this](runnel::memory_stream<> s) {
        stream.emplace(std::move(s));
        incoming = &stream->incoming();
        asio::co_spawn(io, serve(*stream), [](std::exception_ptr) {});
    }};
};

struct measured {
    asio::io_context io;
    frugal_server server{io};
    memory_session session{io.get_executor(), server.transport, quick()};
    task<void> running{io, session.run()};

    measured() { test::run(io, session.connected()); }
    ~measured() {
        test::run(io, session.disconnect());
        running.run();
    }

    // The allocations of the last of a few runs: in steady state.
    std::size_t allocations(std::function<asio::awaitable<void>()> rounds) {
        std::size_t counted = 0;
        test::run(io, steady(std::move(rounds), counted));
        return counted;
    }

    static asio::awaitable<void> steady(std::function<asio::awaitable<void>()> rounds, std::size_t& counted) {
        for (std::size_t i = 1; i < rounds_in_all; ++i) co_await rounds();
        auto const before = all_allocations();
        co_await rounds();
        counted = all_allocations() - before;
    }
};

asio::awaitable<void> publish_many(memory_session& s, std::string_view topic, qos quality, int count) {
    for (int i = 0; i < count; ++i) co_await s.publish(topic, "0123456789012345", {.qos = quality});
}

asio::awaitable<void> receive_many(memory_session& s, mqtt::basic_subscription<test::executor>& inbox, qos quality,
                                   int count) {
    for (int i = 0; i < count; ++i) {
        co_await s.publish("echo", "0123456789012345", {.qos = quality});
        auto const m = co_await inbox.receive();
        if (m.payload().size() != 16) co_return;
    }
}

}  // namespace

// What Asio allocates for a coroutine that waits belongs to a read or a write, which carries any number of messages.
constexpr std::size_t allocations_a_turn = 8;
// Asio keeps frames of up to 1,020 bytes for reuse, and the one of `publish` has more where clang does not optimise.
#if defined(__clang__) && !defined(__OPTIMIZE__)
constexpr std::size_t frames_a_message = 1;
#else
constexpr std::size_t frames_a_message = 0;
#endif

TEST_CASE("publishing QoS 0 allocates nothing for a message") {
    measured m;
    std::size_t const count = 100'000 / test::every(4);
    auto const writes = m.server.incoming->writes;
    auto const n =
        m.allocations([&] { return publish_many(m.session, "t", qos::at_most_once, static_cast<int>(count)); });
    auto const turns = (m.server.incoming->writes - writes) / rounds_in_all + 1;
    MESSAGE(n << " allocations for " << count << " messages in " << turns << " writes");
    CHECK(n <= turns * allocations_a_turn + count * frames_a_message);
}

TEST_CASE("receiving by view allocates nothing for a message") {
    measured m;
    std::size_t seen = 0;
    test::run(m.io, m.session.subscribe("echo", [&](mqtt::publish const&) { ++seen; }));
    std::size_t const count = 100'000 / test::every(4);
    auto const n =
        m.allocations([&] { return publish_many(m.session, "echo", qos::at_most_once, static_cast<int>(count)); });
    MESSAGE(n << " allocations for " << count << " messages there and back");
    CHECK(n < count / 500 + count * frames_a_message);
    CHECK(test::wait_until(m.io, [&] { return seen == rounds_in_all * count; }));
}

TEST_CASE("a message that goes alone costs no more than its reads and writes") {
    for (auto const quality : test::qualities) {
        measured m;
        auto inbox = test::run(m.io, m.session.subscribe("echo"));
        std::size_t const count = 2000 / test::every(4);
        auto const publishing =
            m.allocations([&] { return publish_many(m.session, "t", quality, static_cast<int>(count)); });
        auto const receiving =
            m.allocations([&] { return receive_many(m.session, inbox, quality, static_cast<int>(count)); });
        MESSAGE("QoS " << static_cast<int>(quality) << ", " << count << " messages: " << publishing
                       << " allocations to publish, " << receiving << " to publish and receive");
        std::size_t const turns = static_cast<std::size_t>(quality) + 1;
        CHECK(publishing <= count * turns * allocations_a_turn);
        CHECK(receiving <= count * turns * allocations_a_turn);
    }
}

TEST_CASE("very many small messages from one coroutine leave in few writes") {
    for (auto const quality : test::qualities) {
        measured m;
        int const count = 100'000 / static_cast<int>(test::every(4));
        auto const before = m.server.incoming->writes;
        if (quality == qos::at_most_once) {
            test::run(m.io, publish_many(m.session, "t", quality, count));
        } else {
            // Waiting for each acknowledgement would be one write each; so without waiting, as room allows.
            int sent = 0;
            REQUIRE(test::wait_until(m.io, [&] {
                while (sent < count && m.session.try_publish("t", "0123456789012345", {.qos = quality})) ++sent;
                return sent == count;
            }));
        }
        REQUIRE(test::wait_until(m.io, [&] { return m.server.messages == static_cast<std::size_t>(count); }));
        auto const writes = m.server.incoming->writes - before;
        MESSAGE("QoS " << static_cast<int>(quality) << ": " << count << " messages in " << writes << " writes");
        CHECK(writes <= (quality == qos::at_most_once ? 20U : 1000U) / test::every(4));
    }
}
