#include <runnel/mqtt/protocol/scram_client.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <new>
#include <ostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace {

using namespace runnel;
using namespace mqtt;
using namespace std::string_view_literals;

scram_credentials const user{.user_name = "user", .password = "pencil"};

// The exchange of RFC 7677's example.
using client_256 = scram_client<scram_sha_256>;
constexpr auto client_nonce = "rOprNGfwEbeRWgbNEkqO"sv;
constexpr auto server_first =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"sv;
constexpr auto client_final =
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="sv;
constexpr auto server_final = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="sv;

template <class M>
void derive(scram_client<M>& c) {
    while (!c.derive(1000)) CHECK(c.needs_keys());
    CHECK_FALSE(c.needs_keys());
}

client_256 answered() {
    client_256 c(user);
    c.begin(client_nonce);
    CHECK(c.challenge(server_first) == scram_errc::ok);
    derive(c);
    CHECK(c.answer() == client_final);
    return c;
}

scram_errc challenge_of(std::string_view message, scram_limits limits = {}) {
    client_256 c(user, limits);
    c.begin("abc");
    auto const e = c.challenge(message);
    CHECK(c.at() == (e == scram_errc::ok ? client_256::stage::challenged : client_256::stage::idle));
    return e;
}

scram_errc verification_of(std::string_view message) {
    auto c = answered();
    auto const e = c.verify(message);
    CHECK(c.at() == (e == scram_errc::ok ? client_256::stage::verified : client_256::stage::idle));
    return e;
}

template <class M = scram_sha_256>
std::error_code refused(scram_credentials const& who) try {
    scram_client<M> const c(who);
    return {};
} catch (std::system_error const& e) {
    return e.code();
}

}  // namespace

