#pragma once

#include <runnel/transport/stream.hpp>

#include <string>

namespace test {

/// Writes `text` to a stream. By value, as a coroutine may start when a temporary has gone.
template <runnel::stream S>
asio::awaitable<void, typename S::executor_type> write_text(S& stream, std::string text) {
    runnel::send_buffer out(S::headroom);
    out.append(text);
    co_await stream.write(out);
}

/// Reads from a stream until there are `size` bytes.
template <runnel::stream S>
asio::awaitable<std::string, typename S::executor_type> read_exactly(S& stream, std::size_t size,
                                                                     std::size_t block = 64 * 1024) {
    std::string text;
    std::string room(block, '\0');
    while (text.size() < size) {
        asio::mutable_buffer const into(room.data(), std::min(room.size(), size - text.size()));
        std::size_t const n = co_await stream.read_some(into);
        text.append(room.data(), n);
    }
    co_return text;
}

/// What can be read until the stream ends, and how it ends.
struct reading {
    std::string text;
    std::error_code end;
};

/// Reads from a stream until it ends, in whatever way.
template <runnel::stream S>
asio::awaitable<reading, typename S::executor_type> read_to_end(S& stream, std::size_t block = 64 * 1024) {
    reading result;
    std::string room(block, '\0');
    try {
        while (true) {
            std::size_t const n = co_await stream.read_some(asio::buffer(room));
            result.text.append(room.data(), n);
        }
    } catch (std::system_error const& e) {
        result.end = e.code();
    }
    co_return result;
}

/// `size` bytes without a short period, the same for the same seed.
inline std::string noise(std::size_t size, unsigned seed = 1) {
    std::string text(size, '\0');
    char* const bytes = text.data();  // without iterators, which are dear where nothing is inlined
    for (std::size_t i = 0; i < size; ++i) {
        seed = seed * 1664525U + 1013904223U;
        bytes[i] = static_cast<char>(seed >> 24U);
    }
    return text;
}

}  // namespace test
