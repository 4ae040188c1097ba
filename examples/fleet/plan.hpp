#pragma once

#include <runnel/mqtt/codec/types.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace fleet {

using clock = std::chrono::steady_clock;

/// What all clients have in common.
struct plan {
    bool publishes = false;
    bool subscribes = false;
    unsigned count = 0;
    unsigned threads = 1;
    unsigned first_number = 0;
    std::chrono::nanoseconds connect_interval{0};  ///< from one client's first attempt to connect to the next one's
    std::chrono::nanoseconds publish_interval{0};  ///< of one client; 0: as fast as it can
    std::uint64_t limit = 0;                       ///< messages of all clients together; 0: any number
    std::size_t size = 0;                          ///< bytes of a message
    runnel::mqtt::qos qos{};
    bool retain = false;
    unsigned in_flight = 1;
    bool wait = false;                     ///< whether nobody publishes before all are there
    std::chrono::seconds duration{0};      ///< once all are there; 0: until interrupted
    std::chrono::seconds drain_limit{10};  ///< for what is under way at the end
    std::uint64_t fan_out = 1;             ///< how many of the own clients get each message; 0: it is not known

    /// How many messages a client may publish, the `index`th of all.
    std::uint64_t limit_of(unsigned index) const noexcept {
        return limit == 0 ? ~std::uint64_t(0) : limit / count + (index < limit % count ? 1 : 0);
    }
};

/// Who a client is, for the variables of a topic.
struct client_names {
    unsigned number = 0;
    std::string client_id;
    std::string user_name;
    std::string product_key;
    std::string device_name;
};

/// `text` with %i, %c, %u, %p, %d replaced by number, client identifier, user name, product key, device name.
inline std::string expand(std::string_view text, client_names const& names) {
    std::string made;
    for (std::size_t i = 0; i < text.size(); ++i) {
        char const next = text[i] == '%' && i + 1 < text.size() ? text[i + 1] : '\0';
        switch (next) {
            case 'i': made += std::to_string(names.number); break;
            case 'c': made += names.client_id; break;
            case 'u': made += names.user_name; break;
            case 'p': made += names.product_key; break;
            case 'd': made += names.device_name; break;
            default: made += text[i]; continue;
        }
        ++i;
    }
    return made;
}

}  // namespace fleet
