#include <runnel/mqtt/client/metered.hpp>
#include <runnel/mqtt/client/pieces.hpp>
#include <runnel/mqtt/client/traced.hpp>
#include <runnel/transport/any_transport.hpp>
#include <runnel/transport/failover.hpp>
#include <runnel/transport/tcp.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/memory_sessions.hpp"
#include "support/memory_store.hpp"
#include "support/packets.hpp"
#include "support/run.hpp"
#include "support/scripted_peer.hpp"
#include "support/streams.hpp"
#include <array>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace runnel;
using namespace runnel::mqtt;

namespace {

using transport_type = with_pieces<memory_transport>;
using session_type = session<transport_type>;

static_assert(runnel::transport<transport_type>);
static_assert(network_transport<with_pieces<runnel::tcp>>);
static_assert(payload_source<span_source, test::executor>);

session_options with_large_packets(protocol_version version = protocol_version::v3_1_1, std::string id = "client") {
    auto o = test::quick(std::move(id), version);
    o.maximum_packet_size = max_variable_integer + 5;
    return o;
}

/// Keeps what it is given, as text: "begin", the pieces as one, "end" or "aborted".
struct collector {
    struct one {
        std::string topic;
        std::string payload;
        std::uint64_t size = 0;
        qos quality{};
        bool dup = false;
        bool is_whole = false;
        std::error_code aborted;
    };
    std::vector<one> all;
    std::size_t largest = 0;
    std::function<void(std::string_view)> on_piece;
    std::function<void()> on_end;

    void begin(publish const& head, std::uint64_t size) {
        CHECK(head.payload.empty());
        all.push_back({std::string(head.topic), {}, size, head.qos, head.dup, false, {}});
    }
    void piece(std::string_view bytes) {
        CHECK_FALSE(bytes.empty());
        largest = (std::max)(largest, bytes.size());
        if (on_piece) on_piece(bytes);
        all.back().payload += bytes;
    }
    void end() {
        if (on_end) on_end();
        all.back().is_whole = true;
    }
    void aborted(std::error_code why) noexcept { all.back().aborted = why; }

    std::size_t whole() const {
        std::size_t n = 0;
        for (auto const& m : all) n += m.is_whole;
        return n;
    }
};

/// The same, which lets others go on between.
struct slow_collector : collector {
    explicit slow_collector(test::executor e) : places(e) {}
    asio::awaitable<void> piece(std::string_view bytes) {
        std::string const before(bytes);
        auto waiting = wait();
        co_await std::move(waiting);
        CHECK(before == bytes);
        collector::piece(bytes);
    }
    asio::awaitable<void> end() {
        auto waiting = wait();
        co_await std::move(waiting);
        collector::end();
    }
    asio::awaitable<void> wait() {
        ++waits;
        waiter<test::executor> w;
        co_await places.wait(w);
        if (w.result) throw std::system_error(w.result);
    }
    void go_on() { places.wake_all({}); }
    std::size_t waits = 0;
    wait_list<test::executor> places;
};

/// A broker that keeps what it has received.
testing::broker_options recording(std::uint32_t maximum_packet_size = max_variable_integer + 5) {
    testing::broker_options b;
    b.recorded_messages = 100;
    b.accepts.maximum_packet_size = maximum_packet_size;
    return b;
}

struct fixture : test::memory_fixture {
    explicit fixture(session_options o = with_large_packets(), testing::broker_options b = recording(),
                     std::size_t cut = 0)
        : memory_fixture(std::move(b)),
          session(io.get_executor(), transport_type{transport}, std::move(o)),
          running(io, session.run()) {
        if (cut != 0)
            on_open = [this, cut](memory_stream<>& s) {
                if (opened == 1) s.outgoing().cut_after = cut;
            };
        test::run(io, session.connected());
    }
    auto subscribe(std::string_view filter) { return test::run(io, session.subscribe(filter)); }
    template <class Source>
    publish_result publish(std::string_view topic, Source& source, publish_options o) {
        return test::run(io, publish_pieces(session, topic, source, o));
    }
    session_type session;
    test::task<void> running;
};

asio::awaitable<std::string> next_of(session_type::subscription sub) {
    auto receiving = sub.receive();
    auto const m = co_await std::move(receiving);
    co_return std::string(m.payload());
}

/// A source that does what the test says at each read.
struct scripted_source {
    std::uint64_t bytes;
    std::function<std::size_t(std::uint64_t, std::span<char>)> on_read;
    std::vector<std::uint64_t> offsets{};
    std::uint64_t size() const { return bytes; }
    std::size_t read(std::uint64_t offset, std::span<char> into) {
        offsets.push_back(offset);
        return on_read(offset, into);
    }
};

/// A source whose pieces come when the test lets them.
struct slow_source {
    slow_source(test::executor e, std::string_view t) : text(t), places(e) {}
    std::string_view text;
    wait_list<test::executor> places;
    std::size_t reads = 0;
    std::size_t block = 64 * 1024;
    std::uint64_t size() const { return text.size(); }
    asio::awaitable<std::size_t> read(std::uint64_t offset, std::span<char> into) {
        ++reads;
        waiter<test::executor> w;
        co_await places.wait(w);
        if (w.result) throw std::system_error(w.result);
        auto const n = text.copy(into.data(), (std::min)(into.size(), block), static_cast<std::size_t>(offset));
        co_return n;
    }
    void go_on() { places.wake_all({}); }
};

}  // namespace

TEST_CASE("messages of all sizes go and come in pieces") {
    for (auto const version : test::versions)
        for (auto const quality : test::qualities) {
            CAPTURE(static_cast<int>(quality));
            fixture f(with_large_packets(version));
            auto const sub = f.subscribe("large/#");
            collector got;
            test::task<void> taking(f.io, receive_pieces(f.session, sub, got));
            std::size_t sent = 0;
            for (std::size_t const size : {0u, 1u, 127u, 65535u, 65536u, 65537u, 131072u, 1000000u}) {
                auto const payload = test::noise(size);
                std::string_view const parts[] = {
                    std::string_view(payload).substr(0, size / 3), {}, std::string_view(payload).substr(size / 3)};
                span_source source(parts);
                auto const topic = "large/" + std::to_string(size);
                for (int i = 0; i < 2; ++i) {  // the second time by an alias
                    auto const result = f.publish(topic, source, {.qos = quality});
                    CHECK(result.reason == reason_code::success);
                    CHECK((result.what == publish_result::outcome::acknowledged) == (quality != qos::at_most_once));
                    ++sent;
                    REQUIRE(test::wait_until(f.io, [&] { return got.whole() == sent; }));
                    CHECK(got.all.back().payload == payload);
                    CHECK(got.all.back().topic == topic);
                    CHECK(got.all.back().size == size);
                    CHECK(got.all.back().quality == quality);
                }
            }
            CHECK(got.largest <= piece_size);
            CHECK(f.session.counters().messages_received == sent);
            test::run(f.io, f.session.disconnect());
            CHECK_FALSE(f.running.run_for_error());
            CHECK(taking.run_for_error() == errc::disconnected);
        }
}

