#include <runnel/transport/failover.hpp>
#include <runnel/transport/memory.hpp>
#include <runnel/transport/tcp.hpp>

#include <doctest/doctest.h>

#include "support/run.hpp"
#include "support/streams.hpp"
#include <map>
#include <string>
#include <vector>

namespace {

using runnel::failover;
using runnel::failover_order;
using runnel::transport_errc;
using memory = runnel::memory_stream<>;
using several = failover<runnel::memory_transport>;

static_assert(runnel::reporting_transport<failover<runnel::tcp>>);
static_assert(runnel::reporting_transport<failover<runnel::basic_tcp<asio::io_context::executor_type>>>);
static_assert(!runnel::reporting_transport<runnel::tcp>);
static_assert(!runnel::network_transport<failover<runnel::tcp>>);

// Three endpoints, a, b and c, which accept connections or fail as told.
struct endpoints {
    runnel::memory_transport endpoint(std::string name) {
        runnel::memory_transport made([this, name](memory end) {
            tried += name;
            if (failing.contains(name)) throw std::system_error(failing[name], name);
            ends.push_back(std::move(end));
        });
        made.host = name;
        return made;
    }

    several all(failover_order order = failover_order::stay) {
        return several({endpoint("a"), endpoint("b"), endpoint("c")}, order);
    }

    // Opens; returns the names of the endpoints that were tried for it.
    std::string open(several& transport) {
        tried.clear();
        error = test::error_of(io, transport.open(io.get_executor()));
        return tried;
    }

    asio::io_context io;
    std::map<std::string, std::error_code> failing;
    std::string tried;
    std::error_code error;
    std::vector<memory> ends;
};

std::error_code const refused = asio::error::connection_refused;

}  // namespace

TEST_CASE("failover opens the first endpoint, and the next ones at once when it fails") {
    endpoints e;
    auto transport = e.all();
    CHECK(transport.url() == "memory://a:0");
    CHECK(e.open(transport) == "a");
    CHECK_FALSE(e.error);
    e.failing["a"] = refused;
    CHECK(e.open(transport) == "ab");
    CHECK_FALSE(e.error);
    CHECK(transport.url() == "memory://b:0");
    CHECK(transport.current_index() == 1);
    e.failing["b"] = refused;
    CHECK(e.open(transport) == "bc");
    e.failing.clear();
    CHECK(e.open(transport) == "c");
    e.failing["c"] = refused;
    CHECK(e.open(transport) == "ca");
}

TEST_CASE("failover goes back to the first endpoint where that is preferred") {
    endpoints e;
    auto transport = e.all(failover_order::prefer_first);
    e.failing["a"] = refused;
    CHECK(e.open(transport) == "ab");
    CHECK(e.open(transport) == "ab");
    transport.report(true);
    e.failing.clear();
    CHECK(e.open(transport) == "a");
}

TEST_CASE("an endpoint that is reported to have failed is left for the one behind it") {
    for (auto const order : {failover_order::stay, failover_order::prefer_first}) {
        endpoints e;
        auto transport = e.all(order);
        CHECK(e.open(transport) == "a");
        transport.report(false);
        CHECK(e.open(transport) == "b");
        transport.report(false);
        CHECK(e.open(transport) == "c");
        transport.report(false);
        CHECK(e.open(transport) == "a");
        transport.report(false);
        transport.report(true);  // the last one counts
        CHECK(e.open(transport) == "a");
        transport.report(true);
        transport.report(false);  // well at first, but lost soon
        CHECK(e.open(transport) == "b");
        transport.report(true);
        CHECK(e.open(transport) == (order == failover_order::stay ? "b" : "a"));
    }
}

TEST_CASE("when all endpoints fail, the error has what each has thrown") {
    endpoints e;
    e.failing = {{"a", refused}, {"b", asio::error::timed_out}, {"c", asio::error::host_unreachable}};
    auto transport = e.all();
    test::task opening(e.io, transport.open(e.io.get_executor()));
    CHECK(opening.run_for_error() == asio::error::host_unreachable);
    auto const text = opening.error_text();
    CHECK(text.starts_with("none of 3 endpoints opened (a: Connection refused; b: Connection timed out; c: "));
    CHECK(e.tried == "abc");
    CHECK(e.open(transport) == "abc");
}

TEST_CASE("an endpoint that may come back hides one that will not") {
    endpoints e;
    e.failing = {
        {"a", transport_errc::certificate_self_signed}, {"b", refused}, {"c", transport_errc::host_name_mismatch}};
    auto transport = e.all();
    e.open(transport);
    CHECK(e.error == refused);
    e.failing["b"] = transport_errc::certificate_untrusted;
    e.open(transport);
    CHECK(e.error == transport_errc::host_name_mismatch);
}

TEST_CASE("a single endpoint's error is thrown as it is") {
    asio::io_context io;
    failover<runnel::tcp> const transport({runnel::tcp{.host = "127.0.0.1", .port = 1}});
    CHECK_THROWS_AS(test::run(io, transport.open(io.get_executor())), runnel::connect_failed);
    CHECK_THROWS_AS(several(std::vector<runnel::memory_transport>{}), std::invalid_argument);
}

TEST_CASE("opening several endpoints can be cancelled after any number of steps, and ends once") {
    bool completed = false;
    for (int steps = 0; !completed && steps < 100; ++steps) {
        CAPTURE(steps);
        asio::io_context io;
        asio::ip::tcp::acceptor acceptor(io, {asio::ip::make_address("127.0.0.1"), 0});
        failover<runnel::tcp> const transport(
            {runnel::tcp{.host = "127.0.0.1", .port = 1},
             runnel::tcp{.host = "127.0.0.1", .port = acceptor.local_endpoint().port()}});
        test::task opening(io, transport.open(io.get_executor()));
        for (int i = 0; i < steps; ++i) io.poll_one();
        completed = opening.done();
        opening.cancel();
        auto const error = opening.run_for_error();
        CHECK((!error || error == asio::error::operation_aborted));
        if (steps < 2) CHECK(error == asio::error::operation_aborted);
        CHECK(opening.ended() == 1);
    }
    CHECK(completed);
}

TEST_CASE("copies of a failover go through the list each for itself, and stay equal") {
    endpoints e;
    auto one = e.all();
    auto other = one;
    e.open(one);
    one.report(false);
    CHECK(e.open(one) == "b");
    CHECK(e.open(other) == "a");
    CHECK(one == other);
    CHECK_FALSE(one == several(one.endpoints(), failover_order::prefer_first));
    CHECK_FALSE(one == several({e.endpoint("a")}));
}

TEST_CASE("errors that only new settings mend are told from those that pass") {
    using runnel::is_lasting_error;
    using runnel::proxy_errc;
    for (std::error_code const e :
         {make_error_code(transport_errc::certificate_revoked), make_error_code(transport_errc::pre_shared_key_refused),
          make_error_code(transport_errc::key_not_pinned), make_error_code(proxy_errc::credentials_refused)})
        CHECK(is_lasting_error(e));
    for (std::error_code const e :
         {refused, std::error_code(), make_error_code(transport_errc::not_tls), make_error_code(transport_errc::ok),
          make_error_code(transport_errc::certificate_expired),
          make_error_code(transport_errc::certificate_not_yet_valid), make_error_code(transport_errc::stream_broken),
          make_error_code(proxy_errc::refused), make_error_code(proxy_errc::host_unreachable)})
        CHECK_FALSE(is_lasting_error(e));
}
