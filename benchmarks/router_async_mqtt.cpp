// The map of async_mqtt's broker, of its folder `tool/include`.

#include "router_cases.hpp"
#include <broker/subscription_map.hpp>

namespace {

struct table {
    async_mqtt::multiple_subscription_map<std::size_t, std::size_t> map;

    void add(std::string const& filter, std::size_t i) { map.insert_or_assign(filter, i, i); }
    std::size_t find(std::string_view topic) const {
        std::size_t found = 0;
        map.find(topic, [&](std::size_t, std::size_t) { ++found; });
        return found;
    }
};

}  // namespace

int main(int argc, char** argv) { return router_bench::run<table>(argc, argv, "async_mqtt"); }
