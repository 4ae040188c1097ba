#pragma once

#include <chrono>
#include <optional>
#include <set>
#include <utility>

namespace runnel::testing::detail {

/// When something is due for each of many objects. An `Owner` has a member `std::optional<time_point> deadline`, which
/// only this class changes; it is cleared before the owner goes.
template <class Owner>
class deadlines {
  public:
    using time_point = std::chrono::steady_clock::time_point;

    void set(Owner& owner, time_point at) {
        clear(owner);
        owner.deadline = at;
        due_.emplace(at, &owner);
    }

    void clear(Owner& owner) {
        if (!owner.deadline) return;
        due_.erase({*owner.deadline, &owner});
        owner.deadline.reset();
    }

    /// The next deadline, if there is any.
    std::optional<time_point> next() const { return due_.empty() ? std::nullopt : std::optional(due_.begin()->first); }

    /// Removes and returns an owner whose deadline has come; nullptr if there is none.
    Owner* take_due(time_point now) {
        if (due_.empty() || due_.begin()->first > now) return nullptr;
        Owner* const owner = due_.begin()->second;
        clear(*owner);
        return owner;
    }

  private:
    std::set<std::pair<time_point, Owner*>> due_{};
};

}  // namespace runnel::testing::detail
