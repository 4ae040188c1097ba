#include <runnel/mqtt/client/detail/subscription_registry.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/run.hpp"
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

namespace {

using namespace runnel::mqtt;
using registry = runnel::mqtt::detail::subscription_registry<test::executor>;
using entry = registry::entry;

struct fixture {
    asio::io_context io;
    runnel::wait_list<test::executor> waiters{io.get_executor()};
    subscriptions wishes;
    registry all;

    /// The server knows it by the number of subscriptions made so far, 1 for the first.
    std::shared_ptr<entry> add(std::string_view filter) {
        auto s = std::make_shared<entry>(waiters.queue(), std::span(&filter, 1), subscribe_options{});
        s->wish = &wishes.add(std::span(&filter, 1), s.get());
        wishes.next();
        all.add(s);
        return s;
    }
    registry::outcome dispatch(std::string_view topic, std::uint64_t number = 0, qos quality = qos::at_least_once,
                               std::uint32_t identifier = 0) {
        properties props;
        if (identifier != 0) props.subscription_identifiers = identifier;
        publish p{.topic = topic, .payload = "p", .qos = quality, .packet_id = 1};
        if (identifier != 0) p.props = &props;
        return dispatch(p, {number, 1, quality});
    }
    registry::outcome dispatch(publish const& p, delivery token) {
        return all.dispatch(all.only_recipient(p.topic), p, token);
    }
};

}  // namespace

TEST_CASE("filters with a prefix that servers know get the messages behind it, be there few or many") {
    for (int others : {0, 10})
        for (std::string_view const prefix : {"$share/group/", "$queue/", "$q/", "$exclusive/"}) {
            fixture p;
            for (int i = 0; i < others; ++i) p.add("other/" + std::to_string(i));
            auto const s = p.add(std::string(prefix) + "a/+");
            CHECK(p.dispatch("a/b").matched == 1);
            CHECK(s->box->size() == 1);
            CHECK(p.dispatch("b/b").matched == 0);
            p.all.remove(s.get());
            CHECK(p.dispatch("a/b").matched == 0);
        }
    fixture p;
    auto const s = p.add("$queue/a");
    CHECK(p.dispatch("$queue/a").matched == 1);  // at a server that does not know the prefix
}

TEST_CASE("the subscription identifier decides where the topic does not, for filters that only the server knows") {
    fixture p;
    auto const special = p.add("$stream/a");
    auto const plain = p.add("b");
    CHECK(p.dispatch("x", 0, qos::at_least_once, 1).matched == 1);
    CHECK(special->box->size() == 1);
    CHECK(p.dispatch("x", 1, qos::at_least_once, 2).matched == 0);  // an identifier of an earlier process
    CHECK(p.dispatch("x", 2, qos::at_least_once, 9).matched == 0);
    CHECK(p.dispatch("b", 3, qos::at_least_once, 1).matched == 1);
}

TEST_CASE("a message given back goes to those only that have not had it, and is done when all are") {
    fixture p;
    auto const a = p.add("t");
    auto const b = p.add("+");
    auto const c = p.add("#");
    int calls = 0;
    c->handler = [&](publish const&) {
        if (++calls == 1) throw std::runtime_error("failed");
    };
    delivery const d{7, 1, qos::at_least_once};
    auto const first = p.dispatch("t", 7);
    CHECK(first.failed);
    CHECK_FALSE(first.taken);
    CHECK(p.all.take_failure() != nullptr);
    a->box->pop();
    CHECK_FALSE(p.all.take(d));
    b->box->pop();
    p.all.give_back(d, *b->box);
    auto const second = p.dispatch("t", 7);
    CHECK(second.matched == 3);
    CHECK_FALSE(second.failed);
    CHECK_FALSE(second.taken);
    CHECK(calls == 2);
    CHECK(a->box->size() == 0);
    CHECK(b->box->size() == 1);
    CHECK(p.all.take(d));
    CHECK(p.all.take({8, 1, qos::at_least_once}));
}

