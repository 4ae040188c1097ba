#pragma once

#include <runnel/mqtt/store/session_store.hpp>

#include <sqlite3.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

namespace runnel::mqtt {

/// SQLite's own result codes, extended ones included. They compare equal to what the operating system would say:
/// `std::errc::no_space_on_device`, `io_error`, `permission_denied`, `read_only_file_system`, `not_enough_memory`,
/// `device_or_resource_busy`, `no_such_file_or_directory`.
enum class sqlite_errc : int { ok = SQLITE_OK };

/// SQLite's own texts, and what of `std::errc` each code is equivalent to.
class sqlite_error_category final : public std::error_category {
  public:
    char const* name() const noexcept override { return "runnel.sqlite"; }
    std::string message(int value) const override { return sqlite3_errstr(value); }
    std::error_condition default_error_condition(int value) const noexcept override {
        switch (value & 0xFF) {
            case SQLITE_FULL: return std::errc::no_space_on_device;
            case SQLITE_IOERR: return std::errc::io_error;
            case SQLITE_PERM:
            case SQLITE_AUTH: return std::errc::permission_denied;
            case SQLITE_READONLY: return std::errc::read_only_file_system;
            case SQLITE_NOMEM: return std::errc::not_enough_memory;
            case SQLITE_BUSY:
            case SQLITE_LOCKED: return std::errc::device_or_resource_busy;
            case SQLITE_CANTOPEN: return std::errc::no_such_file_or_directory;
            default: return {value, *this};
        }
    }
};

/// Lets a `std::error_code` be made of one of these.
inline std::error_code make_error_code(sqlite_errc e) noexcept {
    static sqlite_error_category const category;
    return {static_cast<int>(e), category};
}

}  // namespace runnel::mqtt

template <>
struct std::is_error_code_enum<runnel::mqtt::sqlite_errc> : std::true_type {};

namespace runnel::mqtt {

/// How a `sqlite_store` keeps its file.
struct sqlite_options {
    /// What the stored state survives.
    enum class survives : std::uint8_t {
        process,  ///< the end of the process at any moment (kill -9). A power failure may undo the last changes
        power,    ///< also a power failure: each `apply` waits for the disk
    };
    survives what = survives::process;
    /// How long the constructor waits (and blocks) for another process to let go of the file, 0 ms or more.
    std::chrono::milliseconds lock_wait{0};
};

/// A session store in a file of SQLite (write-ahead log beside it), which only one process at a time can use.
///
/// As shared by a session: `options.store = std::make_shared<sqlite_store>("client.db")`.
class sqlite_store {
  public:
    /// Opens the file or makes a new one. The directory must be there, on a local file system.
    ///
    /// Throws `store_errc::in_use`, `not_a_store`, `unsupported_format`, `corrupt` or `not_durable`, or a
    /// `sqlite_errc`, with the file's name in the text.
    explicit sqlite_store(std::string const& file, sqlite_options options = {}) {
        sqlite3* db = nullptr;
        constexpr int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
        int const result = sqlite3_open_v2(file.c_str(), &db, flags, nullptr);
        db_.reset(db);
        std::error_code error = static_cast<sqlite_errc>(result);
        if (!error) error = prepare(options);
        if (error) throw std::system_error(error, file);
    }
    sqlite_store(sqlite_store const&) = delete;
    sqlite_store& operator=(sqlite_store const&) = delete;

    std::error_code load(store_reader& reader) {
        statement select;
        if (auto const e = compile("SELECT key, value FROM record ORDER BY key", select)) return e;
        int result = SQLITE_ROW;
        while ((result = sqlite3_step(select.get())) == SQLITE_ROW) {
            auto const* const bytes = static_cast<char const*>(sqlite3_column_blob(select.get(), 1));
            auto const size = static_cast<std::size_t>(sqlite3_column_bytes(select.get(), 1));
            auto const key = static_cast<std::uint64_t>(sqlite3_column_int64(select.get(), 0));
            reader.record(key, bytes == nullptr ? std::string_view() : std::string_view(bytes, size));
        }
        return result == SQLITE_DONE ? std::error_code() : failure(result);
    }

