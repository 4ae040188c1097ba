#pragma once

#include <runnel/testing/aliyun/identities.hpp>

#include <cstddef>
#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace runnel::testing {

/// What devices send, and what is kept of it.
using json = nlohmann::json;

/// Of each list of what a device has told, so many entries are kept, and so many bytes of their JSON: the newest ones,
/// the last one always.
inline constexpr std::size_t max_history = 1000;
inline constexpr std::size_t max_history_bytes = 1024 * 1024;
/// So many names of properties, of tags and of modules are kept of a device.
inline constexpr std::size_t max_names = 1000;

/// The sizes of the entries of a list.
struct aliyun_history {
    std::deque<std::size_t> sizes{};
    std::size_t bytes = 0;
};

/// Adds an entry of `size` bytes to a list, and drops the oldest ones as the limits ask for. The list may have been
/// changed by the user meanwhile.
template <class T>
void keep_newest(std::vector<T>& list, aliyun_history& of, T entry, std::size_t size) {
    if (of.sizes.size() != list.size()) of = {std::deque<std::size_t>(list.size()), 0};
    std::size_t drop = 0;
    for (; drop < list.size() && (list.size() - drop >= max_history || of.bytes + size > max_history_bytes); ++drop) {
        of.bytes -= of.sizes.front();
        of.sizes.pop_front();
    }
    list.erase(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(drop));
    list.push_back(std::move(entry));
    of.sizes.push_back(size);
    of.bytes += size;
}

/// An event that a device has posted.
struct posted_event {
    std::string id{};
    json params{};  ///< its `value`, without the time
};

/// All that the simulated platform has got from, and keeps for, one device.
struct aliyun_record {
    aliyun::device device{};

    json properties = json::object();      ///< the value last posted, by name
    json property_times = json::object();  ///< milliseconds since 1970, for those that were posted with a time
    std::vector<posted_event> events{};
    json desired = json::object();  ///< by name: `{"value":..., "version":n}`
    json tags = json::object();     ///< value by key
    /// `{"state":{"reported":{},"desired":{}},"metadata":{"reported":{},"desired":{}},"version":n}`
    json shadow = {{"state", {{"reported", json::object()}, {"desired", json::object()}}},
                   {"metadata", {{"reported", json::object()}, {"desired", json::object()}}},
                   {"version", 0}};
    json versions = json::object();  ///< firmware version by module; the module is `default` if none was named
    std::vector<json> progress{};    ///< `params` of each report on an upgrade
    json firmware = json::object();  ///< what is offered, by module
    json config{};                   ///< null: there is none
    json jobs = json::object();      ///< by task identifier
    std::vector<json> logs{};        ///< each entry
    int log_mode = 0;                ///< 1: the device is to post its log
    std::vector<std::string> raw{};  ///< payloads of the thing model that are not JSON
    json found = json::array();      ///< the sub-devices that a gateway has reported
    aliyun_history events_kept{}, progress_kept{}, logs_kept{}, raw_kept{};

    std::vector<std::string> sub_devices{};  ///< of a gateway, by `aliyun_name_of`
    std::string gateway{};                   ///< whose sub-device this is, by `aliyun_name_of`; empty: nobody's
    bool logged_in = false;                  ///< through its gateway
    bool disabled = false;
};

/// What the simulated platform knows of its devices and products.
class aliyun_records {
  public:
    /// The record of a device, which is made if there is none.
    aliyun_record& of(aliyun::device const& d) {
        auto& r = records_[aliyun_name_of(d.product_key, d.device_name)];
        r.device = d;
        return r;
    }
    /// Null if there is none of this name.
    aliyun_record* find(std::string_view name) {
        auto const found = records_.find(name);
        return found == records_.end() ? nullptr : &found->second;
    }

    /// Forgets a device.
    void remove(std::string_view name) {
        auto const found = records_.find(name);
        if (found == records_.end()) return;
        detach(found->second);
        auto const sub_devices = found->second.sub_devices;  // a copy: `detach` changes them
        for (auto const& sub : sub_devices)
            if (auto* const s = find(sub)) detach(*s);
        records_.erase(found);
    }

    /// Takes a sub-device out of the topology of its gateway.
    void detach(aliyun_record& sub) {
        auto const name = aliyun_name_of(sub.device.product_key, sub.device.device_name);
        if (auto* const gateway = find(sub.gateway)) std::erase(gateway->sub_devices, name);
        sub.gateway.clear();
        sub.logged_in = false;
    }

    std::map<std::string, json, std::less<>> thing_models{};  ///< by product key

  private:
    std::map<std::string, aliyun_record, std::less<>> records_{};
};

}  // namespace runnel::testing
