// What a session does on the wire, as readable lines without secrets; and a trace of W3C's that goes on from one
// program to the next with a message's user properties. The broker is one in this process.
#include <runnel/mqtt/client/traced.hpp>
#include <runnel/mqtt/protocol/trace_context.hpp>
#include <runnel/runnel.hpp>
#include <runnel/testing/broker/broker.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace mqtt = runnel::mqtt;
using traced_tcp = mqtt::traced<runnel::tcp>;
using session = mqtt::session<traced_tcp>;

// Sends a reading on behalf of what this program does in the trace.
asio::awaitable<void> send(session& s, mqtt::trace_context const& own) {
    mqtt::user_properties names{{"unit", "celsius"}};
    inject(own, names);
    mqtt::properties props;
    props.user_properties = names.list();
    co_await s.publish("room/temperature", "21.5", {.qos = mqtt::qos::at_least_once, .props = &props});
}

asio::awaitable<void> talk(session& s, bool& goes_on) {
    auto readings = co_await s.subscribe("room/+");

    mqtt::trace_context begun{mqtt::begin_trace(true), {}};
    begun.state.set("example", "sensor-7");
    co_await send(s, begun);

    auto const message = co_await readings.receive();
    auto const received = mqtt::extract(message.props().get<mqtt::property_id::user_property>());
    if (received) {
        // What follows from the message is the next step of the same trace.
        mqtt::trace_context const next{mqtt::next_step(received->parent), received->state};
        std::printf("-- received %s\n-- next     %s\n", to_string(received->parent).c_str(),
                    to_string(next.parent).c_str());
        goes_on = *received == begun && next.parent.trace_id == begun.parent.trace_id;
    }
    co_await s.disconnect();
}

int main() {
    asio::io_context context;
    runnel::testing::broker broker{context.get_executor()};

    bool secret_seen = false;
    traced_tcp const to({.host = "127.0.0.1", .port = broker.listen_tcp()},
                        {.level = mqtt::trace_level::details, .sink = [&](mqtt::trace_line const& line) {
                             auto const text = to_string(line);
                             std::printf("%s\n", text.c_str());
                             secret_seen |= text.find("correct horse") != text.npos;
                         }});

    mqtt::session_options options;
    options.version = mqtt::protocol_version::v5;
    options.credentials.client_id = "traced";
    options.credentials.user_name = "user";
    options.credentials.password = runnel::secret_string("correct horse");
    session s{context.get_executor(), to, options};

    bool goes_on = false;
    auto const rethrow = [](std::exception_ptr e) {
        if (e) std::rethrow_exception(e);
    };
    asio::co_spawn(context, talk(s, goes_on), rethrow);
    bool running = true;
    asio::co_spawn(context, s.run(), [&](std::exception_ptr e) {
        running = false;
        rethrow(e);
    });
    while (running) context.run_one();
    return goes_on && !secret_seen ? EXIT_SUCCESS : EXIT_FAILURE;
}
