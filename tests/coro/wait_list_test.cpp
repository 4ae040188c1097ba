#include <runnel/coro/wait_list.hpp>

#include <asio/detached.hpp>
#include <asio/strand.hpp>
#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/run.hpp"
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using wait_list = runnel::wait_list<test::executor>;
using waiter = runnel::waiter<test::executor>;

asio::awaitable<std::error_code> wait_at(wait_list& waiters, waiter& w) {
    co_await waiters.wait(w);
    co_return w.result;
}

asio::awaitable<std::error_code> wait_here(wait_list& waiters) {
    waiter w;
    co_await waiters.wait(w);
    co_return w.result;
}

}  // namespace

TEST_CASE("a linked list keeps the order of insertion, and its links unlink themselves") {
    runnel::list_link list;
    CHECK_FALSE(list.linked());
    runnel::list_link a;
    {
        runnel::list_link b;
        a.insert_before(list);
        b.insert_before(list);
        CHECK(list.next() == &a);
        CHECK(a.next() == &b);
        CHECK(b.next() == &list);
    }
    CHECK(a.next() == &list);
    a.unlink();
    CHECK_FALSE(list.linked());
    CHECK_FALSE(a.linked());
}

TEST_CASE("a waiting coroutine waits until it is woken, with the result it is given") {
    asio::io_context io;
    wait_list waiters(io.get_executor());
    waiter w;
    test::task waiting(io, wait_at(waiters, w));
    io.poll();
    CHECK(w.is_waiting());
    CHECK_FALSE(waiting.done());
    SUBCASE("none") {
        waiters.wake(w);
        CHECK_FALSE(waiting.run());
    }
    SUBCASE("an error") {
        waiters.wake(w, asio::error::timed_out);
        CHECK(waiting.run() == asio::error::timed_out);
    }
    CHECK_FALSE(w.is_waiting());
    CHECK_FALSE(w.linked());
}

TEST_CASE("a woken coroutine goes on in a later turn of the executor, not inside wake") {
    asio::io_context io;
    wait_list waiters(io.get_executor());
    waiter w;
    test::task waiting(io, wait_at(waiters, w));
    io.poll();
    waiters.wake(w);
    CHECK_FALSE(waiting.done());
    waiting.run();
}

TEST_CASE("waking a coroutine that is not waiting, or twice, has no effect") {
    asio::io_context io;
    wait_list waiters(io.get_executor());
    waiter w;
    waiters.wake(w, asio::error::timed_out);
    test::task waiting(io, wait_at(waiters, w));
    io.poll();
    CHECK_FALSE(waiting.done());
    waiters.wake(w);
    waiters.wake(w, asio::error::timed_out);
    CHECK_FALSE(waiting.run());
    CHECK(waiting.ended() == 1);
}

TEST_CASE("all that are waiting can be woken at once, in the order in which they came") {
    asio::io_context io;
    wait_list waiters(io.get_executor());
    std::vector<int> order;
    auto const wait = [&](int name) -> asio::awaitable<void> {
        waiter w;
        co_await waiters.wait(w);
        CHECK(w.result == asio::error::timed_out);
        order.push_back(name);
    };
    for (int name = 0; name < 4; ++name) asio::co_spawn(io, wait(name), [](std::exception_ptr) {});
    io.poll();
    waiters.wake_all(asio::error::timed_out);
    io.restart();
    io.run();
    CHECK(order == std::vector<int>{0, 1, 2, 3});
}

TEST_CASE("a waiter can be waiting again and again") {
    asio::io_context io;
    wait_list waiters(io.get_executor());
    waiter w;
    int rounds = 0;
    auto const loop = [&]() -> asio::awaitable<void> {
        for (; rounds < 5; ++rounds) co_await waiters.wait(w);
    };
    test::task looping(io, loop());
    for (int i = 0; i < 5; ++i) {
        io.restart();
        io.poll();
        CHECK(rounds == i);
        waiters.wake(w);
    }
    looping.run();
    CHECK(rounds == 5);
}