namespace {

/// A server of a script, over memory, for a session that takes messages in pieces.
struct scripted : test::scripted_peer {
    explicit scripted(protocol_version v, session_options o)
        : scripted_peer([this](test::heard_packet const& p) { return reply(p); }),
          version(v),
          session(io.get_executor(), transport_type{transport}, std::move(o)),
          running(io, session.run()) {
        test::run(io, session.connected());
    }
    std::optional<std::string> reply(test::heard_packet const& p) {
        if (on_packet)
            if (auto said = on_packet(p)) return said;
        switch (p.type) {
            case packet_type::connect:
                return p.connection == 0
                           ? test::accepted(version)
                           : test::hex(version == protocol_version::v5 ? "20 03 01 00 00" : "20 02 01 00");
            case packet_type::subscribe:
                return test::packet(0x90,
                                    p.identifier() + (version == protocol_version::v5 ? std::string("\0\2", 2) : "\2"));
            case packet_type::pingreq: return test::hex("D0 00");
            default: return "";
        }
    }
    std::string publish(std::string_view payload, qos quality, bool dup = false, std::uint16_t id = 1) const {
        return test::encoded(mqtt::publish{.topic = "large/1",
                                           .payload = payload,
                                           .qos = quality,
                                           .dup = dup,
                                           .packet_id = quality == qos::at_most_once ? std::uint16_t{0} : id},
                             version);
    }
    protocol_version version;
    std::function<std::optional<std::string>(test::heard_packet const&)> on_packet;
    session_type session;
    test::task<void> running;
};

}  // namespace

TEST_CASE("a message whose connection is lost in any piece is aborted, and comes again from its beginning") {
    auto const payload = test::noise(3 * piece_size);
    for (auto const version : test::versions)
        for (auto const quality : test::qualities)
            for (std::size_t const cut : {std::size_t{20}, std::size_t{28}, std::size_t{40}, piece_size,
                                          piece_size + 40, 2 * piece_size, 3 * piece_size}) {
                CAPTURE(cut);
                fixture f(with_large_packets(version), recording(), cut);
                auto const sub = f.subscribe("large/#");
                collector got;
                test::task<void> taking(f.io, receive_pieces(f.session, sub, got));
                f.settle();
                test::memory_session other(f.io.get_executor(), f.transport, test::quick("other", version));
                test::task<void> other_runs(f.io, other.run());
                test::run(f.io, other.connected());
                test::run(f.io, other.publish("large/1", payload, {.qos = quality}));
                bool const comes_again = quality != qos::at_most_once;
                REQUIRE(test::wait_until(
                    f.io, [&] { return f.session.counters().connections == 2 && (got.whole() == 1 || !comes_again); }));
                f.settle();
                CHECK(got.whole() == (comes_again ? 1 : 0));
                if (comes_again) CHECK(got.all.back().payload == payload);
                for (auto const& m : got.all) CHECK(m.is_whole != bool(m.aborted));
                CHECK_FALSE(taking.done());
            }
}

TEST_CASE("a handler that takes its time holds the reader back, and keeps its piece") {
    fixture f;
    auto const sub = f.subscribe("large/#");
    slow_collector got(f.io.get_executor());
    test::task<void> taking(f.io, receive_pieces(f.session, sub, got));
    auto const payload = test::noise(10 * piece_size);
    f.settle();
    REQUIRE(f.session.try_publish("large/1", payload, {.qos = qos::at_least_once}));
    f.settle();
    CHECK(got.waits == 1);
    auto const before = f.session.counters().bytes_received;
    f.settle();
    CHECK(f.session.counters().bytes_received == before);
    CHECK(before < 5 * piece_size);
    CHECK(f.session.queued().size() == 1);
    while (got.whole() == 0) {
        got.go_on();
        f.settle();
        REQUIRE(got.waits < 200);
    }
    CHECK(got.all.back().payload == payload);
    REQUIRE(test::wait_until(f.io, [&] { return f.session.queued().empty(); }));
}

TEST_CASE("a handler that holds the reader does not keep a session from ending, which takes close_timeout then") {
    for (auto const version : test::versions) {
        auto o = with_large_packets(version);
        o.close_timeout = std::chrono::milliseconds(50);
        fixture f(std::move(o));
        auto const sub = f.subscribe("large/#");
        slow_collector got(f.io.get_executor());
        test::task<void> taking(f.io, receive_pieces(f.session, sub, got));
        REQUIRE(f.session.try_publish("large/1", test::noise(10 * piece_size), {.qos = qos::at_least_once}));
        REQUIRE(test::wait_until(f.io, [&] { return got.waits == 1; }));
        auto const begun = runnel::steady_clock::now();
        auto const error = test::error_of(f.io, f.session.disconnect());
        CHECK((!error || error == errc::close_timeout));
        CHECK(runnel::steady_clock::now() - begun < std::chrono::seconds(5));
        CHECK(f.running.run_for_error() == error);
        CHECK_FALSE(taking.done());  // the piece is its handler's until it lets go of it
        got.go_on();
        CHECK(taking.run_for_error() == errc::disconnected);
        REQUIRE(got.all.size() == 1);
        CHECK_FALSE(got.all[0].is_whole);
        CHECK(got.all[0].aborted == errc::disconnected);
    }
}

TEST_CASE("a connection is not taken for dead while nothing is read for a slow handler's sake") {
    auto o = with_large_packets();
    o.keep_alive = std::chrono::seconds(1);
    o.response_timeout = std::chrono::milliseconds(200);
    fixture f(std::move(o));
    auto const sub = f.subscribe("large/#");
    slow_collector got(f.io.get_executor());
    test::task<void> taking(f.io, receive_pieces(f.session, sub, got));
    auto const payload = test::noise(10 * piece_size);
    f.settle();
    REQUIRE(f.session.try_publish("large/1", payload));
    test::wait_until(f.io, [] { return false; }, std::chrono::milliseconds(2500));
    CHECK(f.session.counters().connections == 1);
    while (got.whole() == 0) {
        got.go_on();
        f.settle();
    }
    CHECK(got.all.back().payload == payload);
}

