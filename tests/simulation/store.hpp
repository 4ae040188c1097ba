#pragma once

#include <runnel/mqtt/store/session_store.hpp>

#include "simulation/machine.hpp"
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

namespace simulation {

/// The disk of the client: what is on it survives the process.
struct disk {
    std::map<std::uint64_t, std::string> records;
    std::size_t writes = 0;

    static constexpr std::uint64_t message_key = std::uint64_t{1} << 61;
    static constexpr std::uint64_t taken_key = std::uint64_t{1} << 62;

    /// Whether a packet with this text is stored.
    bool holds(std::string_view text) const {
        for (auto i = records.lower_bound(message_key); i != records.end() && i->first < taken_key; ++i)
            if (i->second.find(text) != std::string::npos) return true;
        return false;
    }
    bool holds_taken(std::uint16_t id) const { return records.contains(taken_key + id); }
};

/// A process's way to the disk. It can fail, and the process can be killed in the middle: then the changes are on the
/// disk or they are not, and nothing that the process does later counts.
class store {
  public:
    store(machine& m, disk& d) noexcept : machine_(m), disk_(d) {}

    bool fails = false;
    std::function<void()> on_kill;  ///< set: the process is killed by the next `apply`
    bool is_dead = false;

    std::error_code load(runnel::mqtt::store_reader& reader) const {
        if (fails) return std::make_error_code(std::errc::io_error);
        for (auto const& [key, value] : disk_.records) reader.record(key, value);
        return {};
    }
    std::error_code apply(std::span<runnel::mqtt::store_change const> changes) {
        if (is_dead) return {};  // nobody is there to see it
        if (fails) return std::make_error_code(std::errc::no_space_on_device);
        bool const kills = on_kill != nullptr;
        if (!kills || machine_.random().one_in(2)) write(changes);
        if (kills) std::exchange(on_kill, nullptr)();
        return {};
    }

  private:
    void write(std::span<runnel::mqtt::store_change const> changes) {
        ++disk_.writes;
        for (auto const& c : changes) {
            if (c.erase)
                disk_.records.erase(c.key);
            else
                disk_.records[c.key] = c.value;
        }
    }

    machine& machine_;
    disk& disk_;
};

}  // namespace simulation
