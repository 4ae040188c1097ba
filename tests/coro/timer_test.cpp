#include <runnel/coro/timer.hpp>

#include <asio/any_io_executor.hpp>
#include <asio/io_context.hpp>
#include <doctest/doctest.h>

#include <chrono>
#include <optional>

namespace {

using namespace std::chrono_literals;
using timer = runnel::timer<asio::any_io_executor>;

struct counted {
    asio::io_context io;
    int calls = 0;
    std::optional<timer> it{std::in_place, io.get_executor(), [](void* of) { ++static_cast<counted*>(of)->calls; },
                            this};
    timer::clock::time_point const start = timer::clock::now();
};

}  // namespace

TEST_CASE("a timer calls at its time, once") {
    counted c;
    c.it->set(c.start + 20ms);
    c.io.run();
    CHECK(c.calls == 1);
    CHECK(timer::clock::now() - c.start >= 20ms);
}

TEST_CASE("of several times the earliest counts") {
    counted c;
    c.it->set(c.start + 1h);
    c.it->set(c.start + 10ms);
    c.it->set(c.start + 2h);
    c.io.run();
    CHECK(c.calls == 1);
    CHECK(timer::clock::now() - c.start < 1h);
}

TEST_CASE("a timer can be set again when it has called") {
    counted c;
    c.it->set(c.start + 1ms);
    c.io.run();
    c.it->set(c.start + 2ms);
    c.io.restart();
    c.io.run();
    CHECK(c.calls == 2);
}

TEST_CASE("a timer that is to call soon calls in a later turn of the executor, once") {
    counted c;
    c.it->soon();
    c.it->soon();
    CHECK(c.calls == 0);
    c.io.run();
    CHECK(c.calls == 1);
    c.it->soon();
    c.io.restart();
    c.io.run();
    CHECK(c.calls == 2);
}

TEST_CASE("a timer that is stopped does not call, and keeps nobody at work") {
    counted c;
    c.it->set(c.start + 1h);
    c.it->stop();
    c.io.run();
    CHECK(c.calls == 0);
    c.it->set(timer::clock::now() + 1ms);
    c.io.restart();
    c.io.run();
    CHECK(c.calls == 1);
}

TEST_CASE("a timer that is gone does not call") {
    counted c;
    SUBCASE("while its time is to come") { c.it->set(c.start + 1h); }
    SUBCASE("when its time has come") {
        c.it->set(c.start);
        c.io.poll_one();
    }
    SUBCASE("when it was to call soon") { c.it->soon(); }
    int const before = c.calls;
    c.it.reset();
    c.io.run();
    CHECK(c.calls == before);
}
