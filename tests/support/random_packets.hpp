#pragma once

#include <runnel/mqtt/packet.hpp>

#include "support/random_source.hpp"
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

namespace test {

/// Makes random packets that can be sent, and owns what they view.
class random_packets {
  public:
    random_packets(random_source& random, runnel::mqtt::protocol_version version)
        : random_(random), version_(version) {}

    /// Calls `f` with a packet of a random kind, which is valid during the call.
    template <class F>
    void next(F&& f) {
        using enum runnel::mqtt::packet_type;
        texts_.clear();
        properties_.clear();
        bool const v5 = version_ == runnel::mqtt::protocol_version::v5;
        switch (random_.between(0, 11)) {
            case 0: return f(connect_packet());
            case 1: return f(connack_packet());
            case 2: return f(suback_packet());
            case 3: return f(subscribe_packet());
            case 4: return f(unsubscribe_packet());
            case 5: return f(unsuback_packet());
            case 6: return f(acknowledgement_packet());
            case 7: return f(runnel::mqtt::pingreq{});
            case 8: return f(runnel::mqtt::pingresp{});
            case 9: return v5 ? f(disconnect_packet()) : f(runnel::mqtt::disconnect{});
            case 10:
                if (v5) return f(auth_packet());
                [[fallthrough]];
            default: return f(publish_packet());
        }
    }

