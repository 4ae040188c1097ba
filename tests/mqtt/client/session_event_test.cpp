#include <runnel/mqtt/client/session_event.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <string>

namespace {

using namespace std::chrono_literals;
using runnel::mqtt::detail_with;
using runnel::mqtt::session_event;
using enum session_event::kind;

std::string text(session_event const& e) { return to_string(e); }

}  // namespace

TEST_CASE("a server is named once, with what was the matter if that is known") {
    CHECK(detail_with("tcp://a:1", "") == "tcp://a:1");
    CHECK(detail_with("tcp://a:1", "busy") == "tcp://a:1: busy");
    CHECK(detail_with("tcp://a:1", "connecting to tcp://a:1") == "connecting to tcp://a:1");
}

TEST_CASE("the text of a connection tells whether the session goes on, and which servers have failed before") {
    CHECK(text({.what = connected, .url = "tcp://a:1"}) == "connected, a new session");
    CHECK(text({.what = connected, .session_present = true}) == "connected, the session goes on");
    CHECK(text({.what = connected, .session_present = true, .url = "tcp://b:1", .detail = "a: refused"}) ==
          "connected to tcp://b:1, the session goes on (before: a: refused)");
}

TEST_CASE("the text of a pause tells how long it is, and whether another client is in the way") {
    CHECK(text({.what = waiting, .pause = 1500ms}) == "connecting again in 1500 ms");
    CHECK(text({.what = waiting, .twin_suspected = true, .pause = 2ms}) ==
          "connecting again in 2 ms; another client seems to use the same client identifier");
}
