// The session benchmark with libmosquitto, driven by its own loop in one thread, which is its fastest way.

#include "session_client.hpp"
#include <mosquitto.h>

namespace {

char const* const who = "libmosquitto";

struct client {
    bench::options const& o;
    bench::meter meter{o, who};
    mosquitto* m = nullptr;
    std::size_t begun = 0;
    std::size_t in_flight = 0;
    bool connected = false;
    bool last = false;

    void publish() {
        auto const qos = o.qos();
        int const result = mosquitto_publish(m, nullptr, std::string(bench::topic).c_str(),
                                             static_cast<int>(o.payload.size()), o.payload.data(), qos, false);
        if (result != MOSQ_ERR_SUCCESS) std::exit(1);
        ++begun;
        ++in_flight;
    }

    void loop() {
        if (mosquitto_loop(m, 1000, 1) != MOSQ_ERR_SUCCESS) std::exit(1);
    }

    void on_published() {
        --in_flight;
        if (o.is("publish") && meter.count()) last = true;
    }
    void on_message() {
        if (!last && meter.count()) last = true;
    }

    void connect(char const* id, int keep_alive) {
        m = mosquitto_new(id, true, this);
        mosquitto_connect_callback_set(
            m, [](mosquitto*, void* self, int) { static_cast<client*>(self)->connected = true; });
        mosquitto_publish_callback_set(m,
                                       [](mosquitto*, void* self, int) { static_cast<client*>(self)->on_published(); });
        mosquitto_message_callback_set(
            m, [](mosquitto*, void* self, mosquitto_message const*) { static_cast<client*>(self)->on_message(); });
        mosquitto_max_inflight_messages_set(m, static_cast<unsigned>(std::max<std::size_t>(o.window(), 20)));
        mosquitto_int_option(m, MOSQ_OPT_TCP_NODELAY, 1);
        if (mosquitto_connect(m, "127.0.0.1", o.port, keep_alive) != MOSQ_ERR_SUCCESS) std::exit(1);
        while (!connected) loop();
    }

    void run() {
        connect("mosquitto", 60);
        if (o.is("receive")) {
            mosquitto_subscribe(m, nullptr, std::string(bench::filter).c_str(), 0);
            while (!last) loop();
        } else if (o.is("publish_qos0")) {
            while (begun < meter.total()) {
                publish();
                if (mosquitto_want_write(m)) loop();
            }
            while (!last) loop();
        } else if (o.is("publish")) {
            while (!last) {
                while (begun < meter.total() && in_flight < o.window()) publish();
                loop();
            }
        } else {
            bench::trips all(o.messages);
            for (std::size_t i = 0; i < o.messages; ++i) {
                all.begin();
                publish();
                while (in_flight != 0) loop();
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
        all.push_back(std::make_unique<client>(client{o}));
        all.back()->connect(("mosquitto-" + std::to_string(i)).c_str(), 60);
    }
    report::figure("session", "idle", who, "bytes/session",
                   (bench::heap_bytes() - before) / static_cast<double>(o.messages) - double{sizeof(client)});
}

}  // namespace

int main(int argc, char** argv) {
    bench::options const o(argc, argv);
    mosquitto_lib_init();
    if (o.is("idle")) {
        idle(o);
    } else {
        client c{o};
        c.run();
    }
    std::_Exit(0);
}
