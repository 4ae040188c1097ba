#include <runnel/transport/asio_stream.hpp>
#include <runnel/transport/memory.hpp>
#include <runnel/transport/tapped_stream.hpp>

#include <asio/ip/tcp.hpp>
#include <doctest/doctest.h>

#include "support/sample.hpp"
#include "support/stream_life.hpp"
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace {

struct record {
    std::string sent, received;
    std::vector<std::error_code> failures;
    int closed = 0;
    std::function<void()> on_bytes = [] {};
};

class recorder {
  public:
    explicit recorder(std::shared_ptr<record> to) : to_(std::move(to)) {}
    void sent(std::string_view bytes) noexcept {
        CHECK(to_->closed == 0);
        to_->sent += bytes;
        to_->on_bytes();
    }
    void received(std::string_view bytes) noexcept {
        CHECK(to_->closed == 0);
        to_->received += bytes;
        to_->on_bytes();
    }
    void failed(std::error_code error, bool) noexcept {
        CHECK(to_->closed == 0);
        to_->failures.push_back(error);
    }
    void closed() noexcept { ++to_->closed; }

  private:
    std::shared_ptr<record> to_;
};

using memory = runnel::memory_stream<>;
using tapped = runnel::tapped_stream<memory, recorder>;
static_assert(runnel::stream<tapped>);

struct tapped_pair {
    asio::io_context io;
    std::pair<memory, memory> ends = memory::pair(io.get_executor());
    std::shared_ptr<record> seen = std::make_shared<record>();
    std::unique_ptr<tapped> stream = std::make_unique<tapped>(std::move(ends.first), recorder(seen));
    memory& peer = ends.second;
    char room[100] = {};
};

runnel::send_buffer buffer_of(std::string_view text) {
    runnel::send_buffer out;
    out.append(text);
    return out;
}

}  // namespace

TEST_CASE("a tap sees what goes by, and nothing else changes") {
    tapped_pair p;
    auto out = buffer_of("there");
    test::run(p.io, p.stream->write(out));
    CHECK(out.empty());
    CHECK(test::run(p.io, p.peer.read_some(asio::buffer(p.room))) == 5);
    CHECK(p.stream->backlog() == 0);
    auto back = buffer_of("and back");
    test::run(p.io, p.peer.write(back));
    CHECK(test::run(p.io, p.stream->read_some(asio::buffer(p.room, 3))) == 3);
    CHECK(test::run(p.io, p.stream->read_some(asio::buffer(p.room))) == 5);
    runnel::send_buffer nothing;
    test::run(p.io, p.stream->write(nothing));
    CHECK(p.seen->sent == "there");
    CHECK(p.seen->received == "and back");
    test::run(p.io, p.stream->shutdown());
    CHECK(test::error_of(p.io, p.peer.read_some(asio::buffer(p.room))) == asio::error::eof);
    CHECK(p.seen->failures.empty());
    p.stream.reset();
    CHECK(p.seen->closed == 1);
}

TEST_CASE("a tap sees errors, as whoever uses the stream does") {
    tapped_pair p;
    p.peer.cut();
    CHECK(test::error_of(p.io, p.stream->read_some(asio::buffer(p.room))) == asio::error::connection_reset);
    auto out = buffer_of("x");
    CHECK(test::error_of(p.io, p.stream->write(out)) == asio::error::broken_pipe);
    CHECK(p.seen->failures == std::vector<std::error_code>{asio::error::connection_reset, asio::error::broken_pipe});
}

TEST_CASE("a tap is told once that the stream has gone, by whatever way it goes") {
    tapped_pair p, q;
    tapped moved(std::move(*p.stream));
    p.stream.reset();
    CHECK(p.seen->closed == 0);
    moved = std::move(*q.stream);
    CHECK(p.seen->closed == 1);
    CHECK(q.seen->closed == 0);
    q.stream.reset();
    CHECK(q.seen->closed == 0);
}

TEST_CASE("a tap may destroy the stream, whose operation then ends") {
    for (bool const reads : {true, false}) {
        tapped_pair p;
        p.seen->on_bytes = [&] { p.stream.reset(); };
        auto out = buffer_of("x");
        std::error_code error;
        if (reads) {
            test::run(p.io, p.peer.write(out));
            error = test::error_of(p.io, p.stream->read_some(asio::buffer(p.room)));
        } else {
            error = test::error_of(p.io, p.stream->write(out));
        }
        CHECK(error == asio::error::operation_aborted);
        CHECK(p.seen->closed == 1);
        CHECK(p.seen->failures.empty());
    }
}

TEST_CASE("nothing is told of operations of a stream that has gone, or that were cancelled by its end") {
    tapped_pair p;
    auto out = buffer_of(std::string(100'000, 'x'));
    test::task reading(p.io, p.stream->read_some(asio::buffer(p.room)));
    test::task writing(p.io, p.stream->write(out));
    p.io.poll();
    CHECK(!writing.done());
    p.stream.reset();
    CHECK(reading.run_for_error() == asio::error::operation_aborted);
    CHECK(writing.run_for_error() == asio::error::operation_aborted);
    CHECK(p.seen->failures.empty());
}

TEST_CASE("a stream with a tap may go at each point of its operations") {
    auto const try_all = []<runnel::stream S>(test::life_test<S> const& life) {
        life.run_all({test::reads<S>});
        life.run_all({test::writes<S>});
        life.run_all({test::shuts_down<S>});
        life.run_all({test::reads<S>, test::writes<S>});
        life.run_inside({test::reads<S>, test::writes<S>});
        life.run_inside({test::writes<S>, test::reads_on<S>});
    };
    auto const tap = [] { return recorder(std::make_shared<record>()); };
    try_all(test::life_test<tapped>{.connect = [&](asio::io_context& io) {
        auto ends = memory::pair(io.get_executor());
        ends.first.outgoing().capacity = 5'000;
        return std::pair(tapped(std::move(ends.first), tap()), tapped(std::move(ends.second), tap()));
    }});
    using socket_stream = runnel::asio_stream<asio::basic_stream_socket<asio::ip::tcp, test::executor>>;
    using tapped_socket = runnel::tapped_stream<socket_stream, recorder>;
    auto const connect = [&](asio::io_context& io) {
        auto ends = test::tcp_sockets(io);
        return std::pair(tapped_socket(socket_stream(std::move(ends.first)), tap()),
                         tapped_socket(socket_stream(std::move(ends.second)), tap()));
    };
    try_all(test::life_test<tapped_socket>{.connect = connect, .apart = test::every(3)});
}