TEST_CASE("cancelling a waiting coroutine wakes it with operation_aborted, and wait throws nothing itself") {
    asio::io_context io;
    wait_list waiters(io.get_executor());
    waiter w;
    test::task waiting(io, wait_at(waiters, w));
    io.poll();
    waiting.cancel();
    CHECK(waiting.run() == asio::error::operation_aborted);
    CHECK_FALSE(w.linked());
}

TEST_CASE("a coroutine that has been cancelled already does not wait") {
    asio::io_context io;
    wait_list waiters(io.get_executor());
    waiter w;
    auto const wait_twice = [&]() -> asio::awaitable<std::error_code> {
        co_await waiters.wait(w);
        co_await waiters.wait(w);  // with RUNNEL_ASIO_PUBLIC_ONLY Asio throws here
        co_return w.result;
    };
    test::task waiting(io, wait_twice());
    io.poll();
    waiters.wake(w);
    waiting.cancel();
    io.restart();
    io.poll();
    REQUIRE(waiting.done());
    CHECK((waiting.error() ? waiting.error() : waiting.get()) == asio::error::operation_aborted);
    CHECK_FALSE(w.linked());
}

TEST_CASE("a wake that came before the cancellation wins") {
    asio::io_context io;
    wait_list waiters(io.get_executor());
    waiter w;
    test::task waiting(io, wait_at(waiters, w));
    io.poll();
    waiters.wake(w);
    waiting.cancel();
    CHECK_FALSE(waiting.run());
    CHECK(waiting.ended() == 1);
}

TEST_CASE("destroying the wait list wakes all with operation_aborted") {
    asio::io_context io;
    auto waiters = std::make_unique<wait_list>(io.get_executor());
    test::task first(io, wait_here(*waiters));
    test::task second(io, wait_here(*waiters));
    io.poll();
    waiters.reset();
    CHECK(first.run() == asio::error::operation_aborted);
    CHECK(second.run() == asio::error::operation_aborted);
}

TEST_CASE("the end of the context destroys what waits there, in whatever order things go") {
    auto const witness = std::make_shared<int>(0);
    auto const wait_in = [](std::shared_ptr<wait_list> waiters, std::shared_ptr<int>) -> asio::awaitable<void> {
        waiter w;
        co_await waiters->wait(w);
    };
    SUBCASE("the coroutines own the place") {
        asio::io_context io;
        auto waiters = std::make_shared<wait_list>(io.get_executor());
        for (int i = 0; i < 3; ++i) asio::co_spawn(io, wait_in(waiters, witness), [](std::exception_ptr) {});
        waiters.reset();
        io.poll();
        CHECK(witness.use_count() == 4);
    }
    SUBCASE("a coroutine waiting in one place owns another, in which one is waiting") {
        asio::io_context io;
        auto outer = std::make_shared<wait_list>(io.get_executor());
        auto const own = [&](std::shared_ptr<wait_list> waiters, std::shared_ptr<int> w) -> asio::awaitable<void> {
            auto const inner = std::make_shared<wait_list>(waiters->get_executor());
            asio::co_spawn(waiters->get_executor(), wait_in(inner, w), [](std::exception_ptr) {});
            waiter waiting;
            co_await waiters->wait(waiting);
        };
        asio::co_spawn(io, own(outer, witness), [](std::exception_ptr) {});
        outer.reset();
        io.poll();
        CHECK(witness.use_count() == 3);
    }
    SUBCASE("woken, but not yet gone on") {
        asio::io_context io;
        auto waiters = std::make_shared<wait_list>(io.get_executor());
        asio::co_spawn(io, wait_in(waiters, witness), [](std::exception_ptr) {});
        io.poll();
        waiters->wake_all({});
        waiters.reset();
        CHECK(witness.use_count() == 2);
    }
    CHECK(witness.use_count() == 1);
}

TEST_CASE("a wait list works on a strand") {
    asio::io_context io;
    test::executor const strand = asio::make_strand(io.get_executor());
    wait_list waiters(strand);
    bool woken = false;
    auto const wait = [&]() -> asio::awaitable<void> {
        waiter w;
        co_await waiters.wait(w);
        woken = !w.result;
    };
    asio::co_spawn(strand, wait(), [](std::exception_ptr) {});
    io.poll();
    asio::post(strand, [&] { waiters.wake_all({}); });
    io.restart();
    io.run();
    CHECK(woken);
}

