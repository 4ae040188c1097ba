#include <runnel/transport/memory.hpp>
#include <runnel/transport/transport_factory.hpp>

#include <doctest/doctest.h>

#include "support/run.hpp"
#include <stdexcept>
#include <string>
#include <vector>

using namespace runnel;

namespace {

using transport_type = transport_factory<memory_transport>;
static_assert(transport<transport_type> && !transport_type::secure);

}  // namespace

TEST_CASE("each attempt opens a transport of its own") {
    asio::io_context io;
    int made = 0;
    std::vector<int> opened;
    transport_type const anew([&] {
        memory_transport next([&opened, number = ++made](memory_stream<>) { opened.push_back(number); });
        next.host = "host-" + std::to_string(made);
        return next;
    });
    CHECK(anew.url() == "memory://host-1:0");
    test::run(io, anew.open(io.get_executor()));
    test::run(io, anew.open(io.get_executor()));
    CHECK(opened == std::vector<int>{2, 3});
    auto const copy = anew;
    CHECK(copy == anew);
}

TEST_CASE("what the maker throws ends the attempt") {
    asio::io_context io;
    bool fails = false;
    transport_type const anew([&] {
        if (fails) throw std::runtime_error("no token");
        return memory_transport([](memory_stream<>) {});
    });
    fails = true;
    test::task<memory_stream<>> task(io, anew.open(io.get_executor()));
    CHECK_THROWS_AS(task.run(), std::runtime_error);
}
