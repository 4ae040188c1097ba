// The session benchmark with Boost.MQTT5, with handlers, which is its fastest way, many operations under way at a time.

#include "session_client.hpp"
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/mqtt5/mqtt_client.hpp>
#include <boost/mqtt5/types.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {

namespace asio = boost::asio;
namespace mqtt5 = boost::mqtt5;
using mqtt5::error_code;
using mqtt5::qos_e;

char const* const who = "Boost.MQTT5";

struct client {
    bench::options const& o;
    asio::io_context io{1};
    mqtt5::mqtt_client<asio::ip::tcp::socket> c{io};
    bench::meter meter{o, who};
    bench::trips trips{o.messages};
    std::size_t begun = 0;
    std::size_t received = 0;

    template <qos_e Qos, class Handler>
    void publish(Handler handler) {
        ++begun;
        c.async_publish<Qos>(std::string(bench::topic), o.payload, mqtt5::retain_e::no, mqtt5::publish_props{},
                             [handler](error_code error, auto const&...) {
                                 if (error) std::exit(1);
                                 handler();
                             });
    }

    // Begins the next message when one is done.
    template <qos_e Qos>
    void publish_on() {
        publish<Qos>([this] {
            if (meter.count()) c.cancel();
            if (begun < meter.total()) publish_on<Qos>();
        });
    }

    void receive() {
        c.async_receive([this](error_code error, std::string const&, std::string const&, mqtt5::publish_props const&) {
            if (error) std::exit(1);
            meter.count() ? c.cancel() : receive();
        });
    }

    void round_trip() {
        trips.begin();
        publish<qos_e::at_least_once>([this] {
            trips.end();
            if (begun < o.messages) return round_trip();
            trips.report(who);
            c.cancel();
        });
    }

    void run() {
        c.brokers("127.0.0.1", o.port).credentials("boost").async_run(asio::detached);
        if (o.is("receive")) {
            c.async_subscribe(mqtt5::subscribe_topic{std::string(bench::filter), {}}, mqtt5::subscribe_props{},
                              [](error_code error, auto const&...) {
                                  if (error) std::exit(1);
                              });
            receive();
        } else if (o.is("publish_qos0")) {
            for (int i = 0; i < 1000; ++i) publish_on<qos_e::at_most_once>();
        } else if (o.is("publish")) {
            for (std::size_t i = 0; i < o.window(); ++i)
                o.qos() == 1 ? publish_on<qos_e::at_least_once>() : publish_on<qos_e::exactly_once>();
        } else {
            round_trip();
        }
        io.run();
    }
};

void idle(bench::options const& o) {
    asio::io_context io(1);
    std::vector<std::unique_ptr<mqtt5::mqtt_client<asio::ip::tcp::socket>>> all;
    double const before = bench::heap_bytes();
    for (std::size_t i = 0; i < o.messages; ++i) {
        all.push_back(std::make_unique<mqtt5::mqtt_client<asio::ip::tcp::socket>>(io));
        all.back()->brokers("127.0.0.1", o.port).credentials("boost-" + std::to_string(i)).async_run(asio::detached);
        io.poll();
    }
    io.run_for(std::chrono::seconds(3));
    report::figure("session", "idle", who, "bytes/session",
                   (bench::heap_bytes() - before) / static_cast<double>(o.messages));
    std::_Exit(0);
}

}  // namespace

int main(int argc, char** argv) {
    bench::options const o(argc, argv);
    if (o.is("idle")) {
        idle(o);
    } else {
        client c{o};
        c.run();
    }
    std::_Exit(0);
}
