// The module `runnel`: what the headers declare, for `import runnel;`. With RUNNEL_MODULE_TLS, _SQLITE, _DEFLATE and _ALINK
// defined (to 1) it has those parts, too. README.md says how it is compiled.
//
// Macros are not exported (RUNNEL_VERSION and its like: <runnel/version.hpp>), nor is Asio, whose headers a program
// includes as before, ahead of its imports. What runnel declares belongs to no module: other files of the program may
// include the headers. <runnel/testing/...> and <runnel/src.hpp> are for files that include.
module;

// All that is not runnel's comes here, and is compiled into no module.
#ifdef RUNNEL_USE_BOOST_ASIO
#include <boost/asio.hpp>
#else
#include <asio.hpp>
#endif

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <bitset>
#include <cassert>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <concepts>
#include <condition_variable>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <filesystem>
#include <forward_list>
#include <functional>
#include <future>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <random>
#include <ranges>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#ifdef _WIN32
#include <io.h>
#else
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#endif
#ifdef __linux__
#include <sys/random.h>
#endif
#ifdef __x86_64__
#include <cpuid.h>
#include <emmintrin.h>
#endif

#ifdef RUNNEL_MODULE_TLS
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/store.h>
#include <openssl/ui.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#endif
#ifdef RUNNEL_MODULE_SQLITE
#include <sqlite3.h>
#endif
#ifdef RUNNEL_MODULE_DEFLATE
#include <zlib.h>
#endif
#ifdef RUNNEL_MODULE_ALINK
#include <nlohmann/json.hpp>
#endif

export module runnel;

#ifdef __clang__
#pragma clang diagnostic ignored "-Winclude-angled-in-module-purview"
#endif

export extern "C++" {
#include <runnel/core/url.hpp>
#include <runnel/mqtt/client/async.hpp>
#include <runnel/mqtt/client/pieces.hpp>
#include <runnel/mqtt/client/scram_authenticator.hpp>
#include <runnel/mqtt/client/threaded_client.hpp>
#include <runnel/mqtt/client/metered.hpp>
#include <runnel/mqtt/client/session_meter.hpp>
#include <runnel/mqtt/client/traced.hpp>
#include <runnel/mqtt/protocol/scram_server.hpp>
#include <runnel/mqtt/protocol/trace_context.hpp>
#include <runnel/runnel.hpp>
#include <runnel/transport/any_transport.hpp>
#include <runnel/transport/failover.hpp>
#include <runnel/transport/memory.hpp>
#include <runnel/transport/proxy/http.hpp>
#include <runnel/transport/proxy/socks5.hpp>
#include <runnel/transport/socket_options.hpp>
#include <runnel/transport/unix_socket.hpp>
#include <runnel/websocket/reconnecting_client.hpp>
#ifdef RUNNEL_MODULE_TLS
#include <runnel/tls.hpp>
#include <runnel/transport/tls/key_uri.hpp>
#include <runnel/transport/tls/ocsp.hpp>
#include <runnel/websocket/transport_from.hpp>
#endif
#ifdef RUNNEL_MODULE_SQLITE
#include <runnel/mqtt/store/sqlite_store.hpp>
#endif
#ifdef RUNNEL_MODULE_DEFLATE
#include <runnel/websocket/deflate.hpp>
#endif
#ifdef RUNNEL_MODULE_ALINK
#include <runnel/aliyun/alink/alink.hpp>
#endif
}
