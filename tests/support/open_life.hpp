#pragma once

#include <runnel/transport/asio_stream.hpp>
#include <runnel/transport/connect_progress.hpp>
#include <runnel/transport/memory.hpp>
#include <runnel/transport/stream.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/use_awaitable.hpp>
#include <doctest/doctest.h>

#include "support/run.hpp"
#include "support/sample.hpp"
#include "support/streams.hpp"
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace test {

/// What a server does with a connection: it hears and answers step by step, and what then?
struct server_script {
    struct step {
        std::size_t hears;  // bytes
        std::string says;   // in pieces
    };
    enum class ending { falls_silent, resets, closes };

    std::vector<step> steps;
    ending then = ending::falls_silent;
};

/// The first `n` steps of `all`, and each of the endings behind them; for each `n`, that of all of them included.
inline std::vector<server_script> cut_scripts(std::vector<server_script::step> const& all) {
    using enum server_script::ending;
    std::vector<server_script> made;
    for (std::size_t n = 0; n <= all.size(); ++n)
        for (auto const then : {falls_silent, resets, closes})
            made.push_back({{all.begin(), all.begin() + static_cast<std::ptrdiff_t>(n)}, then});
    return made;
}

/// Servers that do as their scripts say, in memory and on TCP.
class scripted_servers {
  public:
    explicit scripted_servers(asio::io_context& io) : io_(io) {}

    asio::io_context& io() noexcept { return io_; }

    /// The way to a server, which must go with this.
    runnel::memory_transport memory(server_script script) {
        return runnel::memory_transport(
            [this, script = std::move(script)](runnel::memory_stream<> s) { begin(std::move(s), script); });
    }

    /// The same of one that does what `serve` does with each connection.
    runnel::memory_transport memory(std::function<asio::awaitable<void>(runnel::memory_stream<>)> serve) {
        return runnel::memory_transport([this, serve = std::move(serve)](runnel::memory_stream<> s) {
            tasks_.push_back(std::make_unique<task<void>>(io_, until_it_fails(serve(std::move(s)))));
        });
    }

    /// One with a script on the loopback.
    asio::ip::tcp::endpoint listen(server_script script) {
        auto& acceptor = *acceptors_.emplace_back(
            std::make_unique<acceptor_type>(io_, asio::ip::tcp::endpoint(asio::ip::address_v4::loopback(), 0)));
        tasks_.push_back(std::make_unique<task<void>>(io_, accept_all(*this, acceptor, std::move(script))));
        return acceptor.local_endpoint();
    }
    runnel::tcp tcp(server_script script) { return {.host = "127.0.0.1", .port = listen(std::move(script)).port()}; }

    /// Resets every connection of those with scripts, now.
    void reset() {
        for (auto const& s : servers_) s->reset();
    }
    /// Accepts none any more.
    void close() {
        for (auto const& a : acceptors_) a->close();
    }
    /// Everything goes at once.
    void clear() {
        servers_.clear();
        acceptors_.clear();
        tasks_.clear();
    }

  private:
    using acceptor_type = asio::basic_socket_acceptor<asio::ip::tcp, executor>;

    struct any_server {
        virtual ~any_server() = default;
        virtual void reset() = 0;
    };
    template <runnel::stream S>
    struct server final : any_server {
        explicit server(S s) : stream(std::move(s)) {}
        void reset() override {
            if constexpr (requires { stream.cut(); }) {
                stream.cut();
            } else {
                runnel::asio_error_code ignored;
                stream.next_layer().set_option(asio::socket_base::linger(true, 0), ignored);
                stream.next_layer().close(ignored);
            }
        }
        S stream;
    };

    template <runnel::stream S>
    void begin(S s, server_script const& script) {
        auto made = std::make_unique<server<S>>(std::move(s));
        auto& added = *made;
        servers_.push_back(std::move(made));
        tasks_.push_back(std::make_unique<task<void>>(io_, serve(added, script)));
    }

    template <class Server>
    static asio::awaitable<void> serve(Server& to, server_script script) {
        try {
            for (auto const& [hears, says] : script.steps) {
                auto hearing = read_exactly(to.stream, hears);
                co_await std::move(hearing);
                std::size_t const piece = says.size() / 3 + 1;
                for (std::size_t at = 0; at < says.size(); at += piece) {
                    auto saying = write_text(to.stream, says.substr(at, piece));
                    co_await std::move(saying);
                    co_await asio::post(asio::use_awaitable);
                }
            }
            if (script.then == server_script::ending::resets) {
                to.reset();
            } else {
                if (script.then == server_script::ending::closes) co_await to.stream.shutdown();
                auto rest = read_to_end(to.stream);
                co_await std::move(rest);
            }
        } catch (std::system_error const&) {
        }
    }

    static asio::awaitable<void> until_it_fails(asio::awaitable<void> serving) {
        try {
            co_await std::move(serving);
        } catch (std::system_error const&) {
        }
    }

    static asio::awaitable<void> accept_all(scripted_servers& self, acceptor_type& acceptor, server_script script) {
        try {
            for (;;) {
                auto socket = co_await acceptor.async_accept(asio::use_awaitable);
                self.begin(runnel::asio_stream(std::move(socket)), script);
            }
        } catch (std::system_error const&) {
        }
    }

    asio::io_context& io_;
    std::vector<std::unique_ptr<any_server>> servers_;
    std::vector<std::unique_ptr<acceptor_type>> acceptors_;
    std::vector<std::unique_ptr<task<void>>> tasks_;
};

/// Opens a transport and interrupts that at each point (every third, where there is not the time for all): before the
/// first turn of the context, the second, ..., until it ends, or nothing goes on as a server is silent. The context
/// runs on, where it does not go as well.
template <runnel::transport Transport>
class open_life {
  public:
    /// `make` makes the transport, and the servers that it leads to.
    explicit open_life(std::function<Transport(scripted_servers&)> make) : make_(std::move(make)) {}

    /// How much time an attempt has; without limit to begin with.
    std::chrono::milliseconds budget{0};

    /// Interrupts it in all ways. Returns what it ends with if it is not interrupted.
    std::error_code run_all() {
        asio::io_context io;
        scripted_servers there(io);
        auto transport = std::make_unique<Transport>(make_(there));
        auto progress = begin();
        outcome_ = error_of(io, open(transport, io, progress));
        there.close();
        CHECK(runs_out(io));
        run_all_silent();
        return outcome_;
    }
    /// The same where it does not end by itself, as a server is silent.
    void run_all_silent() {
        drop();
        for (auto const how : {way::cancel, way::reset_and_cancel, way::cancel_and_reset, way::destroy_with_context,
                               way::cancel_and_destroy_with_context}) {
            CAPTURE(static_cast<int>(how));
            CHECK(run(how) > 0);
        }
    }

    /// The errors of a connection that has been reset: which of them depends on who has been quicker.
    static bool is_reset(std::error_code e) {
        return e == asio::error::connection_reset || e == asio::error::broken_pipe;
    }

  private:
    enum class way {
        cancel,  // in one turn with what follows
        reset_and_cancel,
        cancel_and_reset,
        destroy_with_context,
        cancel_and_destroy_with_context,
    };
    static constexpr std::chrono::seconds patience{5};

    runnel::connect_progress begin() const {
        runnel::connect_progress made;
        auto const now = std::chrono::steady_clock::now();
        if (budget.count() != 0) made.begin({now, now + budget});
        return made;
    }

    // Before it begins.
    void drop() {
        asio::io_context io;
        scripted_servers there(io);
        auto const transport = make_(there);
        {
            auto const opening = runnel::open_stream(transport, executor(io.get_executor()), nullptr);
        }
        there.close();
        CHECK(runs_out(io));
    }

    int run(way how) {
        for (int point = 0; point < 1'000; point += static_cast<int>(every(3)))
            if (run_to(point, how)) return point;
        FAIL("opening does not end");
        return 0;
    }

    // One turn of the context; false if nothing goes on.
    static bool turn(asio::io_context& io) {
        io.restart();
        if (io.poll_one() != 0) return true;
        io.restart();
        return io.run_one_for(std::chrono::milliseconds(20)) != 0;
    }
    // Nothing is left behind that would keep the context running.
    static bool runs_out(asio::io_context& io) {
        io.restart();
        io.run_for(patience);
        return io.stopped();
    }

    // True if there is no later point.
    bool run_to(int point, way how) {
        CAPTURE(point);
        auto io = std::make_unique<asio::io_context>();
        scripted_servers there(*io);
        auto transport = std::make_unique<Transport>(make_(there));
        auto progress = begin();
        task<void> opening(*io, open(transport, *io, progress));
        bool is_last = false;
        for (int i = 0; i < point && !is_last; ++i) is_last = !turn(*io) || opening.done();

        if (how == way::destroy_with_context || how == way::cancel_and_destroy_with_context) {
            if (how == way::cancel_and_destroy_with_context) opening.cancel();
            there.clear();
            io.reset();
            return is_last;
        }
        bool const was_done = opening.done();
        if (how == way::reset_and_cancel) there.reset();
        opening.cancel();
        if (how == way::cancel_and_reset) there.reset();
        auto const error = opening.run_for_error(patience);
        if (how == way::cancel && !was_done && budget.count() == 0)  // else it may have been too late
            CHECK((!error || error == asio::error::operation_aborted || error == outcome_ || is_reset(error)));
        CHECK(opening.ended() == 1);
        if (!error) CHECK(transport == nullptr);
        there.close();
        CHECK(runs_out(*io));
        return is_last;
    }

    // Whoever is told of the end lets the transport go, and the stream, at once.
    static asio::awaitable<void> open(std::unique_ptr<Transport>& transport, asio::io_context& io,
                                      runnel::connect_progress& progress) {
        try {
            auto opening = runnel::open_stream(*transport, executor(io.get_executor()), &progress);
            auto const opened = co_await std::move(opening);
            transport.reset();
        } catch (...) {
            transport.reset();
            throw;
        }
    }

    std::function<Transport(scripted_servers&)> make_;
    std::error_code outcome_;  // without an interruption
};

}  // namespace test
