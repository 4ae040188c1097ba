#include <runnel/mqtt/protocol/subscriptions.hpp>

#include <doctest/doctest.h>

#include "support/event_sequences.hpp"
#include "support/sample.hpp"
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

using runnel::mqtt::packet_type;
using runnel::mqtt::reason_code;
using runnel::mqtt::reason_code_list;
using runnel::mqtt::subscriptions;
using stage = subscriptions::stage;

constexpr std::string_view x[] = {"x"};
constexpr std::string_view x_and_z[] = {"x", "z"};

// A driver, and a server that does as it is told, over a network that may fail anywhere.
class world {
  public:
    static constexpr std::string_view events = "abonsfulcdkjr";

    // False: the event is impossible now.
    bool happens(char event) {
        switch (event) {
            case 'a': return wants(x);
            case 'b': return wants(x_and_z);
            case 'o': return !living.empty() && (leaves(living.front()), true);
            case 'n': return living.size() > 1 && (leaves(living.back()), true);
            case 's': return serves(reason_code::success, true);
            case 'f': return serves(reason_code::not_authorized, true);
            case 'u': return serves(reason_code::success, false);
            case 'l': return online && (lose(), true);
            case 'c': return !online && (connect(true), true);
            case 'd': return !online && (connect(false), true);
            case 'k': return !online && (connect_doubtfully(), true);
            case 'j': return !jammed && (jammed = true);
            case 'r': return jammed && (jammed = false, pump(), true);
            default: return false;
        }
    }

    // What must hold at any time; the server may have no filter by an identifier that the machine does not know of.
    bool holds() {
        if (!machine.consistent()) return false;
        return std::ranges::all_of(at_server, [&](auto const& has) {
            auto const* const f = machine.known(has.first);
            return f != nullptr && f->names(has.second);
        });
    }

    // What must come of it in the end, when nothing fails any more.
    bool ends_well() {
        jammed = false;
        if (!online) connect(true);
        pump();
        for (int connection = 0; connection < 2; ++connection) {  // what was refused is asked for once more
            while (!network.empty()) serves(reason_code::success, true);
            lose();
            connect(true);
        }
        while (!network.empty()) serves(reason_code::success, true);
        std::map<std::string, std::uint32_t, std::less<>> wanted;
        for (auto const* s : living) {
            if (s->at != stage::granted) return false;
            for (auto const* f : s->filters) wanted.try_emplace(f->name, 0);
        }
        bool const same = std::ranges::equal(
            wanted, at_server, {}, [](auto const& w) { return w.first; }, [](auto const& has) { return has.first; });
        return same && waiting.empty() && holds();
    }

    subscriptions machine;
    std::vector<subscriptions::subscription*> living;
    std::map<std::string, std::uint32_t, std::less<>> at_server;  // by filter
    std::vector<std::uint64_t> waiting;                           // the tickets of those who wait for their debt's end
    bool online = false;
    bool jammed = false;  // no packet identifier is free

  private:
    struct sent {
        subscriptions::request* which;
        packet_type type;
        std::uint32_t identifier;
        std::vector<std::string> filters;
    };

    template <std::size_t N>
    bool wants(std::string_view const (&filters)[N]) {
        if (living.size() == 3) return false;
        living.push_back(&machine.add(filters, nullptr));
        pump();
        return true;
    }

    void leaves(subscriptions::subscription* s) {
        std::erase(living, s);
        auto const ticket = machine.remove(*s);
        if (ticket != subscriptions::nothing) waiting.push_back(ticket);
        pump();
    }

    void pump() {
        while (online) {
            auto* const r = machine.next();
            if (r == nullptr) return;
            if (jammed) return machine.take_back(*r);
            sent packet{r, r->type, r->of != nullptr ? r->of->identifier : 0, {}};
            for (auto const* f : r->filters) packet.filters.push_back(f->name);
            network.push_back(std::move(packet));
        }
    }

    bool serves(reason_code reason, bool answers) {
        if (network.empty()) return false;
        auto const packet = network.front();
        network.erase(network.begin());
        bool const good = reason == reason_code::success;
        for (auto const& f : packet.filters) {
            if (!good) continue;
            if (packet.type == packet_type::subscribe)
                at_server[f] = packet.identifier;
            else
                at_server.erase(f);
        }
        if (!answers) return lose(), true;
        std::string const bytes(packet.filters.size(), static_cast<char>(reason));
        auto const reasons = reason_code_list::from_encoded(bytes);
        if (packet.type == packet_type::unsubscribe) {
            auto const end = machine.on_unsuback(*packet.which, reasons);
            CHECK(end.reason == reason);
            std::erase(waiting, end.ticket);
        } else if (auto* const s = machine.on_suback(*packet.which, reasons)) {
            CHECK(s->at == (good ? stage::granted : stage::refused));
            if (!good) leaves(s);
        }
        return true;
    }