TEST_CASE("a client exchanges the messages of RFC 5802's example") {
    scram_client<scram_sha_1> c(user);
    CHECK(c.begin("fyko+d2lbbFgONRv9qkxdawL") == "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
    CHECK(c.challenge("r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096") == scram_errc::ok);
    derive(c);
    CHECK(c.answer() == "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=");
    CHECK(c.verify("v=rmF9pqV8S7suAoZWja4dJRkFsKQ=") == scram_errc::ok);
}

TEST_CASE("a client exchanges the messages of RFC 7677's example") {
    client_256 c(user);
    using enum client_256::stage;
    CHECK(c.at() == idle);
    CHECK(c.begin(client_nonce) == "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    CHECK(c.at() == begun);
    CHECK(c.challenge(server_first) == scram_errc::ok);
    CHECK(c.at() == challenged);
    CHECK(c.needs_keys());
    derive(c);
    CHECK(c.answer() == client_final);
    CHECK(c.at() == answered);
    CHECK(c.verify(server_final) == scram_errc::ok);
    CHECK(c.at() == verified);
}

TEST_CASE("a client exchanges messages of SCRAM-SHA-512") {
    scram_client<scram_sha_512> c(user);
    c.begin(client_nonce);
    CHECK(c.challenge(server_first) == scram_errc::ok);
    derive(c);
    CHECK(c.answer() ==
          "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p="
          "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==");
    CHECK(c.verify("v=ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==") ==
          scram_errc::ok);
}

TEST_CASE("a user name's commas and equals signs are escaped") {
    scram_client<scram_sha_1> c({.user_name = "a=b,c", .password = "p"});
    CHECK(c.begin("x") == "n,,n=a=3Db=2Cc,r=x");
}

TEST_CASE("credentials that cannot be used are refused at once") {
    scram_keys const keys{
        .salt = "salt", .iterations = 4096, .client_key = std::string(32, 'k'), .server_key = std::string(32, 's')};
    CHECK(refused({.user_name = "", .password = "p"}) == scram_errc::user_name_missing);
    CHECK(refused({.user_name = "u"}) == scram_errc::password_missing);
    CHECK(refused({.user_name = "grün", .password = "p"}) == scram_errc::text_not_prepared);
    CHECK(refused({.user_name = "u", .password = "grün"}) == scram_errc::text_not_prepared);
    CHECK(refused({.user_name = "u", .password = "\n", .is_prepared = true}) == scram_errc::text_not_prepared);
    CHECK_FALSE(refused({.user_name = "grün", .password = "grün", .is_prepared = true}));
    CHECK_FALSE(refused({.user_name = "u", .keys = keys}));
    CHECK(refused<scram_sha_1>({.user_name = "u", .password = "p", .keys = keys}) == scram_errc::keys_invalid);
    auto half = keys;
    half.server_key.pop_back();
    CHECK(refused({.user_name = "u", .keys = half}) == scram_errc::keys_invalid);
}

TEST_CASE("limits of iterations that allow fewer than 4096, or none, are refused") {
    CHECK_THROWS_AS(client_256(user, {.least = 4095}), std::out_of_range);
    CHECK_THROWS_AS(client_256(user, {.least = 5000, .most = 4999}), std::out_of_range);
    CHECK_NOTHROW(client_256(user, {.least = 5000, .most = 5000}));
}

TEST_CASE("a server's first message is taken if it is one, with extensions that are optional") {
    CHECK(challenge_of("r=abcd,s=c2FsdA==,i=4096") == scram_errc::ok);
    CHECK(challenge_of("r=abcd,s=c2FsdA==,i=4096,x=y,Z=z=z") == scram_errc::ok);
    CHECK(challenge_of("r=abcd,s=c2FsdA==,i=2000000") == scram_errc::ok);
}

TEST_CASE("a server's first message that is none is refused") {
    for (auto const& wrong : {""sv,
                              ","sv,
                              "r"sv,
                              "r="sv,
                              "abcd"sv,
                              "s=c2FsdA==,r=abcd,i=4096"sv,
                              "r=abcd,i=4096,s=c2FsdA=="sv,
                              "r=abcd,s=c2FsdA=="sv,
                              "r=abcd,s=c2FsdA==,i="sv,
                              "r=abcd,s=,i=4096"sv,
                              "r=abcd,s=c2FsdA,i=4096"sv,
                              "r=abcd,s=c2F dA==,i=4096"sv,
                              "r=abcd,s=c2FsdA==,i=0"sv,
                              "r=abcd,s=c2FsdA==,i=04096"sv,
                              "r=abcd,s=c2FsdA==,i=-4096"sv,
                              "r=abcd,s=c2FsdA==,i=4096.0"sv,
                              "r=abcd,s=c2FsdA==,i=4096,"sv,
                              "r=abcd,s=c2FsdA==,i=4096,x"sv,
                              "r=abcd,s=c2FsdA==,i=4096,x="sv,
                              "r=abcd,s=c2FsdA==,i=4096,xx=1"sv,
                              "r=abcd,s=c2FsdA==,i=4096,1=1"sv,
                              "r=abcd,s=c2FsdA==,i=4096,i=5000"sv,
                              "r=abcd,s=c2FsdA==,i=4096,m=x"sv,
                              "r=abcd,r=abce,s=c2FsdA==,i=4096"sv,
                              "r=abcd,s=c2FsdA==,i=4096,x=\0"sv,
                              "r=abcd,s=c2FsdA==,i=4096,x=\xff"sv,
                              "v=c2FsdA=="sv}) {
        CAPTURE(wrong);
        CHECK(challenge_of(wrong) == scram_errc::message_malformed);
    }
    CHECK(challenge_of("m=x,r=abcd,s=c2FsdA==,i=4096") == scram_errc::extension_required);
}

TEST_CASE("a server's nonce that does not begin with the client's, or adds nothing, is refused") {
    for (auto const& wrong : {"abc"sv, "ab"sv, "bcd"sv, "Abcd"sv, "xabcd"sv, "abc d"sv, "abc\x7f"sv, "abcü"sv}) {
        CAPTURE(wrong);
        CHECK(challenge_of("r=" + std::string(wrong) + ",s=c2FsdA==,i=4096") == scram_errc::nonce_wrong);
    }
}

TEST_CASE("iterations beyond the limits are refused before one is done") {
    auto const asking = [](std::string const& i) { return "r=abcd,s=c2FsdA==,i=" + i; };
    CHECK(challenge_of(asking("4095")) == scram_errc::too_few_iterations);
    CHECK(challenge_of(asking("1")) == scram_errc::too_few_iterations);
    CHECK(challenge_of(asking("2000001")) == scram_errc::too_many_iterations);
    for (auto const& large : {"4294967296", "18446744073709551617", "99999999999999999999999999999999"})
        CHECK(challenge_of(asking(large)) == scram_errc::too_many_iterations);
    CHECK(challenge_of(asking("4294967295"), {.most = 0xFFFF'FFFF}) == scram_errc::ok);
    CHECK(challenge_of(asking("9999"), {.least = 10'000}) == scram_errc::too_few_iterations);
}

TEST_CASE("a server's refusal is told in its words, in either of its messages") {
    client_256 c(user);
    c.begin("abc");
    CHECK(c.challenge("e=unknown-user") == scram_errc::refused);
    CHECK(c.refusal() == "unknown-user");
    CHECK(c.at() == client_256::stage::idle);
    c.begin("abc");
    CHECK(c.refusal().empty());
    auto d = answered();
    CHECK(d.verify("e=invalid-proof,x=y") == scram_errc::refused);
    CHECK(d.refusal() == "invalid-proof");
    CHECK(d.at() == client_256::stage::idle);
    auto e = answered();
    CHECK(e.verify("e=") == scram_errc::refused);
    CHECK(e.refusal().empty());
}

TEST_CASE("only the right signature is accepted from a server") {
    CHECK(verification_of(server_final) == scram_errc::ok);
    CHECK(verification_of(std::string(server_final) + ",x=y") == scram_errc::ok);
    CHECK(verification_of("") == scram_errc::signature_missing);
    CHECK(verification_of("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=") == scram_errc::message_malformed);
    CHECK(verification_of("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G8=") == scram_errc::signature_wrong);
    CHECK(verification_of("v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=") == scram_errc::signature_wrong);
    CHECK(verification_of("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95A==") == scram_errc::signature_wrong);
    CHECK(verification_of("v=rmF9pqV8S7suAoZWja4dJRkFsKQ=") == scram_errc::signature_wrong);
    for (auto const& wrong :
         {"v="sv, "v"sv, "x=y"sv, "v=c2FsdA==,v=c2FsdA=="sv, "v=c2FsdA==,"sv, "v=\xff"sv, "v=c2FsdA"sv}) {
        CAPTURE(wrong);
        CHECK(verification_of(wrong) == scram_errc::message_malformed);
    }
}

TEST_CASE("a server that accepts without a challenge has not proved anything") {
    client_256 c(user);
    CHECK(c.verify(server_final) == scram_errc::signature_missing);
    c.begin(client_nonce);
    CHECK(c.verify(server_final) == scram_errc::signature_missing);
    CHECK(c.at() == client_256::stage::idle);
    c.begin(client_nonce);
    CHECK(c.challenge(server_first) == scram_errc::ok);
    CHECK(c.verify(server_final) == scram_errc::signature_missing);
    CHECK(c.at() == client_256::stage::idle);
}

TEST_CASE("a step can be taken again with the same message, and with no other one") {
    auto c = answered();
    CHECK(c.challenge(server_first) == scram_errc::ok);
    CHECK(c.answer() == client_final);
    CHECK(c.verify(server_final) == scram_errc::ok);
    CHECK(c.verify(server_final) == scram_errc::ok);
    CHECK(c.challenge("r=rOprNGfwEbeRWgbNEkqOx,s=c2FsdA==,i=4096") == scram_errc::message_not_due);
    CHECK(c.at() == client_256::stage::idle);
    CHECK(c.challenge(server_first) == scram_errc::message_not_due);
    CHECK(c.verify(server_final) == scram_errc::signature_missing);
}

TEST_CASE("keys are derived once for a salt and a number of iterations") {
    client_256 c(user);
    auto const exchange = [&](std::string_view salt, std::string const& iterations) {
        c.begin("abc");
        auto const message = "r=abcd,s=" + std::string(salt) + ",i=" + iterations;
        CHECK(c.challenge(message) == scram_errc::ok);
        bool const derives = c.needs_keys();
        derive(c);
        return derives;
    };
    CHECK(exchange("c2FsdA==", "4096"));
    CHECK_FALSE(exchange("c2FsdA==", "4096"));
    CHECK(exchange("c2FsdA==", "4097"));
    CHECK_FALSE(exchange("c2FsdA==", "4097"));
    CHECK(exchange("cGVwcGVy", "4097"));
    CHECK(c.keys()->salt == "pepper");
    CHECK(c.keys()->iterations == 4097);
}

TEST_CASE("what has been derived goes on in the next exchange, if the server asks for the same") {
    client_256 c(user);
    c.begin(client_nonce);
    CHECK(c.challenge(server_first) == scram_errc::ok);
    CHECK_FALSE(c.derive(4094));
    c.begin(client_nonce);
    CHECK(c.challenge(server_first) == scram_errc::ok);
    CHECK(c.derive(1));  // the first one is done from the start
    CHECK(c.answer() == client_final);

    client_256 d(user);
    d.begin("abc");
    CHECK(d.challenge("r=abcd,s=c2FsdA==,i=4096") == scram_errc::ok);
    CHECK_FALSE(d.derive(4094));
    d.begin(client_nonce);
    CHECK(d.challenge(server_first) == scram_errc::ok);
    CHECK_FALSE(d.derive(1));
    derive(d);
    CHECK(d.answer() == client_final);
}

TEST_CASE("prepared keys need no password as long as the server asks for theirs") {
    auto const salt = digest::decode_base64("W22ZaJ0SNY7soEsUEjb6gQ==").value();
    client_256 c({.user_name = "user", .keys = derive_scram_keys<scram_sha_256>("pencil", salt)});
    c.begin(client_nonce);
    CHECK(c.challenge(server_first) == scram_errc::ok);
    CHECK_FALSE(c.needs_keys());
    CHECK(c.derive(0));
    CHECK(c.answer() == client_final);
    CHECK(c.verify(server_final) == scram_errc::ok);
    c.begin("abc");
    CHECK(c.challenge("r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4097") == scram_errc::keys_of_another_salt);
    c.begin("abc");
    CHECK(c.challenge("r=abcd,s=c2FsdA==,i=4096") == scram_errc::keys_of_another_salt);
}

TEST_CASE("an exchange for which there is no memory can begin anew") {
    auto const salt = digest::decode_base64("W22ZaJ0SNY7soEsUEjb6gQ==").value();
    auto const keys = derive_scram_keys<scram_sha_256>("pencil", salt);
    auto const exchange = [](client_256& c) {
        c.begin(client_nonce);
        return c.challenge(server_first) == scram_errc::ok && c.answer() == client_final &&
               c.verify(server_final) == scram_errc::ok;
    };
    std::size_t failures = 0;
    for (bool fails = true; fails;) {
        client_256 c({.user_name = "user", .keys = keys});
        try {
            runnel::testing::failing_allocation const failing(failures + 1);
            exchange(c);
            fails = failing.has_failed();
        } catch (std::bad_alloc const&) {
            ++failures;
        }
        CHECK(exchange(c));
    }
    CHECK(failures > 5);
}
