#include <runnel/mqtt/client/message.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace runnel::mqtt;

struct recorder final : message_source {
    void taken(delivery d, reason_code reason, property_view) noexcept override { all.emplace_back(d.number, reason); }
    void given_back(delivery d, inbox const&) noexcept override { back.push_back(d.number); }
    void deserted(inbox const&) noexcept override {}
    void unread(publish const& packet, delivery d) noexcept override {
        unseen += packet.payload;
        back.push_back(d.number);
    }
    std::vector<std::uint64_t> back;
    std::string unseen;
    std::vector<std::pair<std::uint64_t, reason_code>> all;
};

using record = std::pair<std::uint64_t, reason_code>;

// An inbox and somebody who listens.
struct box {
    explicit box(std::size_t capacity = 100'000) : messages(inbox::make(capacity)) { messages->set_source(source); }
    bool push(std::string_view payload, qos quality = qos::at_least_once) {
        publish p{.topic = "a/b", .payload = payload, .qos = quality};
        return messages->push(p, {++number, 7, quality});
    }

    std::optional<message> pop() {
        auto next = messages->pop();
        return next ? std::optional(std::move(next)) : std::nullopt;
    }

    std::shared_ptr<recorder> source = std::make_shared<recorder>();
    inbox::owner messages;
    std::uint64_t number = 0;
};

}  // namespace

TEST_CASE("an inbox gives messages in the order in which they came, with bytes of their own") {
    box b;
    std::string payload = "first";
    b.push(payload);
    payload = "other";
    b.push("second");
    CHECK(b.messages->size() == 2);
    auto const first = b.pop();
    auto const second = b.pop();
    CHECK(first->payload() == "first");
    CHECK(first->topic() == "a/b");
    CHECK(second->payload() == "second");
    CHECK_FALSE(b.pop());
}

TEST_CASE("a message keeps flags and properties") {
    box b;
    properties props;
    props.content_type = "text/plain";
    publish p{.topic = "t", .payload = "p", .qos = qos::exactly_once, .retain = true, .dup = true};
    std::string bytes(100, '\0');
    std::size_t const size = encoded_size(property_view(&props), packet_constant<packet_type::publish>);
    encode(bytes.data(), property_view(&props), packet_constant<packet_type::publish>);
    wire_reader reader(std::string_view(bytes.data(), size));
    p.props = property_view::read(reader, packet_type::publish);
    b.messages->push(p, {1, 1, qos::exactly_once});
    bytes.assign(100, 'x');
    auto const m = b.pop();
    CHECK(m->qos() == qos::exactly_once);
    CHECK(m->retain());
    CHECK(m->dup());
    CHECK(m->props().get<property_id::content_type>() == "text/plain");
    auto const copy = m->copy();
    CHECK(copy.props().get<property_id::content_type>() == "text/plain");
}

TEST_CASE("letting go of a message tells its source once, a refusal with its reason") {
    box b;
    for (int i = 0; i < 3; ++i) b.push("p");
    {
        auto const first = b.pop();
    }
    CHECK(b.source->all == std::vector<record>{{1, reason_code::success}});
    auto second = b.pop();
    second->acknowledge(reason_code::quota_exceeded);
    CHECK_FALSE(*second);
    second->acknowledge();
    second.reset();
    CHECK(b.source->all == std::vector<record>{{1, reason_code::success}, {2, reason_code::quota_exceeded}});
}

TEST_CASE("QoS 0 is acknowledged to nobody") {
    box b;
    b.push("p", qos::at_most_once);
    b.pop();
    CHECK(b.source->all.empty());
}

TEST_CASE("a moved message is let go of once, and the one assigned to at that moment") {
    box b;
    b.push("1");
    b.push("2");
    message one = std::move(*b.pop());
    message two = std::move(*b.pop());
    CHECK(b.source->all.empty());
    one = std::move(two);
    CHECK(b.source->all == std::vector<record>{{1, reason_code::success}});
    CHECK_FALSE(two);  // NOLINT: what a move leaves is stated
    CHECK(one.payload() == "2");
    auto& same = one;
    one = std::move(same);
    CHECK(one.payload() == "2");
}

