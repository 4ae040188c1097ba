#pragma once

#include <runnel/coro/asio.hpp>
#include <runnel/transport/redirect.hpp>
#include <runnel/transport/stream.hpp>

#include RUNNEL_ASIO(any_io_executor.hpp)
#include RUNNEL_ASIO(awaitable.hpp)
#include RUNNEL_ASIO(buffer.hpp)

#include <concepts>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

namespace runnel {

/// A stream whose type is not known before the program runs. What it costs is a virtual call for each read and write.
/// One that has been moved from can only be assigned to and destroyed.
template <class Executor = asio::any_io_executor>
class basic_any_stream {
  public:
    using executor_type = Executor;
    template <class T>
    using awaitable = asio::awaitable<T, Executor>;

    /// Enough for what WebSocket puts in front.
    static constexpr std::size_t headroom = 16;

    template <class S>
    requires(!std::same_as<S, basic_any_stream> && stream<S> && std::same_as<typename S::executor_type, Executor> &&
             S::headroom <= headroom)
    explicit basic_any_stream(S s) : of_(std::make_unique<holder<S>>(std::move(s))) {}

    executor_type get_executor() { return of_->get_executor(); }
    awaitable<std::size_t> read_some(asio::mutable_buffer into) { return of_->read_some(into); }
    awaitable<void> write(send_buffer& out) { return of_->write(out); }
    /// As that of an `asio_stream`; false where the stream is none.
    bool write_directly(send_buffer& out) { return of_->write_directly(out); }
    awaitable<void> shutdown() { return of_->shutdown(); }
    std::size_t backlog() { return of_->backlog(); }

  private:
    struct base {
        virtual ~base() = default;
        virtual executor_type get_executor() = 0;
        virtual awaitable<std::size_t> read_some(asio::mutable_buffer into) = 0;
        virtual awaitable<void> write(send_buffer& out) = 0;
        virtual bool write_directly(send_buffer& out) = 0;
        virtual awaitable<void> shutdown() = 0;
        virtual std::size_t backlog() = 0;
    };

    template <class S>
    struct holder final : base {
        explicit holder(S s) : of(std::move(s)) {}
        executor_type get_executor() override { return of.get_executor(); }
        awaitable<std::size_t> read_some(asio::mutable_buffer into) override { return of.read_some(into); }
        awaitable<void> write(send_buffer& out) override { return of.write(out); }
        bool write_directly([[maybe_unused]] send_buffer& out) override {
            if constexpr (requires { of.write_directly(out); })
                return of.write_directly(out);
            else
                return false;
        }
        awaitable<void> shutdown() override { return of.shutdown(); }
        std::size_t backlog() override { return backlog_of(of); }
        S of;
    };

    std::unique_ptr<base> of_;
};

/// A transport whose type is not known before the program runs: chosen by a configuration, or made from a URL
/// (`transport_from`). A copy has a copy of the transport in it.
///
///     runnel::any_transport to = runnel::tcp{.host = "a.example"};
///     if (secure) to = runnel::wss{.host = "a.example"};
///     runnel::mqtt::session<runnel::any_transport> session(executor, to, options);
///
/// `secure` is false, as it must be known when the program is compiled; `is_secure()` tells. Where a type of this
/// library depends on `secure` (those of the Aliyun IoT Platform do), name the transport.
///
/// One that has been moved from is empty until it is assigned to: it is not secure, its URL is empty, it reaches no
/// other server, `open` throws `std::errc::invalid_argument` (which ends a session's `run`), and it equals those only
/// that are empty, too, as its copies are.
///
/// While a coroutine is suspended, here `open`, this must neither go nor be assigned to, as the coroutine uses the
/// transport in it. `report` writes what that has.
template <class Executor = asio::any_io_executor>
class basic_any_transport {
  public:
    using executor_type = Executor;
    using stream_type = basic_any_stream<Executor>;

    static constexpr bool secure = false;