TEST_CASE("what a handler throws ends receiving, and the message comes again") {
    for (int const where : {0, 1, 2}) {
        CAPTURE(where);
        scripted f(protocol_version::v5, with_large_packets(protocol_version::v5));
        auto const sub = test::run(f.io, f.session.subscribe("large/#"));
        f.on_packet = [&](test::heard_packet const& p) -> std::optional<std::string> {
            if (p.type == packet_type::pingreq || p.type == packet_type::publish)
                return f.publish("payload", qos::at_least_once) + f.publish("next", qos::at_most_once);
            if (p.type == packet_type::connect && p.connection == 1)
                return test::hex("20 03 01 00 00") + f.publish("payload", qos::at_least_once, true);
            return std::nullopt;
        };
        struct throwing : collector {
            int at = 0;
            void begin(publish const& head, std::uint64_t size) {
                collector::begin(head, size);
                if (at == 0) throw std::runtime_error("begin");
            }
            void piece(std::string_view bytes) {
                if (at == 1) throw std::runtime_error("piece");
                collector::piece(bytes);
            }
            void end() {
                if (at == 2) throw std::runtime_error("end");
                collector::end();
            }
        } got;
        got.at = where;
        {
            test::task<void> taking(f.io, receive_pieces(f.session, sub, got));
            test::settle(f.io);
            REQUIRE(f.session.try_publish("go", ""));
            REQUIRE(test::wait_until(f.io, [&] { return taking.done(); }));
            CHECK(taking.error_text() == (where == 0 ? "begin" : where == 1 ? "piece" : "end"));
        }
        test::settle(f.io);
        REQUIRE(got.all.size() == 1);
        CHECK(got.all[0].aborted == (where == 0 ? std::error_code() : errc::disconnected));
        CHECK(f.count(packet_type::puback) == 0);
        // The next one has come whole, to the subscription.
        CHECK(test::run(f.io, next_of(sub)) == "next");
        got.at = -1;
        test::task<void> again(f.io, receive_pieces(f.session, sub, got));
        test::settle(f.io);
        f.serving.front()->cancel();
        REQUIRE(test::wait_until(f.io, [&] { return f.count(packet_type::puback) == 1; }));
        CHECK(got.all.back().payload == "payload");
        CHECK(got.all.back().dup);
    }
}

TEST_CASE("a source that fails before anything has been written withdraws its message, and later ends the connection") {
    for (auto const version : test::versions)
        for (auto const quality : test::qualities)
            for (int const kind : {0, 1, 2})
                for (std::uint64_t const at : {std::uint64_t{0}, std::uint64_t{piece_size}}) {
                    CAPTURE(kind);
                    CAPTURE(at);
                    auto o = with_large_packets(version);
                    o.outgoing_topic_aliases = 0;
                    fixture f(std::move(o));
                    scripted_source source{3 * piece_size, [&](std::uint64_t offset, std::span<char> into) {
                                               if (offset != at) return into.size();
                                               if (kind == 0) throw std::runtime_error("source");
                                               return kind == 1 ? std::size_t{0} : into.size() + 1;
                                           }};
                    test::task<publish_result> publishing(
                        f.io, publish_pieces(f.session, "large/1", source, {.qos = quality}));
                    REQUIRE(test::wait_until(f.io, [&] { return publishing.done(); }));
                    if (kind == 0)
                        CHECK(publishing.error_text() == "source");
                    else
                        CHECK(publishing.error() ==
                              (kind == 1 ? pieces_errc::source_ended_early : pieces_errc::source_too_long));
                    if (at != 0) REQUIRE(test::wait_until(f.io, [&] { return f.session.counters().connections == 2; }));
                    f.settle();
                    CHECK(f.session.counters().connections == (at == 0 ? 1 : 2));
                    CHECK(f.session.queued().empty());
                    CHECK(f.session.counters().in_flight == 0);
                    CHECK(f.broker.received().empty());
                    // All is well afterwards.
                    std::string_view const parts[] = {"fine"};
                    span_source good(parts);
                    f.publish("large/2", good, {.qos = quality});
                    REQUIRE(test::wait_until(f.io, [&] { return f.broker.received().size() == 1; }));
                }
}

TEST_CASE("a message whose connection is lost while it is sent is sent again by the same source") {
    auto const payload = test::noise(3 * piece_size);
    std::string_view const parts[] = {payload};
    for (auto const version : test::versions)
        for (auto const quality : test::qualities)
            for (std::size_t const cut : {std::size_t{60}, piece_size, 2 * piece_size, 3 * piece_size + 10}) {
                CAPTURE(cut);
                test::memory_fixture f(recording());
                f.on_open = [&](memory_stream<>& s) {
                    if (f.opened == 1) s.incoming().cut_after = cut;
                };
                session_type s(f.io.get_executor(), transport_type{f.transport}, with_large_packets(version));
                test::task<void> running(f.io, s.run());
                test::run(f.io, s.connected());
                span_source source(parts);
                std::vector<std::uint64_t> progress;
                auto const told = [&](std::uint64_t taken, std::uint64_t size) {
                    CHECK(size == payload.size());
                    progress.push_back(taken);
                };
                test::task<publish_result> publishing(f.io,
                                                      publish_pieces(s, "large/1", source, {.qos = quality}, told));
                REQUIRE(test::wait_until(f.io, [&] { return publishing.done(); }));
                if (quality == qos::at_most_once) {
                    CHECK((!publishing.error() || publishing.error() == errc::not_connected));
                    REQUIRE(test::wait_until(f.io, [&] { return s.counters().connections == 2; }));
                    CHECK(f.broker.received().empty());
                    continue;
                }
                CHECK_FALSE(publishing.error());
                CHECK(s.counters().connections == 2);
                CHECK(s.counters().messages_resent == 1);
                REQUIRE(f.broker.received().size() == 1);
                CHECK(f.broker.received()[0].payload == payload);
                REQUIRE_FALSE(progress.empty());
                CHECK(progress.back() == payload.size());
                CHECK(progress.size() > 1);
                f.settle();
                CHECK(s.queued().empty());
            }
}

TEST_CASE("cancelled at each step, a message is withdrawn, or its connection ends") {
    auto const payload = test::noise(4 * piece_size);
    for (auto const quality : test::qualities)
        for (std::size_t steps = 0; steps <= 5; ++steps) {
            CAPTURE(steps);
            std::vector<std::error_code> ends;
            auto o = with_large_packets(protocol_version::v3_1_1);
            o.on_event = [&](session_event const& e) {
                if (e.what == session_event::kind::disconnected) ends.push_back(e.error);
            };
            fixture f(std::move(o));
            slow_source source(f.io.get_executor(), payload);
            {
                test::task<publish_result> publishing(f.io,
                                                      publish_pieces(f.session, "large/1", source, {.qos = quality}));
                f.settle();
                for (std::size_t i = 0; i != steps; ++i) {
                    source.go_on();
                    f.settle();
                }
                publishing.cancel();
                f.settle();
                REQUIRE(publishing.done());
                CHECK(publishing.error() == (steps < 4 ? asio::error::operation_aborted : std::error_code()));
            }
            bool const is_half = steps != 0 && steps < 4;
            REQUIRE(test::wait_until(f.io, [&] { return f.session.counters().connections == (is_half ? 2 : 1); }));
            if (is_half) CHECK(ends == std::vector<std::error_code>{errc::message_discarded});
            std::string_view const parts[] = {"fine"};
            span_source good(parts);
            f.publish("large/2", good, {.qos = quality});
            f.settle();
            CHECK(f.session.queued().empty());
            CHECK(f.session.counters().connections == (is_half ? 2 : 1));
            CHECK(f.broker.received().size() == (steps < 4 ? 1 : 2));
            CHECK(f.broker.received().back().payload == "fine");
        }
}

