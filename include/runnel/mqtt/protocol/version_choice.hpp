#pragma once

#include <runnel/mqtt/codec/types.hpp>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace runnel::mqtt {

/// Which version of MQTT a client speaks to its server, where it has the choice (`protocol_version::automatic`): MQTT 5
/// first, and MQTT 3.1.1 where the server refuses that. Without I/O. What happens are attempts to connect; all but
/// `answered`, `forget` and `meet` say whether the other version is to be tried at once, as a part of the same attempt.
///
/// | state    | speaks     | what is known of the server                              |
/// |----------|------------|----------------------------------------------------------|
/// | `fixed`  | as asked   | there is no choice: nothing changes that                 |
/// | `open`   | 5          | nothing                                                  |
/// | `takes5` | 5          | it has answered in MQTT 5                                |
/// | `last5`  | 5          | it has refused 3.1.1 in words                            |
/// | `guess3` | 3.1.1      | it has ended a connection without an answer to MQTT 5    |
/// | `last3`  | 3.1.1      | it has refused 5 in words                                |
/// | `takes3` | 3.1.1      | it has answered in MQTT 3.1.1                            |
///
/// | event \ state                           | `open`     | `takes5`  | `last5`  | `guess3`  | `last3`  | `takes3`  |
/// |-----------------------------------------|------------|-----------|----------|-----------|----------|-----------|
/// | `answered`: CONNACK of this version     | takes5     | takes5    | takes5   | takes3    | takes3   | takes3    |
/// | `refused`: the version, in words        | last3 (*)  | last3 (*) | open     | last5 (*) | open     | last5 (*) |
/// | `unanswered`: ended by the peer, silent | guess3 (*) | takes5    | last5    | open      | last3    | open      |
/// | `failed`: in any other way              | open       | takes5    | last5    | open      | last3    | takes3    |
/// | `forget`: another server, or `run`      | open       | open      | open     | open      | open     | open      |
///
/// (*): at once; the third in a row, whichever servers they come to, is not. A server that has answered in MQTT 5 is
/// not suspected when it is silent, nor is one that has refused the other version: networks fail, too.
class version_choice {
  public:
    enum class state : std::uint8_t { fixed3, fixed5, open, takes5, last5, guess3, last3, takes3 };

    explicit constexpr version_choice(protocol_version asked) noexcept
        : state_(asked == protocol_version::v5          ? state::fixed5
                 : asked == protocol_version::automatic ? state::open
                                                        : state::fixed3) {}

    constexpr bool is_fixed() const noexcept { return state_ < state::open; }
    constexpr state current() const noexcept { return state_; }
    /// The version of the next CONNECT.
    constexpr protocol_version version() const noexcept {
        constexpr unsigned v5 = 1u << unsigned(state::fixed5) | 1u << unsigned(state::open) |
                                1u << unsigned(state::takes5) | 1u << unsigned(state::last5);
        return (v5 >> unsigned(state_) & 1) != 0 ? protocol_version::v5 : protocol_version::v3_1_1;
    }
    /// Whether nothing speaks for this version but a silence.
    constexpr bool is_guess() const noexcept { return state_ == state::guess3; }

    /// The server has answered CONNECT in this version, and not that it does not take it.
    constexpr void answered() noexcept { apply(0); }
    /// The server does not take this version: it has said so, or has answered in the other one.
    constexpr bool refused() noexcept { return apply(1); }
    /// The server has ended the connection without an answer to CONNECT.
    constexpr bool unanswered() noexcept { return apply(2); }
    /// The attempt has come to nothing for another reason.
    constexpr bool failed() noexcept { return apply(3); }
    /// The next attempt is the first of another `run`.
    constexpr void forget() noexcept {
        in_a_row_ = 0;
        apply(forgotten);
    }
    /// CONNECT goes to the server of this key, as a hash of its address: nothing is known of another than the last one.
    constexpr void meet(std::size_t server) noexcept {
        if (std::exchange(server_, server) != server) apply(forgotten);
    }

  private:
    static constexpr unsigned at_once = 0x80;
    static constexpr unsigned forgotten = 4;

    constexpr bool apply(unsigned event) noexcept {
        using enum state;
        constexpr auto on = [](state s, unsigned flag = 0) { return static_cast<std::uint8_t>(unsigned(s) | flag); };
        // From `open` on, in the order of the states.
        constexpr std::uint8_t table[5][6] = {
            {on(takes5), on(takes5), on(takes5), on(takes3), on(takes3), on(takes3)},
            {on(last3, at_once), on(last3, at_once), on(open), on(last5, at_once), on(open), on(last5, at_once)},
            {on(guess3, at_once), on(takes5), on(last5), on(open), on(last3), on(open)},
            {on(open), on(takes5), on(last5), on(open), on(last3), on(takes3)},
            {on(open), on(open), on(open), on(open), on(open), on(open)},
        };
        if (is_fixed()) return false;
        unsigned const to = table[event][unsigned(state_) - unsigned(open)];
        state_ = static_cast<state>(to & ~at_once);
        bool const again = (to & at_once) != 0 && in_a_row_ < 2;
        if (event != forgotten) in_a_row_ = static_cast<std::uint8_t>(again ? in_a_row_ + 1 : 0);
        return again;
    }

    state state_;
    std::uint8_t in_a_row_ = 0;  // attempts in another version, at once
    std::size_t server_ = 0;
};

}  // namespace runnel::mqtt
