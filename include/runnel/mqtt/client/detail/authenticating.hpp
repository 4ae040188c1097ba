#pragma once

#include <runnel/core/secret.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/coro/exception_code.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/mqtt/client/authenticator.hpp>
#include <runnel/mqtt/client/detail/output_queue.hpp>
#include <runnel/mqtt/client/detail/session_parts.hpp>
#include <runnel/mqtt/protocol/authentication_steps.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>

#include RUNNEL_ASIO(this_coro.hpp)

#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::mqtt::detail {

/// The part of a session that authenticates it by steps (MQTT 5, 4.12), if the user has given an authenticator.
///
/// The authenticator belongs to whoever uses it, too: its coroutines may go on while the session ends.
///
/// While a coroutine is suspended, others may write this of `core`: the client's steps and `data`, who holds the steps,
/// one at a time from `hold` to `let_go`; the server's steps, the reader (`on_auth`, `on_connack`); `connection_lost`
/// puts the steps back at any time. So who goes on asks first whether it is the same connection (`is_lost`,
/// `check_connecting`): `state`, `packets` and `session` may be gone.
template <class Executor, authenticator<Executor> Authenticator>
class authenticating final : public authenticating_part<Executor> {
  public:
    template <class T>
    using awaitable = asio::awaitable<T, Executor>;

    authenticating(session_state& state, output_queue<Executor>& packets, session_services& of, Authenticator a)
        : core_(std::make_shared<core>(state, packets, of, std::move(a))) {}
    authenticating(authenticating const&) = delete;
    authenticating& operator=(authenticating const&) = delete;
    ~authenticating() override {
        core_->connection_lost();
        core_->state = nullptr;
    }

    std::string method() override { return core_->user.method(); }
    std::string_view data() const noexcept override { return core_->data; }

    /// Is awaited before CONNECT, which is sent at once.
    awaitable<void> begin() override { return begin(core_); }
    awaitable<void> go_on(bool is_held) override { return go_on(core_, is_held); }
    /// See `session::reauthenticate`.
    awaitable<void> again() override { return again(core_); }

    // What the session state tells.
    void on_auth(auth const& packet) override {
        if (core_->steps.at() != stage::asked) return;  // that was another authenticator
        auto const data = packet.props.get<property_id::authentication_data>().value_or("");
        if (packet.reason == reason_code::continue_authentication)
            core_->steps.on_challenge(data);
        else
            core_->steps.on_accepted(data);
        core_->answered.wake_all({});
    }
    void on_connack(connack const& answer) override {
        if (core_->steps.at() != stage::asked) return;
        secure_wipe(core_->data);
        core_->steps.on_accepted(answer.props.get<property_id::authentication_data>().value_or(""));
    }
    void on_connection_lost() override { core_->connection_lost(); }

  private:
    using stage = authentication_steps::stage;

    struct core {
        core(session_state& s, output_queue<Executor>& out, session_services& of, Authenticator a)
            : state(&s), packets(out), session(of), answered(out.queue()), waiters(out.queue()), user(std::move(a)) {}
        core(core const&) = delete;
        core& operator=(core const&) = delete;

        void connection_lost() {
            ++connections_lost;
            steps.connection_lost();
            if (std::exchange(connecting, false)) let_go();
            answered.wake_all({});
            free.wake_all({});
            waiters.wake_all({});  // `race` then cancels what it runs
        }
        void let_go() {
            steps.let_go();
            free.wake_all({});
        }

        session_state* state;  // nullptr: the session has gone
        output_queue<Executor>& packets;
        session_services& session;
        wait_list<Executor> answered;  // who waits for the server
        wait_list<Executor> waiters;   // where the authenticator is waited for
        wait_list<Executor> free{answered.queue()};
        Authenticator user;
        authentication_steps steps{};
        secret_string data{};  // the client's last, until it has been sent
        std::uint64_t connections_lost = 0;
        bool connecting = false;  // the connection holds the steps
    };
    using shared = std::shared_ptr<core>;

    // Who authenticates again holds the steps.
    struct holder {
        explicit holder(core& c) : of(c), lost_before(c.connections_lost) {}
        ~holder() { of.let_go(); }
        bool is_lost() const noexcept { return of.connections_lost != lost_before; }
        core& of;
        std::uint64_t lost_before;
    };

    // --- before a connection, as a part of opening it

