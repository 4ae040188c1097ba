#pragma once

#include <runnel/mqtt/authenticator.hpp>
#include <runnel/mqtt/outlet.hpp>
#include <runnel/mqtt/session_state.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::mqtt {

/// The part of a session that authenticates it by steps (MQTT 5, 4.12), if the user has given an authenticator.
template <class Executor>
class authenticating {
  public:
    template <class T>
    using awaitable = asio::awaitable<T, Executor>;

    authenticating(Executor const& executor, session_state& state, outlet<Executor>& packets)
        : state_(state), packets_(packets), waiting_(executor) {}

    template <authenticator<Executor> A>
    void use(A a) {
        authenticator_ = any_authenticator<Executor>(std::move(a));
    }
    bool in_use() const noexcept { return static_cast<bool>(authenticator_); }
    std::string method() { return authenticator_.method(); }
    awaitable<std::string> begin() { return authenticator_.begin(); }

    /// Whether the server wants an `answer`.
    bool is_challenged() const noexcept { return challenge_.has_value(); }

    /// Gathers the AUTH that answers the server's.
    awaitable<void> answer() {
        auto answering = authenticator_.answer(*std::exchange(challenge_, std::nullopt));
        std::string const data = co_await std::move(answering);
        send(reason_code::continue_authentication, data);
    }

    /// The server is content; now the authenticator must be.
    awaitable<void> finish() { return authenticator_.finish(std::exchange(last_data_, {})); }

    /// See `session::reauthenticate`.
    awaitable<void> again() {
        if (!in_use() || !state_.connected()) throw std::system_error(errc::not_connected);
        auto beginning = begin();
        std::string const data = co_await std::move(beginning);
        send(reason_code::reauthenticate, data);
        for (;;) {
            waiter<Executor> w;
            co_await waiting_.park(w);
            if (w.result) throw std::system_error(w.result);
            if (!is_challenged()) break;
            auto answering = answer();
            co_await std::move(answering);
        }
        auto finishing = finish();
        co_await std::move(finishing);
    }

    // What the session state tells.
    void on_auth(auth const& packet) {
        std::string const data(packet.props.get<property_id::authentication_data>().value_or(""));
        if (packet.reason == reason_code::continue_authentication)
            challenge_ = data;
        else
            last_data_ = data;
        waiting_.wake_one();
    }
    void on_connack(connack const& answer) {
        last_data_ = answer.props.get<property_id::authentication_data>().value_or("");
    }
    void on_connection_lost() {
        challenge_.reset();
        last_data_.clear();
        waiting_.wake_all(errc::disconnected);
    }

  private:
    void send(reason_code reason, std::string_view data) {
        auto const method = authenticator_.method();
        properties props;
        props.authentication_method = method;
        props.authentication_data = data;
        errc const e = state_.auth(packets_.out(), {reason, &props});
        if (e != errc::ok) throw std::system_error(e, "AUTH");
        packets_.flush();
    }

    session_state& state_;
    outlet<Executor>& packets_;
    parking<Executor> waiting_;
    any_authenticator<Executor> authenticator_;
    std::optional<std::string> challenge_;  // the server's, to be answered
    std::string last_data_;                 // of the authentication that the server has accepted
};

}  // namespace runnel::mqtt
