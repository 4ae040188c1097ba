#include <runnel/aliyun/alink/detail/task_group.hpp>

#include <asio/post.hpp>
#include <doctest/doctest.h>

#include "support/composition_trial.hpp"
#include "support/run.hpp"
#include <stdexcept>

namespace {

using test::leave_late;
using test::turns;
using task_group = runnel::aliyun::alink::detail::task_group<test::executor>;

struct group_on {
    asio::io_context io;
    test::wait_list waiters{io.get_executor()};
    task_group tasks{io.get_executor()};
};

asio::awaitable<void> start_some(group_on& p, int& there) {
    for (int i = 0; i < 3; ++i) {
        p.tasks.start(leave_late(p.waiters, there));
        co_await turns(p.waiters, 1);
    }
    // So that Asio has no memory left over by which the tasks could be cancelled.
    for (int i = 0; i < 5; ++i) asio::post(p.waiters.get_executor(), [] {});
}

}  // namespace

TEST_CASE("a group ends behind all its tasks, whether its body ends, throws or is cancelled") {
    group_on p;
    int there = 0;
    SUBCASE("it ends") { test::run(p.io, p.tasks.enclose(start_some(p, there))); }
    SUBCASE("it throws") {
        auto const body = [&]() -> asio::awaitable<void> {
            co_await start_some(p, there);
            throw std::runtime_error("over");
        };
        CHECK_THROWS_WITH_AS(test::run(p.io, p.tasks.enclose(body())), "over", std::runtime_error);
    }
    SUBCASE("it is cancelled") {
        p.tasks.start(leave_late(p.waiters, there));
        test::task<void> enclosed(p.io, p.tasks.enclose(leave_late(p.waiters, there)));
        p.io.poll();
        CHECK(there == 2);
        enclosed.cancel();
        CHECK_FALSE(enclosed.done());
        CHECK_FALSE(enclosed.run_for_error());
    }
    CHECK(there == 0);
    CHECK(p.tasks.running() == 0);
}

#ifndef _WIN32
TEST_CASE("for want of memory a group ends, and not before all its tasks have ended") {
    auto const compose = [](group_on& p, int& there) { return p.tasks.enclose(start_some(p, there)); };
    CHECK(test::fail_each_allocation_in<group_on>(compose) > 5);
}
#endif