TEST_CASE("what else is published waits behind a message in pieces, in order, and so does a second one") {
    for (auto const version : test::versions) {
        fixture f(with_large_packets(version));
        auto const sub = f.subscribe("#");
        auto const payload = test::noise(2 * piece_size);
        slow_source source(f.io.get_executor(), payload);
        std::string_view const parts[] = {"second"};
        span_source second(parts);
        REQUIRE(f.session.try_publish("before", "before"));
        test::task<publish_result> publishing(f.io, publish_pieces(f.session, "large/1", source));
        f.settle();
        REQUIRE(f.session.try_publish("between", "between", {.qos = qos::at_least_once}));
        test::task<publish_result> also(f.io, publish_pieces(f.session, "large/2", second));
        f.settle();
        CHECK_FALSE(also.done());
        CHECK(f.broker.received().size() == 1);
        while (!publishing.done()) {
            source.go_on();
            f.settle();
        }
        REQUIRE(also.done());
        std::vector<std::string> topics;
        for (auto const& m : f.broker.received()) topics.push_back(m.topic);
        CHECK(topics == std::vector<std::string>{"before", "large/1", "between", "large/2"});
        CHECK(f.broker.received()[1].payload == payload);
    }
}

TEST_CASE("messages in pieces that cannot be are refused in words") {
    fixture f(with_large_packets(protocol_version::v5));
    std::string_view const parts[] = {"1"};
    auto const nothing = [](std::uint64_t, std::span<char>) { return std::size_t{0}; };
    scripted_source largest{max_variable_integer, nothing};
    CHECK(test::task<publish_result>(f.io, publish_pieces(f.session, "t", largest)).run_for_error() ==
          errc::packet_too_large);
    auto const next = []() -> asio::awaitable<std::string_view> { co_return ""; };
    sequence_source once(10, next);
    CHECK(test::task<publish_result>(f.io, publish_pieces(f.session, "t", once, {.qos = qos::at_least_once}))
              .run_for_error() == pieces_errc::source_cannot_restart);
    CHECK(test::task<publish_result>(f.io, publish_pieces(f.session, "t", once)).run_for_error() ==
          pieces_errc::source_ended_early);
    span_source source(parts);
    CHECK(test::task<publish_result>(f.io, publish_pieces(f.session, "t/#", source)).run_for_error() ==
          errc::wildcard_in_topic_name);
    CHECK(largest.offsets.empty());
    test::run(f.io, f.session.disconnect());
    CHECK(test::task<publish_result>(f.io, publish_pieces(f.session, "t", source)).run_for_error() ==
          errc::disconnected);
}

TEST_CASE("a size that no packet can have is refused, and nothing is written, however large it is") {
    auto const nothing = [](std::uint64_t, std::span<char>) { return std::size_t{0}; };
    for (auto const version : test::versions)
        for (auto const quality : test::qualities)
            for (std::uint64_t const left : {0u, 1u, 7u, 8u, 9u, 10u, 100u}) {  // of what a number of 64 bits can hold
                scripted f(version, with_large_packets(version));
                auto const written = f.session.counters().bytes_sent;
                scripted_source source{~std::uint64_t{0} - left, nothing};
                test::task<publish_result> publishing(f.io,
                                                      publish_pieces(f.session, "large/1", source, {.qos = quality}));
                test::settle(f.io);
                REQUIRE(publishing.done());
                CHECK(publishing.error() == errc::packet_too_large);
                CHECK(source.offsets.empty());
                CHECK(f.session.counters().bytes_sent == written);
            }
}

TEST_CASE("a coroutine may give a payload piece by piece, of whatever sizes") {
    fixture f;
    auto const payload = test::noise(3 * piece_size);
    std::size_t given = 0;
    auto const next = [&]() -> asio::awaitable<std::string_view> {
        std::size_t const n = given == 0 ? 1 : 2 * piece_size;
        co_return std::string_view(payload).substr(std::exchange(given, given + n), n);
    };
    sequence_source source(payload.size(), next);
    f.publish("t", source, {});
    f.settle();
    REQUIRE(f.broker.received().size() == 1);
    CHECK(f.broker.received()[0].payload == payload);
    given = 0;
    sequence_source short_of(payload.size() - 1, next);  // it gives more than it was to
    CHECK(test::task<publish_result>(f.io, publish_pieces(f.session, "t", short_of)).run_for_error() ==
          pieces_errc::source_too_long);
}

TEST_CASE("a server's limit on packets counts the payload that is not in memory, also if it becomes known later") {
    test::memory_fixture f(recording(1000));
    session_type s(f.io.get_executor(), transport_type{f.transport}, with_large_packets(protocol_version::v5));
    auto const payload = test::noise(2000);
    std::string_view const parts[] = {payload};
    span_source source(parts), again(parts);
    test::task<publish_result> before(f.io, publish_pieces(s, "t", source, {.qos = qos::at_least_once}));
    f.settle();
    CHECK_FALSE(before.done());
    test::task<publish_result> without(f.io, publish_pieces(s, "t", again));
    f.settle();
    CHECK(without.error() == errc::not_connected);
    test::task<void> running(f.io, s.run());
    test::run(f.io, s.connected());
    REQUIRE(test::wait_until(f.io, [&] { return before.done(); }));
    CHECK(before.error() == errc::packet_too_large);
    CHECK(test::task<publish_result>(f.io, publish_pieces(s, "t", again)).run_for_error() == errc::packet_too_large);
    f.settle();
    CHECK(s.queued().empty());
    CHECK(f.broker.received().empty());
}

TEST_CASE("a session may go while messages in pieces are sent and received") {
    for (auto const quality : test::qualities)
        for (int const who_first : {0, 1}) {
            test::memory_fixture f;
            auto const payload = test::noise(4 * piece_size);
            slow_source source(f.io.get_executor(), payload);
            slow_collector got(f.io.get_executor());
            std::optional<test::task<publish_result>> publishing;
            std::optional<test::task<void>> taking;
            auto s =
                std::make_unique<session_type>(f.io.get_executor(), transport_type{f.transport}, with_large_packets());
            test::task<void> running(f.io, s->run());
            test::run(f.io, s->connected());
            auto const sub = test::run(f.io, s->subscribe("large/#"));
            taking.emplace(f.io, receive_pieces(*s, sub, got));
            test::settle(f.io);
            test::memory_session other(f.io.get_executor(), f.transport, test::quick("other"));
            test::task<void> other_runs(f.io, other.run());
            test::run(f.io, other.connected());
            REQUIRE(other.try_publish("large/2", payload));
            publishing.emplace(f.io, publish_pieces(*s, "large/1", source, {.qos = quality}));
            test::settle(f.io);
            source.go_on();
            test::settle(f.io);
            CHECK(got.waits == 1);
            CHECK(source.reads == 2);
            s.reset();
            test::settle(f.io);
            if (who_first == 0) source.go_on();
            got.go_on();
            test::settle(f.io);
            source.go_on();
            test::settle(f.io);
            CHECK(publishing->error() == errc::disconnected);
            CHECK(taking->error() == errc::disconnected);
            REQUIRE(got.all.size() == 1);
            CHECK(got.all[0].aborted == errc::disconnected);
        }
}

