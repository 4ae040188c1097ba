#pragma once

#include <runnel/core/list_link.hpp>

namespace runnel::mqtt::detail {

/// An operation of a session in progress: lies in its coroutine's frame, which may be destroyed after the session.
template <class Part>
struct operation_base : list_link {
    operation_base(Part* part, list_link& all) noexcept : of(part) { insert_before(all); }
    operation_base(operation_base const&) = delete;
    operation_base& operator=(operation_base const&) = delete;
    Part* of;  ///< nullptr: it is gone

    /// For the destructor of the part: `all` are on their own from now on.
    static void leave(list_link& all) noexcept {
        while (all.linked()) {
            auto& first = static_cast<operation_base&>(*all.next());
            first.of = nullptr;
            first.unlink();
        }
    }
};

}  // namespace runnel::mqtt::detail
