#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/client/session_options.hpp>
#include <runnel/mqtt/packet/connect.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace runnel::mqtt::detail {

/// The CONNECT of one attempt: made of the session's options, with memory of its own for what the packet views.
class connect_request {
  public:
    /// Calls `options.make_credentials` if it is set. `assigned` is the client identifier that the server has chosen on
    /// an earlier connection, if any; `version` and `receive_maximum` are used in place of those of `options`, which
    /// must outlive the request. `anew`: the server is to drop what it holds of a session, whatever the options say
    /// (`session_state::must_begin_anew`).
    RUNNEL_COLD connect_request(session_options const& options, protocol_version version, std::string_view assigned,
                                std::uint16_t receive_maximum, bool anew = false)
        : options_(options),
          version_(version),
          who_(options.make_credentials ? options.make_credentials() : options.credentials),
          anew_(anew) {
        if (who_.client_id.empty()) who_.client_id = assigned;
        props_.receive_maximum = receive_maximum;
        props_.maximum_packet_size = options.maximum_packet_size;
        if (options.incoming_topic_aliases != 0) props_.topic_alias_maximum = options.incoming_topic_aliases;
        if (options.request_response_information) props_.request_response_information = 1;
        if (!options.request_problem_information) props_.request_problem_information = 0;
        props_.session_expiry_interval = static_cast<std::uint32_t>(options.session_expiry.count());
        if (options.will) set_properties_of(*options.will);
        props_.user_properties = options.user_properties.list();
    }
    connect_request(connect_request const&) = delete;
    connect_request& operator=(connect_request const&) = delete;

    /// Empty: the server is to choose one.
    std::string const& client_id() const noexcept { return who_.client_id; }

    /// Begins an enhanced authentication (MQTT 5); `data` may be empty, and must outlive the request.
    void authenticate(std::string method, std::string_view data) {
        method_ = std::move(method);
        props_.authentication_method = method_;
        if (!data.empty()) props_.authentication_data = data;
    }

    /// A view, valid as long as the request.
    RUNNEL_COLD connect packet() const {
        connect p;
        p.client_id = who_.client_id;
        p.user_name = who_.user_name;
        p.password = who_.password;
        p.clean_start = options_.clean_start || anew_ || who_.client_id.empty();
        p.keep_alive = static_cast<std::uint16_t>(options_.keep_alive.count());
        if (v5()) p.props = &props_;
        if (auto const& w = options_.will) {
            p.will.emplace(will{w->topic, w->payload, w->qos, w->retain, {}});
            if (v5()) p.will->props = &will_props_;
        }
        return p;
    }

    /// What the client accepts: what the packet announces and, in MQTT 3.1.1, what is held against the server's packets
    /// all the same.
    capabilities own() const noexcept {
        capabilities c;
        c.maximum_packet_size = options_.maximum_packet_size;
        if (!v5()) return c;
        c.receive_maximum = *props_.receive_maximum;
        c.topic_alias_maximum = options_.incoming_topic_aliases;
        c.problem_information = options_.request_problem_information;
        return c;
    }

  private:
    RUNNEL_COLD void set_properties_of(will_message_options const& w) {
        auto const text = [](std::string const& s) {
            return s.empty() ? std::nullopt : std::optional(std::string_view(s));
        };
        if (w.delay.count() != 0) will_props_.will_delay_interval = static_cast<std::uint32_t>(w.delay.count());
        if (w.payload_is_utf8) will_props_.payload_format_indicator = 1;
        if (w.message_expiry)
            will_props_.message_expiry_interval = static_cast<std::uint32_t>(w.message_expiry->count());
        will_props_.content_type = text(w.content_type);
        will_props_.response_topic = text(w.response_topic);
        will_props_.correlation_data = text(w.correlation_data);
        will_props_.user_properties = w.user_properties.list();
    }
    bool v5() const noexcept { return version_ == protocol_version::v5; }

    session_options const& options_;
    protocol_version version_;
    credentials who_;
    bool anew_;
    properties props_{};
    properties will_props_{};
    std::string method_{};
};

}  // namespace runnel::mqtt::detail