    void lose() {
        online = false;
        network.clear();
    }

    void connect(bool session_present) {
        online = true;
        if (!session_present) at_server.clear();
        machine.connected(session_present);
        std::erase_if(waiting, [&](auto ticket) { return !machine.owes(ticket); });
        pump();
    }

    // The server has lost its session, and said so on a connection before, where it was not heard.
    void connect_doubtfully() {
        online = true;
        at_server.clear();
        machine.connected(true);
        machine.doubt();
        std::erase_if(waiting, [&](auto ticket) { return !machine.owes(ticket); });
        pump();
    }

    std::vector<sent> network;
};

subscriptions::request& next(subscriptions& machine) {
    auto* const r = machine.next();
    REQUIRE(r != nullptr);
    return *r;
}
reason_code_list reasons(std::string_view bytes) { return reason_code_list::from_encoded(bytes); }

}  // namespace

TEST_CASE("after all sequences of events the server has what is wanted, and who waits is told") {
    std::size_t tried = 0;
    auto const try_all = [&](std::string const& begun, std::size_t length) {
        tried += test::try_sequences<world>(begun, test::up_to(length), [](world& w, std::string const& events) {
            if (!w.holds() || !w.ends_well()) FAIL(events);
        });
    };
    try_all("", 6);
    try_all("cb", 5);      // connected, with SUBSCRIBE on its way
    try_all("cassbs", 4);  // two subscriptions that share a filter
    try_all("caso", 5);    // with UNSUBSCRIBE on its way
    CHECK(tried > 80'000 / test::every(10));
}

TEST_CASE("after long sequences of events too") {
    std::mt19937 random(1);
    for (int i = 0; i < 1000; ++i) {
        world w;
        std::string events;
        while (events.size() < 60) {
            char const event = world::events[random() % world::events.size()];
            if (!w.happens(event)) continue;
            events += event;
            if (!w.holds()) FAIL(events);
        }
        if (!w.ends_well()) FAIL(events);
    }
}

TEST_CASE("each subscription has an identifier of its own, which it keeps when it is renewed") {
    subscriptions m;
    auto& a = m.add(x_and_z, nullptr);
    auto& b = m.add(x, nullptr);
    CHECK(a.identifier == 1);
    CHECK(b.identifier == 2);
    for (bool const present : {true, false}) {
        m.connected(present);
        auto& first = next(m);
        auto& second = next(m);
        CHECK(first.of == &a);
        CHECK(second.of == &b);
        CHECK(m.next() == nullptr);
        // Until the server has answered both, either may be the name of "x".
        m.on_suback(first, reasons({"\0\0", 2}));
        CHECK(a.filters[0]->names(1));
        CHECK(a.filters[0]->names(2));
        m.on_suback(second, reasons({"\0", 1}));
        CHECK_FALSE(a.filters[0]->names(1));
        CHECK(a.filters[0]->names(2));
        CHECK(a.filters[1]->names(1));
        CHECK_FALSE(a.filters[1]->names(2));
    }
    // "x" stays, and with it the name under which the server knows it.
    CHECK(m.remove(b) == subscriptions::nothing);
    CHECK(a.filters[0]->names(2));
    m.connected(false);
    m.on_suback(next(m), reasons({"\0\0", 2}));
    CHECK(a.filters[0]->names(1));
    CHECK_FALSE(a.filters[0]->names(2));
}

TEST_CASE("a subscription is refused if any of its filters is, whichever that is") {
    for (auto const answer : {"\x87\0", "\0\x87"}) {
        subscriptions m;
        auto& a = m.add(x_and_z, nullptr);
        m.connected(false);
        CHECK(m.on_suback(next(m), reasons({answer, 2})) == &a);
        CHECK(a.at == stage::refused);
        CHECK_FALSE(a.was_granted);
    }
}

TEST_CASE("a subscription that is refused when it is renewed was granted before") {
    subscriptions m;
    auto& a = m.add(x, nullptr);
    m.connected(false);
    m.on_suback(next(m), reasons({"\0", 1}));
    m.connected(false);
    m.on_suback(next(m), reasons({"\x87", 1}));
    CHECK(a.at == stage::refused);
    CHECK(a.was_granted);
}

TEST_CASE("in a session that may be another one what was granted is asked for again, and no debt before it") {
    subscriptions m;
    auto& a = m.add(x, nullptr);
    m.connected(false);
    CHECK_FALSE(a.is_doubtful);
    m.on_suback(next(m), reasons({"\0", 1}));
    m.remove(m.add(x_and_z, nullptr));  // never asked for
    m.connected(true);
    CHECK(m.next() == nullptr);
    m.connected(true);
    m.doubt();
    CHECK(a.is_doubtful);
    CHECK(a.filters[0]->names(a.identifier));  // it may have it
    CHECK(next(m).of == &a);
    m.connected(true);  // the answer was lost, too
    CHECK(a.is_doubtful);
    m.on_suback(next(m), reasons({"\0", 1}));
    CHECK_FALSE(a.is_doubtful);
    CHECK(a.at == stage::granted);
    CHECK(m.next() == nullptr);
    m.connected(true);
    m.doubt();
    m.connected(false);  // now it has not
    CHECK_FALSE(a.is_doubtful);
}

TEST_CASE("a debt that could not be sent is the first again") {
    subscriptions m;
    auto& a = m.add(x, nullptr);
    constexpr std::string_view z[] = {"z"};
    auto& b = m.add(z, nullptr);
    m.connected(false);
    m.on_suback(next(m), reasons({"\0", 1}));
    m.on_suback(next(m), reasons({"\0", 1}));
    auto const first = m.remove(a);
    auto const second = m.remove(b);
    m.take_back(next(m));
    CHECK(next(m).ticket == first);
    CHECK(next(m).ticket == second);
    m.connected(true);  // neither was answered
    CHECK(next(m).ticket == first);
    CHECK(next(m).ticket == second);
}

TEST_CASE("a SUBSCRIBE that could not be sent is sent later") {
    subscriptions m;
    auto& a = m.add(x, nullptr);
    m.connected(false);
    m.take_back(next(m));
    CHECK(a.at == stage::wanted);
    CHECK(next(m).of == &a);
    CHECK(m.next() == nullptr);
}

TEST_CASE("a subscription that was never asked for leaves nothing behind") {
    subscriptions m;
    auto& a = m.add(x, nullptr);
    m.connected(false);
    m.on_suback(next(m), reasons({"\0", 1}));
    auto& again = m.add(x, nullptr);
    CHECK_FALSE(a.filters[0]->names(again.identifier));
    CHECK(m.remove(again) == subscriptions::nothing);
    auto& other = m.add(x_and_z, nullptr);
    CHECK(m.remove(other) == subscriptions::nothing);
    CHECK(m.known("z") == nullptr);
    CHECK(m.next() == nullptr);
}

TEST_CASE("what UNSUBACK refuses is told, and is asked for again by the user or on the next connection") {
    subscriptions m;
    auto& a = m.add(x_and_z, nullptr);
    m.connected(false);
    m.on_suback(next(m), reasons({"\0\0", 2}));
    auto const ticket = m.remove(a);
    CHECK(m.owes(ticket));
    auto end = m.on_unsuback(next(m), reasons("\x11\x87"));  // of "x" no subscription existed
    CHECK(end.ticket == ticket);
    CHECK(end.reason == reason_code::not_authorized);
    CHECK_FALSE(m.owes(ticket));
    CHECK(m.next() == nullptr);
    CHECK(m.known("x") == nullptr);
    CHECK(m.debt("x") == subscriptions::nothing);
    CHECK(m.debt("z") == ticket);
    auto& again = next(m);
    CHECK(again.filters.size() == 1);
    CHECK(m.on_unsuback(again, reasons("\x87")).ticket == ticket);
    m.connected(true);
    CHECK(m.on_unsuback(next(m), {}).reason == reason_code::success);  // MQTT 3.1.1 gives no reasons
    CHECK(m.known("z") == nullptr);
}

TEST_CASE("servers that never answer do not make it grow") {
    subscriptions m;
    m.add(x, nullptr);
    for (int i = 0; i < 1000; ++i) {
        m.connected(true);
        while (m.next() != nullptr) {
        }
        m.remove(m.add(x, nullptr));
        auto& asked = m.add(x, nullptr);
        while (m.next() != nullptr) {
        }
        m.remove(asked);
    }
    CHECK(m.known("x")->claims.size() <= 16);
    CHECK(m.consistent());
    CHECK(m.known("x")->used <= 4);
}

TEST_CASE("what is forgotten is not unsubscribed from, unless others want it and leave it later") {
    subscriptions m;
    auto& a = m.add(x_and_z, nullptr);
    auto& b = m.add(x, nullptr);
    m.connected(false);
    auto& first = next(m);
    m.on_suback(next(m), reasons({"\0", 1}));
    m.on_suback(first, reasons({"\0\0", 2}));
    m.forget(a);
    CHECK(m.next() == nullptr);
    CHECK(m.known("z") == nullptr);
    CHECK(m.remove(b) != subscriptions::nothing);
    auto& debt = next(m);
    CHECK(debt.type == packet_type::unsubscribe);
    CHECK(debt.filters.size() == 1);
    CHECK(debt.filters[0]->name == "x");
    CHECK(m.consistent());
}

TEST_CASE("a debt is owed until it is answered, and is the same one when it is sent again") {
    subscriptions m;
    auto& a = m.add(x, nullptr);
    m.connected(false);
    m.on_suback(next(m), reasons({"\0", 1}));
    auto const ticket = m.remove(a);
    CHECK(next(m).ticket == ticket);
    CHECK(m.owes(ticket));
    // Wanted again behind it, and neither is answered.
    auto& again = m.add(x, nullptr);
    CHECK(next(m).of == &again);
    m.connected(true);
    CHECK(m.remove(again) == ticket);
    auto& debt = next(m);
    CHECK(debt.ticket == ticket);
    CHECK(m.next() == nullptr);
    m.on_unsuback(debt, {});
    CHECK_FALSE(m.owes(ticket));
    CHECK(m.known("x") == nullptr);
}

TEST_CASE("a server that has lost the session, or was not asked, is owed nothing") {
    subscriptions m;
    auto& a = m.add(x, nullptr);
    m.connected(false);
    m.on_suback(next(m), reasons({"\0", 1}));
    m.connected(false);
    CHECK(m.remove(a) == subscriptions::nothing);
    CHECK(m.next() == nullptr);
    CHECK(m.known("x") == nullptr);

    auto& b = m.add(x, nullptr);
    m.take_back(next(m));
    CHECK(m.remove(b) == subscriptions::nothing);
    CHECK(m.next() == nullptr);
    CHECK(m.known("x") == nullptr);
}

TEST_CASE("a refused debt is not asked for any more when the filter is wanted again") {
    subscriptions m;
    auto& a = m.add(x, nullptr);
    m.connected(false);
    m.on_suback(next(m), reasons({"\0", 1}));
    m.remove(a);
    m.on_unsuback(next(m), reasons("\x87"));
    m.add(x, nullptr);
    CHECK(next(m).type == packet_type::subscribe);
    m.connected(true);
    CHECK(next(m).type == packet_type::subscribe);
    CHECK(m.next() == nullptr);
    CHECK(m.consistent());
}

TEST_CASE("debts are gone with the session, and go out again in their order, whatever has become of them") {
    subscriptions m;
    constexpr std::string_view z[] = {"z"};
    auto& a = m.add(x, nullptr);
    auto& b = m.add(z, nullptr);
    m.connected(false);
    m.on_suback(next(m), reasons({"\0", 1}));
    m.on_suback(next(m), reasons({"\0", 1}));
    auto const first = m.remove(a);
    auto const second = m.remove(b);
    m.on_unsuback(next(m), reasons("\x87"));  // the first is refused,
    next(m);                                  // the second not answered
    m.connected(true);
    CHECK(next(m).ticket == first);
    CHECK(next(m).ticket == second);
    m.connected(false);
    CHECK(m.next() == nullptr);
    CHECK_FALSE(m.owes(first));
    CHECK_FALSE(m.owes(second));
    CHECK(m.known("x") == nullptr);
}

TEST_CASE("identifiers begin again behind the last one, and none is given that the server may know") {
    constexpr std::uint32_t last = 268'435'455;
    subscriptions m;
    auto& a = m.add(x, nullptr);
    CHECK(a.identifier == 1);
    m.connected(false);
    m.on_suback(next(m), reasons({"\0", 1}));
    constexpr std::string_view z[] = {"z"};
    auto& b = m.add(z, nullptr);
    CHECK(b.identifier == 2);
    next(m);
    m.remove(b);  // of which the server may still grant the filter
    m.skip_identifiers(last - 1);
    CHECK(m.add(x, nullptr).identifier == last);
    CHECK(m.add(x, nullptr).identifier == 3);
}
