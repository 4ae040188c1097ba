// A session for code without coroutines: callbacks, and futures in another thread. All operations own what they are
// given, so that strings may go as soon as a call has returned. The broker is one in this process.
#include <runnel/mqtt/client/async.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/use_future.hpp>

#include <cstdio>
#include <exception>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

namespace mqtt = runnel::mqtt;
using session = mqtt::session<runnel::tcp>;

// Counts what arrives, and receives the next.
class listener {
  public:
    explicit listener(session& s) : session_(s) {
        mqtt::async_subscribe(session_, "rooms/+/temperature", [this](std::error_code e, session::subscription made) {
            if (e) return std::printf("cannot subscribe: %s\n", e.message().c_str()), void();
            subscription_ = std::move(made);
            receive();
        });
    }
    int arrived() const { return arrived_; }

  private:
    void receive() {
        mqtt::async_receive(session_, subscription_, [this](std::error_code e, mqtt::message m) {
            if (e) return;  // the session has ended
            ++arrived_;
            std::printf("%.*s\n", static_cast<int>(m.payload().size()), m.payload().data());
            receive();
        });  // `m` has been acknowledged
    }

    session& session_;
    session::subscription subscription_;
    int arrived_ = 0;
};

// Any thread may begin an operation. The obvious function, and the right one: what it is given is moved into the
// operation, and nobody needs to wait.
void send(session& s, std::string room, int degrees) {
    std::string const json = R"({"degrees":)" + std::to_string(degrees) + "}";
    mqtt::async_publish(s, "rooms/" + room + "/temperature", json, {.qos = mqtt::qos::at_least_once}, asio::detached);
}

int main() {
    asio::io_context context;
    runnel::testing::broker broker{context.get_executor()};
    mqtt::session_options options;
    options.credentials.client_id = "callbacks";
    session s{context.get_executor(), runnel::tcp{.host = "127.0.0.1", .port = broker.listen_tcp()}, options};
    int failures = 0;
    mqtt::async_run(s, [&](std::exception_ptr e) {
        if (!e) return;
        ++failures;
        std::printf("the session has ended: %s\n", runnel::exception_code(e).message().c_str());
    });
    listener all{s};

    std::thread producer([&] {
        send(s, "kitchen", 21);
        send(s, "cellar", 12);
        // Who wants to know waits for the future: not in the thread that runs the context.
        auto const outcome =
            mqtt::async_publish(s, "log", "that was all", {.qos = mqtt::qos::exactly_once}, asio::use_future).get();
        if (outcome.what != mqtt::publish_result::outcome::acknowledged) std::puts("not acknowledged");
        mqtt::async_drained(s, [&](std::error_code) {
            mqtt::async_disconnect(s, [&](std::error_code e) {
                if (e) ++failures;
                broker.close();  // the context has nothing to do any more
            });
        });
    });
    context.run();
    producer.join();
    std::printf("%d arrived\n", all.arrived());
    return failures == 0 && all.arrived() == 2 ? 0 : 1;
}
