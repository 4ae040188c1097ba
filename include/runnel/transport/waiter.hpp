#pragma once

#include <asio/associated_cancellation_slot.hpp>
#include <asio/async_result.hpp>
#include <asio/awaitable.hpp>
#include <asio/cancellation_type.hpp>
#include <asio/error.hpp>
#include <asio/execution/context.hpp>
#include <asio/execution_context.hpp>
#include <asio/post.hpp>
#include <asio/query.hpp>
#include <asio/use_awaitable.hpp>

#include <mutex>
#include <optional>
#include <system_error>
#include <utility>

namespace runnel {

/// A link of a circular, intrusive, doubly linked list; alone it is its own neighbour. Destruction unlinks.
class list_link {
  public:
    list_link() noexcept = default;
    list_link(list_link const&) = delete;
    list_link& operator=(list_link const&) = delete;
    ~list_link() { unlink(); }

    bool linked() const noexcept { return next_ != this; }
    list_link* next() const noexcept { return next_; }

    void insert_before(list_link& position) noexcept {
        previous_ = position.previous_;
        next_ = &position;
        previous_->next_ = this;
        position.previous_ = this;
    }

    void unlink() noexcept {
        previous_->next_ = next_;
        next_->previous_ = previous_;
        previous_ = next_ = this;
    }

  private:
    list_link* previous_ = this;
    list_link* next_ = this;
};

/// The place where coroutines of one object (a session, a stream) wait for each other.
///
/// A parked coroutine owns its waiter, and the waiter holds the coroutine's continuation: a cycle that would leak if
/// the execution context ended first. The parking place is known to the context, which on shutdown destroys what is
/// parked.
template <class Executor>
class parking;

/// What the execution context knows about parking places: only how to destroy what is parked there.
class parking_registry : public asio::execution_context::service {
  public:
    using key_type = parking_registry;
    inline static asio::execution_context::id id{};

    class place : public list_link {
      public:
        /// Destroys one parked coroutine, and with it perhaps this place; false if none was parked.
        virtual bool destroy_one() noexcept = 0;

      protected:
        ~place() = default;
    };

    explicit parking_registry(asio::execution_context& context) : service(context) {}

    void add(place& p) {
        std::lock_guard const lock(mutex_);
        p.insert_before(places_);
    }

    void remove(place& p) noexcept {
        std::lock_guard const lock(mutex_);
        p.unlink();
    }

  private:
    void shutdown() override {
        // The context's threads have ended: no lock, as destroying a coroutine may remove places.
        while (places_.linked()) {
            auto& first = static_cast<place&>(*places_.next());
            if (!first.destroy_one()) first.unlink();
        }
    }

    std::mutex mutex_;
    list_link places_;
};

/// One coroutine waiting, with the result of its wait. Lives in the coroutine's own frame: waiting allocates nothing.
template <class Executor>
class waiter : public list_link {
  public:
    /// Why the coroutine was woken: no error, or `operation_aborted` after a cancellation, or what `wake` was given.
    std::error_code result;

    bool parked() const noexcept { return handler_.has_value(); }

  private:
    friend class parking<Executor>;
    using handler_type = typename asio::async_result<asio::use_awaitable_t<Executor>, void()>::handler_type;

    std::optional<handler_type> handler_;
};

template <class Executor>
class parking final : private parking_registry::place {
  public:
    using executor_type = Executor;
    using waiter_type = waiter<Executor>;

    explicit parking(Executor executor)
        : executor_(std::move(executor)),
          registry_(asio::use_service<parking_registry>(asio::query(executor_, asio::execution::context))) {
        registry_.add(*this);
    }
    parking(parking const&) = delete;
    parking& operator=(parking const&) = delete;
    ~parking() {
        wake_all(asio::error::operation_aborted);
        registry_.remove(*this);
    }

    Executor const& get_executor() const noexcept { return executor_; }

    /// Parks the calling coroutine until `wake` or cancellation; then `w.result` tells which. Throws nothing itself.
    asio::awaitable<void, Executor> park(waiter_type& w) {
        asio::use_awaitable_t<Executor> token;
        return asio::async_initiate<asio::use_awaitable_t<Executor>, void()>(
            [this, &w](auto&& handler) {
                w.result.clear();
                auto slot = asio::get_associated_cancellation_slot(handler);
                w.handler_.emplace(std::forward<decltype(handler)>(handler));
                w.insert_before(parked_);
                if (slot.is_connected())
                    slot.assign([this, &w](asio::cancellation_type) { wake(w, asio::error::operation_aborted); });
            },
            token);
    }

    /// Lets the parked coroutine go on with `result`, in a later turn of the executor. No effect if it is not parked.
    void wake(waiter_type& w, std::error_code result = {}) {
        if (!w.parked()) return;
        w.unlink();
        w.result = result;
        auto handler = std::move(*w.handler_);
        w.handler_.reset();
        asio::get_associated_cancellation_slot(handler).clear();
        asio::post(executor_, std::move(handler));
    }

    /// Whether any coroutine is parked here.
    bool occupied() const noexcept { return parked_.linked(); }

    /// Wakes the coroutine that has been parked here for longest, if there is one.
    void wake_one(std::error_code result = {}) {
        if (occupied()) wake(static_cast<waiter_type&>(*parked_.next()), result);
    }

    /// Wakes every coroutine that is parked here.
    void wake_all(std::error_code result) {
        while (parked_.linked()) wake(static_cast<waiter_type&>(*parked_.next()), result);
    }

  private:
    bool destroy_one() noexcept override {
        if (!parked_.linked()) return false;
        auto& w = static_cast<waiter_type&>(*parked_.next());
        w.unlink();
        auto const handler = std::move(w.handler_);
        w.handler_.reset();
        return true;
    }

    Executor executor_;
    parking_registry& registry_;
    list_link parked_;
};

}  // namespace runnel
