#pragma once

#include <runnel/transport/redirect.hpp>
#include <runnel/transport/stream.hpp>
#include <runnel/transport/tapped_stream.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace runnel {

/// What transports have in common that wrap another one and look on at its streams: they speak for it, but for `open`,
/// which the one that is derived from this has, beside `redirected`.
template <transport Next, stream_tap Tap>
class tapped_transport {
  public:
    using executor_type = typename Next::executor_type;
    using stream_type = tapped_stream<typename Next::stream_type, Tap>;
    static constexpr bool secure = Next::secure;

    Next const& next() const noexcept { return next_; }
    /// That of what is wrapped.
    std::string url() const { return next_.url(); }
    /// The same of where the next `open` begins, if what is wrapped tells: of a `failover`.
    std::string next_url() const
    requires requires(Next const& n) { n.next_url(); }
    {
        return next_.next_url();
    }
    /// For what is wrapped, if that wants to know: see `reporting_transport`.
    void report(bool well)
    requires reporting_transport<Next>
    {
        next_.report(well);
    }

    friend bool operator==(tapped_transport const& a, tapped_transport const& b) { return a.next_ == b.next_; }

  protected:
    explicit tapped_transport(Next next) : next_(std::move(next)) {}

    /// A copy of `of`, which is derived from this, for what `runnel::redirected` makes of what is wrapped.
    template <class Derived>
    static std::optional<Derived> redirect(Derived const& of, std::string_view reference) {
        auto other = runnel::redirected(of.next(), reference);
        if (!other) return std::nullopt;
        Derived copy = of;
        static_cast<tapped_transport&>(copy).next_ = std::move(*other);
        return copy;
    }

  private:
    Next next_;
};

}  // namespace runnel