TEST_CASE("a session with a store refuses messages in pieces that it could not keep") {
    auto o = with_large_packets();
    o.store = std::make_shared<test::memory_store>();
    fixture f(std::move(o));
    std::string_view const parts[] = {"1"};
    span_source source(parts);
    CHECK(test::task<publish_result>(f.io, publish_pieces(f.session, "t", source, {.qos = qos::exactly_once}))
              .run_for_error() == pieces_errc::session_has_store);
    f.publish("t", source, {});
    f.settle();
    CHECK(f.broker.received().size() == 1);
}

TEST_CASE("messages that have come before wait in the inbox, and are given first") {
    fixture f;
    auto const sub = f.subscribe("#");
    auto const payload = test::noise(piece_size + 1);
    test::run(f.io, f.session.publish("1", payload, {.qos = qos::at_least_once}));
    test::run(f.io, f.session.publish("2", "", {.qos = qos::at_least_once}));
    f.settle();
    CHECK(sub.size() == 2);
    collector got;
    test::task<void> taking(f.io, receive_pieces(f.session, sub, got));
    test::run(f.io, f.session.publish("3", "three", {.qos = qos::at_least_once}));
    REQUIRE(test::wait_until(f.io, [&] { return got.whole() == 3; }));
    CHECK(got.all[0].payload == payload);
    CHECK(got.all[0].size == payload.size());
    CHECK(got.all[1].payload.empty());
    CHECK(got.all[2].payload == "three");
    CHECK(got.largest == piece_size);
    test::run(f.io, f.session.unsubscribe(sub));
    REQUIRE(test::wait_until(f.io, [&] { return taking.done(); }));
    CHECK(taking.error() == errc::disconnected);
}

TEST_CASE("receiving may be cancelled at each step: what is not finished comes again") {
    auto const payload = test::noise(2 * piece_size);
    for (std::size_t steps = 0; steps <= 3; ++steps) {
        CAPTURE(steps);
        fixture f;
        auto const sub = f.subscribe("large/#");
        slow_collector got(f.io.get_executor());
        {
            test::task<void> taking(f.io, receive_pieces(f.session, sub, got));
            f.settle();
            REQUIRE(f.session.try_publish("large/1", payload, {.qos = qos::at_least_once}));
            f.settle();
            for (std::size_t i = 0; i != steps; ++i) {
                got.go_on();
                f.settle();
            }
            bool const is_whole = got.whole() == 1;
            taking.cancel();
            f.settle();
            REQUIRE(taking.done());
            CHECK(taking.error() == asio::error::operation_aborted);
            REQUIRE(got.all.size() == 1);
            CHECK(bool(got.all[0].aborted) != is_whole);
            if (is_whole) continue;
        }
        f.settle();
        test::run(f.io, f.session.publish("small", "", {.qos = qos::at_least_once}));  // the connection goes on
        CHECK(f.session.counters().connections == 1);
        collector again;
        test::task<void> taking(f.io, receive_pieces(f.session, sub, again));
        f.settle();
        f.broker.drop_client("client");
        REQUIRE(test::wait_until(f.io, [&] { return again.whole() == 1; }));
        CHECK(again.all[0].payload == payload);
    }
}

TEST_CASE("receiving that is cancelled while its handler ends a message takes no other one") {
    for (bool const waits : {false, true}) {
        CAPTURE(waits);
        // Such an Asio's `run` ends by an exception for what is cancelled and ends in its first turn.
        if (!waits && RUNNEL_ASIO_EMITS_LATE) continue;
        fixture f;
        auto sub = f.subscribe("small/#");
        for (auto const* const payload : {"first", "second"}) REQUIRE(f.session.try_publish("small/1", payload));
        f.settle();
        slow_collector slow(f.io.get_executor());
        collector quick;
        std::optional<test::task<void>> taking;
        slow.on_end = quick.on_end = [&] { taking->cancel(); };
        if (waits)
            taking.emplace(f.io, receive_pieces(f.session, sub, slow));
        else
            taking.emplace(f.io, receive_pieces(f.session, sub, quick));
        for (int i = 0; i < 3; ++i) {
            f.settle();
            slow.go_on();
        }
        REQUIRE(taking->done());
        CHECK(taking->error() == asio::error::operation_aborted);
        collector const& got = waits ? slow : quick;
        REQUIRE(got.all.size() == 1);
        CHECK(got.all[0].payload == "first");
        CHECK(got.all[0].is_whole);
        auto const next = sub.try_receive();
        REQUIRE(next);
        CHECK(next->payload() == "second");
    }
}

TEST_CASE("what was to give its topic an alias and is not sent ends the connection, as others rely on the alias") {
    for (auto const quality : test::qualities)
        for (bool const is_known : {false, true}) {
            fixture f(with_large_packets(protocol_version::v5));
            if (is_known) test::run(f.io, f.session.publish("large/1", "before", {.qos = qos::at_least_once}));
            auto const before = is_known ? 1u : 0u;
            slow_source source(f.io.get_executor(), "payload");
            test::task<publish_result> publishing(f.io, publish_pieces(f.session, "large/1", source, {.qos = quality}));
            f.settle();
            REQUIRE(f.session.try_publish("large/1", "behind", {.qos = qos::at_least_once}));
            f.settle();
            publishing.cancel();
            REQUIRE(test::wait_until(f.io, [&] { return f.broker.received().size() == before + 1; }));
            f.settle();
            CHECK(f.broker.received().back().topic == "large/1");
            CHECK(f.broker.received().back().payload == "behind");
            CHECK(f.session.counters().connections == (is_known ? 1 : 2));
            CHECK(f.session.queued().empty());
        }
}

TEST_CASE("bytes that come and go in pieces are counted, and no memory is kept for them") {
    fixture f;
    auto const sub = f.subscribe("#");
    collector got;
    test::task<void> taking(f.io, receive_pieces(f.session, sub, got));
    auto const payload = test::noise(3 * piece_size);
    std::string_view const parts[] = {payload};
    span_source source(parts);
    REQUIRE(f.session.try_publish("before", ""));
    f.settle();
    auto const before = f.session.counters();
    f.publish("t", source, {});
    REQUIRE(test::wait_until(f.io, [&] { return got.whole() == 2; }));
    auto const after = f.session.counters();
    CHECK(after.bytes_sent - before.bytes_sent == payload.size() + 7);
    CHECK(after.bytes_received - before.bytes_received == payload.size() + 7);
}

