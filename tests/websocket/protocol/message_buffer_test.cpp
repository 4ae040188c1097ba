#include <runnel/websocket/protocol/message_buffer.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <cstring>
#include <ostream>
#include <string>

using runnel::websocket::message_buffer;

namespace {

void receive(message_buffer& buffer, std::string_view bytes) {
    auto const room = buffer.prepare();
    REQUIRE(room.size() >= bytes.size());
    std::memcpy(room.data(), bytes.data(), bytes.size());
    buffer.commit(bytes.size());
}

// Takes `skip` bytes of header and `n` of payload, as a connection does.
void take(message_buffer& buffer, std::size_t skip, std::size_t n) {
    char* const at = buffer.raw() + skip;
    char* const to = buffer.payload_to() != nullptr ? buffer.payload_to() : at;
    std::memmove(to, at, n);
    buffer.take(skip + n, {to, n});
}

}  // namespace

TEST_CASE("payload in one piece stays where it was received") {
    message_buffer buffer;
    receive(buffer, "hhpayloadrest");
    char const* const received = buffer.raw();
    take(buffer, 2, 7);
    CHECK(buffer.message() == "payload");
    CHECK(buffer.message().data() == received + 2);
    CHECK(std::string_view(buffer.raw(), buffer.raw_size()) == "rest");
}

TEST_CASE("pieces of payload are joined, over reads that move the memory") {
    message_buffer buffer;
    std::string expected;
    for (int i = 0; i < 2000; ++i) {
        std::string const piece(static_cast<std::size_t>(i % 300), static_cast<char>('a' + i % 26));
        receive(buffer, "##" + piece + "!");
        take(buffer, 2, piece.size());
        CHECK(std::string_view(buffer.raw(), buffer.raw_size()) == "!");
        buffer.take(1, {});
        expected += piece;
    }
    CHECK(buffer.message() == expected);
}

TEST_CASE("raw bytes behind a message survive the next message and more reads") {
    message_buffer buffer;
    receive(buffer, "#one#two#three");
    take(buffer, 1, 3);
    CHECK(buffer.message() == "one");
    buffer.next_message();
    CHECK(buffer.message().empty());
    take(buffer, 1, 3);
    CHECK(buffer.message() == "two");
    buffer.next_message();
    receive(buffer, " and more");
    take(buffer, 1, 14);
    CHECK(buffer.message() == "three and more");
    CHECK(buffer.raw_size() == 0);
}

TEST_CASE("memory of a large message is given back after a small one") {
    message_buffer buffer;
    std::string const large(2'000'000, 'x');
    buffer.append_raw(large);
    take(buffer, 0, large.size());
    CHECK(buffer.message() == large);
    CHECK(buffer.capacity() >= large.size());
    buffer.next_message();
    receive(buffer, "small");
    take(buffer, 0, 5);
    buffer.next_message();
    CHECK(buffer.capacity() == 0);
}

TEST_CASE("raw bytes can be taken out, for those who read a stream of bytes") {
    message_buffer buffer;
    buffer.append_raw("surplus");
    char out[4];
    CHECK(buffer.take_raw(out, 4) == 4);
    CHECK(std::string_view(out, 4) == "surp");
    CHECK(buffer.take_raw(out, 4) == 3);
    CHECK(std::string_view(out, 3) == "lus");
    CHECK(buffer.take_raw(out, 4) == 0);
}

TEST_CASE("without memory for the next read nothing changes, and what was received stays") {
    message_buffer buffer;
    receive(buffer, std::string(message_buffer::min_read, 'a'));
    take(buffer, 2, 300);
    auto const capacity = buffer.capacity();
    {
        runnel::testing::failing_allocation const failing(1);
        CHECK_THROWS_AS(buffer.prepare(), std::bad_alloc);
    }
    CHECK(buffer.capacity() == capacity);
    CHECK(buffer.message() == std::string(300, 'a'));
    CHECK(buffer.raw_size() == message_buffer::min_read - 302);
    auto const room = buffer.prepare();
    std::memset(room.data(), 'b', room.size());  // all of it is there
    buffer.commit(room.size());
    CHECK(buffer.message() == std::string(300, 'a'));
}

TEST_CASE("reads grow where what comes fills them") {
    message_buffer buffer;
    auto const first = buffer.prepare().size();
    buffer.commit(first);
    auto const second = buffer.prepare().size();
    CHECK(second >= 2 * first);
    buffer.commit(1);
    CHECK(buffer.prepare().size() < 4 * first);
}
