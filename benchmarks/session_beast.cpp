// The session benchmark over WebSocket with Boost.Beast, which knows nothing of MQTT: prepared packets, a message each,
// as its users write and read them. A bound for every client that builds on it.

#include "openssl_memory.hpp"
#include "session_client.hpp"
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/ssl.hpp>
#include <boost/beast/websocket.hpp>

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;

char const* const who = "Boost.Beast";

using executor = asio::io_context::executor_type;
using socket_type = asio::basic_stream_socket<asio::ip::tcp, executor>;
using task = asio::awaitable<void, executor>;
constexpr asio::use_awaitable_t<executor> awaits;

std::string publish_packet(bench::options const& o) {
    std::string all = "\x30";
    std::size_t rest = 2 + bench::topic.size() + o.payload.size();
    for (; rest >= 128; rest >>= 7) all += static_cast<char>(0x80 | rest);
    all.append({static_cast<char>(rest), '\0', '\x20'}).append(bench::topic).append(o.payload);
    return all;
}

template <class Stream>
task publish(Stream& ws, bench::options const& o) {
    bench::meter meter(o, who);
    auto const packet = publish_packet(o);
    for (bool last = false; !last; last = meter.count()) co_await ws.async_write(asio::buffer(packet), awaits);
}

template <class Stream>
task receive(Stream& ws, bench::options const& o) {
    bench::meter meter(o, who);
    co_await ws.async_write(asio::buffer("\x82\x0e\0\x01\0\x09sensors/#\0", 16), awaits);
    beast::flat_buffer buffer;
    for (bool last = false; !last;) {
        std::size_t const n = co_await ws.async_read(buffer, awaits);
        if (n == 100) last = meter.count();
        buffer.consume(n);
    }
}

template <class Stream>
task run(Stream& ws, bench::options const& o) {
    co_await ws.async_handshake("127.0.0.1", "/mqtt", awaits);
    ws.binary(true);
    co_await ws.async_write(asio::buffer("\x10\x11\0\x04MQTT\x04\x02\0\0\0\x05"
                                         "beast",
                                         19),
                            awaits);
    beast::flat_buffer answer;
    co_await ws.async_read(answer, awaits);
    auto all = o.is("publish") ? publish(ws, o) : receive(ws, o);
    co_await std::move(all);
}

task run_ws(socket_type tcp, bench::options const& o) {
    beast::websocket::stream<socket_type> ws(std::move(tcp));
    co_await run(ws, o);
}

task run_wss(socket_type tcp, asio::ssl::context& context, bench::options const& o) {
    beast::websocket::stream<asio::ssl::stream<socket_type>> ws(std::move(tcp), context);
    co_await ws.next_layer().async_handshake(asio::ssl::stream_base::client, awaits);
    co_await run(ws, o);
}

}  // namespace

int main(int argc, char** argv) {
    bench::options const o(argc, argv);
    bench::tell_openssl_apart();
    asio::io_context io(1);
    asio::ssl::context context(asio::ssl::context::tls_client);
    socket_type tcp(io);
    tcp.connect({asio::ip::address_v4::loopback(), o.port});
    tcp.set_option(asio::ip::tcp::no_delay(true));
    auto all = o.group == "wss" ? run_wss(std::move(tcp), context, o) : run_ws(std::move(tcp), o);
    asio::co_spawn(io, std::move(all), [](std::exception_ptr error) {
        if (error) std::rethrow_exception(error);
    });
    io.run();
    return 0;
}
