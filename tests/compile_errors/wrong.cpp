// Mistakes that must not compile. A line with one ends in the text that its error must have.
#include <runnel/mqtt/client/session.hpp>
#include <runnel/testing/broker/options.hpp>
#include <runnel/transport/memory.hpp>

#include <array>
#include <string_view>

namespace mqtt = runnel::mqtt;
using session = mqtt::session<runnel::memory_transport>;

asio::awaitable<void> handle(mqtt::publish const&) { co_return; }

asio::awaitable<void> with_handlers(session& s) {
    auto const handler = [](mqtt::publish const&) -> asio::awaitable<void> { co_return; };
    co_await s.subscribe("a", handler);  // a handler is a plain function: nobody awaits the coroutine
    co_await s.subscribe("a", [&s](mqtt::publish const& m) { return s.publish("b", m.payload); });  // a plain function
    co_await s.subscribe("a", handle);  // a handler is a plain function
    std::array<std::string_view, 2> const filters = {"a", "b"};
    co_await s.subscribe(filters, [](auto const&) -> asio::awaitable<int> { co_return 1; });  // a plain function
}

void with_events() {
    mqtt::session_options options;
    options.on_event = [](mqtt::session_event const&) -> asio::awaitable<void> { co_return; };  // a plain function
    runnel::testing::broker_hooks hooks;
    hooks.on_disconnect = [](std::string_view) -> asio::awaitable<void> { co_return; };  // a plain function
    runnel::memory_transport t(
        [](runnel::memory_stream<>) -> asio::awaitable<void> { co_return; });  // a plain function
}

void without_co_await(session& s) {
    s.publish("a", "b");  // nodiscard
    s.run();              // nodiscard
    s.disconnect();       // nodiscard
}
