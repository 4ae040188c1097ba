// A publisher by Boost.MQTT5, with coroutines, for footprint.py.
#include "footprint.hpp"
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/mqtt5/mqtt_client.hpp>
#include <boost/mqtt5/types.hpp>

namespace asio = boost::asio;
namespace mqtt5 = boost::mqtt5;
using client = mqtt5::mqtt_client<asio::ip::tcp::socket>;

static asio::awaitable<void> use(client& c) {
    co_await c.async_publish<mqtt5::qos_e::at_least_once>("/a/b/user/t", "21.5", mqtt5::retain_e::no,
                                                          mqtt5::publish_props{}, asio::use_awaitable);
}

int main(int argc, char**) {
    asio::io_context io{1};
    auto const before = footprint::heap_bytes();
    client c(io);
    c.brokers("localhost", 1883).credentials("footprint");
    footprint::print(sizeof(c), footprint::heap_bytes() - before);
    if (argc < 2) return 0;
    c.async_run(asio::detached);
    asio::co_spawn(io, use(c), asio::detached);
    io.run();
}
