// A publisher by Paho C, for footprint.py.
#include "footprint.hpp"
#include <MQTTAsync.h>

int main(int argc, char**) {
    auto const before = footprint::heap_bytes();
    MQTTAsync session = nullptr;
    MQTTAsync_create(&session, "tcp://localhost:1883", "footprint", MQTTCLIENT_PERSISTENCE_NONE, nullptr);
    footprint::print(0, footprint::heap_bytes() - before);
    if (argc < 2) return 0;
    MQTTAsync_connectOptions how = MQTTAsync_connectOptions_initializer;
    MQTTAsync_connect(session, &how);
    MQTTAsync_message message = MQTTAsync_message_initializer;
    message.payload = const_cast<char*>("21.5");
    message.payloadlen = 4;
    message.qos = 1;
    MQTTAsync_sendMessage(session, "/a/b/user/t", &message, nullptr);
    MQTTAsync_destroy(&session);
}