namespace {

// Coroutines that wait at one place and note their names as they go on.
template <class Executor>
struct crowd {
    explicit crowd(Executor const& e) : executor(e), waiters(std::make_unique<runnel::wait_list<Executor>>(e)) {}

    Executor executor;
    std::unique_ptr<runnel::wait_list<Executor>> waiters;
    std::vector<std::string> order;
    std::function<void(std::string const&)> on_woken = [](std::string const&) {};

    void add(std::string name) {
        asio::co_spawn(executor, wait(std::move(name)), [](std::exception_ptr e) {
            if (e) std::rethrow_exception(e);
        });
    }

    // Notes the end of a turn: of what is woken from now on nothing goes on before.
    void mark_turn() {
        asio::post(executor, [this] { order.emplace_back("|"); });
    }

    asio::awaitable<void, Executor> wait(std::string name) {
        runnel::waiter<Executor> w;
        co_await waiters->wait(w);
        order.push_back(name + (w.result ? "!" : ""));
        on_woken(name);
    }
};

using names = std::vector<std::string>;

}  // namespace

TEST_CASE("those who are woken in one turn go on in one turn, whatever the executor") {
    asio::io_context io;
    auto const check = [&](auto executor) {
        crowd people(executor);
        for (auto const* name : {"a", "b", "c"}) people.add(name);
        io.restart();
        io.poll();
        people.on_woken = [&](std::string const& name) {
            if (name == "a") people.mark_turn();
        };
        asio::post(executor, [&] {
            people.waiters->wake_all({});
            CHECK(people.order.empty());
        });
        io.restart();
        io.poll();
        CHECK(people.order == names{"a", "b", "c", "|"});
    };
    SUBCASE("the context's own") { check(io.get_executor()); }
    SUBCASE("a strand") { check(asio::make_strand(io.get_executor())); }
    SUBCASE("of any type") { check(test::executor(io.get_executor())); }
    SUBCASE("a strand of any type") { check(test::executor(asio::make_strand(io.get_executor()))); }
}

TEST_CASE("who is woken while others go on waits for the next turn") {
    asio::io_context io;
    crowd people(io.get_executor());
    for (auto const* name : {"a", "b"}) people.add(name);
    io.poll();
    people.on_woken = [&](std::string const& name) {
        if (name == "a") people.add("late");
    };
    people.waiters->wake_one();
    io.restart();
    io.poll();  // a goes on and starts another, which waits
    people.on_woken = [&](std::string const& name) {
        if (name != "b") return;
        people.mark_turn();
        people.waiters->wake_all({});
    };
    people.waiters->wake_one();
    io.restart();
    io.poll();
    CHECK(people.order == names{"a", "b", "|", "late"});
}

TEST_CASE("places that share a queue let coroutines go on in the order of their waking") {
    asio::io_context io;
    wait_list first(io.get_executor());
    wait_list second(first.queue());
    CHECK(second.get_executor() == first.get_executor());
    std::vector<int> order;
    auto const wait = [&](wait_list& waiters, int name) -> asio::awaitable<void> {
        waiter w;
        co_await waiters.wait(w);
        order.push_back(name);
    };
    asio::co_spawn(io, wait(first, 1), [](std::exception_ptr) {});
    asio::co_spawn(io, wait(second, 2), [](std::exception_ptr) {});
    asio::co_spawn(io, wait(first, 3), [](std::exception_ptr) {});
    io.poll();
    first.wake_one();
    second.wake_one();
    first.wake_one();
    io.restart();
    io.poll();
    CHECK(order == std::vector<int>{1, 2, 3});
}

