#pragma once

#include <runnel/aliyun/alink/protocol/shadow.hpp>
#include <runnel/core/saturating.hpp>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstdint>
#include <utility>

namespace runnel::aliyun::alink::detail {

/// Tells to which request an answer on the topic `shadow/get` belongs: these have no id, so that there is one request
/// at a time, and the next is not sent before the answer to one that was given up has come, or its time is over too.
/// Without I/O and without a clock.
///
/// | state   | means                                | `ask`   | answer that fits | `give_up` | `withdraw` |
/// |---------|--------------------------------------|---------|------------------|-----------|------------|
/// | `free`  |                                      | `asked` | nobody's         |           |            |
/// | `asked` | a request is sent                    |         | its own: `free`  | `late`    | `free`     |
/// | `late`  | it was given up, and may be answered |         | `free` (*)       |           |            |
///
/// Any other answer is nobody's.
///
/// (*) Unless there has been another connection since it was asked: then it was perhaps sent twice, and is answered
/// twice.
///
/// A late answer may come for as long as `patience` says, and, as the platform keeps it for a device that is away, for
/// that long on the next connection: `look` tells of time and connections and makes `late` `free`. After `doubt` about
/// a request that has been answered, the state is `late` too.
///
/// An answer fits if it is a state for a query; if it is a success for anything else, of the version that was given;
/// and if it is a failure, which does not say of what.
class shadow_line {
  public:
    using time_point = std::chrono::steady_clock::time_point;
    enum class state : std::uint8_t { free, asked, late };

    /// What is asked for.
    struct question {
        bool query = false;         ///< the shadow itself
        std::uint64_t version = 0;  ///< otherwise that of the update
    };

    /// How the session is connected.
    struct connection {
        std::uint64_t number = 0;  ///< of the latest connection
        bool is_up = true;
    };

    /// `patience`: how long answers may be late.
    explicit shadow_line(std::chrono::milliseconds patience) noexcept : patience_(patience) {}

    state current() const noexcept { return at_; }
    bool is_free() const noexcept { return at_ == state::free; }
    /// When the time of a request that was given up is over, if the connection lasts; only in the state `late`.
    time_point late_until() const noexcept { return until_; }

    /// Is to be called before it is asked whether the line is free.
    void look(connection c, time_point now) noexcept {
        if (at_ != state::late || !c.is_up) return;
        if (std::exchange(connection_, c.number) != c.number)
            until_ = end_of_patience(now);
        else if (now >= until_)
            at_ = state::free;
    }

    void ask(question q, connection c) noexcept {
        assert(is_free());
        question_ = q;
        connection_ = asked_on_ = c.number;
        at_ = state::asked;
    }

    /// An answer has come. True: it belongs to the request that waits.
    bool answered(shadow_message const& m, connection c) noexcept {
        if (at_ == state::free || !fits(m)) return false;
        bool const awaited = at_ == state::asked;
        if (awaited || c.number == asked_on_) at_ = state::free;
        return awaited;
    }

    /// Nobody waits for the answer any more.
    void give_up(time_point now) noexcept {
        assert(at_ == state::asked);
        at_ = state::late;
        until_ = end_of_patience(now);
    }

    /// The request that has been answered may be answered again, if it was perhaps sent twice: on another connection
    /// than that on which it was asked.
    void doubt(connection c, time_point now) noexcept {
        assert(is_free());
        if (c.number == asked_on_) return;
        connection_ = c.number;
        at_ = state::late;
        until_ = end_of_patience(now);
    }

    /// The request has not been sent, and will not be.
    void withdraw() noexcept {
        assert(at_ == state::asked);
        at_ = state::free;
    }

  private:
    bool fits(shadow_message const& m) const noexcept {
        using kind = shadow_message::kind;
        if (m.what == kind::failed) return true;
        if (m.what == kind::state) return question_.query;
        bool const same = m.shadow.version == question_.version || m.shadow.version == 0;  // 0: it names none
        return m.what == kind::done && !question_.query && same;
    }

    time_point end_of_patience(time_point now) const noexcept { return deadline_after(now, patience_); }

    std::chrono::milliseconds patience_;
    state at_ = state::free;
    question question_{};
    std::uint64_t connection_ = 0;  // the latest that was told of
    std::uint64_t asked_on_ = 0;
    time_point until_{};
};

}  // namespace runnel::aliyun::alink::detail
