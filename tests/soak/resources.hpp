#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>
#include <vector>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/allocator_interface.h>
#endif

/// What this process uses.
namespace soak::resources {

inline std::size_t heap_bytes() {
#ifdef __SANITIZE_ADDRESS__
    return __sanitizer_get_current_allocated_bytes();
#else
    return ::mallinfo2().uordblks;
#endif
}

inline std::size_t resident_bytes() {
    std::ifstream statm("/proc/self/statm");
    std::size_t whole = 0, resident = 0;
    statm >> whole >> resident;
    return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

inline std::size_t descriptors() {
    std::filesystem::directory_iterator const all("/proc/self/fd");
    return static_cast<std::size_t>(std::distance(begin(all), end(all))) - 1;  // but that of the iterator
}

/// Lets this process have `wanted` of them, or as many as it may.
inline void raise_descriptors(std::size_t wanted) {
    ::rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = std::max(limit.rlim_cur, std::min<::rlim_t>(limit.rlim_max, wanted));
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

/// What was in use when nothing was going on.
struct point {
    std::size_t heap;
    std::size_t descriptors;
};

/// Whether memory has stopped growing. The first third of the points is for what is made when it is first needed; of
/// the rest, the median of the second half may be 2 % greater than that of the first. With fewer than six points there
/// is nothing to compare.
inline bool is_steady(std::vector<point> const& points) {
    if (points.size() < 6) return true;
    auto const median = [](auto first, auto last) {
        std::vector<std::size_t> heaps;
        for (; first != last; ++first) heaps.push_back(first->heap);
        std::nth_element(heaps.begin(), heaps.begin() + static_cast<std::ptrdiff_t>(heaps.size() / 2), heaps.end());
        return heaps[heaps.size() / 2];
    };
    auto const third = static_cast<std::ptrdiff_t>(points.size() / 3);
    auto const before = median(points.begin() + third, points.begin() + 2 * third);
    auto const after = median(points.begin() + 2 * third, points.end());
    double const growth = static_cast<double>(after) / static_cast<double>(before) - 1;
    std::printf("heap at quiet points: %zu bytes, later %zu (%+.2f %%)\n", before, after, 100 * growth);
    return growth <= 0.02;
}

}  // namespace soak::resources
