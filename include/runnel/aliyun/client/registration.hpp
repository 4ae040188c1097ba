#pragma once

#include <runnel/aliyun/registration_request.hpp>
#include <runnel/aliyun/topics.hpp>
#include <runnel/core/random.hpp>
#include <runnel/core/receive_buffer.hpp>
#include <runnel/core/send_buffer.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/digest/hex.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>
#include <runnel/transport/stream.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::aliyun {

/// One attempt to register: a connection that sends CONNECT and waits for the one message that the platform sends
/// without a SUBSCRIBE. `register_device` is what to use.
template <transport Transport>
class registration_attempt {
  public:
    using executor_type = typename Transport::executor_type;
    template <class T>
    using awaitable = asio::awaitable<T, executor_type>;

    /// Throws `std::system_error` if something is not what the platform accepts.
    registration_attempt(executor_type executor, Transport transport, product const& p, std::string_view device_name,
                         registration_options const& options)
        : executor_(std::move(executor)), transport_(std::move(transport)), listener_(p, device_name) {
        std::array<char, 16> random{};
        fill_random(random.data(), random.size());
        throw_unless_ok(sign_registration(p, device_name, digest::encode_hex(random), options, credentials_));
    }

    registration_attempt(registration_attempt const&) = delete;
    registration_attempt& operator=(registration_attempt const&) = delete;
    ~registration_attempt() {
        out_.wipe();
        secure_wipe(credentials_);
        secure_wipe(listener_.of.product_secret);
        if (listener_.answer) secure_wipe(*listener_.answer);
    }

    /// Completes with the answer in `result`.
    awaitable<void> run() {
        auto opening = transport_.open(executor_);
        auto stream = co_await std::move(opening);
        out_ = send_buffer(decltype(stream)::headroom);
        begin();
        receive_buffer in;
        wiped_at_end const wiping(in);  // the device's secret comes that way
        try {
            while (!listener_.answer) {
                if (!out_.empty()) co_await stream.write(out_);
                auto const room = in.prepare();
                asio::mutable_buffer const into(room.data(), room.size());
                std::size_t const n = co_await stream.read_some(into);
                in.commit(n);
                receive(in);
            }
        } catch (std::system_error const& e) {
            if (e.code() == asio::error::eof) throw std::system_error(errc::registration_unanswered);
            throw;
        }
        state_.disconnect(out_, {});
        co_await stream.write(out_);
        co_await stream.shutdown();
    }

    registration const& result() const { return *listener_.answer; }

  private:
    struct listener : mqtt::session_handler {
        listener(product const& p, std::string_view name) : of(p), device_name(name) {}

        void on_connack(mqtt::connack const& packet) { refused = packet.reason; }
        void on_message(mqtt::publish const& m, mqtt::delivery d) {
            delivered = d;
            topic_parts parts;
            if (parse_topic(m.topic, parts) != errc::ok) return;
            if (parts.kind != topic_kind::registered && parts.kind != topic_kind::registered_with_token) return;
            registration made;
            wiped_at_end const wiping(made);
            error = read_registration(m.payload, of, device_name, made);
            if (error == errc::ok) answer = made;
        }

        product of;
        std::string device_name;
        mqtt::reason_code refused = mqtt::reason_code::success;
        std::optional<mqtt::delivery> delivered{};
        std::optional<registration> answer{};
        errc error = errc::ok;
    };

    void begin() {
        mqtt::connect packet;
        packet.client_id = credentials_.client_id;
        packet.keep_alive = static_cast<std::uint16_t>(default_keep_alive.count());
        packet.user_name = credentials_.user_name.view();
        packet.password = credentials_.password.view();
        // An answer has some hundred bytes.
        auto const e = state_.connect(out_, packet, {.maximum_packet_size = 64 * 1024});
        if (e != mqtt::errc::ok) throw std::system_error(e);
    }

    void receive(receive_buffer& in) {
        auto input = in.data();
        auto const size = input.size();
        auto const e = state_.receive(input, out_, listener_);
        in.consume(size - input.size());
        if (e != mqtt::errc::ok) throw std::system_error(e);
        if (listener_.refused != mqtt::reason_code::success) throw std::system_error(listener_.refused);
        throw_unless_ok(listener_.error);
        if (auto const d = std::exchange(listener_.delivered, std::nullopt)) state_.acknowledge(out_, *d);
    }

    // All of it is the one coroutine's, `run`: while a coroutine is suspended, nobody writes this, and `result` waits
    // for its end.
    executor_type executor_;
    Transport transport_;
    mqtt::session_state state_{mqtt::role::client, mqtt::protocol_version::v3_1_1};
    send_buffer out_{};
    connect_credentials credentials_{};
    listener listener_;
};

/// Registers a device by the secret of its product, in one connection over TLS, and completes with what it is to
/// connect with from then on.
///
///     aliyun::product const p{"a1B2c3D4e5F", "the product secret"};
///     auto const got = co_await aliyun::register_device(executor, endpoint.over<runnel::wss>(), p, "thermostat-7");
///     aliyun::device const thermostat = got.device();
///
/// A device that has connected with its secret cannot register any more until the platform's console has reset it. The
/// secret that was given out last counts. Throws `std::system_error`: a `mqtt::reason_code` if the platform refuses
/// (the vendor's SDK knows three: wrong parameters, server error, failed authentication), an `aliyun::errc` if
/// something is not what it accepts or it does not answer, `timed_out` after `timeout`. Can be cancelled.
template <transport Transport>
requires(Transport::secure)
asio::awaitable<registration, typename Transport::executor_type> register_device(
    typename Transport::executor_type executor, Transport transport, product p, std::string device_name,
    registration_options options = {}, std::chrono::milliseconds timeout = std::chrono::seconds(15)) {
    using executor_type = typename Transport::executor_type;
    wait_list<executor_type> waiters(executor);
    registration_attempt<Transport> attempt(executor, std::move(transport), p, device_name, options);
    auto running = attempt.run();
    auto limited = within<executor_type>(waiters, timeout, asio::error::timed_out, std::move(running));
    co_await std::move(limited);
    co_return attempt.result();
}

}  // namespace runnel::aliyun
