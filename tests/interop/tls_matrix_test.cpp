#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/ocsp.hpp>
#include <runnel/transport/tls/tls.hpp>

#include <asio/error.hpp>
#include <doctest/doctest.h>

#include "support/any_certificate.hpp"
#include "support/certificate_status.hpp"
#include "support/process.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"
#include "support/streams.hpp"
#include <algorithm>
#include <chrono>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <thread>
#include <vector>

// Sessions with servers that should not be trusted, and some that should: each an `openssl s_server`. What they are
// told, and whether they try again. docs/transports.md has the table in words.

namespace {

namespace mqtt = runnel::mqtt;
using runnel::tls_options;
using runnel::tls_verify;
using runnel::tls_version;
using runnel::transport_errc;
using test::any_certificate;
using test::certificate_request;
using transport = runnel::tls<runnel::tcp>;
using arguments = std::vector<std::string>;

test::skip_unless const ready([] { return !test::child_process::find("openssl").empty(); },
                              "the openssl program is not installed");

any_certificate const& authority() {
    static any_certificate const made(test::authority_request("authority"));
    return made;
}

// `openssl s_server` with this certificate, and the ones behind it in `chain`. Its standard input is a pipe: what is
// written there it sends, or takes for a command.
class server {
  public:
    server(any_certificate const& own, std::string const& chain, arguments const& more)
        : input_((directory_.path() / "input").string()) {
        directory_.write("log", {});
        auto const files = "CRT=" + directory_.write("crt", own.certificate_pem()) +
                           "; KEY=" + directory_.write("key", own.private_key_pem()) + "; ";
        if (::mkfifo(input_.c_str(), 0666) != 0 || ::chmod(input_.c_str(), 0666) != 0)
            throw std::runtime_error("mkfifo");
        pipe_ = ::open(input_.c_str(), O_RDWR | O_CLOEXEC);
        for (int attempt = 0; attempt < 5; ++attempt) {
            port_ = test::free_port();
            std::string command =
                files + "exec openssl s_server -cert $CRT -key $KEY -accept 127.0.0.1:" + std::to_string(port_);
            if (!chain.empty()) command += " -cert_chain " + directory_.write("chain", chain);
            // So that it takes weak keys, too.
            command += " -cipher DEFAULT@SECLEVEL=0 -CAfile " + directory_.write("ca", authority().certificate_pem());
            for (auto const& argument : more) command += " " + argument;
            process_.emplace(arguments{"sh", "-c", command + " <" + input_}, (directory_.path() / "log").string());
            if (test::wait_until_ready(*process_, {port_})) return;
        }
        throw std::runtime_error("openssl s_server does not start:\n" + directory_.read("log"));
    }
    server(server const&) = delete;
    server& operator=(server const&) = delete;
    ~server() { ::close(pipe_); }

