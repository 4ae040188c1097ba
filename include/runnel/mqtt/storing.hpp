#pragma once

#include <runnel/mqtt/outlet.hpp>
#include <runnel/mqtt/session_journal.hpp>
#include <runnel/mqtt/session_options.hpp>
#include <runnel/mqtt/session_state.hpp>
#include <runnel/transport/race.hpp>
#include <runnel/transport/waiter.hpp>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>

namespace runnel::mqtt {

/// The part of a session that stores, if its options name a store: before each write to the network, and at the end of
/// each turn of the executor in which there has been something to store.
template <class Executor>
class storing {
  public:
    template <class T>
    using awaitable = asio::awaitable<T, Executor>;

    /// Puts back into `state` what the store holds. Throws if it cannot be read, or is another client's.
    storing(Executor const& executor, session_options const& options, session_state& state, outlet<Executor>& packets)
        : state_(state), packets_(packets), journal_(options.store, epoch()), tasks_(executor) {
        if (!journal_) return;
        auto const& configured = options.credentials.client_id;
        if (auto const e = journal_.load(state, options.make_credentials ? std::string_view() : configured))
            throw std::system_error(e, "session store");
        packets.watch(state);
    }
    storing(storing const&) = delete;
    storing& operator=(storing const&) = delete;

    /// Whether there is a store.
    explicit operator bool() const noexcept { return static_cast<bool>(journal_); }

    std::string const& client_id() const noexcept { return journal_.client_id(); }
    void set_client_id(std::string_view id) {
        if (journal_) journal_.set_client_id(id);
    }
    std::size_t restored() const noexcept { return journal_.restored(); }
    std::uint64_t commits() const noexcept { return journal_.commits(); }

    /// Stores what is not stored yet. Throws the store's error; then nothing of it is stored.
    void save() {
        if (auto const e = journal_.commit(state_)) throw std::system_error(e, "session store");
    }

    /// Runs `task`, a session, and stores until it has ended. An error of the store ends it.
    awaitable<void> beside(awaitable<void> task) {
        auto saving = save_changes();
        co_await race(tasks_, std::move(task), std::move(saving));
        save();
    }

    /// As `save`, where nobody can be told of an error.
    void save_quietly() noexcept {
        try {
            if (journal_) static_cast<void>(journal_.commit(state_));
        } catch (...) {
        }
    }

  private:
    awaitable<void> save_changes() {
        for (;;) {
            save();
            waiter<Executor> w;
            co_await packets_.changes().park(w);
            if (w.result) throw std::system_error(w.result);
        }
    }

    // From the session's clock to milliseconds since 1970.
    static std::chrono::milliseconds epoch() {
        using std::chrono::duration_cast, std::chrono::milliseconds;
        return duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch()) -
               duration_cast<milliseconds>(std::chrono::steady_clock::now().time_since_epoch());
    }

    session_state& state_;
    outlet<Executor>& packets_;
    session_journal journal_;
    parking<Executor> tasks_;
};

}  // namespace runnel::mqtt
