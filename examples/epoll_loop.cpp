// A program with an epoll loop of its own (Linux). Asio does not show what it waits for, so that its descriptors cannot
// be put into another loop; but there are two ways that cost no time and no polling:
//
// - the other way round: the program's epoll descriptor is one that Asio waits for, and Asio's loop is the outer one;
// - two threads: `threaded_client` has its own, and an eventfd tells the program's loop that something has come.
//
// The broker is one in this process.
#include <runnel/mqtt/client/async.hpp>
#include <runnel/mqtt/client/threaded_client.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>

#include <array>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace mqtt = runnel::mqtt;

// The program's loop, as it was before.
class event_loop {
  public:
    event_loop() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
        if (epoll_ < 0) throw std::runtime_error("epoll_create1");
    }
    event_loop(event_loop const&) = delete;
    event_loop& operator=(event_loop const&) = delete;
    ~event_loop() { close(epoll_); }

    void watch(int descriptor, std::function<void()> what) {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.fd = descriptor;
        if (epoll_ctl(epoll_, EPOLL_CTL_ADD, descriptor, &event) != 0) throw std::runtime_error("epoll_ctl");
        handlers_[descriptor] = std::move(what);
    }
    // Handles what has happened; waits for that for at most so many ms, -1: for ever.
    void turn(int timeout) {
        std::array<epoll_event, 16> events{};
        int const count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), timeout);
        for (int i = 0; i < count; ++i) handlers_.at(events[static_cast<std::size_t>(i)].data.fd)();
    }
    // It can be read when something has happened.
    int descriptor() const noexcept { return epoll_; }

  private:
    int epoll_;
    std::map<int, std::function<void()>> handlers_;
};

// What the program's loop waits for: here an eventfd, as a device or a socket would be.
class event {
  public:
    event() : descriptor_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
        if (descriptor_ < 0) throw std::runtime_error("eventfd");
    }
    event(event const&) = delete;
    event& operator=(event const&) = delete;
    ~event() { close(descriptor_); }
    int descriptor() const noexcept { return descriptor_; }
    void set() const {
        std::uint64_t const one = 1;
        if (write(descriptor_, &one, sizeof(one)) != sizeof(one)) std::perror("eventfd");
    }
    void clear() const {
        std::uint64_t count = 0;
        if (read(descriptor_, &count, sizeof(count)) != sizeof(count)) count = 0;  // it was clear
    }

  private:
    int descriptor_;
};

mqtt::session_options named(char const* id) {
    mqtt::session_options options;
    options.credentials.client_id = id;
    return options;
}

// One thread: Asio waits for the program's epoll descriptor, too.
class nested {
  public:
    nested(asio::io_context& context, event_loop& loop) : loop_(loop), descriptor_(context, dup(loop.descriptor())) {
        wait();
    }
    void stop() { descriptor_.close(); }

  private:
    void wait() {
        descriptor_.async_wait(asio::posix::stream_descriptor::wait_read, [this](std::error_code e) {
            if (e) return;
            loop_.turn(0);
            if (descriptor_.is_open()) wait();
        });
    }
    event_loop& loop_;
    asio::posix::stream_descriptor descriptor_;
};

int in_one_thread(asio::io_context& context, runnel::tcp const& transport) {
    mqtt::session<runnel::tcp> session{context.get_executor(), transport, named("nested")};
    event_loop loop;
    event button;
    int pressed = 0, arrived = 0;
    bool is_over = false, has_failed = false;
    nested waiting{context, loop};
    loop.watch(button.descriptor(), [&] {
        button.clear();
        ++pressed;
        mqtt::async_publish(session, "button", std::to_string(pressed), {.qos = mqtt::qos::at_least_once},
                            [&](std::error_code e, mqtt::publish_result) { has_failed = has_failed || e; });
    });
    mqtt::async_run(session, [&](std::exception_ptr e) {
        has_failed = has_failed || e;
        is_over = true;
        waiting.stop();
    });
    mqtt::async_subscribe(
        session, "button",
        [&](mqtt::publish const&) {
            if (++arrived < 3) return button.set();
            mqtt::async_disconnect(session, [](std::error_code) {});
        },
        [&](std::error_code, auto const&) { button.set(); });
    while (!is_over && context.run_one() != 0) {
    }
    std::printf("in one thread: pressed %d times, %d messages\n", pressed, arrived);
    return !has_failed && pressed == 3 && arrived == 3 ? 0 : 1;
}

// Two threads: the client hands messages to the loop.
int in_two_threads(runnel::tcp const& transport) {
    event_loop loop;
    event has_come;
    std::mutex mutex;
    std::vector<std::string> inbox;  // by the mutex
    mqtt::threaded_client client{transport, named("beside")};
    auto const on_message = [&](mqtt::publish const& m) {  // on the client's thread
        std::lock_guard const lock(mutex);
        inbox.emplace_back(m.payload);
        has_come.set();
    };
    client.subscribe("data", on_message).get();
    int arrived = 0;
    loop.watch(has_come.descriptor(), [&] {  // on the program's
        has_come.clear();
        std::vector<std::string> all;
        {
            std::lock_guard const lock(mutex);
            all.swap(inbox);
        }
        arrived += static_cast<int>(all.size());
    });
    for (int i = 0; i < 5; ++i) client.publish("data", std::to_string(i), {.qos = mqtt::qos::at_least_once});
    for (int patience = 100; arrived < 5 && patience != 0; --patience) loop.turn(100);
    auto const report = client.close(std::chrono::seconds(5));
    std::printf("in two threads: %d messages\n", arrived);
    return report.undelivered == 0 && arrived == 5 ? 0 : 1;
}

int main() {
    asio::io_context context;
    runnel::testing::broker broker{context.get_executor()};
    runnel::tcp const transport{.host = "127.0.0.1", .port = broker.listen_tcp()};
    int failures = in_one_thread(context, transport);
    std::thread serving([&] { context.run(); });
    failures += in_two_threads(transport);
    asio::post(context, [&] { broker.close(); });
    serving.join();
    return failures;
}
