#pragma once

#include <runnel/core/compiler.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace runnel {

/// Makes room in `v` for `more` elements behind those that it has, so that as many `push_back` cannot fail. It at least
/// doubles what there is, where `reserve` allocates what it is asked for: room for one more, time and again, takes as
/// long as the elements do.
template <class T>
RUNNEL_COLD RUNNEL_NOINLINE void make_room(std::vector<T>& v, std::size_t more) {
    if (v.capacity() - v.size() < more) v.reserve((std::max)(v.size() + more, 2 * v.capacity()));
}

}  // namespace runnel
