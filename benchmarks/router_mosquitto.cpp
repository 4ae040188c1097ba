// One filter after the other, by libmosquitto's function for that.

#include "router_cases.hpp"
#include <mosquitto.h>

namespace {

struct table {
    std::vector<std::string> filters;

    void add(std::string const& filter, std::size_t) { filters.push_back(filter); }
    std::size_t find(std::string_view topic) const {
        std::size_t found = 0;
        std::string const text(topic);  // it wants an end
        for (auto const& filter : filters) {
            bool matches = false;
            ::mosquitto_topic_matches_sub(filter.c_str(), text.c_str(), &matches);
            found += matches ? 1 : 0;
        }
        return found;
    }
};

}  // namespace

int main(int argc, char** argv) { return router_bench::run<table>(argc, argv, "libmosquitto"); }
