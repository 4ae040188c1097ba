// What it costs to find the subscriptions that a message matches: the tree that sessions have, and the embedded broker.

#include <runnel/mqtt/protocol/router.hpp>

#include "router_cases.hpp"

namespace {

struct table {
    runnel::mqtt::router<std::size_t> routes;

    void add(std::string const& filter, std::size_t i) { routes.insert(filter, i); }
    std::size_t find(std::string_view topic) const {
        std::size_t found = 0;
        routes.match(topic, [&](std::size_t const&) { ++found; });
        return found;
    }
};

}  // namespace

int main(int argc, char** argv) { return router_bench::run<table>(argc, argv, "runnel"); }
