#include <runnel/testing/certificate.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/tls.hpp>

#include "support/session_life.hpp"

TEST_CASE("a session over TLS may go while it runs") {
    using transport = runnel::tls<runnel::tcp>;
    static runnel::testing::certificate_authority const authority;
    static runnel::testing::over_tls const layer(authority);
    runnel::tls_options trusting;
    trusting.ca_pem = authority.certificate_pem();
    runnel::tls_context const context(trusting);
    test::session_life<transport> life([&](runnel::testing::broker& broker) {
        return transport{.host = "localhost", .port = broker.listen(layer), .context = context};
    });
    life.run_all();
}
