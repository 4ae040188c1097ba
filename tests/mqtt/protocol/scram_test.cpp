#include <runnel/mqtt/protocol/scram.hpp>

#include <doctest/doctest.h>

#include <ostream>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace {

using namespace runnel;
using namespace mqtt;
using namespace std::string_view_literals;

std::string bytes(std::string_view base64) { return digest::decode_base64(base64).value(); }
std::string base64(std::string_view of) { return digest::encode_base64(of); }

std::error_code error_of_deriving(std::string_view password, bool is_prepared) try {
    derive_scram_keys<scram_sha_1>(password, "salt", 1, is_prepared);
    return {};
} catch (std::system_error const& e) {
    return e.code();
}

}  // namespace

TEST_CASE("keys are those that RFC 5802's example has") {
    auto const salt = bytes("QSXCR+Q6sek8bf92");
    auto const keys = derive_scram_keys<scram_sha_1>("pencil", salt, 4096);
    CHECK(base64(keys.client_key) == "4jTEe/bDZpbdbYUrmaqiuiZVVyg=");
    CHECK(base64(keys.server_key) == "D+CSWLOshSulAsxiupA+qs2/fTE=");
    CHECK(keys.salt == salt);
    CHECK(keys.iterations == 4096);
    auto const kept = scram_verifier_from<scram_sha_1>(keys);
    CHECK(base64(kept.stored_key) == "6dlGYMOdZcOPutkcNY8U2g7vK9Y=");
    CHECK(kept.server_key == keys.server_key);
    CHECK(kept.salt == salt);
    CHECK(kept.iterations == 4096);
    auto const same = scram_keys_from<scram_sha_1>(bytes("HZbuOlKbWl+eR8AfIposuKbhX30="), salt, 4096);
    CHECK(same.client_key == keys.client_key);
    CHECK(same.server_key == keys.server_key);
}

TEST_CASE("keys are those that RFC 7677's example has") {
    auto const keys = derive_scram_keys<scram_sha_256>("pencil", bytes("W22ZaJ0SNY7soEsUEjb6gQ=="));
    CHECK(keys.iterations == 4096);
    CHECK(base64(keys.client_key) == "pg/JI9Z+hkSpLRa5btpe9GVrDHJcSEN0viVTVXaZbos=");
    CHECK(base64(keys.server_key) == "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=");
    CHECK(base64(scram_verifier_from<scram_sha_256>(keys).stored_key) ==
          "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=");
    CHECK(derive_scram_keys<scram_sha_512>("pencil", "salt", 2).client_key.size() == 64);
}

TEST_CASE("printable ASCII is its own preparation, and what is not has to be said to be prepared") {
    for (char c = ' '; c <= '~'; ++c) CHECK(is_prepared_for_scram({&c, 1}, false));
    for (bool const said : {false, true}) {
        CHECK(is_prepared_for_scram("", said));
        for (auto const& text : {"\0"sv, "a\x1f"sv, "\x7f"sv, "new\nline"sv, "\xff"sv, "ü\0"sv, "gr\xC3"sv}) {
            CAPTURE(text);
            CHECK_FALSE(is_prepared_for_scram(text, said));
            CHECK(error_of_deriving(text, said) == scram_errc::text_not_prepared);
        }
        for (auto const& text : {"grün"sv, "\xC2\xA0"sv, "密码"sv}) {
            CAPTURE(text);
            CHECK(is_prepared_for_scram(text, said) == said);
            CHECK((error_of_deriving(text, said) == scram_errc::text_not_prepared) == !said);
        }
    }
}

TEST_CASE("nonces are different ones, of printable ASCII without commas") {
    std::set<std::string> nonces;
    for (int i = 0; i < 1000; ++i) nonces.insert(scram_nonce());
    CHECK(nonces.size() == 1000);
    for (auto const& nonce : nonces) {
        CHECK(nonce.size() == 24);
        for (char const c : nonce) CHECK((c > ' ' && c <= '~' && c != ','));
    }
}

TEST_CASE("an error says to others whether it may pass") {
    CHECK(std::error_code(scram_errc::refused) == std::errc::permission_denied);
    CHECK(std::error_code(scram_errc::proof_wrong) == std::errc::permission_denied);
    CHECK(std::error_code(scram_errc::signature_wrong) == std::errc::invalid_argument);
    CHECK(std::error_code(scram_errc::text_not_prepared) == std::errc::invalid_argument);
    CHECK(std::error_code(scram_errc::message_malformed) != std::errc::invalid_argument);
    CHECK_FALSE(std::error_code(scram_errc::ok));
    std::set<std::string> texts;
    for (int i = 0; i <= static_cast<int>(scram_errc::proof_wrong); ++i)
        texts.insert(std::error_code(static_cast<scram_errc>(i)).message());
    CHECK(texts.size() == static_cast<std::size_t>(scram_errc::proof_wrong) + 1);
    CHECK(std::error_code(scram_errc::refused).category().name() == "runnel.scram"sv);
}
