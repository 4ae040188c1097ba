#pragma once

#include <cassert>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace runnel::mqtt {

/// What the client has to do next in an enhanced authentication (MQTT 5, 4.12): by whom an `authenticator` is used, for
/// what, and when the connection has to end. Without I/O. `authentication` says which AUTH may be sent when.
///
/// | state      | event                                          | then       |
/// |------------|------------------------------------------------|------------|
/// | idle       | `sent`: CONNECT, or AUTH with reauthenticate    | asked      |
/// | asked      | `on_challenge`: AUTH with continue              | challenged |
/// | asked      | `on_accepted`: CONNACK, or AUTH with success    | accepted   |
/// | challenged | `sent`: the answer                              | asked      |
/// | accepted   | `verified`: the server's proof is good          | idle       |
/// | any        | `connection_lost`                               | idle       |
///
/// One caller at a time holds it, from `hold` to `let_go`. A caller who lets go in between, as one that is cancelled,
/// leaves everything as it is: the next one goes on from there. What has begun cannot be taken back but by the end of
/// the connection [MQTT-4.12.1-2], so a failure of the authenticator ends it in every state but idle (`must_close`).
class authentication_steps {
  public:
    enum class stage : std::uint8_t { idle, asked, challenged, accepted };

    stage at() const noexcept { return at_; }

    /// False: somebody else holds it.
    bool hold() noexcept { return !std::exchange(held_, true); }
    void let_go() noexcept {
        assert(held_);
        held_ = false;
    }

    /// The client's step has been sent.
    void sent() noexcept {
        assert(at_ == stage::idle || at_ == stage::challenged);
        at_ = stage::asked;
        data_.clear();
    }
    void on_challenge(std::string_view data) { step(stage::challenged, data); }
    void on_accepted(std::string_view data) { step(stage::accepted, data); }
    void verified() noexcept {
        assert(at_ == stage::accepted);
        at_ = stage::idle;
        data_.clear();
    }
    void connection_lost() noexcept {
        at_ = stage::idle;
        data_.clear();
    }

    /// The server's data, to be answered or verified.
    std::string const& data() const noexcept { return data_; }

    /// Whether the connection has to end if the authenticator fails now.
    bool must_close() const noexcept { return at_ != stage::idle; }

  private:
    void step(stage to, std::string_view data) {
        assert(at_ == stage::asked);  // `authentication` has seen to it
        at_ = to;
        data_ = data;
    }

    std::string data_{};
    stage at_ = stage::idle;
    bool held_ = false;
};

}  // namespace runnel::mqtt
