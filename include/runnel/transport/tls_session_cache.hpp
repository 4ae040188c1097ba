#pragma once

#include <openssl/ssl.h>

#include <cstddef>
#include <ctime>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace runnel {

/// What is needed to take up TLS sessions again without another exchange of certificates: session tickets and session
/// identifiers, by the name of the server. Bounded; the oldest go first. May be used by several threads.
///
/// Each is given out once, as RFC 8446 C.4 asks for, so that nobody can tell by a ticket that two connections are from
/// the same client.
class tls_session_cache {
  public:
    struct freer {
        void operator()(SSL_SESSION* session) const noexcept { SSL_SESSION_free(session); }
    };
    using session_ptr = std::unique_ptr<SSL_SESSION, freer>;

    explicit tls_session_cache(std::size_t capacity) noexcept : capacity_(capacity) {}

    /// Keeps a copy of a session: OpenSSL spoils the session of a connection that is lost without close_notify, which
    /// is when resumption is wanted most.
    void put(std::string_view server, SSL_SESSION* session) {
        session_ptr copy(SSL_SESSION_dup(session));
        if (!copy || capacity_ == 0) return;
        std::lock_guard const lock(mutex_);
        if (entries_.size() >= capacity_) entries_.pop_front();
        entries_.push_back({std::string(server), std::move(copy)});
    }

    /// Takes out the newest session with a server; null if there is none that is still good.
    session_ptr take(std::string_view server) {
        std::lock_guard const lock(mutex_);
        for (auto i = entries_.size(); i-- > 0;) {
            if (entries_[i].server != server) continue;
            auto session = std::move(entries_[i].session);
            entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(i));
            auto const age =
                static_cast<long>(std::time(nullptr)) - static_cast<long>(SSL_SESSION_get_time(session.get()));
            if (SSL_SESSION_is_resumable(session.get()) == 1 && age < SSL_SESSION_get_timeout(session.get()))
                return session;
        }
        return nullptr;
    }

    std::size_t size() const {
        std::lock_guard const lock(mutex_);
        return entries_.size();
    }

  private:
    struct entry {
        std::string server;
        session_ptr session;
    };

    std::size_t const capacity_;
    mutable std::mutex mutex_;
    std::deque<entry> entries_;  // the oldest first
};

}  // namespace runnel