#ifndef __clang__  // by which Asio's own coroutines end the program when they have no memory to begin
TEST_CASE("memory may fail at any step of a message in pieces: nothing hangs, and nothing is wrong") {
    auto const payload = test::noise(2 * piece_size);
    std::string_view const parts[] = {payload};
    for (std::size_t nth = 1;; ++nth) {
        CAPTURE(nth);
        fixture f;
        auto const sub = f.subscribe("#");
        collector got;
        span_source source(parts);
        test::task<void> taking(f.io, receive_pieces(f.session, sub, got));
        f.settle();
        test::task<publish_result> publishing(f.io,
                                              publish_pieces(f.session, "t", source, {.qos = qos::at_least_once}));
        bool has_failed = false;
        {
            runnel::testing::failing_allocation const failing(nth);
            try {
                f.settle();
            } catch (std::bad_alloc const&) {  // from a handler of the test's, or of the broker's
            }
            has_failed = failing.has_failed();
        }
        test::wait_until(f.io, [&] { return got.whole() == 1 || publishing.done() || f.running.done(); });
        f.settle();
        for (auto const& m : got.all) CHECK((!m.is_whole || m.payload == payload));
        if (!has_failed) {
            CHECK(got.whole() == 1);
            break;
        }
        REQUIRE(nth < 1000);
    }
}
#endif

namespace {

/// Checks that a transport with pieces leads where the one within does.
template <class T>
void check_redirected(T to) {
    with_pieces<T> const with{std::move(to)};
    auto const other = redirected(with, "other.example:99");
    REQUIRE(other);
    CHECK(other->url() == "tcp://other.example:99");
    CHECK(*other != with);
    CHECK_FALSE(redirected(with, "no/host"));
}

}  // namespace

TEST_CASE("a server that names another one is followed with pieces, too, over any transport") {
    tcp const a{.host = "a.example"}, b{.host = "b.example"};
    check_redirected(a);
    check_redirected(any_transport(a));
    check_redirected(failover<tcp>({a, b}));
    check_redirected(metered<tcp>(a));
    check_redirected(traced<failover<tcp>>(failover<tcp>({a, b}), {}));
    check_redirected(metered<any_transport>(any_transport(failover<tcp>({a, b}))));

    asio::io_context io;
    testing::broker second(io.get_executor(), recording());
    auto const port = second.listen_tcp();
    testing::broker first(io.get_executor());
    first.hooks().on_connect = [port](testing::connect_attempt& c) {
        c.server_reference = "127.0.0.1:" + std::to_string(port);
        return reason_code::use_another_server;
    };
    using any_with_pieces = with_pieces<any_transport>;
    any_transport const to = failover<tcp>(std::vector{tcp{.host = "127.0.0.1", .port = first.listen_tcp()}});
    auto o = with_large_packets(protocol_version::v5);
    o.follow_redirects = true;
    session<any_with_pieces> s(io.get_executor(), any_with_pieces{to}, std::move(o));
    test::task<void> running(io, s.run());
    test::run(io, s.connected());
    std::string_view const parts[] = {"one", "two"};
    span_source source(parts);
    test::run(io, publish_pieces(s, "t", source, {.qos = qos::at_least_once}));
    REQUIRE(second.received().size() == 1);
    CHECK(second.received()[0].payload == "onetwo");
}

TEST_CASE("two messages that come together are taken one after another by a slow handler") {
    for (auto const version : test::versions) {
        scripted f(version, with_large_packets(version));
        auto const sub = test::run(f.io, f.session.subscribe("large/#"));
        slow_collector got(f.io.get_executor());
        test::task<void> taking(f.io, receive_pieces(f.session, sub, got));
        f.on_packet = [&](test::heard_packet const& p) -> std::optional<std::string> {
            if (p.type != packet_type::publish) return std::nullopt;
            return f.publish("one", qos::at_least_once, false, 1) + f.publish("two", qos::at_least_once, false, 2) +
                   f.publish("", qos::at_least_once, false, 3);
        };
        test::settle(f.io);
        REQUIRE(f.session.try_publish("go", ""));
        test::settle(f.io);
        for (std::size_t i = 1; i <= 5; ++i) {
            CHECK(got.waits == i);
            CHECK(f.count(packet_type::puback) == (i - 1) / 2);
            got.go_on();
            test::settle(f.io);
        }
        CHECK(got.whole() == 3);
        CHECK(f.count(packet_type::puback) == 3);
    }
}

namespace {

/// Looks at the head of its message at each step, to the last.
struct head_reader : slow_collector {
    using slow_collector::slow_collector;
    static constexpr std::string_view topic = "large/and/longer/than/what/a/string/holds/without/memory";
    static constexpr std::string_view content_type = "one that is longer than that, too";
    publish head;
    std::size_t looks = 0;
    bool fails = false;

    asio::awaitable<void> begin(publish const& h, std::uint64_t size) {
        auto waiting = step();
        co_await std::move(waiting);
        head = h;
        look();
        collector::begin(h, size);
    }
    asio::awaitable<void> piece(std::string_view bytes) {
        auto waiting = step();
        co_await std::move(waiting);
        look();
        collector::piece(bytes);
    }
    asio::awaitable<void> end() {
        auto waiting = step();
        co_await std::move(waiting);
        look();
        collector::end();
    }
    void aborted(std::error_code why) noexcept {
        look();
        collector::aborted(why);
    }
    asio::awaitable<void> step() {
        auto waiting = wait();
        co_await std::move(waiting);
        if (fails) throw std::runtime_error("handler");
    }
    void look() noexcept {
        ++looks;
        CHECK(head.topic == topic);
        CHECK(head.props.get<property_id::content_type>() == content_type);
    }
};

/// A server that answers each PUBLISH with what it is told to.
test::scripted_peer answering(std::string answer, std::size_t& acknowledged) {
    return test::scripted_peer([=, &acknowledged](test::heard_packet const& p) -> std::optional<std::string> {
        if (p.type == packet_type::connect) return test::accepted(protocol_version::v5);
        if (p.type == packet_type::subscribe) return test::packet(0x90, p.identifier() + std::string("\0\2", 2));
        if (p.type == packet_type::puback) ++acknowledged;
        return p.type == packet_type::publish ? answer : "";
    });
}

}  // namespace

TEST_CASE("the head of a message is there until its end, or until it is aborted, whatever ends it at which step") {
    enum class end { handler, cancellation, session };
    properties props;
    props.content_type = head_reader::content_type;
    auto const payload = test::noise(2 * piece_size);
    auto const message = test::encoded(mqtt::publish{.topic = head_reader::topic,
                                                     .payload = payload,
                                                     .qos = qos::at_least_once,
                                                     .packet_id = 1,
                                                     .props = &props},
                                       protocol_version::v5);
    constexpr std::size_t steps = 4;  // begin, two pieces, end
    for (bool const comes_whole : {false, true})
        for (auto const by : {end::handler, end::cancellation, end::session})
            for (std::size_t step = 0; step != steps; ++step) {
                CAPTURE(comes_whole);
                CAPTURE(static_cast<int>(by));
                CAPTURE(step);
                std::size_t acknowledged = 0;
                auto peer = answering(message, acknowledged);
                auto s = std::make_unique<session_type>(peer.io.get_executor(), transport_type{peer.transport},
                                                        with_large_packets(protocol_version::v5));
                test::task<void> running(peer.io, s->run());
                test::run(peer.io, s->connected());
                auto const sub = test::run(peer.io, s->subscribe("large/#"));
                head_reader got(peer.io.get_executor());
                std::optional<test::task<void>> taking;
                if (!comes_whole) taking.emplace(peer.io, receive_pieces(*s, sub, got));
                test::settle(peer.io);
                REQUIRE(s->try_publish("go", ""));
                test::settle(peer.io);
                CHECK(sub.size() == (comes_whole ? 1 : 0));
                if (comes_whole) taking.emplace(peer.io, receive_pieces(*s, sub, got));
                test::settle(peer.io);
                for (std::size_t i = 0; i != step; ++i) {
                    got.go_on();
                    test::settle(peer.io);
                }
                REQUIRE(got.waits == step + 1);
                got.fails = by == end::handler;
                if (by == end::cancellation) taking->cancel();
                if (by == end::session) s.reset();
                for (std::size_t i = 0; i != steps + 1; ++i) {
                    test::settle(peer.io);
                    got.go_on();
                }
                REQUIRE(taking->done());
                CHECK(acknowledged == 0);
                // What has come whole needs no session any more.
                bool const is_whole = by == end::session && (comes_whole || step == steps - 1);
                bool const is_aborted = !is_whole && (by == end::session || step != 0);
                REQUIRE(got.all.size() == (is_whole || is_aborted ? 1 : 0));
                if (got.all.empty()) continue;
                CHECK(got.all[0].is_whole == is_whole);
                CHECK(bool(got.all[0].aborted) == is_aborted);
                CHECK(got.looks == (is_whole ? steps : step + (by == end::session ? 2 : 1)));
            }
}

