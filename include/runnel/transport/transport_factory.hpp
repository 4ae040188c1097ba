#pragma once

#include <runnel/coro/asio.hpp>
#include <runnel/transport/stream.hpp>

#include RUNNEL_ASIO(awaitable.hpp)

#include <functional>
#include <memory>
#include <string>
#include <utility>

namespace runnel {

/// A transport that is made anew for each attempt to connect, by a function: for URLs that are signed and expire, hosts
/// that change, credentials of proxies.
///
///     auto make = [=] { return runnel::wss{.host = host, .path = sign_path(...)}; };
///     runnel::transport_factory<runnel::wss> transport(make);
///
/// The function is called once at first, for `url`. What it throws, `open` throws.
template <transport Next>
class transport_factory {
  public:
    using executor_type = typename Next::executor_type;
    using stream_type = typename Next::stream_type;
    using maker_type = std::function<Next()>;

    static constexpr bool secure = Next::secure;

    explicit transport_factory(maker_type make) : state_(std::make_shared<state const>(std::move(make))) {}

    /// What the first one connects to.
    std::string url() const { return state_->url; }

    asio::awaitable<stream_type, executor_type> open(executor_type executor,
                                                     connect_progress* progress = nullptr) const {
        auto const next = std::make_shared<Next const>(state_->make());
        auto opening = open_stream(*next, std::move(executor), progress);
        co_return co_await std::move(opening);
    }

    /// Equal if they share the function: a copy is equal to its original.
    friend bool operator==(transport_factory const&, transport_factory const&) = default;

  private:
    // Shared by copies. While a coroutine is suspended, nobody writes this, nor at any other time; `open` has its
    // `next` in its own frame.
    struct state {
        explicit state(maker_type m) : make(std::move(m)), url(make().url()) {}
        maker_type make;
        std::string url;
    };
    std::shared_ptr<state const> state_;
};

}  // namespace runnel