TEST_CASE("a message that comes again for some of its subscriptions is in the lane of the others of its topic") {
    fixture p;
    auto const a = p.add("t");
    auto const b = p.add("+");
    auto const first = p.dispatch("t", 7);
    a->box->pop();
    CHECK_FALSE(p.all.take({7, 1, qos::at_least_once}));
    b->box->pop();
    p.all.give_back({7, 1, qos::at_least_once}, *b->box);
    auto const again = p.dispatch("t", 7);
    CHECK(again.lane == first.lane);
    CHECK(a->box->size() == 0);
    CHECK(b->box->size() == 1);
    CHECK(p.dispatch("t", 8).lane == first.lane);
}

TEST_CASE("a handler may receive the message that it is told of from another inbox") {
    fixture p;
    auto const a = p.add("t");
    auto const b = p.add("t");
    delivery const d{3, 1, qos::exactly_once};
    bool taken = true;
    b->handler = [&](publish const&) { taken = p.all.take(d); };
    CHECK(p.dispatch("t", 3, qos::exactly_once).taken);
    CHECK_FALSE(taken);  // not before the handler has returned
}

TEST_CASE("what nobody will read is kept, unless others have it or have had it") {
    using enum registry::unread;
    fixture p;
    auto const a = p.add("t");
    delivery const d{1, 1, qos::at_least_once};
    p.dispatch("t", 1);
    CHECK(p.all.drop(d) == keep);
    auto const b = p.add("+");
    SUBCASE("nobody has had it") {
        p.dispatch("t", 1);
        CHECK(p.all.drop(d) == nothing);
        CHECK(p.all.drop(d) == keep);
    }
    SUBCASE("somebody has had it") {
        p.dispatch("t", 1);
        CHECK_FALSE(p.all.take(d));
        CHECK(p.all.drop(d) == acknowledge);
    }
}

TEST_CASE("a message that the server sends once for several subscriptions goes to all that it names") {
    fixture p;
    auto const special = p.add("$stream/a");
    auto const plain = p.add("b");
    auto const other = p.add("+");
    properties props;
    std::uint32_t const names[] = {1, 2};
    props.subscription_identifiers = names;
    publish const m{.topic = "b", .payload = "p", .qos = qos::at_least_once, .packet_id = 1, .props = &props};
    CHECK(p.dispatch(m, {1, 1, qos::at_least_once}).matched == 2);
    CHECK(special->box->size() == 1);
    CHECK(plain->box->size() == 1);
    CHECK(other->box->size() == 0);
}

TEST_CASE("a handler may let go of an inbox that has the message which it is told of") {
    fixture p;
    auto const a = p.add("t");
    auto const b = p.add("t");
    delivery const d{3, 1, qos::exactly_once};
    SUBCASE("unread") {
        b->handler = [&](publish const&) { CHECK(p.all.drop(d) == registry::unread::nothing); };
        CHECK(p.dispatch("t", 3, qos::exactly_once).taken);
    }
    SUBCASE("given back") {
        b->handler = [&](publish const&) { CHECK_FALSE(p.all.give_back(d, *a->box)); };
        CHECK_FALSE(p.dispatch("t", 3, qos::exactly_once).taken);
    }
}

TEST_CASE("what a subscription has given back is new to others once that subscription has ended") {
    fixture p;
    delivery const d{5, 1, qos::at_least_once};
    auto a = p.add("t");
    SUBCASE("by an inbox") {
        p.dispatch("t", 5);
        CHECK_FALSE(p.all.give_back(d, *a->box));
    }
    SUBCASE("by a handler") {
        a->handler = [](publish const&) { throw std::runtime_error("failed"); };
        CHECK(p.dispatch("t", 5).failed);
        p.all.take_failure();
    }
    p.all.remove(a.get());
    auto const b = p.add("t");
    CHECK_FALSE(p.dispatch("t", 5).taken);
    CHECK(b->box->size() == 1);
    CHECK(p.all.take(d));
}

