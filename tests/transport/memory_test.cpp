#include <runnel/transport/memory.hpp>

#include <doctest/doctest.h>

#include "support/run.hpp"
#include "support/streams.hpp"
#include <memory>
#include <vector>

namespace {

using stream_type = runnel::memory_stream<>;
static_assert(runnel::stream<stream_type>);
static_assert(runnel::network_transport<runnel::memory_transport>);

struct connected {
    asio::io_context io;
    std::pair<stream_type, stream_type> ends = stream_type::pair(io.get_executor());
    stream_type& a = ends.first;
    stream_type& b = ends.second;
};

}  // namespace

TEST_CASE("what goes into one end of a memory stream comes out of the other, both ways") {
    connected c;
    test::run(c.io, test::write_text(c.a, "there"));
    test::run(c.io, test::write_text(c.b, "and back"));
    CHECK(test::run(c.io, test::read_exactly(c.b, 5)) == "there");
    CHECK(test::run(c.io, test::read_exactly(c.a, 8)) == "and back");
    CHECK(c.a.outgoing().bytes == 5);
    CHECK(c.a.incoming().bytes == 8);
    CHECK(c.b.incoming().writes == 1);
    CHECK(c.b.incoming().reads == 1);
}

TEST_CASE("a read of a memory stream waits for bytes") {
    connected c;
    test::task reading(c.io, test::read_exactly(c.b, 3));
    c.io.poll();
    CHECK_FALSE(reading.done());
    c.io.restart();
    test::run(c.io, test::write_text(c.a, "abc"));
    CHECK(reading.run() == "abc");
}

TEST_CASE("a memory stream delivers at most max_read bytes a read") {
    connected c;
    c.a.outgoing().max_read = 3;
    test::run(c.io, test::write_text(c.a, "0123456789"));
    std::string room(100, '\0');
    CHECK(test::run(c.io, c.b.read_some(asio::buffer(room))) == 3);
    CHECK(test::run(c.io, test::read_exactly(c.b, 7)) == "3456789");
    CHECK(c.b.incoming().reads == 4);
}

TEST_CASE("a writer to a memory stream waits while more than its capacity is under way") {
    connected c;
    c.a.outgoing().capacity = 10;
    std::string const text = test::noise(35);
    test::task writing(c.io, test::write_text(c.a, text));
    c.io.poll();
    CHECK_FALSE(writing.done());
    CHECK(c.a.outgoing().bytes == 10);
    CHECK(test::run(c.io, test::read_exactly(c.b, 35)) == text);
    writing.run();
    CHECK(c.a.outgoing().writes == 1);
}

TEST_CASE("shutdown of a memory stream is eof for the peer behind the last byte, and the other direction goes on") {
    connected c;
    test::run(c.io, test::write_text(c.a, "last"));
    test::run(c.io, c.a.shutdown());
    auto const got = test::run(c.io, test::read_to_end(c.b));
    CHECK(got.text == "last");
    CHECK(got.end == asio::error::eof);
    test::run(c.io, test::write_text(c.b, "answer"));
    CHECK(test::run(c.io, test::read_exactly(c.a, 6)) == "answer");
    CHECK(test::error_of(c.io, test::write_text(c.a, "more")) == runnel::transport_errc::stream_broken);
}

TEST_CASE("a destroyed end of a memory stream is eof for the peer's reads and breaks its writes") {
    connected c;
    test::run(c.io, test::write_text(c.a, "last"));
    test::task reading(c.io, test::read_to_end(c.b));
    {
        stream_type const gone = std::move(c.a);
    }
    auto const got = reading.run();
    CHECK(got.text == "last");
    CHECK(got.end == asio::error::eof);
    CHECK(test::error_of(c.io, test::write_text(c.b, "hello?")) == asio::error::broken_pipe);
}

TEST_CASE("a memory stream can be destroyed with a read and a write under way: both are aborted") {
    connected c;
    c.a.outgoing().capacity = 1;
    auto mine = std::make_unique<stream_type>(std::move(c.a));
    std::string room(10, '\0');
    test::task reading(c.io, mine->read_some(asio::buffer(room)));
    runnel::send_buffer out;
    out.append("more than one");
    test::task writing(c.io, mine->write(out));
    c.io.poll();
    mine.reset();
    CHECK(reading.run_for_error() == asio::error::operation_aborted);
    CHECK(writing.run_for_error() == asio::error::operation_aborted);
}