    static awaitable<void> begin(shared c) {
        while (!c->steps.hold()) {  // one that was cancelled has not ended yet
            waiter<Executor> w;
            co_await c->free.wait(w);
            if (w.result) throw std::system_error(w.result);
        }
        c->connecting = true;
        auto beginning = c->user.begin();
        secret_string data = co_await std::move(beginning);
        check_connecting(*c);
        c->data = std::move(data);
        c->steps.sent();
    }
    static awaitable<void> go_on(shared c, bool is_held) {
        bool const connecting = c->state->current_phase() == session_state::phase::connecting;
        if (connecting && c->steps.at() == stage::challenged) {
            auto answering = answer(c);
            co_await std::move(answering);
        } else if (is_held) {
            auto finishing = finish(c);
            co_await std::move(finishing);
            c->session.on_proven();
        }
    }
    static awaitable<void> answer(shared c) {
        auto answering = c->user.answer(c->steps.data());
        secret_string data = co_await std::move(answering);
        check_connecting(*c);
        c->data = std::move(data);
        send(*c, reason_code::continue_authentication);
    }
    static awaitable<void> finish(shared c) {
        if (c->steps.at() != stage::accepted) co_return;  // it was set after CONNECT
        auto finishing = c->user.finish(c->steps.data());
        co_await std::move(finishing);
        check_connecting(*c);
        c->steps.verified();
        c->connecting = false;
        c->let_go();
    }
    static void check_connecting(core const& c) {
        if (!c.connecting) throw std::system_error(errc::disconnected);
    }

    // --- on a connection that there is

    static awaitable<void> again(shared c) {
        if (c->state == nullptr || !c->state->connected()) throw std::system_error(errc::not_connected);
        auto const lost_before = c->connections_lost;
        while (!c->steps.hold()) {
            waiter<Executor> w;
            co_await c->free.wait(w);
            if (w.result) throw std::system_error(w.result);
            if (c->connections_lost != lost_before) throw std::system_error(errc::disconnected);
        }
        holder const here(*c);
        std::exception_ptr failure;
        try {
            auto going = go_through(c, here);
            co_await std::move(going);
        } catch (...) {
            failure = std::current_exception();
        }
        if (here.is_lost()) throw std::system_error(errc::disconnected);
        if (!failure) co_return;
        // Cancelled: the next one goes on from here. Else what has begun has failed [MQTT-4.12.1-2].
        auto const cancellation = co_await asio::this_coro::cancellation_state;
        bool const cancelled = cancellation.cancelled() != asio::cancellation_type::none &&
                               exception_code(failure) == asio::error::operation_aborted;
        if (!cancelled && c->steps.must_close()) c->session.end_connection(errc::authentication_failed);
        std::rethrow_exception(std::move(failure));
    }

    static awaitable<void> go_through(shared c, holder const& here) {
        for (bool begun = false;;) {
            auto const at = c->steps.at();
            if (at == stage::idle && begun) co_return;
            begun = begun || at != stage::accepted;  // that is of one who has let go
            if (at == stage::asked) {
                waiter<Executor> w;
                co_await c->answered.wait(w);
                if (w.result) throw std::system_error(w.result);
            } else {
                auto step = take(c, here, at);
                auto taken = within_connection(c, std::move(step));
                co_await std::move(taken);
            }
            if (here.is_lost()) throw std::system_error(errc::disconnected);
        }
    }

    // One step of the client.
    static awaitable<void> take(shared c, holder const& here, stage at) {
        if (at == stage::accepted) {
            auto finishing = c->user.finish(c->steps.data());
            co_await std::move(finishing);
            if (!here.is_lost()) c->steps.verified();
            co_return;
        }
        bool const begins = at == stage::idle;
        auto making = begins ? c->user.begin() : c->user.answer(c->steps.data());
        secret_string data = co_await std::move(making);
        if (here.is_lost()) co_return;
        c->data = std::move(data);
        send(*c, begins ? reason_code::reauthenticate : reason_code::continue_authentication);
    }

    // Cancels a step when the connection is lost, and completes when it has ended.
    static awaitable<void> within_connection(shared c, awaitable<void> step) {
        co_await race(c->waiters, std::move(step));
    }

    static void send(core& c, reason_code reason) {
        auto const method = c.user.method();
        properties props;
        props.authentication_method = method;
        props.authentication_data = c.data;
        errc const e = c.state->auth(c.packets.out(), {reason, &props});
        secure_wipe(c.data);
        if (e != errc::ok) throw std::system_error(e, "AUTH");
        c.session.on_secret();
        c.steps.sent();
        c.packets.flush();
    }

    shared core_;
};

}  // namespace runnel::mqtt::detail