TEST_CASE("the head of a message that has come whole is there when its handler fails, also if its memory is not kept") {
    properties props;
    props.content_type = head_reader::content_type;
    std::string const payload(3 * 1024 * 1024, 'x');
    auto const v5 = protocol_version::v5;
    auto const large = test::encoded(mqtt::publish{.topic = head_reader::topic,
                                                   .payload = payload,
                                                   .qos = qos::at_least_once,
                                                   .packet_id = 1,
                                                   .props = &props},
                                     v5);
    auto const next =
        test::encoded(mqtt::publish{.topic = "large/next", .qos = qos::at_least_once, .packet_id = 2}, v5);
    std::size_t acknowledged = 0;
    auto peer = answering(large + next, acknowledged);
    session_type s(peer.io.get_executor(), transport_type{peer.transport}, with_large_packets(v5));
    test::task<void> running(peer.io, s.run());
    test::run(peer.io, s.connected());
    auto const sub = test::run(peer.io, s.subscribe("large/#"));
    REQUIRE(s.try_publish("go", ""));
    REQUIRE(test::wait_until(peer.io, [&] { return sub.size() == 2; }));
    head_reader got(peer.io.get_executor());
    test::task<void> taking(peer.io, receive_pieces(s, sub, got));
    test::settle(peer.io);
    got.go_on();
    test::settle(peer.io);
    got.fails = true;
    got.go_on();
    test::settle(peer.io);
    REQUIRE(taking.done());
    CHECK(taking.error_text() == "handler");
    REQUIRE(got.all.size() == 1);
    CHECK(got.all[0].aborted == errc::disconnected);
    CHECK(got.looks == 2);
    CHECK(acknowledged == 0);
    CHECK(sub.size() == 1);
}

