#pragma once

#include <runnel/core/clock.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/testing/aliyun/detail/rules.hpp>
#include <runnel/testing/broker/broker.hpp>

#include RUNNEL_ASIO(post.hpp)

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace runnel::testing {

/// The Aliyun IoT Platform inside the process, as far as devices see it: an MQTT broker that lets in devices it knows,
/// by their signature, and holds them to the platform's rules. For tests without an account. What answers the thing
/// model, gateways and the other services besides is `aliyun_cloud`.
///
///     runnel::testing::aliyun_platform platform{io.get_executor()};
///     platform.add_device({"a1B2c3D4e5F", "thermostat-7", "the device secret"});
///     platform.hooks().log = [](std::string_view line) { std::cerr << line << '\n'; };
///     std::uint16_t port = platform.listen_tcp();
///
/// - CONNECT: the client identifier must be of the form `id|name=value,...|`, the user name `DEVICE_NAME&PRODUCT_KEY`,
///   the password the signature (hmacmd5, which is also meant if there is no `signmethod`, hmacsha1 or hmacsha256);
///   `securemode` 2 over TLS, 3 otherwise; keep alive of 30 to 1200 seconds; no will in MQTT 3.1.1.
/// - Dynamic registration over TLS (`authType` register and regnwl) of the devices of products that are known: the
///   credentials are sent to the client without a subscription. A device that has connected cannot be registered again.
///   Login with a device token (connwl).
/// - One connection a device: a newer one takes over.
/// - PUBLISH: only to the device's own topics, at most 256 KiB of payload, QoS 0 and 1. QoS 2, and the retain flag in
///   MQTT 3.1.1, end the connection (MQTT 5: DISCONNECT with 0x9B). Messages to other topics, to topics too long or too
///   deep, and too large, are dropped; in MQTT 5 the acknowledgement says so.
/// - SUBSCRIBE: only to the device's own topics and to `/broadcast/PRODUCT_KEY/...`, 8 filters at most in one packet,
///   100 in all. QoS 2 is granted as 1.
/// - Once `limit_rates` is on: 30 messages a second at QoS 0 and 10 at QoS 1 from a device, and 5 connections a minute.
///   Tests connect more often than that, so it is off at first.
/// - A device gets what it publishes itself if it subscribes to the topic: the topics have the permission "publish and
///   subscribe". On the platform that is set for each topic class of the product, or a rule forwards.
///
/// - In MQTT 3.1.1 messages come with their publisher's QoS, whatever the subscription's is. MQTT 3.1 is served, too.
///
/// Where the platform's documentation is silent, docs/testing.md says what is done here.
///
/// Not thread-safe: all of it runs on the executor.
template <class Executor = asio::any_io_executor>
class basic_aliyun_platform {
  public:
    using executor_type = Executor;
    using broker_type = basic_broker<Executor>;

    explicit basic_aliyun_platform(Executor executor, broker_options options = detail::aliyun_rules::make_options())
        : broker_(std::move(executor), std::move(options)) {
        auto& hooks = broker_.hooks();
        hooks.on_connect = [this](connect_attempt& request) { return check_connect(request); };
        hooks.authorize_publish = [this](client_info const& who, mqtt::publish const& m) {
            return rules_.check_publish(who, m, clock::now());
        };
        hooks.authorize_subscribe = [this](client_info const& who, mqtt::subscribe const& packet,
                                           mqtt::subscription_request const& request) {
            return rules_.check_subscribe(who, packet, request);
        };
    }
    basic_aliyun_platform(basic_aliyun_platform const&) = delete;
    basic_aliyun_platform& operator=(basic_aliyun_platform const&) = delete;

    Executor get_executor() const { return broker_.get_executor(); }

    /// Makes a device known, or changes its secret. Throws `std::system_error` if its names cannot be a device's.
    void add_device(aliyun::device const& d) { rules_.identities.add(d); }
    /// Makes a device known that has no secret yet: it is to register.
    void preregister_device(std::string_view product_key, std::string_view device_name) {
        rules_.identities.add(aliyun::device{product_key, device_name, random_digits()});
    }
    /// Makes a product known, so that its devices may register.
    void add_product(aliyun_product const& p) { rules_.identities.add(p); }
    /// Forgets a device and ends its connection. False: it was not known.
    bool remove_device(aliyun::device const& d) {
        broker_.disconnect_client(detail::aliyun_rules::name_of(d), mqtt::reason_code::not_authorized);
        return rules_.identities.remove(detail::aliyun_rules::name_of(d));
    }
    /// Lets a device that has connected be registered again.
    void reset_device(aliyun::device const& d) { rules_.identities.reset(detail::aliyun_rules::name_of(d)); }

    bool connected(aliyun::device const& d) const { return broker_.connected(detail::aliyun_rules::name_of(d)); }
    /// Cuts the device's network connection now, as a failing network does. False: it is not connected.
    bool drop_device(aliyun::device const& d) { return broker_.drop_client(detail::aliyun_rules::name_of(d)); }

    /// Whether the limits on messages a second and on connections a minute are kept to; false at first.
    void limit_rates(bool on = true) noexcept { rules_.limits_rates = on; }

    /// Serves a device at the other end of a stream.
    template <stream S>
    void attach(S connection, connection_info from = {"memory", "", false}) {
        broker_.attach(std::move(connection), std::move(from));
    }
    /// Listens on 127.0.0.1; see `basic_broker`.
    std::uint16_t listen_tcp(std::uint16_t port = 0) { return broker_.listen_tcp(port); }
    template <class Layer>
    std::uint16_t listen(Layer layer, std::uint16_t port = 0) {
        return broker_.listen(std::move(layer), port);
    }
    /// Ends all listeners and cuts all connections.
    void close() { broker_.close(); }

    /// Sends a message to whoever subscribes to the topic, as an application on the platform does. Returns how many get
    /// it.
    std::size_t publish(std::string_view topic, std::string_view payload, mqtt::qos quality = mqtt::qos::at_most_once) {
        return broker_.publish(topic, payload, quality);
    }

    /// For the user are `log`, `on_publish` and `on_disconnect`; the rest are the platform's own. A device is called
    /// `DEVICE_NAME&PRODUCT_KEY` there.
    broker_hooks& hooks() noexcept { return broker_.hooks(); }
    broker_counters const& counters() const noexcept { return broker_.counters(); }
    /// The broker below, with its means to misbehave.
    broker_type& broker() noexcept { return broker_; }
    broker_type const& broker() const noexcept { return broker_; }

  protected:
    detail::aliyun_rules& rules() noexcept { return rules_; }

  private:
    using clock = steady_clock;

    mqtt::reason_code check_connect(connect_attempt& request) {
        std::optional<aliyun_greeting> greeting;
        auto const reason = rules_.check_connect(request, greeting, clock::now());
        if (!greeting || reason != mqtt::reason_code::success) return reason;
        // It can be sent once the connection has been accepted, which happens when this returns.
        asio::post(get_executor(),
                   [weak = std::weak_ptr(alive_), this, to = request.session_name, message = std::move(*greeting)] {
                       if (weak.lock()) broker_.send_to(to, {.topic = message.topic, .payload = message.payload});
                   });
        return reason;
    }

    // Nothing here is a coroutine. `rules_` is written by the broker's hooks and by the user's calls, each in one step;
    // `alive_` by nobody: what has been posted looks whether it is there.
    detail::aliyun_rules rules_{};
    broker_type broker_;
    std::shared_ptr<char> alive_ = std::make_shared<char>();  // tells whether this object still exists
};

/// The usual one, with `asio::any_io_executor`.
using aliyun_platform = basic_aliyun_platform<>;

}  // namespace runnel::testing
