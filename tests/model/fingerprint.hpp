#pragma once

// What a `session_state` will do follows from its members. The search must know two of the same kind for one: so it
// looks at the private ones, too.

#include <runnel/mqtt/protocol/session_state.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace model {

namespace mqtt = runnel::mqtt;

// Names in an explicit instantiation need not be accessible: so a friend of it may return a pointer to a private
// member.
template <class Name, auto Member>
struct member_of {
    friend constexpr auto get(Name) { return Member; }
};
#define MODEL_MEMBER(name, pointer)      \
    struct name {                        \
        friend constexpr auto get(name); \
    };                                   \
    template struct member_of<name, pointer>

MODEL_MEMBER(outgoing_member, &mqtt::session_state::outgoing_);
MODEL_MEMBER(received_member, &mqtt::session_state::received_);
MODEL_MEMBER(window_member, &mqtt::session_state::window_);
MODEL_MEMBER(has_session_member, &mqtt::session_state::has_session_);
MODEL_MEMBER(peer_known_member, &mqtt::session_state::peer_known_);
MODEL_MEMBER(leaves_out_member, &mqtt::session_state::leaves_out_);
MODEL_MEMBER(missed_answer_member, &mqtt::session_state::missed_answer_);
MODEL_MEMBER(in_flight_member, &mqtt::detail::outgoing::in_flight_);
MODEL_MEMBER(cursor_member, &mqtt::detail::outgoing::cursor_);
MODEL_MEMBER(waiting_member, &mqtt::detail::received::waiting_);
MODEL_MEMBER(messages_member, &mqtt::detail::received::messages_);
MODEL_MEMBER(lanes_member, &mqtt::detail::received::lanes_);
MODEL_MEMBER(lost_at_member, &mqtt::detail::received::lost_at_);
MODEL_MEMBER(unfinished_member, &mqtt::detail::received::unfinished_);
MODEL_MEMBER(overtaken_member, &mqtt::detail::received::overtaken_);
MODEL_MEMBER(indexes_member, &mqtt::detail::received::indexes_);
#undef MODEL_MEMBER

/// Numbers by which deliveries are known count up for ever; only whether they are equal and which is less matters.
class ranks {
  public:
    void add(std::uint64_t number) { all_.push_back(number); }
    void sort() {
        std::ranges::sort(all_);
        all_.erase(std::ranges::unique(all_).begin(), all_.end());
    }
    std::uint64_t of(std::uint64_t number) const {
        return static_cast<std::uint64_t>(std::ranges::lower_bound(all_, number) - all_.begin());
    }

  private:
    std::vector<std::uint64_t> all_;
};

/// Tells `put` all of a client's session state that matters for what it does next. `held`: the numbers of the
/// deliveries that the application has.
template <class Put>
void tell(mqtt::session_state& s, std::vector<std::uint64_t> const& held, Put&& put) {
    put(s.current_phase());
    put(s.*get(window_member{}));
    put(s.*get(has_session_member{}), s.*get(peer_known_member{}), s.*get(leaves_out_member{}));
    put(s.*get(missed_answer_member{}), s.doubts_session());

    auto& out = s.*get(outgoing_member{});
    auto& all = out.*get(in_flight_member{});
    put(all.first());
    put(all.next());
    put(out.*get(cursor_member{}));
    put(out.unacknowledged());
    put(out.has_unknown_identifiers());
    for (auto n = all.first(); n != all.next(); n = all.from(n + 1)) {
        auto const& e = all[n];
        put(n, e.at, e.quality, e.past, e.stored, e.discarded, e.owner != nullptr);
        put(e.packet == nullptr ? 0 : static_cast<unsigned char>(e.packet[0]));
    }

    auto& in = s.*get(received_member{});
    auto& waiting = in.*get(waiting_member{});
    auto& messages = in.*get(messages_member{});
    ranks r;
    for (auto n = waiting.first(); n != waiting.next(); ++n) r.add(n), r.add(waiting[n].number);
    r.add(waiting.next());
    messages.for_each([&](std::uint16_t, auto const& m) { r.add(m.number), r.add(m.place); });
    for (auto const n : held) r.add(n);
    r.sort();
    for (auto n = waiting.first(); n != waiting.next(); ++n) {
        auto const& e = waiting[n];
        put(r.of(n), r.of(e.number), e.packet_id, e.lane, e.quality, e.taken, e.known);
    }
    put(-1);
    std::vector<std::uint16_t> known;
    messages.for_each([&](std::uint16_t id, auto const&) { known.push_back(id); });
    std::ranges::sort(known);
    for (auto const id : known) {
        auto const& m = *messages.find(id);
        put(id, r.of(m.number), r.of(m.place), m.next, m.lane, m.quality, m.taken, m.seen, m.given_back, m.is_doubtful);
    }
    put(-1);
    for (auto const n : held) put(r.of(n));
    put(in.*get(lost_at_member{}) == waiting.next());
    put(in.*get(unfinished_member{}));
    put(in.*get(overtaken_member{}), in.*get(indexes_member{}));
    if (auto const& lanes = in.*get(lanes_member{})) {
        lanes->all.for_each([&](std::uint16_t key, auto const& ends) { put(key, ends.oldest, ends.newest); });
        for (auto n = lanes->ready.first(); n != lanes->ready.next(); ++n) put(lanes->ready[n]);
    }
}

}  // namespace model