TEST_CASE("who is woken behind the others goes on after them, in the same turn") {
    asio::io_context io;
    crowd people(test::executor(io.get_executor()));
    for (auto const* name : {"a", "b", "c"}) people.add(name);
    io.poll();
    wait_list behind(people.waiters->queue());
    std::optional<waiter> last(std::in_place);
    asio::co_spawn(
        io,
        [&]() -> asio::awaitable<void> {
            co_await behind.wait(*last);
            people.order.emplace_back("last");
            people.waiters->wake_one();
        },
        [](std::exception_ptr) {});
    io.restart();
    io.poll();
    io.restart();
    SUBCASE("the turn ends") {
        people.on_woken = [&](std::string const& name) {
            if (name != "a") return;
            people.mark_turn();
            behind.wake_one_behind();
            behind.wake_one_behind();  // nobody is there any more
        };
        people.waiters->wake_one();
        people.waiters->wake_one();
        io.poll();
        CHECK(people.order == names{"a", "b", "last", "|", "c"});
    }
    SUBCASE("the turn is cut short") {
        people.on_woken = [&](std::string const& name) {
            if (name != "a") return;
            behind.wake_one_behind();
            throw std::runtime_error("thrown by a");
        };
        people.waiters->wake_one();
        people.waiters->wake_one();
        CHECK_THROWS_AS(io.poll(), std::runtime_error);
        io.poll();
        CHECK(people.order == names{"a", "b", "last", "c"});
    }
    SUBCASE("there is no turn") {
        behind.wake_one_behind();
        people.waiters->wake_one();
        people.mark_turn();
        io.poll();
        CHECK(people.order == names{"last", "a", "|", "b"});
    }
    SUBCASE("the waiter goes first") {
        people.on_woken = [&](std::string const& name) {
            if (name == "a") behind.wake_one_behind();
            if (name == "b") last.reset();
        };
        people.waiters->wake_one();
        people.waiters->wake_one();
        io.poll();
        CHECK(people.order == names{"a", "b"});
    }
}

TEST_CASE("who is woken between begin_turn and end_turn goes on by that, the one behind the others last") {
    asio::io_context io;
    wait_list first(io.get_executor());
    wait_list second(first.queue());
    auto const queue = first.queue();
    std::string order;
    auto const wait = [&](wait_list& waiters, char name) -> asio::awaitable<void> {
        waiter w;
        co_await waiters.wait(w);
        order += name;
        if (name == 'a') second.wake_one_behind();
    };
    asio::co_spawn(io, wait(second, 'z'), asio::detached);
    for (char name : {'a', 'b'}) asio::co_spawn(io, wait(first, name), asio::detached);
    io.poll();
    queue->begin_turn();
    SUBCASE("at once") {
        first.wake_all({});
        CHECK(order.empty());
        queue->end_turn();
        CHECK(order == "abz");
    }
    SUBCASE("only the one behind") {
        second.wake_one_behind();
        queue->end_turn();
        CHECK(order == "z");
        queue->end_turn();
        first.wake_all({});  // as ever from then on
        CHECK(order == "z");
        io.restart();
        io.poll();
        CHECK(order == "zab");
    }
    SUBCASE("in a later turn") {
        first.wake_one();
        second.wake_one_behind();
        queue->end_turn_later();
        CHECK(order.empty());
        io.restart();
        io.poll();
        CHECK(order == "az");
    }
    SUBCASE("with one that was woken before") {
        queue->end_turn();
        first.wake_one();
        queue->begin_turn();
        first.wake_one();
        queue->end_turn();
        CHECK(order == "abz");
        first.wake_all({});
        io.restart();
        io.poll();
        CHECK(order == "abz");
    }
}

TEST_CASE("what is thrown in end_turn leaves the executor, and the others go on all the same") {
    asio::io_context io;
    wait_list waiters(io.get_executor());
    int gone_on = 0;
    for (bool throws : {true, false})
        asio::co_spawn(io, wait_here(waiters), [&, throws](std::exception_ptr, std::error_code) {
            if (throws) throw std::runtime_error("the user's");
            ++gone_on;
        });
    io.poll();
    waiters.queue()->begin_turn();
    waiters.wake_all({});
    waiters.queue()->end_turn();
    io.restart();
    CHECK_THROWS_WITH(io.run(), "the user's");
    io.run();
    CHECK(gone_on == 1);
}

