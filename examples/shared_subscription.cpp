// Many consumers share the work (MQTT 5, 4.8.2): sessions that subscribe to $share/GROUP/FILTER get each message once
// among them. Three workers do forty jobs.
//
// Without arguments the broker runs in this process, and two of the workers do not stay: one leaves, and one crashes
// with a job in its hands. What they have not acknowledged goes to the others. Not every broker does that, so with
// arguments, HOST and perhaps PORT of a broker with MQTT 5, all three stay.
#include <runnel/runnel.hpp>
#include <runnel/testing/broker/broker.hpp>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <string>

namespace mqtt = runnel::mqtt;
using session = mqtt::session<runnel::tcp>;
using namespace std::chrono_literals;

constexpr int job_count = 40;

// Which job has been done how often.
using job_list = std::map<std::string, int>;

struct worker {
    enum class fate { stays, leaves, crashes };

    worker(asio::io_context& context, runnel::tcp const& broker, std::string worker_name, fate f)
        : name(std::move(worker_name)), what_becomes(f), s(context.get_executor(), broker, options(name)) {}

    static mqtt::session_options options(std::string const& name) {
        mqtt::session_options o;
        o.version = mqtt::protocol_version::v5;
        o.credentials.client_id = name;
        o.clean_start = true;   // with no session left behind,
        o.session_expiry = 0s;  // the jobs of a worker that is gone go to others at once
        return o;
    }

    std::string name;
    fate what_becomes;
    asio::cancellation_signal power;  // cuts its connection
    int done = 0;
    session s;
};

asio::awaitable<void> work(worker& w, job_list& jobs, bool& ready) {
    auto inbox = co_await w.s.subscribe("$share/workers/jobs/+", {.maximum_qos = mqtt::qos::at_least_once});
    ready = true;
    for (;;) {
        std::error_code ended;
        auto const job = co_await inbox.receive(ended);
        if (ended) co_return;
        auto working = runnel::sleep_for(w.s.get_executor(), asio::steady_timer::duration(2ms));
        co_await std::move(working);
        if (w.done == 5 && w.what_becomes == worker::fate::crashes) {
            std::printf("%s crashes with %s in its hands\n", w.name.c_str(), std::string(job.topic()).c_str());
            w.power.emit(asio::cancellation_type::terminal);
            auto dying = runnel::sleep_for(w.s.get_executor(), asio::steady_timer::duration(50ms));
            co_return co_await std::move(dying);
        }
        ++jobs[std::string(job.topic())];
        if (++w.done == 5 && w.what_becomes == worker::fate::leaves) break;
    }  // the job is acknowledged when the message goes
    std::printf("%s leaves\n", w.name.c_str());
    co_await w.s.disconnect();
}

asio::awaitable<void> hand_out(session& s, job_list const& jobs, std::array<bool, 3> const& ready) {
    co_await s.connected();
    auto const pause = [&] { return runnel::sleep_for(s.get_executor(), asio::steady_timer::duration(5ms)); };
    while (!ready[0] || !ready[1] || !ready[2]) co_await pause();
    for (int i = 1; i <= job_count; ++i) {
        auto const topic = "jobs/" + std::to_string(i);
        co_await s.publish(topic, "do it", {.qos = mqtt::qos::at_least_once});
    }
    for (int waited = 0; jobs.size() < job_count && waited < 4000; ++waited) co_await pause();
}

int main(int argc, char** argv) try {
    asio::io_context context;
    std::optional<runnel::testing::broker> own;
    runnel::tcp broker{.host = argc > 1 ? argv[1] : "127.0.0.1", .port = 1883};
    if (argc > 2) broker.port = static_cast<std::uint16_t>(std::strtoul(argv[2], nullptr, 10));
    if (argc == 1) broker.port = own.emplace(context.get_executor()).listen_tcp();

    auto const fate_of = [&](worker::fate f) { return own ? f : worker::fate::stays; };
    std::array<worker, 3> workers{worker(context, broker, "first worker", worker::fate::stays),
                                  worker(context, broker, "second worker", fate_of(worker::fate::leaves)),
                                  worker(context, broker, "third worker", fate_of(worker::fate::crashes))};
    auto options = worker::options("foreman");
    session foreman{context.get_executor(), broker, options};

    job_list jobs;
    std::array<bool, 3> ready{};
    std::exception_ptr failure;
    auto const on_end = [&](std::exception_ptr error) {
        if (error && !failure) failure = error;
    };
    for (std::size_t i = 0; i < workers.size(); ++i) {
        auto& w = workers[i];
        asio::co_spawn(context, w.s.run(), asio::bind_cancellation_slot(w.power.slot(), [](std::exception_ptr) {}));
        asio::co_spawn(context, work(w, jobs, ready[i]), on_end);
    }
    bool over = false;
    asio::co_spawn(context, foreman.run(), on_end);
    asio::co_spawn(context, hand_out(foreman, jobs, ready), [&](std::exception_ptr error) {
        on_end(error);
        over = true;
    });
    while (!over && !failure) context.run_one();
    if (failure) std::rethrow_exception(failure);

    int again = 0;
    for (auto const& [job, times] : jobs) again += times - 1;
    for (auto const& w : workers) std::printf("%s has done %d jobs\n", w.name.c_str(), w.done);
    std::printf("%zu of %d jobs have been done, %d of them again\n", jobs.size(), job_count, again);
    return jobs.size() == job_count ? 0 : 1;
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
