#include <runnel/coro/exception_code.hpp>
#include <runnel/testing/certificate.hpp>
#include <runnel/transport/memory.hpp>
#include <runnel/transport/tls/ocsp.hpp>
#include <runnel/transport/tls/tls.hpp>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/any_certificate.hpp"
#include "support/openssl_memory.hpp"
#include "support/process.hpp"
#include "support/run.hpp"
#include "support/sample.hpp"
#include "support/streams.hpp"
#include <cstddef>
#include <cstdio>
#include <exception>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

namespace {

using runnel::testing::allocator;
using runnel::testing::failing_allocation;
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
            theirs = runnel::testing::library_allocation_count();
        }
        out.append(message);
        co_await from.write(out);
        for (std::size_t got = 0; got < size;) {
            std::size_t const n = co_await to.read_some(asio::buffer(room));
            got += n;
        }
    }
    co_return std::pair(runnel::testing::allocation_count() - own,
                        runnel::testing::library_allocation_count() - theirs);
}

}  // namespace

TEST_CASE("a TLS stream allocates nothing in steady state, OpenSSL itself at most twice a record and side") {
    REQUIRE(test::watches_openssl);
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
            options.crl_check = runnel::tls_crl_check::chain;
            options.crl_pem = authority.revocation_list({});
            options.status_check = runnel::ocsp_stapling();
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

namespace {

// Of the first failure, if there was one.
struct trial {
    std::size_t finished = 0;  // ends that have had all
    std::size_t ended = 0;
    std::exception_ptr error;
};

asio::awaitable<void> use(std::optional<stream_type>& s, trial& t) {
    try {
        co_await s->handshake();
        runnel::send_buffer out;
        std::string const text = "text";
        out.append(text);
        co_await s->write(out);
        std::string got;
        while (got.size() < text.size()) {
            char room[100];
            std::size_t const n = co_await s->read_some(asio::buffer(room));
            got.append(room, n);
        }
        co_await s->shutdown();
        CHECK(got == text);
        ++t.finished;
    } catch (...) {
        if (!t.error) t.error = std::current_exception();
        s.reset();  // so that the other end does not wait
    }
    ++t.ended;
}

// Both ends, once. No failure may be anything but an error.
trial try_out(runnel::tls_context const& of_client, runnel::tls_context const& of_server) {
    asio::io_context io;
    trial t;
    std::optional<stream_type> client, server;
    {
        auto [a, b] = runnel::memory_stream<>::pair(io.get_executor());
        try {
            client.emplace(std::move(a), of_client, runnel::tls_role::client, "localhost");
            server.emplace(std::move(b), of_server, runnel::tls_role::server);
        } catch (...) {
            t.error = std::current_exception();
            t.ended = 2;
            return t;
        }
    }
    for (auto* const s : {&client, &server}) asio::co_spawn(io, use(*s, t), asio::detached);
    io.run();
    return t;
}

trial try_out(runnel::tls_context const& context) { return try_out(context, context); }

// Of both ends.
runnel::tls_options with_authorities_in(test::scratch_directory const& files, std::string certificate_pem,
                                        std::string private_key_pem) {
    runnel::tls_options options;
    options.ca_path = files.path().string();
    options.certificate_pem = std::move(certificate_pem);
    options.private_key_pem = std::move(private_key_pem);
    return options;
}

// The file of an authority in a directory.
std::string hashed_name(test::any_certificate const& authority) {
    char name[16];
    std::snprintf(name, sizeof(name), "%08lx.0",
                  X509_NAME_hash_ex(X509_get_subject_name(authority.handle()), nullptr, nullptr, nullptr));
    return name;
}

// A handshake in which the certificate is not accepted.
void refuse(runnel::tls_context const& context) {
    asio::io_context io;
    auto [a, b] = runnel::memory_stream<>::pair(io.get_executor());
    stream_type refusing(std::move(a), context, runnel::tls_role::client, "another.example");
    stream_type refused(std::move(b), context, runnel::tls_role::server);
    test::task<void> at_server(io, refused.handshake());
    CHECK(test::error_of(io, refusing.handshake()) == runnel::transport_errc::host_name_mismatch);
}

// What may be thrown: the layer's errors, and that there is no memory.
bool is_error(std::exception_ptr const& thrown) {
    try {
        std::rethrow_exception(thrown);
    } catch (std::system_error const&) {
        return true;
    } catch (std::bad_alloc const&) {
        return true;
    } catch (...) {
        return false;
    }
}

bool says_no_memory(std::exception_ptr const& thrown) {
    return runnel::exception_code(thrown) == std::errc::not_enough_memory;
}

}  // namespace

TEST_CASE(
    "whichever allocation of OpenSSL's fails, both ends of a stream end, and the next ones of that context go on") {
    REQUIRE(test::watches_openssl);
    runnel::testing::certificate_authority const authority;
    auto const own = authority.issue_server();
    for (auto const version : {runnel::tls_version::v1_2, runnel::tls_version::v1_3}) {
        runnel::tls_options options;
        options.maximum = version;
        options.ca_pem = authority.certificate_pem();
        options.certificate_pem = own.certificate_pem;
        options.private_key_pem = own.private_key_pem;
        options.crl_check = runnel::tls_crl_check::chain;
        options.crl_pem = authority.revocation_list({});
        options.status_check = runnel::ocsp_stapling();
        std::size_t failures = 0, errors = 0, told = 0;
        for (std::size_t n = 1;; n += test::every(25) + n % 7) {
            CAPTURE(n);
            std::optional<runnel::tls_context> context;
            context.emplace(options);
            trial t;
            bool failed = false;
            {
                failing_allocation const failing(n, allocator::library);
                t = try_out(*context);
                failed = failing.has_failed();
            }
            CHECK(t.ended == 2);
            CHECK((t.finished == 2 || (failed && t.error)));
            if (t.error) CHECK(is_error(t.error));
            errors += t.error ? 1 : 0;
            told += t.error && says_no_memory(t.error) ? 1 : 0;
            // What OpenSSL keeps in the context itself, of an authority say, has not suffered.
            if (n % 10 == 0) CHECK(try_out(*context).finished == 2);
            if (!failed) break;
            ++failures;
        }
        MESSAGE(failures << " failed allocations, " << errors << " errors, " << told << " of which say why");
        CHECK(errors > 50 / test::every(10));
        CHECK(told * 3 > errors);  // OpenSSL itself does not tell of all
    }
}

TEST_CASE("whichever allocation of OpenSSL's fails, a context goes on that reads its authorities from a directory") {
    REQUIRE(test::watches_openssl);
    test::any_certificate const authority(test::authority_request("root"));
    test::any_certificate const own({}, authority);
    test::scratch_directory const files;
    files.write(hashed_name(authority), authority.certificate_pem());
    auto const options = with_authorities_in(files, own.certificate_pem(), own.private_key_pem());
    std::size_t errors = 0;
    for (std::size_t n = 1;; n += test::every(25) + n % 7) {
        CAPTURE(n);
        runnel::tls_context const context(options);
        if (n % 2 == 0) refuse(context);
        trial t;
        bool failed = false;
        {
            failing_allocation const failing(n, allocator::library);
            t = try_out(context);
            failed = failing.has_failed();
        }
        errors += t.error ? 1 : 0;
        if (t.error) CHECK(try_out(context).finished == 2);
        if (!failed) break;
    }
    CHECK(errors > 50 / test::every(10));
}

TEST_CASE("a server reads the authorities anew with which it completes its own chain, if that is refused") {
    auto request = test::authority_request("root");
    request.rsa_bits = 2048;
    test::any_certificate const authority(request);
    test::any_certificate const own({}, authority);
    request.rsa_bits = 1024;
    test::any_certificate const weak(request);
    test::scratch_directory const files;
    files.write(hashed_name(authority), weak.certificate_pem());
    auto const options = with_authorities_in(files, own.certificate_pem(), own.private_key_pem());
    runnel::tls_context const server(options);
    runnel::tls_options of_client;
    of_client.ca_pem = authority.certificate_pem();
    runnel::tls_context const client(of_client);
    CHECK(try_out(client, server).finished == 0);

    files.write(hashed_name(authority), authority.certificate_pem());
    CHECK(try_out(client, server).finished == 2);
}

TEST_CASE("what a context makes anew when a certificate is refused, it makes once") {
    REQUIRE(test::watches_openssl);
    runnel::testing::certificate_authority const authority;
    auto const own = authority.issue_server();
    test::scratch_directory const none;
    auto const options = with_authorities_in(none, own.certificate_pem, own.private_key_pem);
    auto with_authority = options;
    for (int i = 0; i < 10; ++i)
        with_authority.ca_pem += runnel::testing::certificate_authority(std::to_string(i)).certificate_pem();
    with_authority.ca_pem += authority.certificate_pem();
    runnel::tls_context const context(with_authority);
    asio::io_context io;
    auto const allocations = [&] {
        auto [a, b] = runnel::memory_stream<>::pair(io.get_executor());
        auto const before = runnel::testing::library_allocation_count();
        stream_type const client(std::move(a), context, runnel::tls_role::client, "localhost");
        return runnel::testing::library_allocation_count() - before;
    };
    allocations();
    auto const at_first = allocations();
    CHECK(try_out(context).finished == 2);

    // What a stranger sends is no certificate.
    auto [a, b] = runnel::memory_stream<>::pair(io.get_executor());
    stream_type client(std::move(a), context, runnel::tls_role::client, "localhost");
    test::task<void> shaking(io, client.handshake());
    test::task<void> answering(io, test::write_text(b, "HTTP/1.1 400 Bad Request\r\n\r\n"));
    CHECK(shaking.run_for_error());
    CHECK(allocations() == at_first);

    for (int i = 0; i < 2; ++i) {
        refuse(context);
        CHECK(allocations() > at_first);
        CHECK(allocations() == at_first);
        CHECK(try_out(context).finished == 2);
    }
}

TEST_CASE("whichever allocation of OpenSSL's fails, a context is made, or an error says that it is not") {
    REQUIRE(test::watches_openssl);
    runnel::testing::certificate_authority const authority;
    auto const own = authority.issue_server();
    runnel::tls_options options;
    options.ca_pem = authority.certificate_pem();
    options.certificate_pem = own.certificate_pem;
    options.private_key_pem = own.private_key_pem;
    options.crl_check = runnel::tls_crl_check::chain;
    options.crl_pem = authority.revocation_list({});
    options.status_check = runnel::ocsp_stapling();
    std::size_t errors = 0;
    for (std::size_t n = 1;; n += test::every(19) + n % 3) {
        CAPTURE(n);
        std::exception_ptr error;
        std::optional<runnel::tls_context> context;
        bool failed = false;
        try {
            failing_allocation const failing(n, allocator::library);
            context.emplace(options);
            failed = failing.has_failed();
        } catch (...) {
            error = std::current_exception();
            failed = true;
        }
        if (error) {
            CHECK(is_error(error));
        } else {  // what OpenSSL has not told may show in a handshake, but in no other way
            auto const t = try_out(*context);
            CHECK(t.ended == 2);
            CHECK((t.finished == 2 || is_error(t.error)));
        }
        errors += error ? 1 : 0;
        if (!failed) break;
    }
    CHECK(errors > 50 / test::every(10));
}