TEST_CASE("coroutines that wake each other for ever do not keep end_turn") {
    asio::io_context io;
    wait_list waiters(io.get_executor());
    std::string order;
    bool over = false;
    auto const wake_next = [&](char name) -> asio::awaitable<void> {
        while (!over && order.size() < 100) {
            waiter w;
            co_await waiters.wait(w);
            order += name;
            waiters.wake_one();
        }
    };
    for (char name : {'a', 'b'}) asio::co_spawn(io, wake_next(name), asio::detached);
    io.poll();
    waiters.queue()->begin_turn();
    waiters.wake_one();
    waiters.queue()->end_turn();
    CHECK(order == "a");
    io.restart();
    io.poll_one();
    CHECK(order == "ab");
    over = true;
    io.poll();
}

TEST_CASE("a coroutine that goes on by end_turn can destroy the place, and the queue with it") {
    asio::io_context io;
    auto waiters = std::make_unique<wait_list>(io.get_executor());
    std::error_code last;
    asio::co_spawn(io, wait_here(*waiters), [&](std::exception_ptr, std::error_code) { waiters.reset(); });
    asio::co_spawn(io, wait_here(*waiters), [&](std::exception_ptr, std::error_code e) { last = e; });
    io.poll();
    auto* const queue = waiters->queue().operator->();  // keeps it no longer than the list does
    queue->begin_turn();
    waiters->wake_one();
    queue->end_turn();
    io.restart();
    io.run();
    CHECK(last == asio::error::operation_aborted);
}

TEST_CASE("among those that go on in a turn, begin_turn has no effect") {
    asio::io_context io;
    wait_list waiters(io.get_executor());
    bool other = false;
    auto const reader = [&]() -> asio::awaitable<void> {
        waiter w;
        co_await waiters.wait(w);
        waiters.queue()->begin_turn();
        waiters.wake_all({});
        waiters.queue()->end_turn();
        CHECK_FALSE(other);
    };
    auto const waiting = [&]() -> asio::awaitable<void> {
        waiter w;
        co_await waiters.wait(w);
        other = true;
    };
    asio::co_spawn(io, reader(), asio::detached);
    asio::co_spawn(io, waiting(), asio::detached);
    io.poll();
    waiters.wake_one();
    io.restart();
    io.poll();
    CHECK(other);
}

TEST_CASE("a coroutine that goes on can destroy the place, and those woken with it go on") {
    asio::io_context io;
    crowd people(io.get_executor());
    for (auto const* name : {"a", "b", "c"}) people.add(name);
    io.poll();
    people.on_woken = [&](std::string const& name) {
        if (name == "a") people.waiters.reset();
    };
    SUBCASE("all had been woken") {
        people.waiters->wake_all({});
        io.restart();
        io.run();
        CHECK(people.order == names{"a", "b", "c"});
    }
    SUBCASE("one had not") {
        people.waiters->wake_one();
        people.waiters->wake_one();
        io.restart();
        io.run();
        CHECK(people.order == names{"a", "b", "c!"});
    }
}

TEST_CASE("a place can be destroyed between the waking and the going on") {
    asio::io_context io;
    crowd people(io.get_executor());
    for (auto const* name : {"a", "b"}) people.add(name);
    io.poll();
    people.waiters->wake_one();
    people.waiters.reset();
    io.restart();
    io.run();
    CHECK(people.order == names{"a", "b!"});
}

namespace {

// As an io_context's executor, but lets what a function throws pass, where that keeps it until all have gone on.
class candid_executor {
  public:
    explicit candid_executor(asio::io_context& io, bool never_blocks = false) noexcept
        : io_(&io), never_(never_blocks) {}

    asio::io_context& query(asio::execution::context_t) const noexcept { return *io_; }
    candid_executor require(asio::execution::blocking_t::never_t) const noexcept { return candid_executor(*io_, true); }
    template <class Function>
    void execute(Function function) const {
        if (never_)
            asio::post(*io_, [f = std::move(function)]() mutable { std::move(f)(); });
        else
            function();
    }
    friend bool operator==(candid_executor const& a, candid_executor const& b) noexcept { return a.io_ == b.io_; }

