#include <runnel/mqtt/store/sqlite_store.hpp>

#include <doctest/doctest.h>

#include "support/faulty_files.hpp"
#include "support/process.hpp"
#include "support/sample.hpp"
#include <csignal>
#include <cstddef>
#include <map>
#include <string>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

// A store whose n-th step of I/O fails, for each n, or is the last one that its process does.

using namespace runnel::mqtt;
using enum test::file_step;
using test::faulty_files;
using test::file_plan;

namespace {

// SQLite's memory, which it lets itself be given before its first use: the n-th allocation fails, or all from that on.
std::size_t memory_fails_in = 0;
bool memory_fails_for_good = false;
bool memory_has_failed = false;
bool has_memory() noexcept {
    if (memory_fails_in == 0 || --memory_fails_in != 0) return true;
    if (memory_fails_for_good) memory_fails_in = 1;
    memory_has_failed = true;
    return false;
}
sqlite3_mem_methods usual_memory{};
bool const memory_can_fail = [] {
    if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &usual_memory) != SQLITE_OK) return false;
    auto failing = usual_memory;
    failing.xMalloc = [](int size) -> void* { return has_memory() ? usual_memory.xMalloc(size) : nullptr; };
    failing.xRealloc = [](void* p, int size) -> void* {
        return has_memory() ? usual_memory.xRealloc(p, size) : nullptr;
    };
    return sqlite3_config(SQLITE_CONFIG_MALLOC, &failing) == SQLITE_OK;
}();

using records = std::map<std::uint64_t, std::string>;

struct collector final : store_reader {
    records all;
    void record(std::uint64_t key, std::string_view value) override { all[key] = value; }
};

// What is stored in so many steps, as a session does it: messages come, are released and end.
constexpr std::size_t batches = 12;
std::vector<store_change> batch(std::size_t n) {
    static std::string const packet(900, 'p');
    std::vector<store_change> all{{0, n % 2 == 0 ? "even" : "odd", false}};
    for (std::uint64_t i = 0; i < 4; ++i) all.push_back({100 + n * 4 + i, packet, false});
    if (n >= 1) all.push_back({100 + (n - 1) * 4, {}, false});
    if (n >= 2) all.push_back({100 + (n - 2) * 4, {}, true});
    return all;
}
records after(std::size_t count) {
    records all;
    for (std::size_t n = 0; n < count; ++n)
        for (auto const& c : batch(n)) {
            if (c.erase)
                all.erase(c.key);
            else
                all[c.key] = c.value;
        }
    return all;
}

records contents(std::string const& file) {
    sqlite_store store(file);
    collector found;
    CHECK_FALSE(store.load(found));
    return found.all;
}

// Stores all, until something fails; `done` says how many are stored. Returns the error.
std::error_code store_all(std::string const& file, sqlite_options::survives what, std::size_t volatile& done) try {
    sqlite_store store(file, {.what = what});
    collector found;
    if (auto const e = store.load(found)) return e;
    for (std::size_t n = done; n < batches; ++n) {
        if (auto const e = store.apply(batch(n))) {
            CHECK_FALSE(store.pending());
            return e;
        }
        done = n + 1;
    }
    return {};
} catch (std::system_error const& e) {
    return e.code();
}

// A failed batch may be found all the same: its last write may have been done. It is there as a whole, or not at all.
std::size_t check_stored(std::string const& file, std::size_t done) {
    auto const found = contents(file);
    bool const more = found != after(done);
    CAPTURE(done);
    CAPTURE(found.size());
    CAPTURE(after(done).size());
    if (more) CHECK(found == after(done + 1));
    return done + (more ? 1 : 0);
}

// Behind a step that may have `failed` with `why`: what was told is so, and the next process stores the rest.
void check_and_go_on(std::string const& file, std::error_code const& why, bool failed, std::size_t volatile& done) {
    if (!why) CHECK(done == batches);
    if (!failed) CHECK_FALSE(why);
    done = check_stored(file, done);
    CHECK_FALSE(store_all(file, sqlite_options::survives::process, done));
    CHECK(contents(file) == after(batches));
}

}  // namespace