TEST_CASE("what a subscription gives back after its end is done if all others have had it") {
    fixture p;
    delivery const d{5, 1, qos::exactly_once};
    auto const a = p.add("t");
    auto const b = p.add("t");
    p.dispatch("t", 5, qos::exactly_once);
    SUBCASE("they have") {
        CHECK_FALSE(p.all.take(d));
        p.all.remove(b.get());
        CHECK(p.all.give_back(d, *b->box));
    }
    SUBCASE("they have not yet") {
        p.all.remove(b.get());
        CHECK_FALSE(p.all.give_back(d, *b->box));
        CHECK(p.all.take(d));
    }
    SUBCASE("there are none") {
        CHECK_FALSE(p.all.take(d));
        delivery const alone{6, 2, qos::exactly_once};
        p.all.remove(a.get());
        p.dispatch("t", 6, qos::exactly_once);
        p.all.remove(b.get());
        CHECK_FALSE(p.all.give_back(alone, *b->box));
    }
}

TEST_CASE("if there is no memory to give a message to all its subscriptions none has it, and all get it again") {
    for (std::size_t n = 1;; ++n) {
        CAPTURE(n);
        fixture p;
        std::shared_ptr<entry> const all[] = {p.add("t"), p.add("+"), p.add("#")};
        delivery const d{7, 1, qos::exactly_once};
        bool failed = false;
        try {
            runnel::testing::failing_allocation const failing(n);
            p.dispatch("t", 7, qos::exactly_once);
        } catch (std::bad_alloc const&) {
            failed = true;
        }
        for (auto const& s : all) CHECK(s->box->size() == (failed ? 0 : 1));
        if (failed) CHECK_FALSE(p.dispatch("t", 7, qos::exactly_once).taken);
        for (auto const& s : all) CHECK(s->box->size() == 1);
        CHECK_FALSE(p.all.take(d));
        CHECK_FALSE(p.all.take(d));
        CHECK(p.all.take(d));
        if (!failed) break;
    }
}

TEST_CASE("what is given back without memory comes again, if need be to those who have had it") {
    for (std::size_t n = 1; n < 3; ++n) {
        fixture p;
        auto const a = p.add("t");
        auto const b = p.add("+");
        delivery const d{7, 1, qos::at_least_once};
        p.dispatch("t", 7);
        a->box->pop();
        b->box->pop();
        CHECK_FALSE(p.all.take(d));
        {
            runnel::testing::failing_allocation const failing(n);
            p.all.give_back(d, *b->box);
        }
        CHECK_FALSE(p.dispatch("t", 7).taken);
        CHECK(b->box->size() == 1);
    }
}

TEST_CASE("the handler of a subscription that gets no more messages is not called, and they are done with") {
    fixture p;
    auto const s = p.add("t");
    int calls = 0;
    s->handler = [&](publish const&) { ++calls; };
    p.all.close(make_error_code(errc::disconnected), {});
    auto const outcome = p.dispatch("t", 1);
    CHECK(outcome.matched == 1);
    CHECK(outcome.taken);
    CHECK(calls == 0);
    p.all.reopen();
    p.dispatch("t", 2);
    CHECK(calls == 1);
}

TEST_CASE("nobody waits for a message that has gone with its session") {
    fixture p;
    auto const a = p.add("t");
    auto const b = p.add("+");
    delivery const d{7, 1, qos::at_least_once};
    SUBCASE("that another one still holds") {
        p.dispatch("t", 7);
        a->box->pop();
        CHECK_FALSE(p.all.give_back(d, *a->box));
        p.all.session_lost();
        CHECK(p.all.take(d));
    }
    SUBCASE("that another one has had") {
        p.dispatch("t", 7);
        CHECK_FALSE(p.all.take(d));
        CHECK_FALSE(p.all.give_back(d, *b->box));
        p.all.session_lost();
        a->box->pop();
        b->box->pop();
        p.dispatch("t", 7);
        CHECK(a->box->size() == 1);
        CHECK(b->box->size() == 1);
    }
}

