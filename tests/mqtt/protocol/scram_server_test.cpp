#include <runnel/mqtt/protocol/scram_client.hpp>
#include <runnel/mqtt/protocol/scram_server.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <utility>

namespace {

using namespace runnel;
using namespace mqtt;
using namespace std::string_view_literals;

// The exchange of RFC 7677's example.
constexpr auto server_nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"sv;
constexpr auto proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="sv;
std::string const binding_and_nonce = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

template <class M>
scram_verifier verifier(std::string_view salt) {
    return scram_verifier_from<M>(derive_scram_keys<M>("pencil", digest::decode_base64(salt).value()));
}
scram_verifier const& verifier_256() {
    static auto const kept = verifier<scram_sha_256>("W22ZaJ0SNY7soEsUEjb6gQ==");
    return kept;
}

scram_errc begin_with(std::string_view message) {
    std::string memory = "of before";
    auto const e = scram_server(memory).begin(message);
    CHECK(memory == (e == scram_errc::ok ? message : ""sv));
    return e;
}

// What is said to a client's last message.
scram_errc finish_with(std::string_view message) {
    std::string memory, answer;
    scram_server server(memory);
    CHECK(server.begin("n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == scram_errc::ok);
    server.challenge(server_nonce, verifier_256().salt, 4096);
    auto const e = server.finish<scram_sha_256>(message, verifier_256(), answer);
    CHECK(memory.empty());
    CHECK(answer == (e == scram_errc::ok ? "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=" : ""));
    return e;
}

}  // namespace

TEST_CASE("a server exchanges the messages of RFC 5802's example") {
    auto const kept = verifier<scram_sha_1>("QSXCR+Q6sek8bf92");
    std::string memory, answer;
    CHECK(scram_server(memory).begin("n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL") == scram_errc::ok);
    CHECK(scram_server(memory).user_name() == "user");
    CHECK(scram_server(memory).challenge("3rfcNHYJY1ZVvWVs7j", kept.salt, kept.iterations) ==
          "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096");
    CHECK(scram_server(memory).user_name() == "user");
    CHECK(scram_server(memory).finish<scram_sha_1>(
              "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", kept, answer) ==
          scram_errc::ok);
    CHECK(answer == "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=");
    CHECK(scram_server(memory).user_name().empty());
}

TEST_CASE("a client's first message is read") {
    CHECK(begin_with("n,,n=user,r=abc") == scram_errc::ok);
    CHECK(begin_with("y,,n=user,r=abc") == scram_errc::ok);
    CHECK(begin_with("n,,n=user,r=abc,x=y") == scram_errc::ok);
    CHECK(begin_with("n,a=user,n=user,r=abc") == scram_errc::ok);
    CHECK(begin_with("n,a=other,n=user,r=abc") == scram_errc::identity_not_allowed);
    CHECK(begin_with("n,x=user,n=user,r=abc") == scram_errc::identity_not_allowed);
    CHECK(begin_with("p=tls-exporter,,n=user,r=abc") == scram_errc::channel_binding_not_supported);
    CHECK(begin_with("n,,m=x,n=user,r=abc") == scram_errc::extension_required);
    for (auto const& wrong : {""sv,
                              "n"sv,
                              "n,"sv,
                              "n,,"sv,
                              ",,"sv,
                              "n=user,r=abc"sv,
                              "x,,n=user,r=abc"sv,
                              "nn,,n=user,r=abc"sv,
                              "n,,r=abc,n=user"sv,
                              "n,,n=user"sv,
                              "n,,n=,r=abc"sv,
                              "n,,n=user,r="sv,
                              "n,,n=user,r=a c"sv,
                              "n,,n=us=er,r=abc"sv,
                              "n,,n=user=,r=abc"sv,
                              "n,,n=user=2,r=abc"sv,
                              "n,,n=user=2c,r=abc"sv,
                              "n,,n=user,r=abc,"sv,
                              "n,,n=user,r=abc,r=d"sv,
                              "n,,n=us\0er,r=abc"sv,
                              "n,,n=us\xffr,r=abc"sv}) {
        CAPTURE(wrong);
        CHECK(begin_with(wrong) == scram_errc::message_malformed);
    }
}

TEST_CASE("a user's name is told as it is, not as it is escaped") {
    std::string memory;
    scram_server server(memory);
    CHECK(server.user_name().empty());
    CHECK(server.begin("n,a=a=3Db=2Cc=3D2C,n=a=3Db=2Cc=3D2C,r=abc") == scram_errc::ok);
    CHECK(server.user_name() == "a=b,c=2C");
    CHECK(server.begin("n,,n=grün,r=abc") == scram_errc::ok);
    CHECK(server.user_name() == "grün");
}

TEST_CASE("only the right last message of a client is accepted") {
    auto const with_proof = [](std::string const& without) { return without + ",p=" + std::string(proof); };
    CHECK(finish_with(with_proof(binding_and_nonce)) == scram_errc::ok);
    CHECK(finish_with(binding_and_nonce + ",p=eHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=") ==
          scram_errc::proof_wrong);
    CHECK(finish_with(with_proof(binding_and_nonce + ",x=y")) == scram_errc::proof_wrong);  // it is of another message
    CHECK(finish_with(with_proof("c=eSws" + binding_and_nonce.substr(6))) == scram_errc::channel_binding_not_supported);
    CHECK(finish_with(with_proof(binding_and_nonce + "x")) == scram_errc::nonce_wrong);
    CHECK(finish_with(with_proof("c=biws,r=rOprNGfwEbeRWgbNEkqO")) == scram_errc::nonce_wrong);
    for (auto const& wrong :
         {std::string(), binding_and_nonce, binding_and_nonce + ",p=", binding_and_nonce + ",p=c2FsdA==",
          with_proof(binding_and_nonce) + ",x=y", with_proof(binding_and_nonce.substr(7)), with_proof("c=biws"),
          with_proof(binding_and_nonce + ",m=x"), with_proof(binding_and_nonce + ",p=x"), with_proof(""),
          with_proof(binding_and_nonce) + "\xff", binding_and_nonce + ",p=not base64"}) {
        CAPTURE(wrong);
        CHECK(finish_with(wrong) == scram_errc::message_malformed);
    }
}

TEST_CASE("a last message without a challenge is not due") {
    std::string memory, answer;
    auto const last = binding_and_nonce + ",p=" + std::string(proof);
    CHECK(scram_server(memory).finish<scram_sha_256>(last, verifier_256(), answer) == scram_errc::message_not_due);
    CHECK(scram_server(memory).begin("n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == scram_errc::ok);
    CHECK(scram_server(memory).finish<scram_sha_256>(last, verifier_256(), answer) == scram_errc::message_not_due);
    CHECK(answer.empty());
}

TEST_CASE_TEMPLATE("client and server agree, whatever header the client has, and only about the same password", M,
                   scram_sha_1, scram_sha_256, scram_sha_512) {
    auto const kept = verifier<M>("W22ZaJ0SNY7soEsUEjb6gQ==");
    for (auto const& password : {"pencil"sv, "Pencil"sv}) {
        for (auto const& header : {"n,,"sv, "y,,"sv, "n,a=u=3Dser,"sv}) {
            scram_client<M> client({.user_name = "u=ser", .password = secret_string(password)});
            auto first = client.begin(scram_nonce());
            std::string memory, last;
            CHECK(scram_server(memory).begin(std::string(header) + first.substr(3)) == scram_errc::ok);
            auto const challenge = scram_server(memory).challenge(scram_nonce(), kept.salt, kept.iterations);
            REQUIRE(client.challenge(challenge) == scram_errc::ok);
            while (!client.derive(10'000)) continue;
            auto const answer = client.answer();
            bool const right = password == "pencil" && header == "n,,";
            auto const e = scram_server(memory).finish<M>(answer, kept, last);
            CHECK((e == scram_errc::ok) == right);
            if (header != "n,,")
                CHECK(e == scram_errc::channel_binding_not_supported);  // the header has been changed on the way
            else if (!right)
                CHECK(e == scram_errc::proof_wrong);
            else
                CHECK(client.verify(last) == scram_errc::ok);
        }
    }
}
