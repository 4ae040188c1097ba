#include <runnel/transport/asio_stream.hpp>

#include <asio/local/connect_pair.hpp>
#include <asio/local/stream_protocol.hpp>
#include <asio/post.hpp>
#include <asio/read.hpp>
#include <doctest/doctest.h>

#include "support/run.hpp"
#include <cstddef>
#include <string>
#include <system_error>

namespace {

// Takes one byte at a time, at once; but whoever writes hears of it in the next turn, when there is nothing to cancel.
class slow_device {
  public:
    using executor_type = test::executor;
    slow_device(executor_type executor, std::size_t& taken) : executor_(std::move(executor)), taken_(&taken) {}
    executor_type get_executor() const { return executor_; }

    template <class Handler>
    void async_read_some(asio::mutable_buffer, Handler&&) {}

    template <class Handler>
    void async_write_some(asio::const_buffer, Handler&& handler) {
        ++*taken_;
        asio::post(executor_, [h = std::forward<Handler>(handler)]() mutable { h(std::error_code(), std::size_t{1}); });
    }

  private:
    executor_type executor_;
    std::size_t* taken_;
};

}  // namespace

TEST_CASE("a write that is cancelled between two of its parts ends") {
    asio::io_context io;
    std::size_t taken = 0;
    runnel::asio_stream stream(slow_device(io.get_executor(), taken));
    runnel::send_buffer out;
    out.append(std::string(1000, 'x'));
    test::task<void> writing(io, stream.write(out));
    while (taken < 3) io.poll_one();
    writing.cancel();
    CHECK(writing.run_for_error() == asio::error::operation_aborted);
    CHECK(taken <= 4);  // some Asio brings it to the executor, behind the next part
    CHECK(out.size() == 1000 - taken);
}

TEST_CASE("a write in parts ends when all is taken") {
    asio::io_context io;
    std::size_t taken = 0;
    runnel::asio_stream stream(slow_device(io.get_executor(), taken));
    runnel::send_buffer out;
    out.append(std::string(10, 'x'));
    test::run(io, stream.write(out));
    CHECK(taken == 10);
    CHECK(out.empty());
}

TEST_CASE("what a socket takes at once is written directly, the rest by write") {
    asio::io_context io;
    asio::local::stream_protocol::socket here(io), there(io);
    asio::local::connect_pair(here, there);
    runnel::asio_stream stream(std::move(here));
    runnel::send_buffer out;
    SUBCASE("all of it") {
        out.append("abc");
        CHECK(stream.write_directly(out));
        CHECK(out.empty());
        std::string got(3, ' ');
        asio::read(there, asio::buffer(got));
        CHECK(got == "abc");
    }
    SUBCASE("a part") {
        std::size_t const size = 4 * 1024 * 1024;
        out.append(std::string(size, 'x'));
        CHECK_FALSE(stream.write_directly(out));
        CHECK(out.size() < size);
        CHECK_FALSE(stream.write_directly(out));  // and does not wait
        test::task<void> writing(io, stream.write(out));
        there.non_blocking(true);
        std::size_t got = 0;
        std::string room(1024 * 1024, ' ');
        while (!writing.done()) {
            io.poll();
            runnel::asio_error_code nothing_yet;
            got += there.read_some(asio::buffer(room), nothing_yet);
        }
        writing.run();
        there.non_blocking(false);
        if (got < size) asio::read(there, asio::buffer(room, size - got));
        CHECK(out.empty());
    }
    SUBCASE("nothing, if the peer has gone: it throws, as write does") {
        there.close();
        out.append("abc");
        CHECK_THROWS_AS(stream.write_directly(out), std::system_error);
    }
}

TEST_CASE("to a stream that is no socket nothing is written directly") {
    asio::io_context io;
    std::size_t taken = 0;
    runnel::asio_stream stream(slow_device(io.get_executor(), taken));
    runnel::send_buffer out;
    out.append("abc");
    CHECK_FALSE(stream.write_directly(out));
    CHECK(taken == 0);
    CHECK(out.size() == 3);
}