    /// Commits one transaction, to which what the user has done since `transaction()` belongs.
    std::error_code apply(std::span<store_change const> changes) {
        if (changes.empty() && !pending()) return {};
        std::error_code error = begin();
        for (auto const& c : changes) {
            if (error) break;
            error = c.erase ? erase(c.key) : put(c.key, c.value);
        }
        if (!error) error = run(commit_);
        if (error && pending()) sqlite3_exec(db_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
        return error;
    }

    /// Whether there is an open transaction.
    bool pending() const { return sqlite3_get_autocommit(db_.get()) == 0; }

    /// The connection to the database, with an open transaction, for tables of the user's own (whose names do not begin
    /// with `record`): what the user changes there becomes durable in the same instant as what the session changes
    /// until its next write. So a message can be processed exactly once: write what it causes, then let go of it; or be
    /// published exactly once: write that it was, and publish it, without suspending in between.
    ///
    /// The user neither begins nor ends transactions. If `apply` fails (then `run` ends with its error), the user's
    /// changes are undone, and of the session nothing more is stored (see `session::save`): a new session goes on from
    /// before both. Throws a `sqlite_errc`.
    sqlite3* transaction() {
        if (auto const e = begin()) throw std::system_error(e);
        return db_.get();
    }

  private:
    struct closer {
        void operator()(sqlite3* db) const noexcept { sqlite3_close_v2(db); }
    };
    struct finalizer {
        void operator()(sqlite3_stmt* s) const noexcept { sqlite3_finalize(s); }
    };
    using statement = std::unique_ptr<sqlite3_stmt, finalizer>;

    std::error_code prepare(sqlite_options const& options) {
        sqlite3_extended_result_codes(db_.get(), 1);
        auto const wait = std::clamp<std::int64_t>(options.lock_wait.count(), 0, (std::numeric_limits<int>::max)());
        sqlite3_busy_timeout(db_.get(), static_cast<int>(wait));
        // Before the first access, so that the lock is held until the end, and no memory is shared.
        if (auto const e = execute("PRAGMA locking_mode = EXCLUSIVE")) return e;
        bool is_new = false;
        if (auto const e = recognise(is_new)) return e;
        std::string mode;
        if (auto const e = ask("PRAGMA journal_mode = WAL", mode)) return e;
        if (mode != "wal") return store_errc::not_durable;
        auto const* const synchronous = options.what == sqlite_options::survives::power ? "PRAGMA synchronous = FULL"
                                                                                        : "PRAGMA synchronous = NORMAL";
        if (auto const e = execute(synchronous)) return e;
        if (auto const e = is_new ? create() : std::error_code()) return e;
        std::string sound;
        if (auto const e = ask("PRAGMA quick_check(1)", sound)) return e;
        if (sound != "ok") return store_errc::corrupt;
        return compile_all();
    }

    std::error_code create() {
        return execute(
            "BEGIN; CREATE TABLE record(key INTEGER PRIMARY KEY, value BLOB NOT NULL);"
            "PRAGMA application_id = 1920298604; PRAGMA user_version = 1; COMMIT");
    }

    // Nothing is written to a file that is something else.
    std::error_code recognise(bool& is_new) {
        std::string id, version, tables;
        if (auto const e = ask("PRAGMA application_id", id)) return e;
        if (auto const e = ask("PRAGMA user_version", version)) return e;
        if (auto const e = ask("SELECT count(*) FROM sqlite_master", tables)) return e;
        is_new = id == "0" && version == "0" && tables == "0";
        if (is_new) return {};
        if (id != "1920298604") return store_errc::not_a_store;  // "runl"
        return version == "1" ? std::error_code() : store_errc::unsupported_format;
    }

    std::error_code compile_all() {
        if (auto const e = compile("BEGIN", begin_)) return e;
        if (auto const e = compile("COMMIT", commit_)) return e;
        if (auto const e = compile("REPLACE INTO record(key, value) VALUES(?1, ?2)", put_)) return e;
        return compile("DELETE FROM record WHERE key = ?1", erase_);
    }

    std::error_code begin() { return pending() ? std::error_code() : run(begin_); }

    std::error_code put(std::uint64_t key, std::string_view value) {
        sqlite3_bind_int64(put_.get(), 1, static_cast<sqlite3_int64>(key));
        // A null pointer would be NULL, which is no blob.
        auto const* const bytes = value.data() == nullptr ? "" : value.data();
        int const result = sqlite3_bind_blob64(put_.get(), 2, bytes, value.size(), SQLITE_STATIC);
        return result == SQLITE_OK ? run(put_) : failure(result);
    }
    std::error_code erase(std::uint64_t key) {
        sqlite3_bind_int64(erase_.get(), 1, static_cast<sqlite3_int64>(key));
        return run(erase_);
    }

    std::error_code run(statement const& s) {
        int const result = sqlite3_step(s.get());
        sqlite3_reset(s.get());
        return result == SQLITE_DONE ? std::error_code() : failure(result);
    }

    std::error_code execute(char const* sql) {
        return failure(sqlite3_exec(db_.get(), sql, nullptr, nullptr, nullptr));
    }

    // The first column of the first row.
    std::error_code ask(char const* sql, std::string& answer) {
        statement s;
        if (auto const e = compile(sql, s)) return e;
        int const result = sqlite3_step(s.get());
        if (result != SQLITE_ROW) return failure(result == SQLITE_DONE ? SQLITE_CORRUPT : result);
        auto const* const text = sqlite3_column_text(s.get(), 0);
        if (text == nullptr) return failure(SQLITE_NOMEM);  // none of the answers is NULL
        answer = reinterpret_cast<char const*>(text);
        return {};
    }

    std::error_code compile(std::string_view sql, statement& into) {
        sqlite3_stmt* s = nullptr;
        int const result = sqlite3_prepare_v3(db_.get(), sql.data(), static_cast<int>(sql.size()),
                                              SQLITE_PREPARE_PERSISTENT, &s, nullptr);
        into.reset(s);
        return failure(result);
    }

    static std::error_code failure(int result) noexcept {
        switch (result & 0xFF) {
            case SQLITE_OK: return {};
            case SQLITE_BUSY: return store_errc::in_use;
            case SQLITE_NOTADB: return store_errc::not_a_store;
            case SQLITE_CORRUPT: return store_errc::corrupt;
            default: return static_cast<sqlite_errc>(result);
        }
    }

    std::unique_ptr<sqlite3, closer> db_{};
    statement begin_{}, commit_{}, put_{}, erase_{};
};

}  // namespace runnel::mqtt
