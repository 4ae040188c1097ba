#include <runnel/core/receive_buffer.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

using runnel::receive_buffer;

namespace {

// What a read does: as many bytes of `text` as the room takes; returns how many.
std::size_t fill(receive_buffer& buffer, std::string_view text, std::size_t expected = 0) {
    auto const room = buffer.prepare(expected);
    std::size_t const n = std::min(room.size(), text.size());
    std::memcpy(room.data(), text.data(), n);
    buffer.commit(n);
    return n;
}

}  // namespace

TEST_CASE("a fresh receive buffer is empty and holds no memory") {
    receive_buffer const buffer;
    CHECK(buffer.empty());
    CHECK(buffer.data().empty());
    CHECK(buffer.capacity() == 0);
}

TEST_CASE("a receive buffer holds what was read until it is consumed") {
    receive_buffer buffer;
    fill(buffer, "first ");
    fill(buffer, "second");
    CHECK(buffer.data() == "first second");
    buffer.consume(6);
    CHECK(buffer.data() == "second");
    buffer.consume(6);
    CHECK(buffer.empty());
}

TEST_CASE("who announces much and sends little gets little room, and who sends all needs few rooms") {
    receive_buffer buffer;
    std::size_t const announced = 256 * 1024 * 1024;
    CHECK(buffer.prepare_for_packet(announced).size() == receive_buffer::trusted);
    buffer.commit(5);
    int rooms = 1;
    for (std::size_t come = 5; come < announced;) {
        auto const before = buffer.capacity();
        auto const room = buffer.prepare_for_packet(announced).size();
        rooms += buffer.capacity() != before;
        CHECK(buffer.capacity() <= std::max(receive_buffer::trusted, 4 * come) + receive_buffer::max_read);
        auto const n = std::min(room, receive_buffer::max_read);
        buffer.commit(n);
        come += n;
    }
    CHECK(buffer.capacity() <= announced + receive_buffer::max_read);
    CHECK(rooms < 12);
    receive_buffer small;
    small.prepare_for_packet(1000);
    CHECK(small.capacity() == 1000);
}

TEST_CASE("any sequence of reads and consumption keeps the bytes in order") {
    receive_buffer buffer;
    std::string in;
    std::string out;
    unsigned seed = 1;
    auto const next = [&seed](unsigned below) { return (seed = seed * 1664525U + 1013904223U) / 65536U % below; };
    for (int i = 0; i < 3000; ++i) {
        std::string piece(next(1500), '\0');
        for (char& c : piece) c = static_cast<char>('a' + next(26));
        std::size_t const taken = fill(buffer, piece, next(3) == 0 ? next(4000) : 0);
        in += piece.substr(0, taken);
        std::size_t const n = next(static_cast<unsigned>(buffer.data().size()) + 1);
        out += buffer.data().substr(0, n);
        buffer.consume(n);
    }
    out += buffer.data();
    CHECK((out == in));
}

TEST_CASE("the room of a receive buffer holds the packet that is expected") {
    receive_buffer buffer;
    fill(buffer, "head");
    auto const room = buffer.prepare(100'000);
    CHECK(room.size() + buffer.data().size() >= 100'000);
    CHECK(buffer.data() == "head");
}

TEST_CASE("the room of a receive buffer starts small, grows while reads fill it, up to its maximum") {
    receive_buffer buffer;
    CHECK(buffer.prepare().size() == receive_buffer::min_read);
    std::string const much(receive_buffer::max_read * 4, 'x');
    for (int i = 0; i < 20; ++i) {
        fill(buffer, much);
        buffer.consume(buffer.data().size());
    }
    CHECK(buffer.prepare().size() == receive_buffer::max_read);
    auto const capacity = buffer.capacity();
    for (int i = 0; i < 20; ++i) {
        fill(buffer, "little");
        buffer.consume(6);
    }
    CHECK(buffer.capacity() == capacity);
}

TEST_CASE("the room of a receive buffer grows too while reads nearly fill it") {
    receive_buffer buffer;
    for (std::size_t room = receive_buffer::min_read; room <= receive_buffer::max_read; room *= 2) {
        CHECK(buffer.prepare().size() == room);
        fill(buffer, std::string(room - room / 16, 'x'));  // a layer below has taken headers out
        buffer.consume(buffer.data().size());
    }
}

TEST_CASE("small reads do not make the room of a receive buffer grow") {
    receive_buffer buffer;
    for (int i = 0; i < 1000; ++i) {
        fill(buffer, "little");
        buffer.consume(6);
    }
    CHECK(buffer.capacity() == receive_buffer::min_read);
}

TEST_CASE("an idle receive buffer gives its memory back, one that holds bytes does not") {
    receive_buffer buffer;
    std::string const much(receive_buffer::max_read * 4, 'x');
    for (int i = 0; i < 5; ++i) {
        fill(buffer, much);
        buffer.consume(buffer.data().size() - 1);
    }
    buffer.release_if_idle();
    CHECK(buffer.data() == "x");
    CHECK(buffer.capacity() > 0);
    buffer.consume(1);
    buffer.release_if_idle();
    CHECK(buffer.capacity() == 0);
    CHECK(buffer.prepare().size() == receive_buffer::min_read);
}

TEST_CASE("a cleared receive buffer is empty and keeps its memory") {
    receive_buffer buffer;
    fill(buffer, "something");
    auto const capacity = buffer.capacity();
    buffer.clear();
    CHECK(buffer.empty());
    CHECK(buffer.capacity() == capacity);
    fill(buffer, "else");
    CHECK(buffer.data() == "else");
}

TEST_CASE("without memory for the next read nothing changes") {
    receive_buffer buffer;
    std::memcpy(buffer.prepare().data(), "abc", 3);
    buffer.commit(3);
    auto const capacity = buffer.capacity();
    {
        runnel::testing::failing_allocation const failing(1);
        CHECK_THROWS_AS(buffer.prepare(100'000), std::bad_alloc);
    }
    CHECK(buffer.capacity() == capacity);
    CHECK(buffer.data() == "abc");
    auto const room = buffer.prepare();
    std::memset(room.data(), 'b', room.size());
    CHECK(buffer.data() == "abc");
}
