#include "two_files.hpp"
#include <string>
#include <utility>

asio::awaitable<void> say(session& s, std::string what) {
    co_await s.publish(std::string("t"), std::move(what), {.qos = runnel::mqtt::qos::at_least_once});
}