  private:
    asio::io_context* io_;
    bool never_;
};

template <class Executor>
void let_one_throw(asio::io_context& io, Executor executor) {
    crowd people(executor);
    for (auto const* name : {"a", "b", "c", "d"}) people.add(name);
    io.poll();
    people.on_woken = [&](std::string const& name) {
        if (name == "a") people.waiters->wake_one();
        if (name == "b") throw std::runtime_error(name);
    };
    for (int i = 0; i < 3; ++i) people.waiters->wake_one();
    io.restart();
    CHECK_THROWS_AS(io.run(), std::runtime_error);
    io.restart();
    io.run();
    CHECK(people.order == names{"a", "b", "c", "d"});
}

}  // namespace

TEST_CASE("what a coroutine that goes on throws leaves the executor, and the others go on all the same") {
    asio::io_context io;
    SUBCASE("of an executor that keeps exceptions until all have gone on") { let_one_throw(io, io.get_executor()); }
    SUBCASE("of one that does not") { let_one_throw(io, candid_executor(io)); }
}

TEST_CASE("a coroutine that goes on can cancel one that was woken with it: the wake wins") {
    asio::io_context io;
    wait_list waiters(io.get_executor());
    waiter first;
    waiter second;
    std::optional<test::task<std::error_code>> victim;
    auto const cancels = [&]() -> asio::awaitable<void> {
        co_await waiters.wait(first);
        victim->cancel();
    };
    test::task canceller(io, cancels());
    victim.emplace(io, wait_at(waiters, second));
    io.poll();
    waiters.wake(first);
    SUBCASE("woken before") {
        waiters.wake(second);
        CHECK_FALSE(second.is_waiting());
        CHECK_FALSE(victim->run());
    }
    SUBCASE("not woken") { CHECK(victim->run() == asio::error::operation_aborted); }
    CHECK(victim->ended() == 1);
    canceller.run();
}

TEST_CASE("a cancellation after the place has gone finds nobody") {
    asio::io_context io;
    auto waiters = std::make_unique<wait_list>(io.get_executor());
    waiter w;
    test::task waiting(io, wait_at(*waiters, w));
    io.poll();
    waiters.reset();
    waiting.cancel();
    CHECK(waiting.run() == asio::error::operation_aborted);
    CHECK(waiting.ended() == 1);
}

TEST_CASE("a waiter that is destroyed takes its coroutine along, and the others go on") {
    auto const witness = std::make_shared<int>(0);
    asio::io_context io;
    wait_list waiters(io.get_executor());
    auto w = std::make_unique<waiter>();
    waiter other;
    bool gone_on = false;
    auto const wait = [](wait_list& p, waiter& here, std::shared_ptr<int>, bool& on) -> asio::awaitable<void> {
        co_await p.wait(here);
        on = true;
    };
    asio::co_spawn(io, wait(waiters, *w, witness, gone_on), [](std::exception_ptr) {});
    test::task second(io, wait_at(waiters, other));
    io.poll();
    SUBCASE("waiting") {}
    SUBCASE("woken") { waiters.wake(*w); }
    waiters.wake(other);
    w.reset();
    CHECK_FALSE(second.run());
    io.restart();
    io.poll();
    CHECK(witness.use_count() == 1);
    CHECK_FALSE(gone_on);
}

TEST_CASE("a coroutine of another executor goes on there") {
    asio::io_context io;
    asio::io_context others;
    wait_list waiters(io.get_executor());
    waiter w;
    test::task waiting(others, wait_at(waiters, w));
    others.poll();
    waiters.wake(w);
    io.run();
    CHECK_FALSE(waiting.done());
    CHECK_FALSE(waiting.run());
}

