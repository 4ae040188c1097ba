// What the errors of wrong.cpp tell to write instead; it compiles without a warning.
#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/memory.hpp>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>

#include <array>
#include <functional>
#include <string>
#include <string_view>

namespace mqtt = runnel::mqtt;
using session = mqtt::session<runnel::memory_transport>;

asio::awaitable<void> subscribe(session& s) {
    std::array<std::string_view, 2> const filters = {"a", "b"};
    co_await s.subscribe(filters);
    co_await s.subscribe("a");
    co_await s.subscribe(std::string("a"), [&s](mqtt::publish const& m) {
        asio::co_spawn(s.get_executor(), s.publish("b", std::string(m.payload)), asio::detached);
    });
    std::function<void(mqtt::publish const&)> kept = [](mqtt::publish const&) {};
    co_await s.subscribe(filters, kept);
    int calls = 0;
    auto const counting = [&calls](mqtt::publish const&) { return ++calls; };  // what it returns is nobody's concern
    co_await s.subscribe("a", std::ref(counting));
}

void publish(session& s, std::string topic, std::string json) {
    asio::co_spawn(s.get_executor(), s.publish("sensors/" + topic, std::move(json)), asio::detached);
}

int main() {
    mqtt::session_options options;
    options.on_event = [](auto const&) {};
    options.on_event = nullptr;
}