TEST_CASE("a subscription from which nobody receives is told of once, and one from which somebody does is not") {
    fixture p;
    auto const s = p.add("t");
    int told = 0;
    auto const look = [&] { return p.all.find_stalled([&](entry const&) { ++told; }); };
    CHECK_FALSE(look());
    for (std::uint64_t n = 1; n < 4; ++n) p.dispatch("t", n);
    s->box->pop();
    CHECK(look());
    CHECK(told == 0);
    CHECK(look());
    CHECK(told == 1);
    CHECK(look());
    CHECK(told == 1);
    s->box->pop();
    CHECK(look());
    CHECK(look());
    CHECK(told == 2);
}

TEST_CASE("a topic that two subscriptions match does not share its lane with one that the last of them matches") {
    fixture p;
    p.add("x");
    p.add("+");
    CHECK(p.dispatch("x", 1).lane != p.dispatch("y", 2).lane);
}

TEST_CASE("of several handlers that fail the first is told of") {
    fixture p;
    for (auto const* text : {"first", "second"})
        p.add("t")->handler = [text](publish const&) { throw std::runtime_error(text); };
    CHECK(p.dispatch("t", 1).failed);
    CHECK_THROWS_WITH_AS(std::rethrow_exception(p.all.take_failure()), "first", std::runtime_error);
    CHECK(p.all.take_failure() == nullptr);
}

TEST_CASE("where all the identifiers of a message are of filters that match it, no other filter gets it") {
    fixture p;
    auto const special = p.add("$stream/a");
    constexpr std::string_view filters[] = {"$stream/a", "t"};
    auto const both = std::make_shared<entry>(p.waiters.queue(), filters, subscribe_options{});
    both->wish = &p.wishes.add(filters, both.get());
    p.wishes.next();
    p.all.add(both);
    CHECK(p.dispatch("t", 1, qos::at_least_once, 2).matched == 1);
    CHECK(both->box->size() == 1);
    CHECK(special->box->size() == 0);
}

TEST_CASE("a message gets to those that it matches, and to no other, be there few or many subscriptions") {
    for (int others : {0, 10}) {
        CAPTURE(others);
        fixture p;
        for (int i = 0; i < others; ++i) p.add("other/" + std::to_string(i));
        auto const a = p.add("a/+");
        auto const b = p.add("a/b");
        CHECK(p.dispatch("a/b", 1).matched == 2);
        CHECK(p.dispatch("a/c", 2).matched == 1);
        CHECK(p.dispatch("c", 3).matched == 0);
        CHECK(p.dispatch("a/c", 4, qos::at_least_once, 99).matched == 1);  // an identifier of an earlier process
        CHECK(a->box->size() == 3);
        CHECK(b->box->size() == 1);
        publish const both{.topic = "a/b"};
        publish const none{.topic = "c"};
        CHECK(p.all.lane_of(both).has_value());
        CHECK_FALSE(p.all.lane_of(none).has_value());
    }
}

TEST_CASE("one of many subscriptions that has had a message does not get it again") {
    for (int others : {0, 10}) {
        CAPTURE(others);
        fixture p;
        for (int i = 0; i < others; ++i) p.add("other/" + std::to_string(i));
        auto const a = p.add("a");
        auto const b = p.add("+");
        p.dispatch("a", 1);
        a->box->pop();
        CHECK_FALSE(p.all.take({1, 1, qos::at_least_once}));
        b->box->pop();
        p.all.give_back({1, 1, qos::at_least_once}, *b->box);
        p.all.remove(b.get());
        CHECK(p.dispatch("a", 1).matched == 1);
        p.dispatch("a", 2);
        CHECK(a->box->size() == 1);  // the second message alone
    }
}
