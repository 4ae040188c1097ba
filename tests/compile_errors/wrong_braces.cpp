// More mistakes that must not compile, behind which g++ 12 gives up. A line with one ends in the text of its error.
#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/memory.hpp>

#include <string>
#include <string_view>

namespace mqtt = runnel::mqtt;
using session = mqtt::session<runnel::memory_transport>;

asio::awaitable<void> with_braces(session& s, std::string text, std::string_view view) {
    co_await s.subscribe({"a", "b"});  // subscribe: write one topic filter without braces, and several as an array
    co_await s.subscribe({text, text}, [](mqtt::publish const&) {});         // as an array with a name
    auto subscribing = s.subscribe({view, view, view}, {.no_local = true});  // as an array with a name
}