TEST_CASE("a memory stream cut at any byte delivers the bytes before and the error behind them") {
    std::string const text = "0123456789";
    for (std::size_t cut = 0; cut <= text.size(); ++cut) {
        for (std::size_t chunk : {1U, 4U, 10U}) {
            CAPTURE(cut);
            CAPTURE(chunk);
            connected c;
            c.a.outgoing().cut_after = cut;
            test::run(c.io, test::write_text(c.b, "backwards"));
            std::error_code failed;
            for (std::size_t at = 0; at < text.size() && !failed; at += chunk)
                failed = test::error_of(c.io, test::write_text(c.a, text.substr(at, chunk)));
            auto const got = test::run(c.io, test::read_to_end(c.b));
            CHECK(got.text == text.substr(0, cut));
            CHECK(got.end == asio::error::connection_reset);
            // The write that crosses the cut does not know of it, the next one does.
            CHECK(test::error_of(c.io, test::write_text(c.a, "x")) == asio::error::broken_pipe);
            CHECK(test::error_of(c.io, test::write_text(c.b, "x")) == asio::error::broken_pipe);
            auto const back = test::run(c.io, test::read_to_end(c.a));
            CHECK(back.text == "backwards");
            CHECK(back.end == asio::error::connection_reset);
        }
    }
}

TEST_CASE("cutting a memory stream wakes those who wait, with the error that was set") {
    connected c;
    c.a.outgoing().cut_error = asio::error::eof;
    c.b.outgoing().capacity = 1;
    test::task reading(c.io, test::read_to_end(c.a));
    test::task writing(c.io, test::write_text(c.b, "much"));
    c.io.poll();
    // The reader takes one byte, the writer puts the next.
    c.a.cut();
    CHECK(reading.run().end == asio::error::eof);
    test::task stuck(c.io, test::write_text(c.b, "more"));
    CHECK(stuck.run_for_error() == asio::error::broken_pipe);
}

TEST_CASE("reads and writes of a memory stream can be cancelled while they wait") {
    connected c;
    c.a.outgoing().capacity = 1;
    test::task reading(c.io, test::read_exactly(c.a, 1));
    test::task writing(c.io, test::write_text(c.a, "much"));
    c.io.poll();
    reading.cancel();
    writing.cancel();
    CHECK(reading.run_for_error() == asio::error::operation_aborted);
    CHECK(writing.run_for_error() == asio::error::operation_aborted);
}

TEST_CASE("nothing is left behind when the context ends while both ends of a memory stream wait") {
    auto const witness = std::make_shared<int>(0);
    {
        asio::io_context io;
        auto const wait = [](stream_type stream, std::shared_ptr<int>) -> asio::awaitable<void> {
            co_await test::read_exactly(stream, 1);
        };
        auto [a, b] = stream_type::pair(io.get_executor());
        asio::co_spawn(io, wait(std::move(a), witness), [](std::exception_ptr) {});
        asio::co_spawn(io, wait(std::move(b), witness), [](std::exception_ptr) {});
        io.poll();
        CHECK(witness.use_count() > 1);
    }
    CHECK(witness.use_count() == 1);
}

TEST_CASE("a memory transport hands the server's end of each connection to its acceptor") {
    asio::io_context io;
    std::vector<stream_type> accepted;
    runnel::memory_transport const transport([&](stream_type s) { accepted.push_back(std::move(s)); });
    auto first = test::run(io, transport.open(io.get_executor()));
    auto second = test::run(io, transport.open(io.get_executor()));
    REQUIRE(accepted.size() == 2);
    test::run(io, test::write_text(second, "hi"));
    CHECK(test::run(io, test::read_exactly(accepted[1], 2)) == "hi");
    CHECK(transport.url() == "memory://:0");
    auto const copy = transport;
    CHECK(copy == transport);
    CHECK_FALSE(copy == runnel::memory_transport([](stream_type) {}));
}

TEST_CASE("what the acceptor throws, the opening of a memory transport throws") {
    asio::io_context io;
    runnel::memory_transport const transport(
        [](stream_type) { throw std::system_error(asio::error::connection_refused); });
    CHECK(test::error_of(io, transport.open(io.get_executor())) == asio::error::connection_refused);
}
