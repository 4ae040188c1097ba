// The session benchmark with Paho's MQTTAsync, whose own threads do the work while the callbacks count.

#include "session_client.hpp"
#include <MQTTAsync.h>
#include <condition_variable>
#include <mutex>

namespace {

char const* const who = "Paho C";

struct client {
    explicit client(bench::options const& all) : o(all) {}

    bench::options const& o;
    bench::meter meter{o, who};
    MQTTAsync m = nullptr;
    std::mutex mutex;
    std::condition_variable changed;
    std::size_t in_flight = 0;
    bool connected = false;
    bool last = false;

    void publish() {
        MQTTAsync_responseOptions response = MQTTAsync_responseOptions_initializer;
        response.context = this;
        response.onSuccess = [](void* self, MQTTAsync_successData*) { static_cast<client*>(self)->on_published(); };
        response.onFailure = [](void*, MQTTAsync_failureData*) { std::exit(1); };
        int const result = MQTTAsync_send(m, std::string(bench::topic).c_str(), static_cast<int>(o.payload.size()),
                                          o.payload.data(), o.qos(), 0, &response);
        if (result != MQTTASYNC_SUCCESS) std::exit(1);
    }

    void on_published() {
        std::lock_guard const lock(mutex);
        --in_flight;
        if (o.is("publish") && meter.count()) last = true;
        changed.notify_one();
    }
    void on_message() {
        std::lock_guard const lock(mutex);
        if (last || !meter.count()) return;
        last = true;
        changed.notify_one();
    }

    template <class Condition>
    void wait(Condition condition) {
        std::unique_lock lock(mutex);
        changed.wait(lock, condition);
    }

    void connect(char const* id) {
        auto const url = "tcp://127.0.0.1:" + std::to_string(o.port);
        // In the store's group each message is kept in a file of its own, in the working directory.
        bool const keeps = o.group == "store";
        std::string folder = ".";
        if (MQTTAsync_create(&m, url.c_str(), id, keeps ? MQTTCLIENT_PERSISTENCE_DEFAULT : MQTTCLIENT_PERSISTENCE_NONE,
                             keeps ? folder.data() : nullptr) != MQTTASYNC_SUCCESS)
            std::exit(1);
        MQTTAsync_setCallbacks(
            m, this, nullptr,
            [](void* self, char* topic, int, MQTTAsync_message* message) {
                static_cast<client*>(self)->on_message();
                MQTTAsync_freeMessage(&message);
                MQTTAsync_free(topic);
                return 1;
            },
            nullptr);
        MQTTAsync_connectOptions options = MQTTAsync_connectOptions_initializer;
        options.keepAliveInterval = 60;
        options.cleansession = o.group == "store" ? 0 : 1;
        options.maxInflight = static_cast<int>(std::max<std::size_t>(o.window(), 20));
        options.context = this;
        options.onSuccess = [](void* c, MQTTAsync_successData*) {
            auto& self = *static_cast<client*>(c);
            std::lock_guard const lock(self.mutex);
            self.connected = true;
            self.changed.notify_one();
        };
        if (MQTTAsync_connect(m, &options) != MQTTASYNC_SUCCESS) std::exit(1);
        wait([&] { return connected; });
    }

    void run() {
        connect("paho");
        if (o.is("receive")) {
            MQTTAsync_subscribe(m, std::string(bench::filter).c_str(), 0, nullptr);
            wait([&] { return last; });
        } else if (o.is("publish")) {
            std::size_t const window = o.qos() == 0 ? 1000 : o.window();
            for (std::size_t i = 0; i < meter.total(); ++i) {
                wait([&] { return in_flight < window; });
                {
                    std::lock_guard const lock(mutex);
                    ++in_flight;
                }
                publish();
            }
            wait([&] { return last; });
        } else {
            bench::trips all(o.messages);
            for (std::size_t i = 0; i < o.messages; ++i) {
                all.begin();
                ++in_flight;
                publish();
                wait([&] { return in_flight == 0; });
                all.end();
            }
            all.report(who);
        }
    }
};

void idle(bench::options const& o) {
    std::vector<std::unique_ptr<client>> all;
    double const before = bench::heap_bytes();
    for (std::size_t i = 0; i < o.messages; ++i) {
        all.push_back(std::make_unique<client>(o));
        all.back()->connect(("paho-" + std::to_string(i)).c_str());
    }
    report::figure("session", "idle", who, "bytes/session",
                   (bench::heap_bytes() - before) / static_cast<double>(o.messages) - double{sizeof(client)});
}

}  // namespace

int main(int argc, char** argv) {
    bench::options const o(argc, argv);
    if (o.is("idle")) {
        idle(o);
    } else {
        client c(o);
        c.run();
        if (o.group == "store") MQTTAsync_destroy(&c.m);  // removes its folder
    }
    std::_Exit(0);
}
