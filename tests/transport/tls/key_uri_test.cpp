#include <runnel/testing/certificate.hpp>
#include <runnel/transport/tls/key_uri.hpp>
#include <runnel/transport/tls/tls.hpp>

#include <doctest/doctest.h>
#include <openssl/pem.h>

#include "support/process.hpp"
#include "support/tls_pair.hpp"
#include <memory>
#include <string>

namespace {

using runnel::load_private_key;
using runnel::tls_context;
using runnel::tls_options;
using runnel::transport_errc;
using runnel::testing::identity;
using test::authority;

identity const& own() {
    static identity const made = authority().issue_server();
    return made;
}

std::string encrypted(std::string const& pem, std::string const& password) {
    std::unique_ptr<BIO, int (*)(BIO*)> const in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), BIO_free);
    std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> const key(
        PEM_read_bio_PrivateKey(in.get(), nullptr, nullptr, nullptr), EVP_PKEY_free);
    std::unique_ptr<BIO, int (*)(BIO*)> const out(BIO_new(BIO_s_mem()), BIO_free);
    PEM_write_bio_PKCS8PrivateKey(out.get(), key.get(), EVP_aes_256_cbc(), password.data(),
                                  static_cast<int>(password.size()), nullptr, nullptr);
    char* text = nullptr;
    auto const size = BIO_get_mem_data(out.get(), &text);
    return {text, static_cast<std::size_t>(size)};
}

struct failure {
    std::error_code code;
    std::string text;
};
failure failure_of(std::string const& uri, std::string const& password = {}) {
    try {
        load_private_key(uri, password);
    } catch (std::system_error const& e) {
        CHECK(ERR_peek_error() == 0);
        return {e.code(), e.what()};
    }
    return {};
}

tls_options with_key(std::shared_ptr<evp_pkey_st> key) {
    tls_options o;
    o.certificate_pem = own().certificate_pem;
    o.private_key = std::move(key);
    return o;
}

std::error_code made_of(tls_options const& o) {
    try {
        tls_context const made(o);
    } catch (std::system_error const& e) {
        return e.code();
    }
    return {};
}

}  // namespace

TEST_CASE("a private key is loaded by its URI, and proves the certificate as one in a file does") {
    test::scratch_directory const files;
    auto const plain = "file:" + files.write("key", own().private_key_pem);
    auto const secret = "file:" + files.write("secret", encrypted(own().private_key_pem, "word"));
    // What else is in the file is passed over.
    auto const both = "file:" + files.write("both", own().certificate_pem + own().private_key_pem);
    for (auto const& key : {load_private_key(plain), load_private_key(secret, "word"), load_private_key(both)}) {
        auto options = with_key(key);
        test::tls_pair c(test::client_options(), options);
        c.connect();
    }
}

TEST_CASE("a key that is not there, has another password, or of which nobody knows the kind, is said by its URI") {
    test::scratch_directory const files;
    auto const secret = "file:" + files.write("secret", encrypted(own().private_key_pem, "word"));
    auto const none = "file:" + files.write("none", own().certificate_pem);
    CHECK(failure_of(secret).code == transport_errc::private_key_password_wrong);
    CHECK(failure_of(secret, "another").code == transport_errc::private_key_password_wrong);
    CHECK(failure_of(none).code == transport_errc::private_key_unusable);
    auto const missing = failure_of("file:/no/such/key");
    CHECK(missing.code == transport_errc::private_key_unusable);
    CHECK(missing.text.find("'file:/no/such/key'") != std::string::npos);
    auto const unknown = failure_of("nobody:token=a?pin-value=1234");
    CHECK(unknown.code == transport_errc::private_key_unusable);
    CHECK(unknown.text.find("nobody:token=a") != std::string::npos);
    CHECK(unknown.text.find("1234") == std::string::npos);
    CHECK(failure_of("").code == transport_errc::private_key_unusable);
}

TEST_CASE("a loaded key must belong to the certificate, and be the only one") {
    test::scratch_directory const files;
    auto const key = load_private_key("file:" + files.write("key", own().private_key_pem));
    CHECK_FALSE(made_of(with_key(key)));
    auto const other = authority().issue_server();
    CHECK(made_of(with_key(load_private_key("file:" + files.write("other", other.private_key_pem)))) ==
          transport_errc::private_key_mismatch);
    auto twice = with_key(key);
    twice.private_key_pem = own().private_key_pem;
    CHECK(made_of(twice) == transport_errc::tls_option_invalid);
    auto alone = with_key(key);
    alone.certificate_pem.clear();
    CHECK(made_of(alone) == transport_errc::tls_option_invalid);
}
