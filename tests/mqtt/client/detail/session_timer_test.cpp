#include <runnel/mqtt/client/detail/session_timer.hpp>

#include <doctest/doctest.h>

#include "support/run.hpp"

namespace mqtt = runnel::mqtt;

TEST_CASE("sending is looked at while nobody runs the session, while reading is held up, and where there is a store") {
    asio::io_context io;
    mqtt::detail::session_timer<test::executor> timer(io.get_executor(), [](void*) {}, nullptr);
    CHECK(timer.watches_flush());
    timer.set_held_up(true);
    timer.set_held_up(false);
    CHECK(timer.watches_flush());  // nobody runs it yet
    timer.set_forgotten(false);
    CHECK_FALSE(timer.watches_flush());
    timer.set_held_up(true);
    CHECK(timer.watches_flush());
    timer.set_held_up(false);
    CHECK_FALSE(timer.watches_flush());
    mqtt::session_state const state(mqtt::role::client, mqtt::protocol_version::v5);
    timer.watch(state);
    CHECK(timer.watches_flush());
    timer.set_held_up(true);
    timer.set_held_up(false);
    CHECK(timer.watches_flush());
}