TEST_CASE("whichever step of SQLite's I/O fails, a batch is stored as a whole or not at all, and what is told is so") {
    std::size_t failures = 0;
    struct fault {
        int error;
        unsigned where;
    };
    for (auto const& [error, where] :
         {fault{SQLITE_FULL, writes}, fault{SQLITE_IOERR_WRITE, writes}, fault{SQLITE_READONLY, writes},
          fault{SQLITE_IOERR_FSYNC, syncs}, fault{SQLITE_IOERR_READ, reads}, fault{SQLITE_CORRUPT, reads},
          fault{SQLITE_BUSY, locks}, fault{SQLITE_CANTOPEN, opens}, fault{SQLITE_IOERR_DELETE, deletes},
          fault{SQLITE_IOERR_NOMEM, ~0u}})
        for (bool const for_good : {false, true})
            for (std::size_t n = 1;; n += test::every(7)) {
                CAPTURE(error);
                CAPTURE(for_good);
                CAPTURE(n);
                test::scratch_directory const directory;
                auto const file = (directory.path() / "store.db").string();
                std::size_t volatile done = 0;
                std::error_code why;
                bool failed = false;
                {
                    faulty_files const files(
                        {.at = n, .error = error, .where = where, .half = n % 2 == 0, .for_good = for_good});
                    why = store_all(file, sqlite_options::survives::power, done);
                    failed = files.failed();
                }
                CAPTURE(why.message());
                check_and_go_on(file, why, failed, done);
                if (!failed) break;
                ++failures;
            }
    MESSAGE(failures << " failed steps");
    CHECK(failures > 300 / test::every(7));
}

TEST_CASE("whichever allocation of SQLite's fails, a batch is stored as a whole or not at all, and the error is that") {
    REQUIRE(memory_can_fail);
    std::size_t failures = 0;
    for (bool const for_good : {false, true})
        for (std::size_t n = 1;; n += test::every(9) + n % 5) {
            CAPTURE(for_good);
            CAPTURE(n);
            test::scratch_directory const directory;
            auto const file = (directory.path() / "store.db").string();
            std::size_t volatile done = 0;
            memory_fails_in = n;
            memory_fails_for_good = for_good;
            auto const why = store_all(file, sqlite_options::survives::process, done);
            bool const failed = std::exchange(memory_has_failed, false);
            memory_fails_in = 0;
            CAPTURE(why.message());
            CHECK((!why || why == static_cast<sqlite_errc>(SQLITE_NOMEM) ||
                   why == static_cast<sqlite_errc>(SQLITE_IOERR_NOMEM)));
            check_and_go_on(file, why, failed, done);
            if (!failed) break;
            ++failures;
        }
    MESSAGE(failures << " failed allocations");
    CHECK(failures > 100 / test::every(9));
}

TEST_CASE("a process that is killed at any write of its store has stored all that was told, in whole batches") {
    std::size_t kills = 0;
    auto* const shared =
        ::mmap(nullptr, sizeof(std::size_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(shared != MAP_FAILED);
    auto& done = *static_cast<std::size_t volatile*>(shared);
    for (auto const what : {sqlite_options::survives::process, sqlite_options::survives::power})
        kills += test::kill_at_each(test::changes, [&](std::string const& file, file_plan const& plan) {
            done = 0;
            auto const child = ::fork();
            if (child == 0) {
                faulty_files const files(plan);
                ::_exit(store_all(file, what, done) ? 1 : 0);
            }
            int status = 0;
            ::waitpid(child, &status, 0);
            if (!test::was_killed(status)) return false;
            done = check_stored(file, done);
            CHECK_FALSE(store_all(file, what, done));
            CHECK(contents(file) == after(batches));
            return true;
        });
    ::munmap(shared, sizeof(std::size_t));
    MESSAGE(kills << " kills");
    CHECK(kills > 50 / test::every(7));
}