TEST_CASE("no message begins in the middle of another whose session has gone") {
    properties props;
    std::string const value(60'000, 'v');
    std::vector<user_property> const large(3, user_property{"k", value});  // so it comes whole
    props.user_properties = large;
    auto const v5 = protocol_version::v5;
    std::size_t acknowledged = 0;
    auto peer = answering(test::encoded(mqtt::publish{.topic = "large/1", .payload = "piece"}, v5) +
                              test::encoded(mqtt::publish{.topic = "large/2", .payload = "", .props = &props}, v5),
                          acknowledged);
    auto s =
        std::make_unique<session_type>(peer.io.get_executor(), transport_type{peer.transport}, with_large_packets(v5));
    test::task<void> running(peer.io, s->run());
    test::run(peer.io, s->connected());
    auto const sub = test::run(peer.io, s->subscribe("large/#"));
    slow_collector got(peer.io.get_executor());
    test::task<void> taking(peer.io, receive_pieces(*s, sub, got));
    REQUIRE(s->try_publish("go", ""));
    test::settle(peer.io);
    CHECK(got.waits == 1);
    CHECK(sub.size() == 1);
    s.reset();
    test::settle(peer.io);
    got.go_on();
    CHECK(taking.run_for_error() == errc::disconnected);
    REQUIRE(got.all.size() == 1);
    CHECK(got.all[0].topic == "large/1");
    CHECK(got.all[0].aborted == errc::disconnected);
    CHECK(sub.size() == 1);
}

TEST_CASE("what a source was asked for on a connection that has gone is not sent on the next") {
    auto const payload = test::noise(3 * piece_size);
    fixture f;
    slow_source source(f.io.get_executor(), payload);
    test::task<publish_result> publishing(f.io,
                                          publish_pieces(f.session, "large/1", source, {.qos = qos::at_least_once}));
    f.settle();
    source.go_on();
    f.settle();
    CHECK(source.reads == 2);
    f.broker.drop_client("client");
    REQUIRE(test::wait_until(f.io, [&] { return f.session.counters().connections == 2; }));
    f.settle();
    CHECK(source.reads == 2);  // it is at it still
    while (!publishing.done()) {
        source.go_on();
        f.settle();
        REQUIRE(source.reads < 10);
    }
    CHECK_FALSE(publishing.error());
    REQUIRE(f.broker.received().size() == 1);
    CHECK(f.broker.received()[0].payload == payload);
    CHECK(f.broker.received()[0].topic == "large/1");
}

TEST_CASE("messages that begin together, in pieces and whole, leave in their order, and drained waits for all") {
    auto const payload = test::noise(piece_size + 1);
    std::string_view const parts[] = {payload};
    for (auto const quality : test::qualities) {
        fixture f;
        span_source one(parts), two(parts);
        test::task<publish_result> first(f.io, publish_pieces(f.session, "1", one, {.qos = quality}));
        test::task<publish_result> second(f.io, publish_pieces(f.session, "2", two, {.qos = quality}));
        test::task<publish_result> third(f.io, f.session.publish("3", "whole", {.qos = quality}));
        f.settle();
        REQUIRE(f.broker.received().size() == 3);
        for (std::size_t i = 0; i != 3; ++i) {
            CHECK(f.broker.received()[i].topic == std::to_string(i + 1));
            CHECK(f.broker.received()[i].payload == (i == 2 ? "whole" : payload));
        }
        CHECK(first.done());
        CHECK(second.done());
        CHECK(third.done());
    }
    fixture f;
    slow_source source(f.io.get_executor(), payload);
    test::task<publish_result> publishing(f.io, publish_pieces(f.session, "1", source));
    f.settle();
    test::task<void> draining(f.io, f.session.drained());
    f.settle();
    CHECK_FALSE(draining.done());
    source.go_on();
    f.settle();
    CHECK_FALSE(draining.done());
    source.go_on();
    f.settle();
    CHECK(draining.done());
}

TEST_CASE("the protocol's limit holds before there is a connection, and with an alias that makes a packet larger") {
    auto const nothing = [](std::uint64_t, std::span<char>) { return std::size_t{0}; };
    test::memory_fixture f(recording(0xFFFF'FFFF));
    session_type s(f.io.get_executor(), transport_type{f.transport}, with_large_packets(protocol_version::v5));
    scripted_source source{max_variable_integer - (2 + 7 + 2), nothing};  // one byte more, for the properties' length
    test::task<publish_result> before(f.io, publish_pieces(s, "large/1", source, {.qos = qos::at_least_once}));
    f.settle();
    REQUIRE(before.done());
    CHECK(before.error() == errc::packet_too_large);
    --source.bytes;
    test::task<void> running(f.io, s.run());
    test::run(f.io, s.connected());
    test::task<publish_result> aliased(f.io, publish_pieces(s, "large/1", source, {.qos = qos::at_least_once}));
    CHECK(aliased.run_for_error() == errc::packet_too_large);
    CHECK(source.offsets.empty());
    test::run(f.io, s.publish("large/1", "fine", {.qos = qos::at_least_once}));
    CHECK(f.broker.received().size() == 1);
}

namespace {

/// Lets time pass on an executor.
void let(asio::io_context& io, std::chrono::milliseconds pass) {
    auto const end = std::chrono::steady_clock::now() + pass;
    do io.restart();
    while (io.run_one_until(end) != 0 || std::chrono::steady_clock::now() < end);
}

/// An authenticator that takes its time over the server's proof.
struct slow_judge {
    std::string method() const { return "m"; }
    asio::awaitable<std::string> begin() { co_return "b"; }
    asio::awaitable<std::string> answer(std::string) { co_return ""; }
    asio::awaitable<void> finish(std::string) {
        co_await sleep_for<test::executor>(co_await asio::this_coro::executor, std::chrono::milliseconds(5));
    }
};

}  // namespace

TEST_CASE("a message in pieces is read on though it takes the last place of those that are not taken") {
    for (auto const version : test::versions) {
        auto o = with_large_packets();
        o.version = version;
        o.receive_maximum = 1;
        scripted s(version, o);
        std::string const payload(300'000, 'x');
        s.on_packet = [&](test::heard_packet const& p) -> std::optional<std::string> {
            if (p.type != packet_type::publish) return std::nullopt;
            return s.publish(payload, qos::at_least_once, false, 7);
        };
        auto const large = test::run(s.io, s.session.subscribe("large/#"));
        collector got;
        test::task<void> receiving(s.io, receive_pieces(s.session, large, got));
        for (std::size_t n = 1; n <= 2; ++n) {
            CHECK(s.session.try_publish("go", "on"));
            CHECK(test::wait_until(s.io, [&] { return got.whole() == n; }));
        }
        CHECK(got.all.back().payload == payload);
        CHECK(s.session.counters().connections == 1);
        receiving.cancel();
        CHECK(receiving.run_for_error() == asio::error::operation_aborted);
    }
}

TEST_CASE("messages in pieces that come in the same read behind CONNACK are all given once the server is proved") {
    auto const accepted = [](bool present) {
        return test::packet(0x20, std::string(1, present ? '\1' : '\0') + std::string(1, '\0') +
                                      test::properties_field(test::hex("15 00 01 'm' 16 00 01 'p'")));
    };
    auto const message = [](char const* text) {
        return test::packet(0x30, test::field("a") + std::string(1, '\0') + text);
    };
    test::scripted_peer peer([&](test::heard_packet const& p) -> std::optional<std::string> {
        if (p.type == packet_type::connect)
            return p.connection == 0 ? accepted(false) : accepted(true) + message("one") + message("two");
        if (p.type == packet_type::subscribe) return test::packet(0x90, p.identifier() + test::hex("00 00"));
        if (p.type == packet_type::publish) return std::nullopt;
        return "";
    });
    session_type s(peer.io.get_executor(), transport_type{peer.transport}, test::quick("c", protocol_version::v5));
    s.set_authenticator(slow_judge{});
    test::task<void> running(peer.io, s.run());
    test::run(peer.io, s.connected());
    auto const sub = test::run(peer.io, s.subscribe("a"));
    collector got;
    test::task<void> receiving(peer.io, receive_pieces(s, sub, got));
    test::settle(peer.io);
    CHECK(s.try_publish("end", ""));
    CHECK(test::wait_until(peer.io, [&] { return got.whole() == 2; }));
    receiving.cancel();
    CHECK(receiving.run_for_error() == asio::error::operation_aborted);
}

TEST_CASE("receiving is cancelled also when its subscription has ended in the middle of a message") {
    scripted s(protocol_version::v3_1_1, with_large_packets());
    s.on_packet = [&](test::heard_packet const& p) -> std::optional<std::string> {
        if (p.type != packet_type::publish) return std::nullopt;
        return s.publish(std::string(3000, 'x'), qos::at_least_once).substr(0, 1000);
    };
    auto large = test::run(s.io, s.session.subscribe("large/#"));
    collector got;
    test::task<void> receiving(s.io, receive_pieces(s.session, large, got));
    CHECK(s.session.try_publish("go", "on"));
    CHECK(test::wait_until(s.io, [&] { return !got.all.empty(); }));
    test::task<void> unsubscribing(s.io, s.session.unsubscribe(large));
    test::settle(s.io);
    CHECK_FALSE(receiving.done());
    receiving.cancel();
    CHECK(receiving.run_for_error() == asio::error::operation_aborted);
    CHECK(got.all.back().aborted == asio::error::operation_aborted);
}

TEST_CASE("a message that an earlier connection has had some of ends the next one if it is given up there") {
    for (auto const quality : {qos::at_least_once, qos::exactly_once}) {
        test::memory_fixture f;
        f.on_open = [&](memory_stream<>& s) {
            if (f.opened == 1) s.incoming().cut_after = 100'000;
        };
        session_type s(f.io.get_executor(), transport_type{f.transport}, with_large_packets());
        test::task<void> running(f.io, s.run());
        test::run(f.io, s.connected());
        std::string const text(4 * piece_size, 'x');
        slow_source source(f.io.get_executor(), text);
        test::task<publish_result> publishing(f.io, publish_pieces(s, "large", source, {.qos = quality}));
        for (int i = 0; i < 100 && s.counters().connections == 1; ++i) {
            source.go_on();
            let(f.io, std::chrono::milliseconds(2));
        }
        REQUIRE(test::wait_until(f.io, [&] { return s.is_connected() && s.counters().connections == 2; }));
        let(f.io, std::chrono::milliseconds(5));
        publishing.cancel();
        CHECK(publishing.run_for_error() == asio::error::operation_aborted);
        test::run(f.io, s.drained());
        CHECK(test::wait_until(f.io, [&] { return s.counters().connections == 3; }));
        CHECK(test::run(f.io, s.publish("t", "p", {.qos = quality})).what == publish_result::outcome::acknowledged);
        test::run(f.io, s.disconnect());
        CHECK_FALSE(running.run_for_error());
    }
}