TEST_CASE("a copy depends on nothing and acknowledges nothing") {
    message copy;
    CHECK_FALSE(copy);
    {
        box b;
        b.push("payload");
        copy = b.pop()->copy();
        CHECK(b.source->all.size() == 1);
        b.push("other");
    }
    CHECK(copy.topic() == "a/b");
    CHECK(copy.payload() == "payload");
    CHECK(copy.copy().payload() == "payload");
    copy.acknowledge();
    CHECK_FALSE(copy);
}

TEST_CASE("a full inbox drops QoS 0 and counts it, and takes the others") {
    box b(500);
    while (b.push("p", qos::at_most_once)) {
    }
    auto const held = b.messages->size();
    CHECK(held > 0);
    CHECK(b.messages->bytes() <= 500);
    CHECK(b.messages->dropped() == 1);
    CHECK(b.push("p", qos::at_least_once));
    CHECK(b.push("p", qos::exactly_once));
    CHECK_FALSE(b.push("p", qos::at_most_once));
    CHECK(b.messages->dropped() == 2);
    CHECK(b.messages->size() == held + 2);
    while (b.pop()) {
    }
    CHECK(b.messages->bytes() == 0);
    CHECK(b.push("p", qos::at_most_once));
}

TEST_CASE("a message that the application holds counts for the room of the inbox") {
    box b(500);
    while (b.push("p", qos::at_most_once)) {
    }
    auto held = b.pop();
    CHECK_FALSE(b.push("p", qos::at_most_once));
    held.reset();
    CHECK(b.push("p", qos::at_most_once));
}

TEST_CASE("what nobody has read is handed back with the inbox, and let go of if it is not wanted") {
    for (bool const wanted : {true, false}) {
        box b;
        b.push("1");
        b.push("2", qos::exactly_once);
        b.push("3", qos::at_most_once);
        if (!wanted) b.messages->set_unwanted();
        b.messages.reset();
        CHECK(b.source->unseen == (wanted ? "12" : ""));
        CHECK(b.source->all.size() == (wanted ? 0 : 2));
    }
}

TEST_CASE("a message that is destroyed because of an exception is given back, with what it was received before") {
    box b;
    b.push("1");
    b.push("2");
    try {
        auto const m = b.pop();
        throw 1;
    } catch (int) {
        auto const m = b.pop();  // no exception is on its way here
    }
    CHECK(b.source->back == std::vector<std::uint64_t>{1});
    CHECK(b.source->all == std::vector<record>{{2, reason_code::success}});
}

TEST_CASE("a message that comes and is taken while an exception is on its way is acknowledged") {
    box b;
    struct last_words {
        box& of;
        ~last_words() {
            of.push("1");
            of.pop();
        }
    };
    try {
        last_words const l{b};
        throw 1;
    } catch (int) {
    }
    CHECK(b.source->all == std::vector<record>{{1, reason_code::success}});
}

TEST_CASE("a message can be given back") {
    box b;
    b.push("1");
    b.push("2", qos::at_most_once);
    auto m = b.pop();
    m->abandon();
    CHECK_FALSE(*m);
    m->abandon();
    m.reset();
    b.pop()->abandon();
    CHECK(b.source->back == std::vector<std::uint64_t>{1});
    CHECK(b.source->all.empty());
    CHECK(b.messages->bytes() == 0);
    b.push("3");
    auto copy = b.pop()->copy();
    copy.abandon();
    CHECK_FALSE(copy);
}

