// What each way to bring runnel in must give: the headers, Asio as runnel wants it, the macros, and, as COMPONENTS has
// it, the libraries to link with. It compiles in seconds.
#include <runnel/aliyun/signer.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/mqtt/packet.hpp>
#include <runnel/version.hpp>

#include RUNNEL_ASIO(awaitable.hpp)
#include RUNNEL_ASIO(system_timer.hpp)

#include <cstdio>
#include <thread>

#ifdef WITH_TLS
#include <openssl/ssl.h>
#endif
#ifdef WITH_SQLITE
#include <sqlite3.h>
#endif
#ifdef WITH_DEFLATE
#include <zlib.h>
#endif
#ifdef WITH_ALINK
#include <nlohmann/json.hpp>
#endif

#if (!defined(ASIO_STANDALONE) && !defined(RUNNEL_USE_BOOST_ASIO)) || RUNNEL_VERSION < 1
#error "what runnel wants to be defined is not"
#endif

runnel::asio::awaitable<int> answer() { co_return 42; }

int main() {
    std::thread{[] {}}.join();
    runnel::asio::awaitable<int> never_run = answer();
#ifdef WITH_TLS
    SSL_CTX_free(SSL_CTX_new(TLS_client_method()));
#endif
#ifdef WITH_SQLITE
    if (sqlite3_libversion_number() == 0) return 1;
#endif
#ifdef WITH_DEFLATE
    if (crc32(0, nullptr, 0) != 0) return 1;
#endif
#ifdef WITH_ALINK
    if (!nlohmann::json::parse("[]").is_array()) return 1;
#endif
    std::puts("runnel " RUNNEL_VERSION_STRING);
    return never_run.valid() ? 0 : 1;
}
