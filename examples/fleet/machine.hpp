#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <sys/resource.h>

namespace fleet {

/// Raises the limit of open files of this process to what the system allows it. Returns the limit.
inline std::uint64_t raise_open_files() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

/// How many connections to one port of one host this machine can have: each needs a port of its own at this end. 0: it
/// is not known.
inline std::uint64_t local_ports() {
    std::ifstream file("/proc/sys/net/ipv4/ip_local_port_range");
    std::uint64_t first = 0, last = 0;
    return file >> first >> last && last >= first ? last - first + 1 : 0;
}

/// Seconds of processor time that this process has used.
inline double processor_seconds() {
    rusage used{};
    ::getrusage(RUSAGE_SELF, &used);
    auto const seconds = [](timeval t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
    return seconds(used.ru_utime) + seconds(used.ru_stime);
}

/// Bytes of memory that this process has in use now.
inline std::uint64_t resident_bytes() {
    std::ifstream file("/proc/self/statm");
    std::uint64_t total = 0, resident = 0;
    file >> total >> resident;
    return resident * 4096;
}

}  // namespace fleet