    // It is `holder` that asks for a `transport`: whether T can be copied depends on this where T is around one.
    template <class T>
    requires(!std::same_as<T, basic_any_transport> && std::same_as<typename T::executor_type, Executor> &&
             requires(T const& t) {
                 typename T::stream_type;
                 t.url();
             })
    basic_any_transport(T t) : of_(std::make_unique<holder<T>>(std::move(t))) {}

    basic_any_transport(basic_any_transport const& other) : of_(other.of_ ? other.of_->copy() : nullptr) {}
    basic_any_transport(basic_any_transport&&) noexcept = default;
    basic_any_transport& operator=(basic_any_transport other) noexcept {
        of_ = std::move(other.of_);
        return *this;
    }
    ~basic_any_transport() = default;

    /// Whether the peer is authenticated and the bytes are encrypted: TLS somewhere below.
    bool is_secure() const noexcept { return of_ != nullptr && of_->is_secure(); }

    std::string url() const { return of_ != nullptr ? of_->url() : std::string(); }

    /// Opens a stream by the transport in it, and throws what that throws.
    asio::awaitable<stream_type, Executor> open(Executor executor, connect_progress* progress = nullptr) const {
        if (of_ == nullptr)
            throw std::system_error(make_error_code(std::errc::invalid_argument), "any_transport is empty");
        return of_->open(std::move(executor), progress);
    }

    /// For the transport in it, if that wants to know: see `reporting_transport`.
    void report(bool well) {
        if (of_ != nullptr) of_->report(well);
    }

    /// As the function of the same name for the transport in it.
    std::optional<basic_any_transport> redirected(std::string_view reference) const {
        return of_ != nullptr ? of_->redirected(reference) : std::nullopt;
    }

    /// The transport in it, if it is of this type; else null.
    template <transport T>
    T const* target() const noexcept {
        auto const* const h = dynamic_cast<holder<T> const*>(of_.get());
        return h != nullptr ? &h->of : nullptr;
    }

    /// Equal if the types are, and what they connect to.
    bool operator==(basic_any_transport const& other) const {
        return of_ != nullptr && other.of_ != nullptr ? of_->equals(*other.of_) : of_ == other.of_;
    }

  private:
    struct base {
        virtual ~base() = default;
        virtual std::unique_ptr<base> copy() const = 0;
        virtual bool equals(base const& other) const = 0;
        virtual bool is_secure() const noexcept = 0;
        virtual std::string url() const = 0;
        virtual asio::awaitable<stream_type, Executor> open(Executor executor, connect_progress* progress) const = 0;
        virtual void report(bool well) = 0;
        virtual std::optional<basic_any_transport> redirected(std::string_view reference) const = 0;
    };

    template <transport T>
    struct holder final : base {
        explicit holder(T t) : of(std::move(t)) {}

        std::unique_ptr<base> copy() const override { return std::make_unique<holder>(of); }
        bool equals(base const& other) const override {
            auto const* const h = dynamic_cast<holder const*>(&other);
            return h != nullptr && h->of == of;
        }
        bool is_secure() const noexcept override { return T::secure; }
        std::string url() const override { return of.url(); }
        asio::awaitable<stream_type, Executor> open(Executor executor, connect_progress* progress) const override {
            auto opening = open_stream(of, std::move(executor), progress);
            auto opened = co_await std::move(opening);
            co_return stream_type(std::move(opened));
        }
        void report(bool well) override {
            if constexpr (reporting_transport<T>) of.report(well);
        }
        std::optional<basic_any_transport> redirected(std::string_view reference) const override {
            auto other = runnel::redirected(of, reference);
            if (!other) return std::nullopt;
            return basic_any_transport(std::move(*other));
        }

        T of;
    };

    std::unique_ptr<base> of_;
};

/// The usual one, with `asio::any_io_executor`.
using any_stream = basic_any_stream<>;
/// Likewise.
using any_transport = basic_any_transport<>;

}  // namespace runnel
