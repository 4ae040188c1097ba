#pragma once

#include <runnel/mqtt/client/session.hpp>
#include <runnel/testing/broker/broker.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include <chrono>
#include <functional>
#include <memory>

namespace test {

/// Destroys a session with `run` pending at each point of its life, over a transport to a broker; the context runs on.
template <class Transport>
class session_life {
  public:
    using session = runnel::mqtt::session<Transport>;

    /// `reach` lets the broker listen and makes the transport that reaches it.
    explicit session_life(std::function<Transport(runnel::testing::broker&)> reach) : reach_(std::move(reach)) {}

    void run_all() {
        int point = 0;
        while (!run_to(point, false)) REQUIRE(++point < 2'000);
        CHECK(point > 10);
        for (int i = 0; i < point; i += 7) run_to(i, true);
    }

  private:
    static bool turn(asio::io_context& io) {
        io.restart();
        if (io.poll_one() != 0) return true;
        io.restart();
        return io.run_one_for(std::chrono::milliseconds(200)) != 0;
    }

    static asio::awaitable<void> use(std::unique_ptr<session>& owner, bool& leaving) {
        if (!owner) co_return;
        auto& s = *owner;
        co_await s.connected(0);
        if (!owner) co_return;
        auto subscription = co_await s.subscribe("a/#");
        std::string const text(3'000, 'x');
        for (int i = 0; i < 2; ++i) {
            if (!owner) co_return;
            co_await s.publish("a/b", text, {.qos = runnel::mqtt::qos::exactly_once});
            auto const m = co_await subscription.receive();
            CHECK(m.payload() == text);
        }
        if (!owner) co_return;
        leaving = true;
        co_await s.disconnect();
    }

    // `context_ends`: nothing runs any more behind the session's end.
    bool run_to(int point, bool context_ends) {
        CAPTURE(point);
        asio::io_context io;
        runnel::testing::broker broker(io.get_executor());
        auto const transport = reach_(broker);
        auto s = std::make_unique<session>(io.get_executor(), transport, quick());
        task running(io, s->run());
        bool leaving = false;
        task using_it(io, use(s, leaving));
        for (int i = 0; i < point && !using_it.done(); ++i)
            if (!turn(io)) break;
        bool const ended = using_it.done();
        bool const has_run = running.done();
        s.reset();
        if (context_ends) return ended;
        auto const error = running.run_for_error(std::chrono::seconds(2));
        // Once `disconnect` has said all, `run` may be about to return without an error.
        if (!has_run && !ended && (error || !leaving)) CHECK(error == runnel::mqtt::errc::disconnected);
        using_it.run_for_error(std::chrono::seconds(2));
        broker.close();
        io.restart();
        io.run_for(std::chrono::milliseconds(1));
        return ended;
    }

    std::function<Transport(runnel::testing::broker&)> reach_;
};

}  // namespace test
