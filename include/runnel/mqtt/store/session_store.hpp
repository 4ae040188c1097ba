#pragma once

#include <runnel/core/error.hpp>

#include <chrono>
#include <concepts>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

namespace runnel::mqtt {

/// Why a store cannot be used for a session. What goes wrong inside a store has the codes of that store.
enum class store_errc {
    ok = 0,
    in_use,              ///< another process, or another session of this one, uses the store
    not_a_store,         ///< the file is something else
    unsupported_format,  ///< written by a later version of the library
    corrupt,             ///< what is stored makes no sense
    other_client,        ///< what is stored is the session of another client identifier
    not_durable,         ///< the place cannot keep what is stored in it
};

/// The name of the errors' category.
constexpr char const* category_name(store_errc) noexcept { return "runnel.store"; }

/// What the error means, in a sentence without a full stop.
inline char const* describe(store_errc e) noexcept {
    switch (e) {
        case store_errc::ok: return "success";
        case store_errc::in_use: return "the session store is in use by another process or session";
        case store_errc::not_a_store: return "the file is not a session store";
        case store_errc::unsupported_format: return "the session store was written by a later version";
        case store_errc::corrupt: return "the session store is damaged";
        case store_errc::other_client: return "the session store holds the session of another client identifier";
        case store_errc::not_durable: return "the place of the session store cannot keep a write-ahead log";
    }
    return "unknown error";
}

/// Lets a `std::error_code` be made of one of these.
inline std::error_code make_error_code(store_errc e) noexcept { return make_layer_error(e); }

/// One change of what a store holds: records, each a value under a key. What the values mean is not the store's
/// concern.
struct store_change {
    std::uint64_t key = 0;     ///< less than 2^63
    std::string_view value{};  ///< any bytes; valid until `apply` returns
    bool erase = false;        ///< true: remove the record if there is one. False: put it, in the place of an older one
};

/// Is given the records of a store by `load`.
class store_reader {
  public:
    /// `value` is valid until the function returns.
    virtual void record(std::uint64_t key, std::string_view value) = 0;

  protected:
    ~store_reader() = default;
};

/// Where a session keeps what must outlive the process. Two functions:
///
/// - `load(reader)` gives all records to `reader`, keys ascending.
/// - `apply(changes)` makes all changes in their order, or none of them if it returns an error; when it returns, they
///   survive whatever the store promises to survive. It is called once before each write to the network, so that one
///   call serves many messages, and it may block for as long as that takes.
///
/// A store whose user may add to the next `apply` (see `sqlite_store::transaction`) tells by `bool pending() const`
/// that `apply` is due even without changes.
template <class S>
concept session_store = requires(S& s, store_reader& reader, std::span<store_change const> changes) {
    { s.load(reader) } -> std::same_as<std::error_code>;
    { s.apply(changes) } -> std::same_as<std::error_code>;
};

class session_state;
class any_session_store;

/// The `session_journal` of any store, for whoever does not want to be a template over it.
class any_session_journal {
  public:
    virtual ~any_session_journal() = default;
    virtual std::error_code load(session_state& state, std::string_view client_id) = 0;
    virtual void set_epoch(session_state& state, std::chrono::milliseconds epoch) noexcept = 0;
    virtual std::error_code commit(session_state& state) = 0;
    virtual void go_on_without() noexcept = 0;
    virtual std::string const& client_id() const noexcept = 0;
    virtual void set_client_id(std::string_view id) = 0;
    virtual std::size_t restored() const noexcept = 0;
    virtual std::uint64_t commits() const noexcept = 0;
};

/// A `session_journal` of a store; `epoch` is its argument. Only those who name a store need its code.
template <class Store>
std::unique_ptr<any_session_journal> make_session_journal(any_session_store store, std::chrono::milliseconds epoch);

/// Any session store, or none, for whoever does not want to be a template over it. Copies are the same store.
class any_session_store {
  public:
    /// None: what a session holds ends with the process.
    any_session_store() noexcept = default;
    template <session_store S>
    any_session_store(std::shared_ptr<S> store) : store_(std::make_shared<adapter<S>>(std::move(store))) {}

    explicit operator bool() const noexcept { return store_ != nullptr; }

    /// As those of the concept; there must be a store.
    std::error_code load(store_reader& reader) { return store_->load(reader); }
    std::error_code apply(std::span<store_change const> changes) { return store_->apply(changes); }
    bool pending() const { return store_->pending(); }

    /// Keeps a session in it.
    std::unique_ptr<any_session_journal> journal(std::chrono::milliseconds epoch) const {
        return store_->journal(*this, epoch);
    }

    /// One session at a time may use a store: false if another one does. The one that has claimed it releases it.
    bool claim() noexcept { return !std::exchange(store_->claimed, true); }
    void release() noexcept { store_->claimed = false; }

  private:
    struct base {
        virtual ~base() = default;
        virtual std::error_code load(store_reader& reader) = 0;
        virtual std::error_code apply(std::span<store_change const> changes) = 0;
        virtual bool pending() const = 0;
        virtual std::unique_ptr<any_session_journal> journal(any_session_store const& self,
                                                             std::chrono::milliseconds epoch) const = 0;
        bool claimed = false;
    };

    template <class S>
    struct adapter final : base {
        explicit adapter(std::shared_ptr<S> s) : store(std::move(s)) {}
        std::error_code load(store_reader& reader) override { return store->load(reader); }
        std::error_code apply(std::span<store_change const> changes) override { return store->apply(changes); }
        bool pending() const override {
            if constexpr (requires(S const& s) {
                              { s.pending() } -> std::same_as<bool>;
                          })
                return std::as_const(*store).pending();
            else
                return false;
        }
        std::unique_ptr<any_session_journal> journal(any_session_store const& self,
                                                     std::chrono::milliseconds epoch) const override {
            return make_session_journal<S>(self, epoch);
        }
        std::shared_ptr<S> store;
    };

    std::shared_ptr<base> store_{};
};

}  // namespace runnel::mqtt

template <>
struct std::is_error_code_enum<runnel::mqtt::store_errc> : std::true_type {};

#include <runnel/mqtt/store/session_journal.hpp>
