#pragma once

#include <runnel/core/clock.hpp>
#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/client/session_options.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>
#include <runnel/mqtt/store/session_store.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>

namespace runnel::mqtt::detail {

/// The part of a session that stores, if its options name a store.
class durability {
  public:
    /// Puts back into `state` what the store holds. Throws if it cannot be read, or is another client's.
    RUNNEL_COLD durability(session_options const& options, session_state& state) : state_(state) {
        if (!options.store) return;
        journal_ = options.store.journal(epoch());
        auto const& configured = options.credentials.client_id;
        if (auto const e = journal_->load(state, options.make_credentials ? std::string_view() : configured))
            throw std::system_error(e, "session store");
    }
    durability(durability const&) = delete;
    durability& operator=(durability const&) = delete;

    /// Whether there is a store.
    explicit operator bool() const noexcept { return journal_ != nullptr; }

    /// The client identifier of the stored session; empty if there is none.
    RUNNEL_COLD std::string client_id() const { return journal_ ? journal_->client_id() : std::string(); }
    RUNNEL_COLD void set_client_id(std::string_view id) {
        if (journal_) journal_->set_client_id(id);
    }
    /// The session is about to connect with this client identifier, which only a provider of credentials knows before.
    /// Throws `store_errc::other_client` if the store holds the session of another one; then nothing may be sent. What
    /// stands between bars at the end (`device|securemode=2,...|`) says how a device of Alibaba Cloud's platform
    /// connects, not which it is.
    RUNNEL_COLD void check_client(std::string_view id) {
        if (!journal_ || id.empty()) return;
        auto const& stored = journal_->client_id();
        if (stored.empty()) return journal_->set_client_id(id);
        if (name_in(stored) != name_in(id)) throw std::system_error(store_errc::other_client, "session store");
    }

    std::size_t restored() const noexcept { return journal_ ? journal_->restored() : 0; }
    std::uint64_t commits() const noexcept { return journal_ ? journal_->commits() : 0; }

    /// Stores what is not stored yet. Throws the store's error; then nothing of it is stored.
    void save() {
        if (!journal_) return;
        if (auto const e = commit()) throw std::system_error(e, "session store");
    }

    /// The same for the user, who is told, and so knows what has been undone.
    RUNNEL_COLD void save_anew() {
        if (journal_) journal_->go_on_without();
        save();
    }

    /// As `save`, where nobody can be told of an error. Whether all is stored.
    RUNNEL_COLD bool save_quietly() noexcept {
        try {
            return !journal_ || !commit();
        } catch (...) {
            return false;
        }
    }

  private:
    static std::string_view name_in(std::string_view client_id) noexcept {
        return client_id.ends_with('|') ? client_id.substr(0, client_id.find('|')) : client_id;
    }

    std::error_code commit() {
        // Somebody may have set the clock, by which the store is told when messages expire.
        if (state_.has_changes() || state_.next_expiry()) journal_->set_epoch(state_, epoch());
        return journal_->commit(state_);
    }

    // From the session's clock to milliseconds since 1970.
    static std::chrono::milliseconds epoch() {
        using std::chrono::duration_cast, std::chrono::milliseconds;
        return duration_cast<milliseconds>(system_clock::now().time_since_epoch()) -
               duration_cast<milliseconds>(steady_clock::now().time_since_epoch());
    }

    session_state& state_;
    std::unique_ptr<any_session_journal> journal_{};
};

}  // namespace runnel::mqtt::detail
