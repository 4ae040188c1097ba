#include <runnel/mqtt/client/pieces.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/testing/over_websocket.hpp>
#include <runnel/tls.hpp>

#include <doctest/doctest.h>

#include "support/pieces_server.hpp"

namespace {

constexpr std::size_t bound = 2 * 1024 * 1024;
constexpr std::uint64_t size = 24 * 1024 * 1024;

struct authority {
    runnel::testing::certificate_authority issuer;
    runnel::tls_context trusting() const {
        runnel::tls_options o;
        o.ca_pem = issuer.certificate_pem();
        return runnel::tls_context(o);
    }
};

}  // namespace

TEST_CASE("a large message goes and comes over TLS in bounded memory") {
    authority const a;
    auto const peak = test::exchange_pieces(
        runnel::testing::over_tls(a.issuer),
        [&](auto port) { return runnel::mqtts{.host = "localhost", .port = port, .context = a.trusting()}; }, size);
    MESSAGE("heap peak in bytes: ", peak);
    CHECK(peak < bound);
}

TEST_CASE("a large message goes and comes over a WebSocket over TLS in bounded memory") {
    authority const a;
    auto const peak = test::exchange_pieces(
        runnel::testing::over_websocket(runnel::testing::over_tls(a.issuer)),
        [&](auto port) {
            runnel::wss to{.host = "localhost", .port = port};
            to.next.context = a.trusting();
            return to;
        },
        size);
    MESSAGE("heap peak in bytes: ", peak);
    CHECK(peak < bound);
}
