// Many clients of Paho's MQTTAsync, whose two threads serve all of them, and which connects again by itself: see
// crowd.hpp.

#include "crowd.hpp"
#include <MQTTAsync.h>
#include <atomic>
#include <memory>
#include <unistd.h>

namespace {

struct client {
    bench::crowd& all;
    MQTTAsync m = nullptr;
    std::atomic<bool> connected{false};

    client(bench::crowd& a, std::size_t number) : all(a) {
        auto const url = "tcp://127.0.0.1:" + std::to_string(all.port);
        auto const id = "crowd-" + std::to_string(number);
        if (MQTTAsync_create(&m, url.c_str(), id.c_str(), MQTTCLIENT_PERSISTENCE_NONE, nullptr) != MQTTASYNC_SUCCESS)
            std::exit(1);
        auto const lost = [](void* self, char*) { static_cast<client*>(self)->has_lost(); };
        auto const ignore = [](void*, char* topic, int, MQTTAsync_message* message) {
            MQTTAsync_freeMessage(&message);
            MQTTAsync_free(topic);
            return 1;
        };
        MQTTAsync_setCallbacks(m, this, lost, ignore, nullptr);
        MQTTAsync_setConnected(m, this, [](void* self, char*) { static_cast<client*>(self)->has_connected(); });
        MQTTAsync_connectOptions options = MQTTAsync_connectOptions_initializer;
        options.keepAliveInterval = all.keep_alive;
        options.cleansession = 1;
        options.automaticReconnect = 1;
        options.minRetryInterval = 1;
        options.maxRetryInterval = 60;
        if (MQTTAsync_connect(m, &options) != MQTTASYNC_SUCCESS) std::exit(1);
    }

    void has_connected() {
        if (!connected.exchange(true)) all.connected();
    }
    void has_lost() {
        if (connected.exchange(false)) all.lost();
    }
};

}  // namespace

int main(int argc, char** argv) {
    bench::crowd all(argc, argv, "Paho C");
    std::vector<std::unique_ptr<client>> clients;
    all.run([&](std::size_t number) { clients.push_back(std::make_unique<client>(all, number)); },
            [] { ::usleep(1000); });
    std::_Exit(0);
}
