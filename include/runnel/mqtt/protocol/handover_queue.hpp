#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/list_link.hpp>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace runnel::mqtt {

/// What becomes of a message for which a `handover_queue` has no room.
enum class when_full : std::uint8_t {
    wait,         ///< its producer waits for room
    refuse,       ///< it is not taken
    drop_oldest,  ///< the oldest ones that have not been handed over go; if that is not enough, it is not taken
    drop_newest,  ///< it is not taken, which is told as a loss, and not as a mistake
};

/// How much a `handover_queue` holds.
struct handover_limits {
    std::size_t messages = 1024;           ///< 1 or more
    std::size_t bytes = 16 * 1024 * 1024;  ///< of their topics, payloads and properties, 1 or more
    std::size_t handed_over = 64;          ///< of these messages, so many at a time, 1 to `messages`
};

/// Throws `std::out_of_range`, with the range in its text, if the limits are not possible.
RUNNEL_COLD inline void check(handover_limits const& l) {
    auto const refuse = [](char const* text) { RUNNEL_THROW(std::out_of_range(text)); };
    if (l.messages < 1) refuse("messages must be 1 or more");
    if (l.bytes < 1) refuse("bytes must be 1 or more");
    if (l.handed_over < 1 || l.handed_over > l.messages) refuse("handed_over must be 1 to messages");
}

/// Which messages of producers are held, wait for room, and are handed over to whoever sends them; without threads, and
/// without the messages themselves. It is bounded: by what is held, whether it has been handed over or not. First come,
/// first served: who waits for room is not overtaken.
///
/// | event \ place | `nowhere` | `outside` | `waiting` | `handed` |
/// |---|---|---|---|---|
/// | `offer`, and there is room | waiting | | | |
/// | `offer`, and there is none | outside, or not taken | | | |
/// | `admit`, and there is room | | waiting | | |
/// | `next` | | | handed | |
/// | `end` | nowhere | nowhere | nowhere | nowhere |
class handover_queue {
  public:
    enum class place : std::uint8_t {
        nowhere,
        outside,  ///< its producer waits for room
        waiting,  ///< it is held
        handed,   ///< it is held, and has been handed over
    };
    /// A message, as the queue knows it. It must not go before `end`.
    struct item : list_link {
        std::size_t bytes = 0;
        place at = place::nowhere;
    };
    enum class answer : std::uint8_t { taken, must_wait, refused };

    explicit handover_queue(handover_limits const& limits) noexcept : limits_(limits) {}
    handover_queue(handover_queue const&) = delete;
    handover_queue& operator=(handover_queue const&) = delete;
    ~handover_queue() {
        for (auto* list : {&outside_, &waiting_, &handed_})
            while (list->linked()) list->next()->unlink();
    }

    /// A message has come. Calls `drop(item)` for each that goes to make room: it is nowhere then. One that would never
    /// have room is refused whatever the policy.
    template <class Drop>
    answer offer(item& i, when_full policy, Drop&& drop) {
        if (i.bytes > limits_.bytes) return answer::refused;
        bool const may_enter = !outside_.linked();
        if (policy == when_full::drop_oldest)
            while (!has_room(i) && waiting_.linked()) {
                auto& oldest = static_cast<item&>(*waiting_.next());
                end(oldest);
                drop(oldest);
            }
        if (may_enter && has_room(i)) {
            enter(i);
            return answer::taken;
        }
        if (policy != when_full::wait) return answer::refused;
        i.at = place::outside;
        i.insert_before(outside_);
        return answer::must_wait;
    }

    /// Lets those in who wait for room, as far as there is some, and calls `admitted(item)` for each.
    template <class Admitted>
    void admit(Admitted&& admitted) {
        while (outside_.linked() && has_room(static_cast<item&>(*outside_.next()))) {
            auto& i = static_cast<item&>(*outside_.next());
            i.unlink();
            enter(i);
            admitted(i);
        }
    }

    /// The next message to be handed over, which it is now; null: none, at present.
    item* next() noexcept {
        if (handed_count_ == limits_.handed_over || !waiting_.linked()) return nullptr;
        auto& i = static_cast<item&>(*waiting_.next());
        i.unlink();
        i.insert_before(handed_);
        i.at = place::handed;
        ++handed_count_;
        return &i;
    }

    /// A message is done with, wherever it is. There may be room now.
    void end(item& i) noexcept {
        if (i.at == place::nowhere) return;
        i.unlink();
        if (i.at != place::outside) {
            --messages_;
            bytes_ -= i.bytes;
        }
        if (i.at == place::handed) --handed_count_;
        i.at = place::nowhere;
    }

    /// The oldest of those that are in a place; null: none.
    item* oldest(place at) noexcept {
        auto& list = list_of(at);
        return list.linked() ? &static_cast<item&>(*list.next()) : nullptr;
    }
    /// Calls `f(item)`, which may end it, for those that are in a place, from the oldest on.
    template <class F>
    void for_each(place where, F&& f) {
        auto& list = list_of(where);
        for (auto* at = list.next(); at != &list;) {
            auto& i = static_cast<item&>(*at);
            at = at->next();
            f(i);
        }
    }

    /// What is held.
    std::size_t messages() const noexcept { return messages_; }
    std::size_t bytes() const noexcept { return bytes_; }
    bool empty() const noexcept { return messages_ == 0; }

  private:
    list_link& list_of(place at) noexcept {
        return at == place::outside ? outside_ : at == place::waiting ? waiting_ : handed_;
    }
    bool has_room(item const& i) const noexcept {
        return messages_ < limits_.messages && i.bytes <= limits_.bytes - bytes_;
    }
    void enter(item& i) noexcept {
        i.at = place::waiting;
        i.insert_before(waiting_);
        ++messages_;
        bytes_ += i.bytes;
    }

    handover_limits limits_;
    list_link outside_{}, waiting_{}, handed_{};
    std::size_t messages_ = 0;
    std::size_t bytes_ = 0;
    std::size_t handed_count_ = 0;
};

}  // namespace runnel::mqtt
