#include <runnel/mqtt/store/sqlite_store.hpp>

#include <doctest/doctest.h>

#include "support/process.hpp"
#include "support/random_source.hpp"
#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

using namespace runnel::mqtt;

namespace {

struct collector final : store_reader {
    std::map<std::uint64_t, std::string> all;
    std::vector<std::uint64_t> keys;
    void record(std::uint64_t key, std::string_view value) override {
        all[key] = value;
        keys.push_back(key);
    }
};

std::map<std::uint64_t, std::string> contents(sqlite_store& store) {
    collector c;
    CHECK_FALSE(store.load(c));
    CHECK(c.keys.size() == c.all.size());
    CHECK(std::is_sorted(c.keys.begin(), c.keys.end()));
    return c.all;
}

struct fixture {
    test::scratch_directory directory;
    std::string file = (directory.path() / "store.db").string();

    std::error_code error_of_opening() const {
        try {
            sqlite_store const store(file);
        } catch (std::system_error const& e) {
            CHECK(std::string(e.what()).find("store.db") != std::string::npos);
            return e.code();
        }
        return {};
    }
    void execute(char const* sql) const {
        sqlite3* db = nullptr;
        REQUIRE(sqlite3_open(file.c_str(), &db) == SQLITE_OK);
        CHECK(sqlite3_exec(db, sql, nullptr, nullptr, nullptr) == SQLITE_OK);
        sqlite3_close(db);
    }
};

std::string one_value(sqlite3* db, char const* sql) {
    sqlite3_stmt* s = nullptr;
    REQUIRE(sqlite3_prepare_v2(db, sql, -1, &s, nullptr) == SQLITE_OK);
    REQUIRE(sqlite3_step(s) == SQLITE_ROW);
    std::string const text = reinterpret_cast<char const*>(sqlite3_column_text(s, 0));
    sqlite3_finalize(s);
    return text;
}

}  // namespace

TEST_CASE("a SQLite store is a session store that starts empty") {
    static_assert(session_store<sqlite_store>);
    fixture p;
    sqlite_store store(p.file);
    CHECK(contents(store).empty());
    CHECK_FALSE(store.pending());
}

TEST_CASE("records put into a SQLite store are there after it has been opened again, byte for byte") {
    fixture p;
    std::string every_byte;
    for (int i = 0; i < 256; ++i) every_byte += static_cast<char>(i);
    constexpr std::uint64_t largest = (std::uint64_t{1} << 63) - 1;
    {
        sqlite_store store(p.file);
        store_change const changes[] = {
            {largest, every_byte}, {2, "old"}, {0, {}}, {1, std::string_view("")}, {2, "new"}, {3, "x"}, {3, {}, true}};
        REQUIRE_FALSE(store.apply(changes));
    }
    sqlite_store store(p.file);
    CHECK(contents(store) == std::map<std::uint64_t, std::string>{{0, ""}, {1, ""}, {2, "new"}, {largest, every_byte}});
}

TEST_CASE("erasing a record that is not there does no harm") {
    fixture p;
    sqlite_store store(p.file);
    store_change const changes[] = {{5, {}, true}, {6, "six"}};
    CHECK_FALSE(store.apply(changes));
    CHECK(contents(store).size() == 1);
}

TEST_CASE("a SQLite store holds the same as a map after any changes") {
    fixture p;
    test::random_source random(1);
    std::map<std::uint64_t, std::string> expected;
    for (int round = 0; round < 20; ++round) {
        sqlite_store store(p.file);
        CHECK((contents(store) == expected));
        for (int batch = 0; batch < 10; ++batch) {
            std::vector<std::string> values;
            std::vector<store_change> changes;
            for (int i = 0; i < 20; ++i)
                values.push_back(std::string(random.between<std::size_t>(0, 6000), static_cast<char>(i)));
            for (auto const& v : values) changes.push_back({random.between<std::uint64_t>(0, 60), v, random.one_in(2)});
            REQUIRE_FALSE(store.apply(changes));
            for (auto const& c : changes) {
                if (c.erase)
                    expected.erase(c.key);
                else
                    expected[c.key] = c.value;
            }
        }
        CHECK((contents(store) == expected));
    }
}

