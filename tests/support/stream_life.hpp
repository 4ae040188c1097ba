#pragma once

#include <runnel/transport/stream.hpp>

#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/use_awaitable.hpp>
#include <doctest/doctest.h>

#include "support/run.hpp"
#include "support/streams.hpp"
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace test {

/// Two sockets that are connected on the loopback, the first with as small a buffer for sending as there is.
inline auto tcp_sockets(asio::io_context& io) {
    using socket = asio::basic_stream_socket<asio::ip::tcp, executor>;
    asio::ip::tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
    std::pair made(socket(io.get_executor()), socket(io.get_executor()));
    made.first.open(asio::ip::tcp::v4());
    made.first.set_option(asio::socket_base::send_buffer_size(1));
    made.first.connect(acceptor.local_endpoint());
    acceptor.accept(made.second);
    return made;
}

/// What is done to a stream while its operations are under way.
enum class interruption {
    destroy,
    destroy_with_context,
    cancel,
    cancel_and_destroy,  // in one turn
    shut_down,
    shut_down_and_destroy
};

/// Somebody who uses a stream: he goes with the stream and with the buffers that he has given it.
template <runnel::stream S>
struct stream_user {
    explicit stream_user(S s) : stream(std::move(s)) {}
    S stream;
    std::string into = std::string(700, '\0');
    runnel::send_buffer out{S::headroom};
    std::string text = some_text();

  private:
    static std::string const& some_text() {
        static std::string const made = noise(15'000);
        return made;
    }
};

/// An operation of his, begun at once, which touches nothing of his once it has thrown.
template <runnel::stream S>
using operation = asio::awaitable<void> (*)(stream_user<S>&);

template <runnel::stream S>
asio::awaitable<void> reads(stream_user<S>& user) {
    auto const go_on = [](stream_user<S>& u, asio::awaitable<std::size_t> first) -> asio::awaitable<void> {
        for (std::size_t n = co_await std::move(first); n < 3'000;)
            n += co_await u.stream.read_some(asio::buffer(u.into));
    };
    return go_on(user, user.stream.read_some(asio::buffer(user.into)));
}

template <runnel::stream S>
asio::awaitable<void> writes(stream_user<S>& user) {
    auto const go_on = [](stream_user<S>& u, asio::awaitable<void> first) -> asio::awaitable<void> {
        co_await std::move(first);
        u.out.append(u.text);
        co_await u.stream.write(u.out);
    };
    user.out.append(user.text);
    return go_on(user, user.stream.write(user.out));
}

template <runnel::stream S>
asio::awaitable<void> shuts_down(stream_user<S>& user) {
    return user.stream.shutdown();
}

/// Reads until that fails.
template <runnel::stream S>
asio::awaitable<void> reads_on(stream_user<S>& user) {
    auto const go_on = [](stream_user<S>& u, asio::awaitable<std::size_t> first) -> asio::awaitable<void> {
        co_await std::move(first);
        for (;;) co_await u.stream.read_some(asio::buffer(u.into));
    };
    return go_on(user, user.stream.read_some(asio::buffer(user.into)));
}

/// Tries a connection whose other end obliges: it reads to the end, and writes a little now and then.
template <runnel::stream S>
struct life_test {
    /// Two ends that are connected.
    std::function<std::pair<S, S>(asio::io_context&)> connect;
    /// What the other end does before each of its writes.
    std::function<void(S&)> before_write = [](S&) {};
    /// Done to this end before the operations begin.
    std::function<void(S&)> prepare = [](S&) {};
    /// From one point to the next: more than 1 leaves some out.
    std::size_t apart = 1;

    /// Interrupts `operations`, which begin together, at each point: before the first turn of the context, the second,
    /// ..., until they end by themselves. Returns at how many.
    int run(std::vector<operation<S>> const& operations, interruption what) const {
        for (int point = 0; point < 3'000; point += static_cast<int>(apart))
            if (run_to(point, operations, what)) return point;
        FAIL("the operations do not end");
        return 0;
    }

    /// All ways of interrupting.
    void run_all(std::vector<operation<S>> const& operations) const {
        using enum interruption;
        for (auto what :
             {destroy, destroy_with_context, cancel, cancel_and_destroy, shut_down, shut_down_and_destroy}) {
            CAPTURE(static_cast<int>(what));
            CHECK(run(operations, what) > 0);
        }
    }

    /// The first operation ends, and whoever it resumes destroys the stream at once, inside its completion; then the
    /// others end.
    void run_inside(std::vector<operation<S>> const& operations) const {
        asio::io_context io;
        scene now(*this, io);
        now.begin(then_destroy(operations[0], now));
        for (std::size_t i = 1; i < operations.size(); ++i) now.begin(operations[i]);
        CHECK_FALSE(now.tasks[0]->run_for_error(patience));
        for (std::size_t i = 1; i < operations.size(); ++i)
            if (!now.was_done[i]) CHECK(now.tasks[i]->run_for_error(patience) == asio::error::operation_aborted);
    }

  private:
    static constexpr std::chrono::seconds patience{20};  // valgrind is slow

    struct scene {
        scene(life_test const& of, asio::io_context& context) : io(context) {
            auto pair = of.connect(io);
            user = std::make_unique<stream_user<S>>(std::move(pair.first));
            peer = std::make_unique<stream_user<S>>(std::move(pair.second));
            of.prepare(user->stream);
            reading = std::make_unique<task<void>>(io, read_on(*peer));
            writing = std::make_unique<task<void>>(io, write_now_and_then(*peer, of.before_write));
        }
        void begin(operation<S> op) { begin(op(*user)); }
        void begin(asio::awaitable<void> op) {
            ends.push_back(std::make_unique<bool>(false));
            tasks.push_back(std::make_unique<task<void>>(io, run(std::move(op), *ends.back())));
        }
        bool all_done() const {
            for (auto const& end : ends)
                if (!*end) return false;
            return true;
        }

        void note_done() {
            for (auto const& end : ends) was_done.push_back(*end);
        }

        // A task takes turns of the context for itself, before and after what it runs.
        static asio::awaitable<void> run(asio::awaitable<void> op, bool& end) {
            try {
                co_await std::move(op);
            } catch (...) {
                end = true;
                throw;
            }
            end = true;
        }

        asio::io_context& io;
        std::unique_ptr<stream_user<S>> user, peer;
        std::unique_ptr<task<void>> reading, writing;
        std::vector<std::unique_ptr<bool>> ends;
        std::vector<bool> was_done;  // before the interruption
        std::vector<std::unique_ptr<task<void>>> tasks;
    };

    // One turn of the context; false if nothing goes on.
    static bool turn(asio::io_context& io) {
        io.restart();
        if (io.poll_one() != 0) return true;
        io.restart();
        return io.run_one_for(std::chrono::milliseconds(100)) != 0;
    }

    bool run_to(int point, std::vector<operation<S>> const& operations, interruption what) const {
        asio::io_context io;
        scene now(*this, io);
        for (auto op : operations) now.begin(op);
        for (int i = 0; i < point && !now.all_done(); ++i)
            if (!turn(io)) break;
        CAPTURE(point);
        now.note_done();
        bool const ended = now.all_done();

        if (what == interruption::cancel) {
            now.tasks[0]->cancel();
            now.tasks[0]->run_for_error(patience);
        } else if (what == interruption::cancel_and_destroy) {
            for (auto const& t : now.tasks) t->cancel();
        } else if (what == interruption::shut_down_and_destroy) {
            now.begin(now.user->stream.shutdown());
            now.was_done.push_back(false);
        } else if (what == interruption::shut_down) {
            task closing(io, now.user->stream.shutdown());
            closing.run_for_error(patience);
            for (auto const& t : now.tasks) t->run_for_error(patience);
            // Nothing can be read any more; a socket tells so once.
            for (auto const& t : now.tasks)
                if (t->error()) return ended;
            now.user->into.assign(100'000, '\0');
            CHECK(task<void>(io, reads_on(*now.user)).run_for_error(patience));
            return ended;
        }
        now.user.reset();
        if (what == interruption::destroy_with_context) {
            now.peer.reset();
            return ended;
        }
        for (std::size_t i = 0; i < now.tasks.size(); ++i) {
            auto const error = now.tasks[i]->run_for_error(patience);
            if (!now.was_done[i] && (what == interruption::destroy || what == interruption::shut_down_and_destroy))
                CHECK(error == asio::error::operation_aborted);
        }
        io.restart();
        io.poll();
        return ended;
    }

    static asio::awaitable<void> then_destroy(operation<S> op, scene& of) {
        co_await op(*of.user);
        of.note_done();
        of.user.reset();
    }

    static asio::awaitable<void> read_on(stream_user<S>& peer) {
        try {
            for (;;) co_await peer.stream.read_some(asio::buffer(peer.into));
        } catch (std::system_error const& e) {
            if (e.code() == asio::error::operation_aborted) co_return;
        }
        try {
            co_await peer.stream.shutdown();
        } catch (std::system_error const&) {
        }
    }

    static asio::awaitable<void> write_now_and_then(stream_user<S>& peer, std::function<void(S&)> before) {
        try {
            for (int i = 0; i < 4; ++i) {
                before(peer.stream);
                peer.out.append(std::string_view(peer.text).substr(0, 1'000));
                co_await peer.stream.write(peer.out);
                for (int k = 0; k < 3; ++k) co_await asio::post(asio::use_awaitable);
            }
        } catch (std::system_error const&) {
        }
    }
};

}  // namespace test
