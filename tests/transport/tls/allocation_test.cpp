#include <runnel/testing/certificate.hpp>
#include <runnel/transport/memory.hpp>
#include <runnel/transport/tls/tls.hpp>

#include <doctest/doctest.h>
#include <openssl/crypto.h>

#include "support/allocation_count.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"
#include <cstdlib>

namespace {

// OpenSSL allocates by malloc, which `operator new` does not see; it lets itself be given other functions before its
// first use.
std::size_t openssl_allocations = 0;

bool const counting = [] {
    return CRYPTO_set_mem_functions(
               [](std::size_t size, char const*, int) {
                   ++openssl_allocations;
                   return std::malloc(size);
               },
               [](void* memory, std::size_t size, char const*, int) {
                   ++openssl_allocations;
                   return std::realloc(memory, size);
               },
               [](void* memory, char const*, int) { std::free(memory); }) == 1;
}();

using stream_type = runnel::tls_stream<runnel::memory_stream<>>;

constexpr int warm_up = 200;
constexpr int rounds = 1000;

// `rounds` messages from one side to the other, each read before the next is written. Gives the allocations made by the
// library and by OpenSSL during the rounds behind the first `warm_up`.
asio::awaitable<std::pair<std::size_t, std::size_t>> exchange(stream_type& from, stream_type& to, std::size_t size) {
    runnel::send_buffer out;
    std::string const message(size, 'm');
    std::string room(size, '\0');
    std::size_t own = 0;
    std::size_t theirs = 0;
    for (int i = 0; i < rounds; ++i) {
        if (i == warm_up) {
            own = runnel::testing::allocation_count();
            theirs = openssl_allocations;
        }
        out.append(message);
        co_await from.write(out);
        for (std::size_t got = 0; got < size;) {
            std::size_t const n = co_await to.read_some(asio::buffer(room));
            got += n;
        }
    }
    co_return std::pair(runnel::testing::allocation_count() - own, openssl_allocations - theirs);
}

}  // namespace

TEST_CASE("a TLS stream allocates nothing in steady state, OpenSSL itself at most twice a record and side") {
    REQUIRE(counting);
    for (auto const version : {runnel::tls_version::v1_2, runnel::tls_version::v1_3}) {
        for (std::size_t size : {20U, 1000U, 40'000U}) {
            CAPTURE(size);
            asio::io_context io;
            runnel::testing::certificate_authority const authority;
            auto const own = authority.issue_server();
            runnel::tls_options options;
            options.maximum = version;
            options.ca_pem = authority.certificate_pem();
            options.certificate_pem = own.certificate_pem;
            options.private_key_pem = own.private_key_pem;
            runnel::tls_context const context(options);
            auto [a, b] = runnel::memory_stream<>::pair(io.get_executor());
            stream_type client(std::move(a), context, runnel::tls_role::client, "localhost");
            stream_type server(std::move(b), context, runnel::tls_role::server);
            auto const shake = [](stream_type& s) -> asio::awaitable<void> { co_await s.handshake(); };
            test::task serving(io, shake(server));
            test::run(io, shake(client));
            serving.run();
            auto const [library, openssl] = test::run(io, exchange(client, server, size));
            CHECK(library == 0);
            // OpenSSL 3.0 makes one small object for each record of TLS 1.2, two for each of TLS 1.3. Were it told to
            // give its record buffers back (SSL_MODE_RELEASE_BUFFERS), there would be more.
            std::size_t const records = (size + 16'383) / 16'384 * (rounds - warm_up);
            CHECK(openssl <= 2 * 2 * records);
        }
    }
}
