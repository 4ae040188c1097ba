#include <runnel/mqtt/protocol/scram_client.hpp>
#include <runnel/testing/broker/scram.hpp>

#include <doctest/doctest.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace runnel;
using mqtt::reason_code;
using mqtt::scram_errc;
using mqtt::scram_sha_1;
using mqtt::scram_sha_256;
using mqtt::scram_sha_512;
using enum reason_code;

template <class M>
mqtt::scram_verifier verifier() {
    return mqtt::scram_verifier_from<M>(mqtt::derive_scram_keys<M>("pencil", "salt of sixteen."));
}

// A broker's hook, and who has been looked up.
struct fixture {
    testing::scram_authentication<scram_sha_1, scram_sha_256>::lookup look_up =
        [this](testing::authentication_attempt const& a, std::string_view user) -> std::optional<mqtt::scram_verifier> {
        asked.emplace_back(std::string(a.method) + ' ' + std::string(a.client) + ' ' + std::string(user));
        if (user != "user") return {};
        return a.method == scram_sha_1::name ? verifier<scram_sha_1>() : verifier<scram_sha_256>();
    };
    testing::scram_authentication<scram_sha_1, scram_sha_256> hook{look_up, 5000};
    std::vector<std::string> asked;
    std::string memory;
    unsigned step = 0;

    // One step; the reply goes to `reply`.
    reason_code take(std::string_view method, std::optional<std::string_view> data) {
        testing::authentication_attempt a{"client", method, data, step++, false, memory, {}};
        auto const answer = hook(a);
        reply = a.reply.value_or("");
        return answer;
    }
    std::string reply;
};

template <class M>
reason_code authenticate(fixture& p, std::string user, std::string_view password) {
    mqtt::scram_client<M> client({.user_name = std::move(user), .password = secret_string(password)});
    p.step = 0;
    p.memory.clear();
    if (auto const r = p.take(M::name, client.begin(mqtt::scram_nonce())); r != continue_authentication) return r;
    REQUIRE(client.challenge(p.reply) == scram_errc::ok);
    while (!client.derive(10'000)) continue;
    auto const r = p.take(M::name, client.answer());
    CHECK((client.verify(p.reply) == scram_errc::ok) == (r == success));
    return r;
}

std::string salt_of(fixture& p, std::string const& user) {
    p.step = 0;
    p.memory.clear();
    CHECK(p.take(scram_sha_256::name, "n,,n=" + user + ",r=abc") == continue_authentication);
    auto const at = p.reply.find(",s=");
    REQUIRE(at != std::string::npos);
    return p.reply.substr(at);
}

}  // namespace

TEST_CASE_TEMPLATE("a broker lets in who knows the password, by each mechanism that it has", M, scram_sha_1,
                   scram_sha_256) {
    fixture p;
    CHECK(authenticate<M>(p, "user", "pencil") == success);
    auto const line = std::string(M::name) + " client user";
    CHECK(p.asked == std::vector<std::string>{line, line});
    CHECK(p.memory.empty());
    CHECK(authenticate<M>(p, "user", "Pencil") == not_authorized);
    CHECK(authenticate<M>(p, "other", "pencil") == not_authorized);
}

TEST_CASE("a broker refuses mechanisms that it does not have [MQTT-4.12.0-1]") {
    fixture p;
    CHECK(authenticate<scram_sha_512>(p, "user", "pencil") == bad_authentication_method);
    CHECK(p.take("SCRAM-SHA-256-PLUS", "n,,n=user,r=abc") == bad_authentication_method);
    CHECK(p.take("", "n,,n=user,r=abc") == bad_authentication_method);
    CHECK(p.asked.empty());
}

TEST_CASE("a user who is not known is challenged as others are, each time by the same salt") {
    fixture p, other;
    auto const salt = salt_of(p, "nobody");
    CHECK(salt == salt_of(p, "nobody"));
    CHECK(salt != salt_of(p, "somebody"));
    CHECK(salt != salt_of(other, "nobody"));
    CHECK(salt.size() == salt_of(p, "user").size());
    CHECK(salt.ends_with(",i=5000"));
    CHECK(authenticate<scram_sha_256>(p, "nobody", "pencil") == not_authorized);
}

TEST_CASE("a user who is forgotten between the two steps is refused") {
    fixture p;
    mqtt::scram_client<scram_sha_1> client({.user_name = "user", .password = "pencil"});
    CHECK(p.take(scram_sha_1::name, client.begin("abc")) == continue_authentication);
    REQUIRE(client.challenge(p.reply) == scram_errc::ok);
    while (!client.derive(10'000)) continue;
    testing::scram_authentication<scram_sha_1> const forgetful([](auto const&, auto) { return std::nullopt; });
    auto const answer = client.answer();
    testing::authentication_attempt a{"client", scram_sha_1::name, answer, 1, false, p.memory, {}};
    CHECK(forgetful(a) == not_authorized);
    CHECK_FALSE(a.reply);
}

TEST_CASE("a client that does not speak SCRAM is refused, and nobody is looked up for it") {
    fixture p;
    CHECK(p.take(scram_sha_1::name, std::nullopt) == not_authorized);
    p.step = 0;
    CHECK(p.take(scram_sha_1::name, "hello") == not_authorized);
    p.step = 0;
    CHECK(p.take(scram_sha_1::name, "p=tls-unique,,n=user,r=abc") == not_authorized);
    CHECK(p.asked.empty());
    p.step = 0;
    CHECK(p.take(scram_sha_1::name, "n,,n=user,r=abc") == continue_authentication);
    CHECK(p.take(scram_sha_1::name, "c=biws,r=abc") == not_authorized);
    CHECK(p.take(scram_sha_1::name, "c=biws,r=abc") == not_authorized);  // a step too many
}
