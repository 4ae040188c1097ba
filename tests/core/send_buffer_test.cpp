#include <runnel/core/send_buffer.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <cstring>
#include <string>

using runnel::send_buffer;

TEST_CASE("a fresh send buffer is empty and holds no memory") {
    send_buffer buffer(14);
    CHECK(buffer.empty());
    CHECK(buffer.size() == 0);
    CHECK(buffer.view().empty());
    CHECK(buffer.capacity() == 0);
    CHECK(buffer.headroom() == 14);
    buffer.append({});
    CHECK(buffer.capacity() == 0);
}

TEST_CASE("a send buffer holds what was appended, in order, through any growth") {
    send_buffer buffer(3);
    std::string expected;
    for (int i = 0; i < 2000; ++i) {
        std::string const piece(static_cast<std::size_t>(i % 7), static_cast<char>('a' + i % 26));
        buffer.append(piece);
        expected += piece;
    }
    CHECK((buffer.view() == expected));
}

TEST_CASE("bytes prepared in a send buffer count from their commit on") {
    send_buffer buffer(2);
    char* const room = buffer.prepare(10);
    std::memcpy(room, "0123456789", 10);
    CHECK(buffer.empty());
    buffer.commit(4);
    CHECK(buffer.view() == "0123");
    buffer.append("x");
    CHECK(buffer.view() == "0123x");
}

TEST_CASE("what is prepended to a send buffer within the headroom moves nothing") {
    send_buffer buffer(6);
    buffer.append("payload");
    char const* const payload = buffer.data();
    std::memcpy(buffer.prepend(2), "ws", 2);
    std::memcpy(buffer.prepend(4), "tls:", 4);
    CHECK(buffer.view() == "tls:wspayload");
    CHECK(buffer.data() + 6 == payload);
}

TEST_CASE("a send buffer makes room when more is prepended than the headroom") {
    for (std::size_t headroom : {0U, 1U, 4U}) {
        for (std::size_t size : {0U, 1U, 5U, 100U}) {
            CAPTURE(headroom);
            CAPTURE(size);
            send_buffer buffer(headroom);
            std::string expected(size, 'p');
            buffer.append(expected);
            for (char c = 'a'; c < 'k'; ++c) {
                std::memset(buffer.prepend(3), c, 3);
                expected.insert(0, 3, c);
            }
            CHECK(buffer.view() == expected);
        }
    }
}

TEST_CASE("a consumed send buffer is empty with its headroom restored and its memory kept") {
    send_buffer buffer(4);
    buffer.append("0123456789");
    buffer.consume(3);
    CHECK(buffer.view() == "3456789");
    buffer.consume(7);
    CHECK(buffer.empty());
    auto const capacity = buffer.capacity();
    CHECK(capacity > 0);
    buffer.append("abc");
    char const* const at = buffer.data();
    std::memcpy(buffer.prepend(4), "head", 4);
    CHECK(buffer.view() == "headabc");
    CHECK(buffer.data() + 4 == at);
    CHECK(buffer.capacity() == capacity);
}

TEST_CASE("a send buffer that is filled and cleared in turn keeps its memory") {
    send_buffer buffer(4);
    buffer.append(std::string(1000, 'x'));
    buffer.clear();
    auto const capacity = buffer.capacity();
    for (int i = 0; i < 100; ++i) {
        buffer.append(std::string(1000, 'y'));
        CHECK(buffer.size() == 1000);
        buffer.clear();
    }
    CHECK(buffer.capacity() == capacity);
    CHECK(buffer.empty());
}

TEST_CASE("truncation drops the last bytes of a send buffer") {
    send_buffer buffer(2);
    buffer.append("0123456789");
    buffer.consume(2);
    buffer.truncate(3);
    CHECK(buffer.view() == "234");
    buffer.append("x");
    CHECK(buffer.view() == "234x");
}

TEST_CASE("a released send buffer holds no memory and can be used again") {
    send_buffer buffer(5);
    buffer.append("something");
    buffer.release();
    CHECK(buffer.capacity() == 0);
    CHECK(buffer.empty());
    std::memcpy(buffer.prepend(2), "ab", 2);
    buffer.append("c");
    CHECK(buffer.view() == "abc");
}

TEST_CASE("moving a send buffer takes its bytes and leaves an empty one of the same headroom") {
    send_buffer a(3);
    a.append("bytes");
    send_buffer b(std::move(a));
    CHECK(b.view() == "bytes");
    CHECK(b.headroom() == 3);
    send_buffer c(7);
    c.append("others");
    c = std::move(b);
    CHECK(c.view() == "bytes");
    CHECK(c.headroom() == 3);
    a.append("again");  // NOLINT: usable by contract
    CHECK(a.view() == "again");
    CHECK(a.headroom() == 3);
    a.swap(c);
    CHECK(a.view() == "bytes");
    CHECK(c.view() == "again");
}

TEST_CASE("without memory nothing changes, behind and in front") {
    send_buffer buffer(4);
    buffer.append("abc");
    auto const capacity = buffer.capacity();
    {
        runnel::testing::failing_allocation const failing(1);
        CHECK_THROWS_AS(buffer.prepare(100'000), std::bad_alloc);
    }
    {
        runnel::testing::failing_allocation const failing(1);
        CHECK_THROWS_AS(buffer.prepend(100'000), std::bad_alloc);
    }
    CHECK(buffer.capacity() == capacity);
    CHECK(buffer.view() == "abc");
    std::memset(buffer.prepare(capacity - 8), 'b', capacity - 8);
    CHECK(buffer.view() == "abc");
}
