// AWS IoT Core over WebSocket Secure: the client is let in by the path of the URL, which is signed anew for each
// attempt to connect. Nothing below runnel/aliyun knows of any cloud; this is all that another one takes.
#include <runnel/tls.hpp>
#include <runnel/transport/transport_factory.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include "aws_signature.hpp"
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace mqtt = runnel::mqtt;
using transport_type = runnel::transport_factory<runnel::wss>;

std::string setting(char const* name, bool required = true) {
    char const* const value = std::getenv(name);
    if (value == nullptr && required) throw std::runtime_error(std::string("set ") + name);
    return value != nullptr ? value : "";
}

asio::awaitable<void> talk(mqtt::session<transport_type>& session) {
    co_await session.publish("runnel/hello", "from runnel", {.qos = mqtt::qos::at_least_once});
    std::puts("published to runnel/hello");
    co_await session.disconnect();
}

int main() try {
    aws::identity const who{setting("AWS_ACCESS_KEY_ID"), setting("AWS_SECRET_ACCESS_KEY"),
                            setting("AWS_SESSION_TOKEN", false)};
    // AWS_IOT_ENDPOINT: "ID-ats.iot.REGION.amazonaws.com", from `aws iot describe-endpoint --endpoint-type
    // iot:Data-ATS`
    aws::resource const what{setting("AWS_IOT_ENDPOINT"), "/mqtt", setting("AWS_REGION"), "iotdevicegateway"};
    transport_type const transport([=] {
        auto const now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
        return runnel::wss{.host = what.host, .path = aws::presign(who, what, now, std::chrono::minutes(15))};
    });

    mqtt::session_options options;
    options.credentials.client_id = "runnel-example";
    options.reconnect.attempts = 3;
    asio::io_context context;
    mqtt::session session{context.get_executor(), transport, options};
    std::exception_ptr failure;
    auto const on_end = [&](std::exception_ptr error) {
        if (error && !failure) failure = error;
    };
    asio::co_spawn(context, session.run(), on_end);
    asio::co_spawn(context, talk(session), on_end);
    context.run();
    if (failure) std::rethrow_exception(failure);
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