TEST_CASE("what could cancel a coroutine may be gone when the context ends") {
    asio::io_context io;
    std::optional<wait_list> waiters(io.get_executor());
    waiter first;
    waiter second;
    std::optional<test::task<std::error_code>> waiting;
    std::optional<test::task<std::error_code>> woken;
    waiting.emplace(io, wait_at(*waiters, first));
    woken.emplace(io, wait_at(*waiters, second));
    io.poll();
    waiters->wake(second);
    waiting.reset();
    woken.reset();
    SUBCASE("the place remains") {}
    SUBCASE("the place has gone too") { waiters.reset(); }
}

TEST_CASE("the end of the context destroys those who were woken and have not gone on, and the place they own") {
    auto const witness = std::make_shared<int>(0);
    auto const wait_in = [](auto waiters, std::shared_ptr<int>) -> asio::awaitable<void> {
        waiter w;
        co_await waiters->wait(w);
    };
    {
        asio::io_context io;
        auto waiters = std::make_shared<wait_list>(test::executor(asio::make_strand(io.get_executor())));
        for (int i = 0; i < 3; ++i)
            asio::co_spawn(waiters->get_executor(), wait_in(waiters, witness), [](std::exception_ptr) {});
        io.poll();
        waiters->wake_one();
        waiters->wake_one();
        waiters.reset();
        CHECK(witness.use_count() == 4);
    }
    CHECK(witness.use_count() == 1);
}

namespace {

std::size_t allocations() { return runnel::testing::allocation_count() + runnel::testing::aligned_allocation_count(); }

// What a round of waking `size` coroutines and letting them wait again allocates in steady state.
template <class Executor>
std::size_t allocations_of_a_round(asio::io_context& io, Executor executor, int size) {
    runnel::wait_list<Executor> waiters(executor);
    bool ends = false;
    int woken = 0;
    auto const wait = [&]() -> asio::awaitable<void, Executor> {
        while (!ends) {
            runnel::waiter<Executor> w;
            co_await waiters.wait(w);
            ++woken;
        }
    };
    std::vector<std::unique_ptr<asio::cancellation_signal>> signals;
    for (int i = 0; i < size; ++i)
        asio::co_spawn(
            executor, wait(),
            asio::bind_cancellation_slot(signals.emplace_back(std::make_unique<asio::cancellation_signal>())->slot(),
                                         [](std::exception_ptr) {}));
    std::size_t allocated = 0;
    constexpr int rounds = 6;
    auto const play = [&]() -> asio::awaitable<void, Executor> {
        for (int i = 0; i < rounds; ++i) {
            auto const before = allocations();
            woken = 0;
            waiters.wake_all({});
            while (woken < size) co_await asio::post(executor, asio::use_awaitable_t<Executor>{});
            allocated = allocations() - before;
        }
        ends = true;
        waiters.wake_all({});
    };
    asio::co_spawn(executor, play(), [](std::exception_ptr) {});
    io.restart();
    io.run();
    return allocated;
}

}  // namespace

TEST_CASE("waiting allocates nothing in steady state, however many wait") {
    asio::io_context io;
    for (int const size : {1, 2, 20, 1000}) {
        CAPTURE(size);
        CHECK(allocations_of_a_round(io, io.get_executor(), size) == 0);
        CHECK(allocations_of_a_round(io, test::executor(io.get_executor()), size) == 0);
        CHECK(allocations_of_a_round(io, asio::make_strand(io.get_executor()), size) <= 2);  // its own operations
    }
}

TEST_CASE("waiting allocates nothing in steady state") {
    asio::io_context io;
    wait_list waiters(io.get_executor());
    waiter ping;
    waiter pong;
    std::size_t before = 0;
    constexpr int rounds = 1000;
    auto const player = [&](waiter& mine, waiter& theirs, bool counts) -> asio::awaitable<void> {
        for (int i = 0; i < rounds; ++i) {
            if (counts && i == rounds / 2) before = runnel::testing::allocation_count();
            waiters.wake(theirs);
            co_await waiters.wait(mine);
        }
        if (counts) before = runnel::testing::allocation_count() - before;
        waiters.wake(theirs);
    };
    test::task first(io, player(ping, pong, true));
    test::task second(io, player(pong, ping, false));
    io.poll();
    CHECK(first.done());
    CHECK(before == 0);
}
