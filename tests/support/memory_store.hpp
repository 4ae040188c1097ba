#pragma once

#include <runnel/mqtt/store/session_store.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <system_error>
#include <utility>

namespace test {

/// A session store in memory, which can be made to fail.
struct memory_store {
    std::map<std::uint64_t, std::string> records;
    std::error_code failure;  ///< what `load` and `apply` return; then nothing is changed
    bool fails_once = false;  ///< `apply` works again when it has failed
    std::size_t applies = 0;  ///< that succeeded
    std::size_t changes = 0;

    std::error_code load(runnel::mqtt::store_reader& reader) const {
        if (!failure)
            for (auto const& [key, value] : records) reader.record(key, value);
        return failure;
    }
    std::error_code apply(std::span<runnel::mqtt::store_change const> all) {
        if (failure) return fails_once ? std::exchange(failure, {}) : failure;
        ++applies;
        changes += all.size();
        for (auto const& c : all) {
            if (c.erase)
                records.erase(c.key);
            else
                records[c.key] = c.value;
        }
        return {};
    }
};

}  // namespace test
