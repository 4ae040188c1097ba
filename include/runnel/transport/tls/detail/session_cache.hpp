#pragma once

#include <openssl/ssl.h>

#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace runnel::detail {

/// A moment by both clocks: one can be set, and the other may stand still while the machine sleeps.
struct tls_moment {
    std::chrono::steady_clock::time_point steady{};
    std::chrono::system_clock::time_point system{};

    static tls_moment now() noexcept { return {std::chrono::steady_clock::now(), std::chrono::system_clock::now()}; }
};

/// When a peer's certificates were verified, and until when they hold. Sessions that are resumed, and those that come
/// of them, keep it: nothing is verified anew there.
struct tls_verification {
    tls_moment at{};
    /// When the first certificate of the chain expires.
    std::chrono::system_clock::time_point expires = (std::chrono::system_clock::time_point::max)();

    /// Whether it still counts at `now`, if it does for `limit`. A clock that has been set back proves nothing.
    bool is_good(tls_moment now, std::chrono::seconds limit) const noexcept {
        return now.steady - at.steady < limit && now.system >= at.system && now.system - at.system < limit &&
               now.system < expires;
    }
};

/// What a connection of a client tells about itself: under which name its sessions are kept, and since when the server
/// is trusted.
struct tls_session_owner {
    std::string server{};
    tls_verification resumable{};                ///< that of the session which is offered to the server, if one is
    std::optional<tls_verification> verified{};  ///< that of the connection, once it is known
};

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

    /// `capacity`: how many are kept. `limit`: for how long after a verification.
    explicit tls_session_cache(std::size_t capacity, std::chrono::seconds limit = std::chrono::hours(7 * 24)) noexcept
        : capacity_(capacity), limit_(limit) {}

    /// A session, and since when its server is trusted.
    struct kept {
        session_ptr session{};
        tls_verification verified{};
    };

    /// Keeps a copy of a session: OpenSSL spoils the session of a connection that is lost without close_notify, which
    /// is when resumption is wanted most.
    void put(std::string_view server, SSL_SESSION* session, tls_verification const& verified) {
        session_ptr copy(SSL_SESSION_dup(session));
        if (!copy || capacity_ == 0) return;
        std::lock_guard const lock(mutex_);
        if (entries_.size() >= capacity_) entries_.pop_front();
        entries_.push_back({std::string(server), {std::move(copy), verified}});
    }

    /// Takes out the newest session with a server; null if there is none that is still good.
    kept take(std::string_view server, tls_moment now = tls_moment::now()) {
        std::lock_guard const lock(mutex_);
        for (auto i = entries_.size(); i-- > 0;) {
            if (entries_[i].server != server) continue;
            auto found = std::move(entries_[i].session);
            entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(i));
            auto* const session = found.session.get();
            auto const age = std::chrono::system_clock::to_time_t(now.system) - SSL_SESSION_get_time(session);
            if (SSL_SESSION_is_resumable(session) == 1 && age < SSL_SESSION_get_timeout(session) &&
                found.verified.is_good(now, limit_))
                return found;
        }
        return {};
    }

    std::size_t size() const {
        std::lock_guard const lock(mutex_);
        return entries_.size();
    }

  private:
    struct entry {
        std::string server{};
        kept session{};
    };

    std::size_t const capacity_;
    std::chrono::seconds const limit_;
    mutable std::mutex mutex_{};
    std::deque<entry> entries_{};  // the oldest first
};

}  // namespace runnel::detail