TEST_CASE("while a SQLite store is open nobody else can open it") {
    fixture p;
    {
        sqlite_store const store(p.file);
        CHECK(p.error_of_opening() == store_errc::in_use);
        CHECK(p.error_of_opening() == store_errc::in_use);
    }
    CHECK_FALSE(p.error_of_opening());
    // Also where nothing has been written.
    sqlite_store const store(p.file);
    CHECK(p.error_of_opening() == store_errc::in_use);
}

TEST_CASE("another process that has a SQLite store open keeps it until it ends, also by kill -9") {
    fixture p;
    {
        sqlite_store const store(p.file);
    }
    std::array<int, 2> ready{};
    REQUIRE(::pipe(ready.data()) == 0);
    pid_t const child = ::fork();
    if (child == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        sqlite_store store(p.file);
        store_change const change[] = {{1, "committed"}};
        bool const good = !store.apply(change);
        sqlite3_exec(store.transaction(), "DELETE FROM record", nullptr, nullptr, nullptr);  // not committed
        [[maybe_unused]] auto const n = ::write(ready[1], good ? "y" : "n", 1);
        for (;;) ::pause();
    }
    char answer = 0;
    REQUIRE(::read(ready[0], &answer, 1) == 1);
    CHECK(answer == 'y');
    CHECK(p.error_of_opening() == store_errc::in_use);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ::close(ready[0]);
    ::close(ready[1]);
    sqlite_store store(p.file);
    CHECK(contents(store) == std::map<std::uint64_t, std::string>{{1, "committed"}});
}

TEST_CASE("a file that is no SQLite database is refused and left as it is") {
    fixture p;
    std::string const text(5000, 'x');
    p.directory.write("store.db", text);
    CHECK(p.error_of_opening() == store_errc::not_a_store);
    CHECK((p.directory.read("store.db") == text));
}

TEST_CASE("a database of another program is refused and left as it is") {
    fixture p;
    p.execute("CREATE TABLE own(x); INSERT INTO own VALUES(1)");
    auto const before = p.directory.read("store.db");
    CHECK(p.error_of_opening() == store_errc::not_a_store);
    CHECK((p.directory.read("store.db") == before));
}

TEST_CASE("a store written by a later version is refused") {
    fixture p;
    CHECK_FALSE(p.error_of_opening());
    p.execute("PRAGMA user_version = 2");
    CHECK(p.error_of_opening() == store_errc::unsupported_format);
}

TEST_CASE("a database whose structure is damaged is refused") {
    fixture p;
    std::map<std::uint64_t, std::string> expected;
    {
        sqlite_store store(p.file);
        for (std::uint64_t key = 0; key < 100; ++key) {
            expected[key] = std::string(200, static_cast<char>('a' + key % 26));
            store_change const change[] = {{key, expected[key]}};
            REQUIRE_FALSE(store.apply(change));
        }
    }
    auto const sound = p.directory.read("store.db");
    int refused = 0;
    for (std::size_t page = 0; page < sound.size(); page += 4096) {
        for (std::size_t const at : {0U, 3U, 5U, 8U, 40U, 100U, 108U}) {
            auto damaged = sound;
            for (std::size_t i = 0; i < 3; ++i)
                damaged[page + at + i] = static_cast<char>(damaged[page + at + i] ^ 0x55);
            p.directory.write("store.db", damaged);
            auto const error = p.error_of_opening();
            CAPTURE(page);
            CAPTURE(at);
            if (error) ++refused;
            if (page > 0 && at < 8) CHECK(error == store_errc::corrupt);  // the head of a B-tree page
        }
    }
    CHECK(refused > 10);
    p.directory.write("store.db", sound.substr(0, sound.size() - 4096));
    CHECK(p.error_of_opening() == store_errc::corrupt);
    p.directory.write("store.db", sound);
    sqlite_store store(p.file);
    CHECK((contents(store) == expected));
}

