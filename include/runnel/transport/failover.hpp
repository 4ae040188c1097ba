#pragma once

#include <runnel/core/clock.hpp>
#include <runnel/core/compiler.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/transport/connect_progress.hpp>
#include <runnel/transport/lasting_error.hpp>
#include <runnel/transport/stream.hpp>

#include RUNNEL_ASIO(error.hpp)

#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel {

/// With which endpoint a `failover` begins when it is opened again.
enum class failover_order {
    /// With the one that was opened last.
    stay,
    /// With the first of the list, which is preferred to the others.
    prefer_first,
};

/// Several transports for one purpose, in order: when one cannot be opened, or does not answer in its share of the
/// time, the next is tried at once.
///
/// What comes of a stream after it has been opened only its user can tell, by `report`: a server may accept every
/// connection and refuse every CONNECT. A `mqtt::session` does so.
///
///     runnel::failover<runnel::mqtts> brokers({{.host = "a.example"}, {.host = "b.example"}});
///
/// Each copy goes through the list for itself, so the sessions of a program do not follow each other.
template <transport Next>
class failover {
  public:
    using executor_type = typename Next::executor_type;
    using stream_type = typename Next::stream_type;
    static constexpr bool secure = Next::secure;

    /// Throws `std::invalid_argument` if there are no endpoints.
    explicit failover(std::vector<Next> endpoints, failover_order order = failover_order::stay)
        : endpoints_(std::move(endpoints)), order_(order) {
        if (endpoints_.empty()) throw std::invalid_argument("failover needs an endpoint");
    }

    std::vector<Next> const& endpoints() const noexcept { return endpoints_; }
    failover_order order() const noexcept { return order_; }

    /// The endpoint that was opened last or is being opened; before, the first.
    Next const& current() const noexcept { return endpoints_[current_]; }
    std::size_t current_index() const noexcept { return current_; }

    /// That of the current endpoint.
    std::string url() const { return current().url(); }

    /// The endpoint with which the next `open` begins.
    Next const& next() const noexcept { return endpoints_[next_]; }
    std::string next_url() const { return next().url(); }

    /// Opens the endpoints in turn, each once, until one succeeds. If none does, throws what the only one has thrown,
    /// or a `std::system_error` whose text has the errors of all that had their turn, and whose code is that of the
    /// last one that may pass by itself (see `is_lasting_error`), if there is one. Can be cancelled at any point. The
    /// transport must outlive it, and must not be opened twice at the same time.
    ///
    /// With a limited `progress->budget` each endpoint has its share of the time (see `connect_budget::share`), and is
    /// cancelled when that is over: one that does not answer is left for the next. When the time of all is over, the
    /// next `open` begins with the endpoint behind the one that had its turn last; also after a cancellation, where
    /// there was no limit. An endpoint may be slow, and need more than its share: after as many calls as there are
    /// endpoints without a `report(true)`, for as many again nothing is divided.
    asio::awaitable<stream_type, executor_type> open(executor_type executor,
                                                     connect_progress* progress = nullptr) const {
        connect_progress own;
        if (progress == nullptr) progress = &own;
        auto const whole = progress->budget;
        auto const before = progress->passed_over.size();
        bool const divides = opened_ / endpoints_.size() % 2 == 0;
        ++opened_;
        auto const first = next_;
        std::error_code code;
        std::size_t tried = 0;
        for (bool goes_on = true; goes_on && tried < endpoints_.size();) {
            current_ = (first + tried) % endpoints_.size();
            auto opening = open_current(executor, *progress, whole, divides ? endpoints_.size() - tried : 1);
            ++tried;
            try {
                auto opened = co_await std::move(opening);
                progress->budget = whole;
                next_ = order_ == failover_order::stay ? current_ : 0;
                co_return std::move(opened);
            } catch (std::system_error const& e) {
                bool const is_aborted = e.code() == asio::error::operation_aborted;
                goes_on = !whole.is_over(clock::now()) && (whole.is_limited() || !is_aborted);
                if (!goes_on) next_ = (current_ + 1) % endpoints_.size();
                if (is_aborted || endpoints_.size() == 1) throw;
                if (!code || is_lasting_error(code) || !is_lasting_error(e.code())) code = e.code();
                progress->pass_over(e);
            }
        }
        progress->budget = whole;
        throw std::system_error(code, none_opened(tried, before, *progress));
    }

    /// Tells how the stream opened last has turned out: `true` when the peer has accepted its user, `false` when it has
    /// refused, or has been lost so soon that another endpoint may be better. After `false`, the next `open` begins
    /// with the endpoint behind this one; the last `report` counts.
    void report(bool well) noexcept {
        if (well) opened_ = 0;
        if (!well)
            next_ = (current_ + 1) % endpoints_.size();
        else
            next_ = order_ == failover_order::stay ? current_ : 0;
    }

    /// Equal if the endpoints and their order are, whichever is in use.
    friend bool operator==(failover const& a, failover const& b) {
        return a.endpoints_ == b.endpoints_ && a.order_ == b.order_;
    }

  private:
    using clock = steady_clock;

    asio::awaitable<stream_type, executor_type> open_current(executor_type executor, connect_progress& progress,
                                                             connect_budget whole, std::size_t sharers) const {
        auto const now = clock::now();
        progress.begin_server(whole.share(now, sharers), "opening " + url());
        auto opening = open_stream(current(), std::move(executor), &progress);
        // The last one has all that is left: whoever has set the limit sees to it.
        if (sharers == 1 || !whole.is_limited()) return opening;
        return within(progress.budget.left(now), std::move(opening), make_error_code(transport_errc::connect_timeout));
    }

    // The text of the error when none of those that were tried has opened; what was passed over before goes on so.
    RUNNEL_COLD std::string none_opened(std::size_t tried, std::size_t before, connect_progress& progress) const {
        std::string text = "none of " + std::to_string(tried) + " endpoints opened (";
        text += progress.passed_over.substr(before == 0 ? 0 : before + 2);
        text += ')';
        auto const untried = endpoints_.size() - tried;
        if (untried != 0) text += ", and " + std::to_string(untried) + " had no turn";
        progress.passed_over.resize(before);
        return text;
    }

    std::vector<Next> endpoints_;
    failover_order order_;
    // Not part of the value, but of what is known about it. There is one `open` at a time. While a coroutine is
    // suspended, here that one, only `report` may write this: `next_` and `opened_`, in one step. It is for streams
    // that have been opened: in the middle of an `open` it changes nothing of whose turn is next, and when that ends it
    // writes `next_` all the same.
    mutable std::size_t current_ = 0;
    mutable std::size_t next_ = 0;    // where `open` begins
    mutable std::size_t opened_ = 0;  // how often, since all was well
};

}  // namespace runnel
