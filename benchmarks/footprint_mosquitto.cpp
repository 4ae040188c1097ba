// A publisher by libmosquitto, for footprint.py.
#include "footprint.hpp"
#include <mosquitto.h>

int main(int argc, char**) {
    mosquitto_lib_init();
    auto const before = footprint::heap_bytes();
    auto* const session = mosquitto_new("footprint", true, nullptr);
    footprint::print(0, footprint::heap_bytes() - before);
    if (argc < 2) return 0;
    mosquitto_connect(session, "localhost", 1883, 60);
    mosquitto_publish(session, nullptr, "/a/b/user/t", 4, "21.5", 1, false);
    mosquitto_loop_forever(session, -1, 1);
    mosquitto_destroy(session);
}
