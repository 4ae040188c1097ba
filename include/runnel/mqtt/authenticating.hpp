#pragma once

#include <runnel/mqtt/authenticator.hpp>
#include <runnel/mqtt/outlet.hpp>
#include <runnel/mqtt/session_parts.hpp>
#include <runnel/mqtt/session_state.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::mqtt {

/// The part of a session that authenticates it by steps (MQTT 5, 4.12), if the user has given an authenticator.
template <class Executor, authenticator<Executor> Authenticator>
class authenticating final : public authenticating_part<Executor> {
  public:
    template <class T>
    using awaitable = asio::awaitable<T, Executor>;

    authenticating(session_state& state, outlet<Executor>& packets, Authenticator a)
        : state_(state), packets_(packets), waiting_(packets.queue()), authenticator_(std::move(a)) {}

    std::string method() override { return authenticator_.method(); }
    std::string_view data() const noexcept override { return data_; }

    awaitable<void> begin() override {
        auto beginning = authenticator_.begin();
        data_ = co_await std::move(beginning);
    }

    /// Whether the server wants an `answer`.
    bool is_challenged() const noexcept override { return challenge_.has_value(); }

    /// Gathers the AUTH that answers the server's.
    awaitable<void> answer() override {
        auto answering = authenticator_.answer(*std::exchange(challenge_, std::nullopt));
        data_ = co_await std::move(answering);
        send(reason_code::continue_authentication);
    }

    /// The server is content; now the authenticator must be.
    awaitable<void> finish() override { return authenticator_.finish(std::exchange(last_data_, {})); }

    /// See `session::reauthenticate`.
    awaitable<void> again() override {
        if (!state_.connected()) throw std::system_error(errc::not_connected);
        auto beginning = begin();
        co_await std::move(beginning);
        send(reason_code::reauthenticate);
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
    void on_auth(auth const& packet) override {
        std::string const data(packet.props.get<property_id::authentication_data>().value_or(""));
        if (packet.reason == reason_code::continue_authentication)
            challenge_ = data;
        else
            last_data_ = data;
        waiting_.wake_one();
    }
    void on_connack(connack const& answer) override {
        last_data_ = answer.props.get<property_id::authentication_data>().value_or("");
    }
    void on_connection_lost() override {
        challenge_.reset();
        last_data_.clear();
        waiting_.wake_all(errc::disconnected);
    }

  private:
    void send(reason_code reason) {
        auto const method = authenticator_.method();
        properties props;
        props.authentication_method = method;
        props.authentication_data = data_;
        errc const e = state_.auth(packets_.out(), {reason, &props});
        if (e != errc::ok) throw std::system_error(e, "AUTH");
        packets_.flush();
    }

    session_state& state_;
    outlet<Executor>& packets_;
    parking<Executor> waiting_;
    Authenticator authenticator_;
    std::string data_;                      // the client's last
    std::optional<std::string> challenge_;  // the server's, to be answered
    std::string last_data_;                 // of the authentication that the server has accepted
};

}  // namespace runnel::mqtt