    runnel::mqtt::publish publish_packet() {
        runnel::mqtt::publish p;
        p.qos = random_.between<runnel::mqtt::qos>(0, 2);
        p.retain = random_.one_in(2);
        if (p.qos != runnel::mqtt::qos::at_most_once) {
            p.dup = random_.one_in(2);
            p.packet_id = identifier();
        }
        p.topic = topic();
        p.payload = keep(random_.bytes(random_.one_in(5) ? 20'000 : 200));
        p.props = props(runnel::mqtt::packet_type::publish);
        bool const aliased = p.props.own() && p.props.own()->topic_alias;
        if (aliased && random_.one_in(2)) p.topic = {};
        return p;
    }

    runnel::mqtt::connect connect_packet() {
        bool const v5 = version_ == runnel::mqtt::protocol_version::v5;
        runnel::mqtt::connect p;
        p.clean_start = random_.one_in(2);
        p.client_id = v5 || p.clean_start ? text(30) : keep("client");
        p.keep_alive = random_.between<std::uint16_t>(0, 65'535);
        if (random_.one_in(2)) {
            p.will = runnel::mqtt::will{.topic = topic(),
                                        .payload = keep(random_.bytes(100)),
                                        .qos = random_.between<runnel::mqtt::qos>(0, 2),
                                        .retain = random_.one_in(2),
                                        .props = props(runnel::mqtt::will_message)};
        }
        if (random_.one_in(2)) p.user_name = text(40);
        if (random_.one_in(2) && (v5 || p.user_name)) p.password = keep(random_.bytes(40));
        p.props = props(runnel::mqtt::packet_type::connect);
        return p;
    }

    runnel::mqtt::connack connack_packet() {
        using runnel::mqtt::reason_code;
        runnel::mqtt::connack p;
        p.reason = random_.one_in(2) ? reason_code::success
                                     : *runnel::mqtt::from_connack_return_code(random_.between<std::uint8_t>(0, 5));
        if (version_ == runnel::mqtt::protocol_version::v5) p.reason = reason(runnel::mqtt::packet_type::connack);
        p.session_present = p.reason == reason_code::success && random_.one_in(2);
        p.props = props(runnel::mqtt::packet_type::connack);
        return p;
    }

    runnel::mqtt::acknowledgement acknowledgement_packet() {
        auto const type = random_.between<runnel::mqtt::packet_type>(4, 7);
        bool const v5 = version_ == runnel::mqtt::protocol_version::v5;
        return {type, identifier(), v5 ? reason(type) : runnel::mqtt::reason_code::success, props(type)};
    }

    runnel::mqtt::subscribe subscribe_packet() {
        bool const v5 = version_ == runnel::mqtt::protocol_version::v5;
        requests_.clear();
        for (std::size_t i = random_.between(1, 5); i > 0; --i) {
            runnel::mqtt::subscription_request request{.filter = filter(),
                                                       .maximum_qos = random_.between<runnel::mqtt::qos>(0, 2)};
            if (v5) {
                request.no_local = random_.one_in(2) && !runnel::mqtt::split_shared(request.filter).is_shared();
                request.retain_as_published = random_.one_in(2);
                request.handling = random_.between<runnel::mqtt::retain_handling>(0, 2);
            }
            requests_.push_back(request);
        }
        return {.packet_id = identifier(), .requests = requests_, .props = props(runnel::mqtt::packet_type::subscribe)};
    }

    runnel::mqtt::unsubscribe unsubscribe_packet() {
        filters_.clear();
        for (std::size_t i = random_.between(1, 5); i > 0; --i) filters_.push_back(filter());
        return {.packet_id = identifier(), .filters = filters_, .props = props(runnel::mqtt::packet_type::unsubscribe)};
    }

    runnel::mqtt::suback suback_packet() {
        constexpr runnel::mqtt::reason_code in_3_1_1[] = {
            runnel::mqtt::reason_code::granted_qos_0, runnel::mqtt::reason_code::granted_qos_1,
            runnel::mqtt::reason_code::granted_qos_2, runnel::mqtt::reason_code::unspecified_error};
        bool const v5 = version_ == runnel::mqtt::protocol_version::v5;
        reasons_.clear();
        for (std::size_t i = random_.between(1, 5); i > 0; --i)
            reasons_.push_back(v5 ? reason(runnel::mqtt::packet_type::suback) : in_3_1_1[random_.between(0, 3)]);
        return {.packet_id = identifier(), .reasons = reasons_, .props = props(runnel::mqtt::packet_type::suback)};
    }

    runnel::mqtt::unsuback unsuback_packet() {
        reasons_.clear();
        if (version_ == runnel::mqtt::protocol_version::v5)
            for (std::size_t i = random_.between(1, 5); i > 0; --i)
                reasons_.push_back(reason(runnel::mqtt::packet_type::unsuback));
        return {.packet_id = identifier(), .reasons = reasons_, .props = props(runnel::mqtt::packet_type::unsuback)};
    }

    runnel::mqtt::disconnect disconnect_packet() {
        auto const type = runnel::mqtt::packet_type::disconnect;
        return {reason(type), props(type)};
    }

    runnel::mqtt::auth auth_packet() {
        auto const type = runnel::mqtt::packet_type::auth;
        if (random_.one_in(5)) return {};
        auto const view = props(type);
        auto& p = view.own() ? properties_.back() : properties_.emplace_back();
        if (!p.authentication_method) p.authentication_method = text(20);
        return {reason(type), &p};
    }

    /// Properties, none in MQTT 3.1.1, of which each that may stand in this packet is there with equal probability.
    runnel::mqtt::property_view props(runnel::mqtt::packet_type type) {
        if (version_ == runnel::mqtt::protocol_version::v3_1_1 || random_.one_in(3)) return {};
        auto& p = properties_.emplace_back();
        runnel::mqtt::for_each_property([&](auto i) {
            constexpr auto field = std::get<i>(runnel::mqtt::property_table);
            if (field.packets.contains(type) && random_.one_in(3)) fill(p.*field.member, field, type);
            return true;
        });
        if (p.authentication_data && !p.authentication_method) p.authentication_method = text(20);
        return &p;
    }

  private:
    std::string_view keep(std::string value) { return texts_.emplace_back(std::move(value)); }

    std::string_view text(std::size_t longest) {
        std::string result;
        for (std::size_t i = random_.between(0, longest); i > 0; --i) {
            constexpr std::string_view others[] = {"\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xEF\xBB\xBF",
                                                   "\x01"};
            if (random_.one_in(40))
                result += others[random_.between(0, 4)];
            else
                result += random_.between<char>('!', '~');
        }
        return keep(std::move(result));
    }

    std::string_view topic() {
        std::string result(text(40));
        for (auto& c : result)
            if (c == '+' || c == '#') c = '/';
        return keep("t" + result);
    }

    std::string_view filter() {
        std::string result(topic());
        if (random_.one_in(2)) result += "/+";
        if (random_.one_in(2)) result += "/+/deeper";
        if (random_.one_in(2)) result += "/#";
        if (random_.one_in(4)) result = "$share/group/" + result;
        return keep(std::move(result));
    }

    std::uint16_t identifier() { return random_.between<std::uint16_t>(1, 65'535); }

    runnel::mqtt::reason_code reason(runnel::mqtt::packet_type type) {
        while (true) {
            auto const& definition =
                runnel::mqtt::reason_code_table[random_.between(0, runnel::mqtt::reason_code_table.size() - 1)];
            if (allowed_in(definition.code, type)) return definition.code;
        }
    }

    template <class T>
    void fill(std::optional<T>& member, runnel::mqtt::property_definition const& d, runnel::mqtt::packet_type) {
        auto const largest = std::min<std::uint32_t>(d.maximum, static_cast<T>(-1));
        member = random_.one_in(4)   ? static_cast<T>(d.minimum)
                 : random_.one_in(4) ? static_cast<T>(largest)
                                     : random_.between<T>(d.minimum, largest);
    }
    void fill(std::optional<std::string_view>& member, runnel::mqtt::property_definition const& d,
              runnel::mqtt::packet_type) {
        using enum runnel::mqtt::property_type;
        member = d.type == topic_name ? topic() : d.type == binary_data ? keep(random_.bytes(40)) : text(40);
    }
    void fill(runnel::mqtt::user_property_list& member, runnel::mqtt::property_definition const&,
              runnel::mqtt::packet_type) {
        auto& pairs = pairs_[pair_list_++ % 2];
        pairs.clear();
        for (std::size_t i = random_.between(1, 4); i > 0; --i) pairs.push_back({text(20), text(20)});
        member = pairs;
    }
    void fill(runnel::mqtt::subscription_identifier_list& member, runnel::mqtt::property_definition const& d,
              runnel::mqtt::packet_type type) {
        identifiers_.clear();
        for (std::size_t i = d.repeats.contains(type) ? random_.between(1, 4) : 1; i > 0; --i)
            identifiers_.push_back(random_.between<std::uint32_t>(1, random_.one_in(2) ? 300 : d.maximum));
        member = identifiers_;
    }

    random_source& random_;
    runnel::mqtt::protocol_version version_;
    std::deque<std::string> texts_;
    std::deque<runnel::mqtt::properties> properties_;
    std::vector<runnel::mqtt::user_property> pairs_[2];  // one for CONNECT and one for its will
    std::size_t pair_list_ = 0;
    std::vector<std::uint32_t> identifiers_;
    std::vector<runnel::mqtt::subscription_request> requests_;
    std::vector<std::string_view> filters_;
    std::vector<runnel::mqtt::reason_code> reasons_;
};

}  // namespace test
