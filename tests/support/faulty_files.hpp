#pragma once

#include <doctest/doctest.h>
#include <sqlite3.h>

#include "process.hpp"
#include "sample.hpp"
#include <csignal>
#include <cstddef>
#include <new>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

// Files of SQLite's whose n-th step of I/O fails, or is the last one that the process does. SQLite reaches the file by
// way of the functions that stand here.

namespace test {

// What may fail, and with what: SQLite takes some codes of other functions for something else.
enum file_step : unsigned { opens = 1, reads = 2, writes = 4, syncs = 8, locks = 16, deletes = 32 };
constexpr unsigned changes = writes | syncs | deletes;

// What goes wrong, and when.
struct file_plan {
    std::size_t at = 0;        // the step, 1 for the first; 0: never
    int error = SQLITE_OK;     // SQLITE_OK: the process is killed
    unsigned where = changes;  // the steps that count
    bool half = false;         // a write has been done to its half
    bool for_good = false;     // all steps behind it fail, too
    std::size_t steps = 0;

    bool failed() const noexcept { return at != 0 && steps >= at; }
    // Whether this step goes wrong.
    bool hits(file_step kind) noexcept {
        if ((where & kind) == 0) return false;
        ++steps;
        return at != 0 && (steps == at || (for_good && steps > at));
    }
};
inline file_plan now;

inline int fail_or_die() {
    if (now.error == SQLITE_OK) ::kill(::getpid(), SIGKILL);
    return now.error;
}

struct faulty_file : sqlite3_file {
    sqlite3_file* next() noexcept { return reinterpret_cast<sqlite3_file*>(this + 1); }
};
inline faulty_file& of(sqlite3_file* f) { return *static_cast<faulty_file*>(f); }

inline sqlite3_io_methods make_methods() {
    sqlite3_io_methods m{};
    m.iVersion = 1;
    m.xClose = [](sqlite3_file* f) { return of(f).next()->pMethods->xClose(of(f).next()); };
    m.xRead = [](sqlite3_file* f, void* to, int n, sqlite3_int64 at) {
        return now.hits(reads) ? fail_or_die() : of(f).next()->pMethods->xRead(of(f).next(), to, n, at);
    };
    m.xWrite = [](sqlite3_file* f, void const* from, int n, sqlite3_int64 at) {
        auto* const next = of(f).next();
        if (!now.hits(writes)) return next->pMethods->xWrite(next, from, n, at);
        if (now.half) next->pMethods->xWrite(next, from, n / 2, at);
        return fail_or_die();
    };
    m.xTruncate = [](sqlite3_file* f, sqlite3_int64 size) {
        return now.hits(writes) ? fail_or_die() : of(f).next()->pMethods->xTruncate(of(f).next(), size);
    };
    m.xSync = [](sqlite3_file* f, int flags) {
        return now.hits(syncs) ? fail_or_die() : of(f).next()->pMethods->xSync(of(f).next(), flags);
    };
    m.xFileSize = [](sqlite3_file* f, sqlite3_int64* size) {
        return now.hits(reads) ? fail_or_die() : of(f).next()->pMethods->xFileSize(of(f).next(), size);
    };
    m.xLock = [](sqlite3_file* f, int kind) {
        return now.hits(locks) ? fail_or_die() : of(f).next()->pMethods->xLock(of(f).next(), kind);
    };
    m.xUnlock = [](sqlite3_file* f, int kind) { return of(f).next()->pMethods->xUnlock(of(f).next(), kind); };
    m.xCheckReservedLock = [](sqlite3_file* f, int* result) {
        return of(f).next()->pMethods->xCheckReservedLock(of(f).next(), result);
    };
    m.xFileControl = [](sqlite3_file* f, int op, void* argument) {
        return of(f).next()->pMethods->xFileControl(of(f).next(), op, argument);
    };
    m.xSectorSize = [](sqlite3_file* f) { return of(f).next()->pMethods->xSectorSize(of(f).next()); };
    m.xDeviceCharacteristics = [](sqlite3_file* f) {
        return of(f).next()->pMethods->xDeviceCharacteristics(of(f).next());
    };
    return m;
}
inline sqlite3_io_methods const methods = make_methods();

inline sqlite3_vfs* usual() {
    static sqlite3_vfs* const found = sqlite3_vfs_find(nullptr);
    return found;
}

// While it lives, files are opened by way of these functions.
class faulty_files {
  public:
    explicit faulty_files(file_plan p) : vfs_(*usual()) {
        now = p;
        vfs_.zName = "faulty";
        vfs_.pNext = nullptr;
        vfs_.szOsFile += static_cast<int>(sizeof(faulty_file));
        vfs_.xOpen = [](sqlite3_vfs*, char const* name, sqlite3_file* f, int flags, int* out) {
            auto* const made = ::new (f) faulty_file{};
            if (now.hits(opens)) return fail_or_die();
            int const result = usual()->xOpen(usual(), name, made->next(), flags, out);
            if (made->next()->pMethods != nullptr) made->pMethods = &methods;
            return result;
        };
        vfs_.xDelete = [](sqlite3_vfs*, char const* name, int sync) {
            return now.hits(deletes) ? fail_or_die() : usual()->xDelete(usual(), name, sync);
        };
        sqlite3_vfs_register(&vfs_, 1);
    }
    faulty_files(faulty_files const&) = delete;
    faulty_files& operator=(faulty_files const&) = delete;
    /// Whether a step has gone wrong.
    bool failed() const noexcept { return now.failed(); }
    ~faulty_files() {
        sqlite3_vfs_unregister(&vfs_);
        sqlite3_vfs_register(usual(), 1);
    }

  private:
    sqlite3_vfs vfs_;
};

// Whether a process has been killed, by its status; else it has ended well.
inline bool was_killed(int status) {
    if (WIFEXITED(status)) {
        CHECK(WEXITSTATUS(status) == 0);
        return false;
    }
    CHECK(WTERMSIG(status) == SIGKILL);
    return true;
}

// Calls `life(file, plan)` with a plan to kill a process at the first of these steps, the second, and so on, and once
// more each, where a write is done to its half; with the name of a new file. Until it returns false: the process was
// not killed. Returns how many were.
template <class Life>
std::size_t kill_at_each(unsigned steps, Life life) {
    std::size_t kills = 0;
    for (bool const half : {false, true})
        for (std::size_t n = 1;; n += every(7)) {
            CAPTURE(half);
            CAPTURE(n);
            scratch_directory const directory;
            auto const file = (directory.path() / "store.db").string();
            if (!life(file, file_plan{.at = n, .where = steps, .half = half})) break;
            ++kills;
        }
    return kills;
}

}  // namespace test