    std::uint16_t port() const noexcept { return port_; }
    std::string log() const { return directory_.read("log"); }
    // Once it has done with those who looked whether it is there.
    void type(std::string_view text) const {
        for (int i = 0; i < 2000 && log().find("ERROR") == std::string::npos; ++i)
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        CHECK(::write(pipe_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    }
    void kill() { process_->kill(); }

    transport reached_as(std::string const& name, tls_options const& options) const {
        transport t;
        t.host = name;
        t.port = port_;
        t.context = runnel::tls_context(options);
        t.next.host = "127.0.0.1";
        return t;
    }

  private:
    test::scratch_directory directory_;
    std::string input_;
    int pipe_ = -1;
    std::uint16_t port_ = 0;
    std::optional<test::child_process> process_;
};

tls_options trusting(std::string ca_pem) {
    tls_options options;
    options.ca_pem = std::move(ca_pem);
    return options;
}

enum class then { opens, retries, gives_up };

struct outcome {
    std::error_code error;
    then what = then::opens;
    std::string text;
};

// What becomes of a session's attempt, or of its connection: `on_event` may do something to it.
outcome meet(transport const& t, std::function<void(mqtt::session_event const&)> on_event = {}) {
    asio::io_context io;
    outcome met;
    test::task<void>* run = nullptr;
    mqtt::session_options options;
    options.credentials.client_id = "matrix";
    options.keep_alive = std::chrono::seconds(0);
    options.on_event = [&](mqtt::session_event const& e) {
        if (on_event) on_event(e);
        if (e.what == mqtt::session_event::kind::disconnected) {
            met.error = e.error;
            met.text = to_string(e);
        }
        if (e.what == mqtt::session_event::kind::waiting) {
            met.what = then::retries;
            run->cancel();
        }
    };
    mqtt::session<transport> s(io.get_executor(), t, options);
    test::task<void> running(io, s.run());
    run = &running;
    auto const ended = running.run_for_error();
    if (met.what == then::retries) return met;
    return {ended, then::gives_up, running.error_text()};
}

// A row of the matrix.
struct row {
    char const* what;
    certificate_request certificate = {};
    std::string host = "localhost";
    std::error_code expected = {};
    then next = then::opens;
    arguments s_server = {};
    std::function<void(tls_options&, any_certificate const&)> client = {};
    std::function<std::string(any_certificate const&)> status = {};  // an OCSP response that it staples
    std::function<void()> then_look = {};                            // before the server ends
};

void check(row const& r, any_certificate const& issuer = authority(), std::string const& chain = {}) {
    CAPTURE(r.what);
    any_certificate const own(r.certificate, issuer);
    test::scratch_directory const files;
    server const peer(own, chain, [&] {
        auto more = r.s_server;
        if (r.status) more.insert(more.end(), {"-status_file", files.write("status", r.status(own))});
        more.insert(more.end(), {"-rev", "-quiet"});
        return more;
    }());
    auto options = trusting(authority().certificate_pem());
    if (r.client) r.client(options, own);
    auto const t = peer.reached_as(r.host, options);
    if (r.next == then::opens) {
        asio::io_context io;
        CHECK_MESSAGE(!test::error_of(io, t.open(io.get_executor())), peer.log());
        if (r.then_look) r.then_look();
        return;
    }
    auto const met = meet(t);
    CHECK_MESSAGE(met.error == r.expected, met.text);
    CHECK((met.what == r.next));
}

certificate_request named(std::string alternative_names) { return {.alternative_names = std::move(alternative_names)}; }

constexpr long hour = 3600;
constexpr std::string_view connack("\x20\x02\0\0", 4);

}  // namespace

TEST_CASE("s_server: dates of certificates, of which a wrong clock may be the reason") {
    check({"the server's certificate is good"});
    check({.what = "it has expired",
           .certificate = {.valid_from = -2 * hour, .valid_to = -hour},
           .expected = transport_errc::certificate_expired,
           .next = then::retries});
    check({.what = "it is not yet valid",
           .certificate = {.valid_from = hour, .valid_to = 2 * hour},
           .expected = transport_errc::certificate_not_yet_valid,
           .next = then::retries});
    auto old = test::authority_request("old");
    old.valid_from = -2 * hour;
    old.valid_to = -hour;
    any_certificate const expired(old, authority());
    check({.what = "that of the authority between has expired",
           .expected = transport_errc::certificate_expired,
           .next = then::retries},
          expired, expired.certificate_pem());
}

TEST_CASE("s_server: names and addresses of hosts, and what a wildcard stands for") {
    auto const mismatch = [](char const* names, char const* host) {
        check({.what = names,
               .certificate = named(names),
               .host = host,
               .expected = transport_errc::host_name_mismatch,
               .next = then::gives_up});
    };
    auto const match = [](char const* names, char const* host) {
        check({.what = names, .certificate = named(names), .host = host});
    };
    mismatch("DNS:other.example", "mqtt.example.org");
    mismatch("DNS:mqtt.example.org", "example.org");
    mismatch("DNS:example.org", "mqtt.example.org");
    mismatch("DNS:mqtt.example.org.evil.example", "mqtt.example.org");
    match("DNS:mqtt.example.org", "MQTT.example.org");
    match("DNS:mqtt.example.org", "mqtt.example.org.");
    match("DNS:a.example,DNS:b.example", "b.example");
    // RFC 9525 6.3: one whole label, the first one.
    match("DNS:*.example.org", "mqtt.example.org");
    match("DNS:*.example.org", "xn--mnchen-3ya.example.org");
    mismatch("DNS:*.example.org", "example.org");
    mismatch("DNS:*.example.org", "a.mqtt.example.org");
    mismatch("DNS:m*.example.org", "mqtt.example.org");
    mismatch("DNS:*t.example.org", "mqtt.example.org");
    mismatch("DNS:mqtt.*.org", "mqtt.example.org");
    mismatch("DNS:*.org", "example.org");
    mismatch("DNS:*", "localhost");
    mismatch("DNS:*.0.0.1", "127.0.0.1");
    // An address is one in the certificate as well, not a name that looks like it.
    match("IP:127.0.0.1", "127.0.0.1");
    match("IP:0:0:0:0:0:0:0:1", "::1");
    mismatch("IP:127.0.0.2", "127.0.0.1");
    mismatch("DNS:127.0.0.1", "127.0.0.1");
    mismatch("DNS:localhost", "127.0.0.1");
    mismatch("IP:127.0.0.1", "localhost");
    mismatch("IP:0:0:0:0:0:ffff:127.0.0.1", "127.0.0.1");
    mismatch("URI:mqtts://localhost,email:a@localhost", "localhost");
    check({.what = "no subjectAltName, the common name fits",
           .certificate = named(""),
           .expected = transport_errc::certificate_without_names,
           .next = then::gives_up});
    auto const by_common_name = [](tls_options& o, auto const&) { o.accept_common_name = true; };
    check({.what = "the same, and accepted", .certificate = named(""), .client = by_common_name});
    check({.what = "subjectAltName goes before the common name",
           .certificate = named("DNS:other.example"),
           .expected = transport_errc::host_name_mismatch,
           .next = then::gives_up,
           .client = by_common_name});
}

TEST_CASE("s_server: authorities") {
    certificate_request const plain;
    auto const itself = [](tls_options& o, any_certificate const& own) { o.ca_pem = own.certificate_pem(); };
    {
        any_certificate const alone(plain);
        server const peer(alone, {}, {"-rev", "-quiet"});
        auto const met = meet(peer.reached_as("localhost", trusting(authority().certificate_pem())));
        CHECK(met.error == transport_errc::certificate_self_signed);
        CHECK((met.what == then::gives_up));
        asio::io_context io;
        auto const known = peer.reached_as("localhost", trusting(alone.certificate_pem()));
        CHECK_FALSE(test::error_of(io, known.open(io.get_executor())));
    }
    auto const refused = [](char const* what, any_certificate const& issuer, std::string const& chain,
                            transport_errc expected, std::string host = "localhost") {
        check({.what = what, .host = std::move(host), .expected = expected, .next = then::gives_up}, issuer, chain);
    };
    any_certificate const other(test::authority_request("other"));
    any_certificate const twin(test::authority_request("authority"));
    any_certificate const between(test::authority_request("between"), authority());
    auto const untrusted = transport_errc::certificate_untrusted;
    refused("an unknown authority", other, {}, untrusted);
    refused("an unknown authority that is sent along", other, other.certificate_pem(), untrusted);
    refused("another authority of the same name", twin, {}, untrusted);
    refused("the certificate between is missing", between, {}, untrusted);
    check({"the certificate between is sent along"}, between, between.certificate_pem());
    check({.what = "trust in the certificate itself, not in its authority",
           .expected = untrusted,
           .next = then::gives_up,
           .client = itself});

    auto const invalid = transport_errc::certificate_invalid;
    any_certificate const no_authority({.name = "no authority"}, authority());
    refused("issued by a server's certificate", no_authority, no_authority.certificate_pem(), invalid);
    auto last = test::authority_request("last");
    last.constraints = "CA:TRUE,pathlen:0";
    any_certificate const short_path(last, authority());
    any_certificate const too_far(test::authority_request("too far"), short_path);
    refused("an authority below one that may have none below", too_far,
            too_far.certificate_pem() + short_path.certificate_pem(), invalid);
    auto narrow = test::authority_request("narrow");
    narrow.name_constraints = "permitted;DNS:example.org";
    any_certificate const limited(narrow, authority());
    refused("an authority for other names", limited, limited.certificate_pem(), invalid);
}

TEST_CASE("s_server: purposes, keys and signatures") {
    auto const refused = [](char const* what, certificate_request const& r) {
        check(
            {.what = what, .certificate = r, .expected = transport_errc::certificate_invalid, .next = then::gives_up});
    };
    refused("for clients only", {.usage = "clientAuth"});
    refused("for signing programs", {.usage = "codeSigning"});
    check({.what = "for both", .certificate = {.usage = "serverAuth,clientAuth"}});
    check({.what = "for anything", .certificate = {.usage = {}}});
    refused("an RSA key of 1024 bits", {.rsa_bits = 1024});
    check({.what = "an RSA key of 2048 bits", .certificate = {.rsa_bits = 2048}});
    refused("signed with SHA-1", {.digest = EVP_sha1});
    auto rsa = test::authority_request("RSA");
    rsa.rsa_bits = 2048;
    any_certificate const old(rsa, authority());
    check({.what = "signed with MD5",
           .certificate = {.digest = EVP_md5},
           .expected = transport_errc::certificate_invalid,
           .next = then::gives_up},
          old, old.certificate_pem());
    check({"signed with SHA-256 and RSA"}, old, old.certificate_pem());
    auto weak = test::authority_request("weak");
    weak.rsa_bits = 1024;
    any_certificate const small(weak, authority());
    check({.what = "the authority between has an RSA key of 1024 bits",
           .expected = transport_errc::certificate_invalid,
           .next = then::gives_up},
          small, small.certificate_pem());
}

TEST_CASE("s_server: pins") {
    any_certificate const other({});
    auto const pin = [&](tls_verify verify, bool right) {
        return [&other, verify, right](tls_options& o, any_certificate const& own) {
            o.verify = verify;
            o.pins = {runnel::tls_pin(right ? own.certificate_pem() : other.certificate_pem())};
        };
    };
    certificate_request const bad{.name = "bad", .alternative_names = "DNS:other.example", .valid_to = -hour};
    for (auto const verify : {tls_verify::full, tls_verify::pinned_key}) {
        check({.what = "the right one", .client = pin(verify, true)});
        check({.what = "another one",
               .expected = transport_errc::key_not_pinned,
               .next = then::gives_up,
               .client = pin(verify, false)});
    }
    check({.what = "the right one does not make up for the rest",
           .certificate = bad,
           .expected = transport_errc::host_name_mismatch,
           .next = then::gives_up,
           .client = pin(tls_verify::full, true)});
    check({.what = "the right one is all", .certificate = bad, .client = pin(tls_verify::pinned_key, true)});
}

TEST_CASE("s_server: certificates that have been revoked, by a list of the authority") {
    using runnel::tls_crl_check;
    any_certificate const other({}, authority());
    auto const lists = [&](std::function<std::string(any_certificate const&)> list) {
        return [list](tls_options& o, any_certificate const& own) {
            o.crl_check = tls_crl_check::chain;
            o.crl_pem = list(own);
        };
    };
    auto const row_of = [&](char const* what, transport_errc expected, then next, auto list) {
        check({.what = what, .expected = expected, .next = next, .client = lists(list)});
    };
    check({.what = "another one has been revoked",
           .client = lists([&](auto const&) { return authority().revocation_list({&other}); })});
    row_of("this one has been revoked", transport_errc::certificate_revoked, then::gives_up,
           [](auto const& own) { return authority().revocation_list({&own}); });
    row_of("the list has expired", transport_errc::revocation_list_expired, then::retries,
           [](auto const&) { return authority().revocation_list({}, -2 * hour, -hour); });
    row_of("there is no list of this authority", transport_errc::revocation_list_missing, then::gives_up,
           [](auto const&) { return any_certificate(test::authority_request("other")).revocation_list({}); });
}

TEST_CASE("s_server: the status that is stapled to a certificate") {
    auto const checked = [](runnel::ocsp_demand demand) {
        return [demand](tls_options& o, auto const&) { o.status_check = runnel::ocsp_stapling({.demand = demand}); };
    };
    auto const always = checked(runnel::ocsp_demand::always);
    auto const if_stapled = checked(runnel::ocsp_demand::if_stapled);
    using test::certificate_status;
    using test::status_request;
    auto const status = [](auto change) {
        return [change](any_certificate const& own) {
            status_request r{.certificate = own, .authority = authority(), .signer = authority()};
            change(r);
            return certificate_status(r);
        };
    };
    auto const good = status([](auto&) {});
    check({.what = "good", .client = always, .status = good});
    check({.what = "good, and nobody asks", .status = good});
    check({.what = "none, where one is not demanded", .client = if_stapled});
    auto const refused = [&](char const* what, transport_errc expected, then next, auto of) {
        check({.what = what, .expected = expected, .next = next, .client = if_stapled, .status = of});
    };
    check({.what = "none, where one is demanded",
           .expected = transport_errc::certificate_status_missing,
           .next = then::retries,
           .client = always});
    refused("revoked", transport_errc::certificate_revoked, then::gives_up,
            status([](auto& r) { r.status = V_OCSP_CERTSTATUS_REVOKED; }));
    refused("it has expired", transport_errc::certificate_status_expired, then::retries, status([](auto& r) {
                r.since = -2 * hour;
                r.until = -hour;
            }));
    refused("by another authority", transport_errc::certificate_status_invalid, then::gives_up,
            [](any_certificate const& own) {
                any_certificate const other(test::authority_request("authority"));
                return certificate_status({.certificate = own, .authority = authority(), .signer = other});
            });
}

TEST_CASE("s_server: an authority between is trusted for itself, if that is asked for") {
    any_certificate const between(test::authority_request("between"), authority());
    auto const anchored = [&](bool partial) {
        return [&between, partial](tls_options& o, auto const&) {
            o.ca_pem = between.certificate_pem();
            o.partial_chain = partial;
        };
    };
    check({.what = "asked for", .client = anchored(true)}, between);
    check({.what = "asked for, and sent along", .client = anchored(true)}, between, between.certificate_pem());
    check({.what = "not asked for",
           .expected = transport_errc::certificate_untrusted,
           .next = then::gives_up,
           .client = anchored(false)},
          between);
    check({.what = "a server of the root",
           .expected = transport_errc::certificate_untrusted,
           .next = then::gives_up,
           .client = anchored(true)});
}

TEST_CASE("s_server: the key log has what OpenSSL's own has for the same connection") {
    auto const sorted_lines = [](std::string const& text) {
        std::istringstream in(text);
        std::vector<std::string> lines;
        for (std::string line; std::getline(in, line);)
            if (!line.starts_with('#')) lines.push_back(line);
        std::sort(lines.begin(), lines.end());
        return lines;
    };
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        test::scratch_directory const files;
        check({.what = "with a key log",
               .s_server = {"-keylogfile", (files.path() / "theirs").string()},
               .client =
                   [&](tls_options& o, auto const&) {
                       o.maximum = version;
                       o.key_log_file = (files.path() / "mine").string();
                   },
               .then_look =
                   [&] {
                       auto const mine = sorted_lines(files.read("mine"));
                       CHECK(mine.size() == (version == tls_version::v1_2 ? 1 : 5));
                       // The server writes the last line when it has read the client's last message.
                       auto theirs = sorted_lines(files.read("theirs"));
                       for (int i = 0; i < 500 && theirs != mine; ++i) {
                           std::this_thread::sleep_for(std::chrono::milliseconds(10));
                           theirs = sorted_lines(files.read("theirs"));
                       }
                       CHECK(mine == theirs);
                   }});
    }
}

TEST_CASE("s_server: a session's next attempt uses the settings that its context was given meanwhile") {
    any_certificate const own({}, authority());
    any_certificate const other(test::authority_request("other"));
    server const peer(own, {}, {});
    auto t = peer.reached_as("localhost", trusting(authority().certificate_pem()));
    t.next.host = "127.0.0.1";
    peer.type(connack);
    asio::io_context io;
    mqtt::session_options options;
    options.credentials.client_id = "matrix";
    options.keep_alive = std::chrono::seconds(0);
    options.reconnect.initial = std::chrono::milliseconds(10);
    int connected = 0;
    options.on_event = [&](mqtt::session_event const& e) {
        if (e.what != mqtt::session_event::kind::connected) return;
        ++connected;
        t.context.replace(trusting(other.certificate_pem()));
        peer.type("q\n");
    };
    mqtt::session<transport> s(io.get_executor(), t, options);
    CHECK(test::error_of(io, s.run()) == transport_errc::certificate_untrusted);
    CHECK(connected == 1);
}

TEST_CASE("s_server: versions, suites, protocols and names that are not common") {
    auto const refused = [](char const* what, arguments how, transport_errc expected,
                            std::function<void(tls_options&, any_certificate const&)> client = {}) {
        check({.what = what,
               .expected = expected,
               .next = then::gives_up,
               .s_server = std::move(how),
               .client = std::move(client)});
    };
    refused("TLS 1.0 only", {"-tls1"}, transport_errc::no_common_protocol_version);
    refused("TLS 1.1 only", {"-tls1_1"}, transport_errc::no_common_protocol_version);
    check({.what = "TLS 1.2 only", .s_server = {"-tls1_2"}});
    check({.what = "TLS 1.3 only", .s_server = {"-tls1_3"}});
    refused("no common suite", {"-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"},
            transport_errc::handshake_refused,
            [](tls_options& o, auto const&) { o.ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384"; });
    refused("a suite without encryption", {"-tls1_2", "-cipher", "eNULL@SECLEVEL=0"},
            transport_errc::handshake_refused);
    refused("a suite without a certificate", {"-tls1_2", "-cipher", "aNULL@SECLEVEL=0"},
            transport_errc::handshake_refused);
    refused("no common application protocol", {"-alpn", "http/1.1"}, transport_errc::no_common_application_protocol,
            [](tls_options& o, auto const&) { o.alpn = {"mqtt"}; });
    refused("a name that the server does not serve",
            {"-servername", "other.example", "-servername_fatal", "-cert2", "$CRT", "-key2", "$KEY"},
            transport_errc::server_name_unknown);
}

TEST_CASE("s_server: certificates of ours that are refused, and one that is missing") {
    any_certificate const other(test::authority_request("other"));
    certificate_request client{.name = "client", .alternative_names = {}, .usage = "clientAuth"};
    auto const show = [](any_certificate const& c, tls_version version) {
        return [&c, version](tls_options& o, auto const&) {
            o.certificate_pem = c.certificate_pem();
            o.private_key_pem = c.private_key_pem();
            o.maximum = version;
        };
    };
    arguments const asks{"-Verify", "3", "-verify_return_error"};
    any_certificate const good(client, authority());
    any_certificate const stranger(client, other);
    any_certificate const server_only({}, authority());
    client.valid_to = -1;
    any_certificate const expired(client, authority());
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        check({.what = "a good one", .s_server = asks, .client = show(good, version)});
        for (auto const* const c : {&stranger, &server_only, &expired})
            check({.what = "one that is refused",
                   .expected = transport_errc::own_certificate_refused,
                   .next = then::gives_up,
                   .s_server = asks,
                   .client = show(*c, version)});
        // TLS 1.2 has no alert of its own for this.
        check({.what = "none",
               .expected = version == tls_version::v1_3 ? transport_errc::own_certificate_required
                                                        : transport_errc::handshake_refused,
               .next = then::gives_up,
               .s_server = asks,
               .client = [version](tls_options& o, auto const&) { o.maximum = version; }});
    }
}

TEST_CASE("s_server: an end without close_notify is a truncation, after which the session tries again") {
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        any_certificate const own({}, authority());
        server peer(own, {}, {});
        auto options = trusting(authority().certificate_pem());
        options.maximum = version;
        peer.type(connack);
        auto const met = meet(peer.reached_as("localhost", options), [&](mqtt::session_event const& e) {
            if (e.what == mqtt::session_event::kind::connected) peer.kill();
        });
        // Its kernel resets the connection if it has not read all when it is killed.
        CHECK_MESSAGE((met.error == transport_errc::stream_truncated || met.error == asio::error::connection_reset),
                      met.text);
        CHECK((met.what == then::retries));
    }
}

TEST_CASE("s_server: renegotiation is refused, and the session tries again") {
    any_certificate const own({}, authority());
    server const peer(own, {}, {"-tls1_2"});
    peer.type(connack);
    bool connected = false;
    auto const options = trusting(authority().certificate_pem());
    auto const met = meet(peer.reached_as("localhost", options), [&](mqtt::session_event const& e) {
        if (e.what != mqtt::session_event::kind::connected) return;
        connected = true;
        peer.type("r\n");
    });
    CHECK(connected);
    CHECK_MESSAGE(met.error == transport_errc::tls_protocol_error, met.text);
    CHECK((met.what == then::retries));
    CHECK(peer.log().find("no renegotiation") != std::string::npos);
}

TEST_CASE("s_server: what is trusted now decides, not what was when a session of TLS began") {
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        any_certificate const own({}, authority());
        any_certificate const other(test::authority_request("other"));
        asio::io_context io;
        server const peer(own, {}, {"-rev", "-quiet"});
        auto options = trusting(authority().certificate_pem());
        options.maximum = version;
        auto t = peer.reached_as("localhost", options);
        auto const resumed = [&] {
            auto const once = [&]() -> asio::awaitable<bool> {
                auto opening = t.open(io.get_executor());
                auto stream = co_await std::move(opening);
                auto writing = test::write_text(stream, "abc\n");
                co_await std::move(writing);
                auto reading = test::read_exactly(stream, 3);  // behind the tickets
                auto const answer = co_await std::move(reading);
                co_await stream.shutdown();
                co_return stream.resumed();
            };
            return test::run(io, once());
        };
        CHECK_FALSE(resumed());
        CHECK(resumed());
        auto changed = options;
        changed.ca_pem = other.certificate_pem();
        CHECK(meet(peer.reached_as("localhost", changed)).error == transport_errc::certificate_untrusted);
        changed = options;
        changed.pins = {runnel::tls_pin(other.certificate_pem())};
        CHECK(meet(peer.reached_as("localhost", changed)).error == transport_errc::key_not_pinned);
        // Another name is another server: nothing is resumed there.
        auto under_another_name = t;
        under_another_name.host = "other.example";
        CHECK(meet(under_another_name).error == transport_errc::host_name_mismatch);
        // A server that cannot take up the session shows its certificate again.
        any_certificate const stranger({}, other);
        server const successor(stranger, {}, {"-rev", "-quiet"});
        t.port = successor.port();
        CHECK(meet(t).error == transport_errc::certificate_untrusted);
    }
}