TEST_CASE("when the disk is full nothing of a batch is stored, and it can be stored later") {
    fixture p;
    sqlite_store store(p.file);
    store_change const first[] = {{1, "kept"}};
    REQUIRE_FALSE(store.apply(first));
    REQUIRE_FALSE(store.apply({}));
    auto const limit = [&](char const* sql) {
        sqlite3* const db = store.transaction();
        CHECK(sqlite3_exec(db, sql, nullptr, nullptr, nullptr) == SQLITE_OK);
        REQUIRE_FALSE(store.apply({}));
    };
    limit("PRAGMA max_page_count = 4");

    std::string const large(40'000, 'x');
    store_change const second[] = {{1, "changed"}, {2, large}, {3, "three"}};
    std::error_code const error = store.apply(second);
    CHECK(error == std::errc::no_space_on_device);
    CHECK(std::string(error.category().name()) == "runnel.sqlite");
    CHECK_FALSE(error.message().empty());
    CHECK_FALSE(store.pending());
    CHECK(contents(store) == std::map<std::uint64_t, std::string>{{1, "kept"}});

    limit("PRAGMA max_page_count = 1000");
    CHECK_FALSE(store.apply(second));
    CHECK((contents(store) == std::map<std::uint64_t, std::string>{{1, "changed"}, {2, large}, {3, "three"}}));
}

TEST_CASE("a file in a directory that is not there, or that is no file, is an error") {
    fixture p;
    p.file = (p.directory.path() / "missing" / "store.db").string();
    CHECK(p.error_of_opening() == std::errc::no_such_file_or_directory);
    CHECK_THROWS_AS(sqlite_store(p.directory.path().string()), std::system_error);
}

TEST_CASE("a database in memory is refused, because it ends with the process") {
    try {
        sqlite_store const store(":memory:");
        FAIL("opened");
    } catch (std::system_error const& e) {
        CHECK(e.code() == store_errc::not_durable);
    }
}

TEST_CASE("what the user changes in the transaction is stored with the changes of the session, or not at all") {
    fixture p;
    auto const count = [](sqlite_store& store) { return one_value(store.transaction(), "SELECT count(*) FROM own"); };
    {
        sqlite_store store(p.file);
        sqlite3_exec(store.transaction(), "CREATE TABLE own(x)", nullptr, nullptr, nullptr);
        CHECK(store.pending());
        REQUIRE_FALSE(store.apply({}));
        CHECK_FALSE(store.pending());

        sqlite3_exec(store.transaction(), "INSERT INTO own VALUES(1)", nullptr, nullptr, nullptr);
        store_change const change[] = {{1, "one"}};
        REQUIRE_FALSE(store.apply(change));
        sqlite3_exec(store.transaction(), "INSERT INTO own VALUES(2)", nullptr, nullptr, nullptr);
        // The process ends without another `apply`.
    }
    {
        sqlite_store store(p.file);
        CHECK(count(store) == "1");
        CHECK(contents(store).size() == 1);
        sqlite3_exec(store.transaction(), "PRAGMA max_page_count = 1", nullptr, nullptr, nullptr);
        sqlite3_exec(store.transaction(), "INSERT INTO own VALUES(3)", nullptr, nullptr, nullptr);
        std::string const large(1'000'000, 'x');
        store_change const change[] = {{2, large}};
        REQUIRE(store.apply(change) == std::errc::no_space_on_device);
        CHECK(count(store) == "1");
        CHECK(contents(store).size() == 1);
    }
}

TEST_CASE("a transaction that cannot be committed is undone, and the next one begins anew") {
    fixture p;
    sqlite_store store(p.file);
    auto const execute = [&](char const* sql) {
        REQUIRE(sqlite3_exec(store.transaction(), sql, nullptr, nullptr, nullptr) == SQLITE_OK);
    };
    // Nobody has row 7: that is found only when the transaction ends, and leaves it open.
    execute("CREATE TABLE own(x INTEGER PRIMARY KEY, other REFERENCES own(x) DEFERRABLE INITIALLY DEFERRED)");
    REQUIRE_FALSE(store.apply({}));
    sqlite3* const db = store.transaction();
    REQUIRE_FALSE(store.apply({}));
    REQUIRE(sqlite3_exec(db, "PRAGMA foreign_keys = ON", nullptr, nullptr, nullptr) == SQLITE_OK);
    execute("INSERT INTO own VALUES(1, 7)");
    store_change const change[] = {{1, "one"}};
    CHECK(store.apply(change));
    CHECK_FALSE(store.pending());
    CHECK(contents(store).empty());
    CHECK(one_value(store.transaction(), "SELECT count(*) FROM own") == "0");
    REQUIRE_FALSE(store.apply(change));
    CHECK(contents(store).size() == 1);
}

TEST_CASE("an error while records are read is not taken for their end") {
    fixture p;
    sqlite_store store(p.file);
    store_change const changes[] = {{1, "one"}, {2, "two"}};
    REQUIRE_FALSE(store.apply(changes));
    sqlite3* const db = store.transaction();
    REQUIRE_FALSE(store.apply({}));
    sqlite3_progress_handler(db, 1, [](void*) { return 1; }, nullptr);
    struct : store_reader {
        void record(std::uint64_t, std::string_view) override {}
    } reader;
    CHECK(store.load(reader) == static_cast<sqlite_errc>(SQLITE_INTERRUPT));
    sqlite3_progress_handler(db, 0, nullptr, nullptr);
    CHECK_FALSE(store.load(reader));
}

TEST_CASE("a store that survives power failures waits for the disk at each commit, the other one does not") {
    fixture p;
    for (auto const what : {sqlite_options::survives::power, sqlite_options::survives::process}) {
        sqlite_store store(p.file, {.what = what});
        bool const full = what == sqlite_options::survives::power;
        CHECK(one_value(store.transaction(), "PRAGMA synchronous") == (full ? "2" : "1"));
        store_change const change[] = {{1, "one"}};
        CHECK_FALSE(store.apply(change));
    }
}

TEST_CASE("a store can wait for the process before it to let go of the file") {
    fixture p;
    std::array<int, 2> ready{};
    REQUIRE(::pipe(ready.data()) == 0);
    pid_t const child = ::fork();
    if (child == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        sqlite_store const store(p.file);
        [[maybe_unused]] auto const n = ::write(ready[1], "y", 1);
        ::usleep(50'000);
        ::_exit(0);
    }
    char answer = 0;
    REQUIRE(::read(ready[0], &answer, 1) == 1);
    CHECK_NOTHROW(sqlite_store(p.file, {.lock_wait = std::chrono::seconds(20)}));
    ::waitpid(child, nullptr, 0);
    ::close(ready[0]);
    ::close(ready[1]);
}

TEST_CASE("SQLite's codes compare equal to what the operating system would say") {
    auto const code = [](int value) { return make_error_code(static_cast<sqlite_errc>(value)); };
    CHECK(code(SQLITE_FULL) == std::errc::no_space_on_device);
    CHECK(code(SQLITE_IOERR_WRITE) == std::errc::io_error);
    CHECK(code(SQLITE_PERM) == std::errc::permission_denied);
    CHECK(code(SQLITE_AUTH) == std::errc::permission_denied);
    CHECK(code(SQLITE_READONLY) == std::errc::read_only_file_system);
    CHECK(code(SQLITE_NOMEM) == std::errc::not_enough_memory);
    CHECK(code(SQLITE_BUSY) == std::errc::device_or_resource_busy);
    CHECK(code(SQLITE_LOCKED) == std::errc::device_or_resource_busy);
    CHECK(code(SQLITE_CANTOPEN) == std::errc::no_such_file_or_directory);
    CHECK_FALSE(code(SQLITE_MISUSE) == std::errc::io_error);
    CHECK_FALSE(code(SQLITE_OK));
}
