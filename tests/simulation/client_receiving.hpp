#pragma once

// How the application subscribes, and what it does with messages: a part of client.hpp, in a file of its own.

#include "simulation/client.hpp"
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace simulation {

inline void client::want(std::size_t i) {
    checker_.unsettle(i);
    slots_[i].is_wanted = true;
    slots_[i].has_handler = random().one_in(2);
    subscribe(i);
}

inline void client::forget(std::size_t i) {
    log().say("forgets slot %zu", i);
    slots_[i].left_in = {};
    checker_.unsettle(i);
    slots_[i].is_wanted = false;
    slots_[i].handle.reset();
    if (auto const op = slots_[i].receiving.lock()) {
        op->is_cancelled = true;
        op->signal.emit(asio::cancellation_type::terminal);
    }
}

inline void client::subscribe(std::size_t i) {
    slots_[i].is_asking = true;
    slots_[i].left_in = {};
    start("subscribe", [=, this](op_ptr op) { return subscribe(std::move(op), i); });
}

inline client::awaitable<void> client::subscribe(op_ptr op, std::size_t i) {
    if (!session_ || op->process != process_) co_return;
    auto& s = slots_[i];
    auto const filter = "d/" + std::to_string(i);
    std::error_code error;
    std::optional<subscription> granted;
    log().say("subscribe %zu: slot %zu%s", op->id, i, s.has_handler ? ", handler" : "");
    try {
        if (s.has_handler) {
            auto handler = [this, i, process = process_](mqtt::publish const& p) { handle(process, i, p); };
            auto asking = session_->subscribe(std::string_view(filter), std::move(handler), {.inbox = settings_.inbox});
            granted = co_await std::move(asking);
        } else {
            auto asking = session_->subscribe(std::string_view(filter), {.inbox = settings_.inbox});
            granted = co_await std::move(asking);
        }
    } catch (std::system_error const& e) {
        error = e.code();
    }
    judge(*op, error, refused());
    if (op->process != process_ || is_dead(*op)) co_return;
    s.is_asking = false;
    if (error) checker_.unsettle(i);
    if (error && op->is_cancelled) s.left_in = process_;
    if (error || !session_ || granted->closed()) co_return;
    s.handle = granted;
    if (!s.has_handler) receive(i);
}

inline void client::handle(std::size_t process, std::size_t i, mqtt::publish const& p) {
    if (process <= dead_) return;
    auto const number = checker_.handed_over(i, p);
    if (!is_calm_ && random().one_in(10)) try_publish(draw_quality(), random().between(0, 100));
    if (!is_calm_ && random().one_in(200)) disconnect();
    if (is_unsteady()) {
        log().say("the handler throws");
        checker_.given_back(number);
        throw user_error("handler");
    }
    checker_.taken(number);
}

inline void client::receive(std::size_t i) {
    slots_[i].receiving = start("receive", [=, this](op_ptr op) { return receive(std::move(op), i); });
}

inline client::awaitable<void> client::receive(op_ptr op, std::size_t i) {
    if (op->process != process_ || !slots_[i].handle) co_return;
    auto s = *slots_[i].handle;
    std::error_code error;
    for (;;) {
        auto receiving = s.receive(error);
        auto m = co_await std::move(receiving);
        if (is_dead(*op)) co_return;
        if (error) break;
        auto const number = checker_.handed_over(i, m.view(), !session_ || op->process != process_);
        try {
            auto using_it = use(op, number, std::move(m));
            co_await std::move(using_it);
        } catch (std::system_error const& e) {
            if (!is_dead(*op)) checker_.given_back(number);  // also if `use` has not begun, cancelled in this very turn
            error = e.code();
            break;
        }
    }
    judge(*op, error, refused());
    s = {};
    // The inbox goes on in the next run, or for another receiver.
    machine_.after(milliseconds(random().between(1, 500)), [this, i, process = op->process] {
        bool const is_received = !slots_[i].receiving.expired();
        if (process == process_ && is_alive() && slots_[i].handle && !is_received && !slots_[i].has_handler) receive(i);
    });
}

// What an application does with a message.
inline client::awaitable<void> client::use(op_ptr op, std::size_t number, mqtt::message m) {
    if (number == held_next_) {
        held_.emplace_back(number, std::move(m));
    } else if (is_unsteady()) {
        checker_.given_back(number);
        log().say("gives d%zu back", number);
        m.abandon();
    } else if (is_unsteady()) {
        fail_with(number, std::move(m));
    } else if (!is_calm_ && random().one_in(10)) {
        auto holding = hold(m);
        co_await std::move(holding);
        if (!is_dead(*op)) checker_.taken(number);
    } else if (!is_calm_ && random().one_in(20)) {
        held_.emplace_back(number, std::move(m));
    } else {
        checker_.taken(number);
        if (random().one_in(2)) m.acknowledge();
    }
}

inline void client::fail_with(std::size_t number, mqtt::message m) try {
    checker_.given_back(number);
    auto const mine = std::move(m);
    throw user_error("receiver");
} catch (user_error const&) {
}

// Works on it for a while. If that is cancelled, the message is given back.
inline client::awaitable<void> client::hold(mqtt::message& m) try {
    auto sleeping = runnel::sleep_for<executor>(executor_, milliseconds(random().between(0, 4'000)));
    co_await std::move(sleeping);
} catch (std::system_error const&) {
    m.abandon();
    throw;
}

inline client::awaitable<void> client::unsubscribe(op_ptr op, std::size_t i, subscription s) {
    if (!session_ || op->process != process_) co_return;
    if (!op->is_cancelled) slots_[i].left_in = process_;  // else Asio throws at `co_await`
    std::error_code error;
    try {
        auto asking = session_->unsubscribe(s);
        co_await std::move(asking);
    } catch (std::system_error const& e) {
        error = e.code();
    }
    judge(*op, error);
}

// A second subscription of a filter that there is one of already, which soon goes again.
inline void client::subscribe_twice() {
    if (!is_alive()) return;
    auto const i = random().between(0, slots - 1);
    if (!slots_[i].handle) return;
    auto const op = start("subscribe twice", [=, this](op_ptr self) { return subscribe_twice(std::move(self), i); });
    machine_.after(milliseconds(random().between(0, 2'000)), [this, op] {
        if (op->ended == 0 && !op->is_cancelled && !is_calm_) cancel(*op);
    });
}
inline client::awaitable<void> client::subscribe_twice(op_ptr op, std::size_t i) {
    if (!session_ || op->process != process_) co_return;
    auto const filter = "d/" + std::to_string(i);
    std::error_code error;
    try {
        auto asking = session_->subscribe(std::string_view(filter));
        auto const second = co_await std::move(asking);
        if (!session_ || op->process != process_) co_return;
        auto leaving = session_->unsubscribe(second);
        co_await std::move(leaving);
    } catch (std::system_error const& e) {
        error = e.code();
    }
    checker_.was_subscribed_twice(i);
    judge(*op, error, refused());
}

}  // namespace simulation