TEST_CASE("an empty inbox takes a message of any size, also while the application holds the one before") {
    box b(500);
    std::string const large(1000, 'x');
    CHECK(b.push(large, qos::at_most_once));
    CHECK_FALSE(b.push("p", qos::at_most_once));
    auto held = b.pop();
    CHECK(b.push(large, qos::at_most_once));
    CHECK_FALSE(b.push(large, qos::at_most_once));
    auto second = b.pop();
    CHECK_FALSE(b.push(large, qos::at_most_once));  // it holds two
    held.reset();
    CHECK(b.push(large, qos::at_most_once));
}

TEST_CASE("messages may outlive the inbox's other users and their source") {
    box b;
    b.push("p");
    auto m = b.pop();
    b.messages.reset();
    CHECK(m->payload() == "p");
    b.source.reset();
    m.reset();
}

TEST_CASE("a message for which there is no memory is not in the inbox, whichever allocation fails") {
    for (std::size_t nth = 1; nth < 4; ++nth) {
        CAPTURE(nth);
        box b;
        for (int i = 0; i < 8; ++i) b.push("x", qos::at_most_once);
        auto const bytes = b.messages->bytes();
        bool failed = false;
        try {
            runnel::testing::failing_allocation const failing(nth);
            b.push(std::string(5000, 'y'), qos::at_most_once);
        } catch (std::bad_alloc const&) {
            failed = true;
        }
        CHECK(b.messages->size() == (failed ? 8 : 9));
        CHECK((b.messages->bytes() == bytes) == failed);
        while (b.pop()) {
        }
        CHECK(b.messages->bytes() == 0);
        CHECK(b.push(std::string(200'000, 'z'), qos::at_most_once));  // it is empty, so that any size fits
    }
}

TEST_CASE("an acknowledgement with a reason that PUBACK cannot have is refused, and the message stays") {
    box b;
    b.push("p");
    auto m = b.pop();
    CHECK_THROWS_AS(m->acknowledge(reason_code::granted_qos_2), std::system_error);
    CHECK(*m);
    CHECK(b.source->all.empty());
    m->acknowledge();
    CHECK(b.source->all == std::vector<record>{{1, reason_code::success}});
}

TEST_CASE("the room of an inbox is used to its last byte, and not beyond it") {
    box measure;
    measure.push("p", qos::at_most_once);
    auto const one = measure.messages->bytes();
    for (std::size_t const missing : {0u, 1u}) {
        box b(2 * one - missing);
        CHECK(b.push("p", qos::at_most_once));
        CHECK(b.push("p", qos::at_most_once) == (missing == 0));
    }
}

TEST_CASE("a message that is to be acknowledged is found in an inbox also behind others") {
    box b;
    CHECK_FALSE(b.messages->holds_acknowledgements());
    b.push("0", qos::at_most_once);
    CHECK_FALSE(b.messages->holds_acknowledgements());
    b.push("1", qos::at_least_once);
    CHECK(b.messages->holds_acknowledgements());
}

TEST_CASE("who is told of a message may end the inbox, which others still hold messages of") {
    struct ending final : message_source {
        void taken(delivery, reason_code, property_view) noexcept override { owner.reset(); }
        void given_back(delivery, inbox const&) noexcept override { owner.reset(); }
        void deserted(inbox const&) noexcept override {}
        void unread(publish const&, delivery) noexcept override { ++unseen; }
        inbox::owner owner;
        int unseen = 0;
    };
    auto const source = std::make_shared<ending>();
    source->owner = inbox::make(1000);
    auto& all = *source->owner;
    all.set_source(source);
    for (std::uint64_t n = 0; n < 3; ++n)
        all.push({.topic = "t", .payload = "p", .qos = qos::at_least_once}, {n, 1, qos::at_least_once});
    auto first = all.pop();
    auto second = all.pop();
    SUBCASE("taken") { first.acknowledge(); }
    SUBCASE("given back") { first.abandon(); }
    CHECK(source->owner == nullptr);
    CHECK(source->unseen == 0);
    CHECK(second.payload() == "p");
    second = {};
    CHECK(source->unseen == 1);  // the third, as the inbox ends
}
