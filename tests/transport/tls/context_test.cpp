#include <runnel/testing/certificate.hpp>
#include <runnel/transport/tls/context.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <filesystem>
#include <fstream>
#include <string>
#include <unistd.h>

namespace {

using runnel::tls_context;
using runnel::tls_options;
using runnel::transport_errc;
using runnel::testing::certificate_authority;
using runnel::testing::identity;

certificate_authority const& authority() {
    static certificate_authority const ca;
    return ca;
}

identity const& own() {
    static identity const made = authority().issue_server();
    return made;
}

// A directory that goes with its files.
class scratch {
  public:
    scratch() { std::filesystem::create_directories(path_); }
    scratch(scratch const&) = delete;
    scratch& operator=(scratch const&) = delete;
    ~scratch() { std::filesystem::remove_all(path_); }

    std::string write(std::string const& name, std::string const& text) const {
        auto const file = path_ / name;
        std::ofstream(file, std::ios::binary) << text;
        return file.string();
    }
    std::string path() const { return path_.string(); }

  private:
    std::filesystem::path path_ = std::filesystem::temp_directory_path() / ("runnel-tls-" + std::to_string(::getpid()));
};

struct failure {
    std::error_code code;
    std::string text;
    bool names(std::string const& what) const { return text.find(what) != std::string::npos; }
};

failure failure_of(tls_options const& options) {
    try {
        tls_context const made(options);
    } catch (std::system_error const& e) {
        return {e.code(), e.what()};
    }
    return {};
}

// The key in PEM, encrypted with a password.
std::string encrypted(std::string const& pem, std::string password) {
    BIO* const in = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
    EVP_PKEY* const key = PEM_read_bio_PrivateKey(in, nullptr, nullptr, nullptr);
    BIO* const out = BIO_new(BIO_s_mem());
    PEM_write_bio_PKCS8PrivateKey(out, key, EVP_aes_256_cbc(), password.data(), static_cast<int>(password.size()),
                                  nullptr, nullptr);
    char* text = nullptr;
    auto const size = BIO_get_mem_data(out, &text);
    std::string result(text, static_cast<std::size_t>(size));
    BIO_free(in);
    BIO_free(out);
    EVP_PKEY_free(key);
    return result;
}

}  // namespace

TEST_CASE("a TLS context is made of PEM text and of files alike") {
    scratch const files;
    tls_options from_text;
    from_text.ca_pem = authority().certificate_pem();
    from_text.certificate_pem = own().certificate_pem;
    from_text.private_key_pem = own().private_key_pem;
    CHECK_FALSE(failure_of(from_text).code);
    tls_options from_files;
    from_files.ca_file = files.write("ca.pem", authority().certificate_pem());
    from_files.certificate_file = files.write("own.pem", own().certificate_pem);
    from_files.private_key_file = files.write("own.key", own().private_key_pem);
    CHECK_FALSE(failure_of(from_files).code);
    tls_options from_directory;
    from_directory.ca_path = files.path();
    CHECK_FALSE(failure_of(from_directory).code);
}

TEST_CASE("a TLS context is a value: copies are equal, the default one is made once") {
    tls_context const a;
    tls_context const b;
    CHECK(a == b);
    CHECK(a.verify() == runnel::tls_verify::full);
    tls_context const c{tls_options{}};
    tls_context const d = c;
    CHECK(c == d);
    CHECK_FALSE(a == c);
}

TEST_CASE("a missing file is reported with its name and the system's reason") {
    for (auto const member : {&tls_options::ca_file, &tls_options::certificate_file}) {
        tls_options options;
        options.*member = "no/such/file.pem";
        auto const failed = failure_of(options);
        CHECK(failed.code == transport_errc::file_unreadable);
        CHECK(failed.names("no/such/file.pem"));
        CHECK(failed.names("No such file or directory"));
    }
    tls_options options;
    options.ca_path = "no/such/directory";
    CHECK(failure_of(options).code == transport_errc::file_unreadable);
    options = {};
    options.certificate_pem = own().certificate_pem;
    options.private_key_file = "no/such/file.key";
    CHECK(failure_of(options).names("private_key_file 'no/such/file.key'"));
}

TEST_CASE("a directory in the place of a file is reported") {
    scratch const files;
    tls_options options;
    options.ca_file = files.path();
    CHECK(failure_of(options).code == transport_errc::file_unreadable);
}

TEST_CASE("bad PEM is reported with where it came from") {
    scratch const files;
    std::string broken = authority().certificate_pem();
    broken.replace(broken.find('\n', 40) + 1, 8, "!!!!!!!!");
    for (std::string const& text :
         {std::string("hello"), broken, authority().certificate_pem() + broken, own().private_key_pem}) {
        CAPTURE(text);
        tls_options options;
        options.ca_file = files.write("bad.pem", text);
        auto const failed = failure_of(options);
        CHECK(failed.code == transport_errc::pem_invalid);
        CHECK(failed.names("bad.pem"));
        options = {};
        options.certificate_pem = text;
        CHECK(failure_of(options).code == transport_errc::pem_invalid);
    }
    tls_options options;
    options.certificate_pem = own().certificate_pem;
    options.private_key_pem = "hello";
    CHECK(failure_of(options).code == transport_errc::pem_invalid);
}

TEST_CASE("a key that does not belong to the certificate is reported") {
    tls_options options;
    options.certificate_pem = own().certificate_pem;
    options.private_key_pem = authority().issue_server().private_key_pem;
    CHECK(failure_of(options).code == transport_errc::private_key_mismatch);
}

TEST_CASE("a certificate without its key, and a key without its certificate, are reported") {
    tls_options options;
    options.certificate_pem = own().certificate_pem;
    CHECK(failure_of(options).code == transport_errc::pem_invalid);
    options = {};
    options.private_key_pem = own().private_key_pem;
    CHECK(failure_of(options).code == transport_errc::tls_option_invalid);
}

TEST_CASE("an encrypted key needs its password, which nobody is asked for") {
    tls_options options;
    options.certificate_pem = own().certificate_pem;
    options.private_key_pem = encrypted(own().private_key_pem, "open sesame");
    CHECK(failure_of(options).code == transport_errc::private_key_password_wrong);
    options.private_key_password = "wrong";
    CHECK(failure_of(options).code == transport_errc::private_key_password_wrong);
    options.private_key_password = std::string(5000, 'x');
    CHECK(failure_of(options).code == transport_errc::private_key_password_wrong);
    options.private_key_password = "open sesame";
    CHECK_FALSE(failure_of(options).code);
}

TEST_CASE("a chain of certificates is sent whole") {
    tls_options options;
    options.certificate_pem = own().certificate_pem + authority().certificate_pem();
    options.private_key_pem = own().private_key_pem;
    tls_context const context(options);
    STACK_OF(X509)* chain = nullptr;
    SSL_CTX_get0_chain_certs(context.native_handle(), &chain);
    REQUIRE(chain != nullptr);
    CHECK(sk_X509_num(chain) == 1);
}

TEST_CASE("settings that OpenSSL does not know are reported") {
    tls_options options;
    options.ciphers = "NO-SUCH-CIPHER";
    CHECK(failure_of(options).names("NO-SUCH-CIPHER"));
    options = {};
    options.cipher_suites = "NO-SUCH-SUITE";
    CHECK(failure_of(options).code == transport_errc::tls_option_invalid);
    options = {};
    options.minimum = runnel::tls_version::v1_3;
    options.maximum = runnel::tls_version::v1_2;
    CHECK(failure_of(options).code == transport_errc::tls_option_invalid);
    options = {};
    options.alpn = {""};
    CHECK(failure_of(options).code == transport_errc::tls_option_invalid);
    options.alpn = {std::string(256, 'x')};
    CHECK(failure_of(options).code == transport_errc::tls_option_invalid);
}

TEST_CASE("TLS 1.2 is the oldest version that can be chosen, renegotiation is off") {
    tls_context const context;
    CHECK(SSL_CTX_get_min_proto_version(context.native_handle()) == TLS1_2_VERSION);
    CHECK((SSL_CTX_get_options(context.native_handle()) & SSL_OP_NO_RENEGOTIATION) != 0);
    CHECK((SSL_CTX_get_mode(context.native_handle()) & SSL_MODE_RELEASE_BUFFERS) == 0);
}

TEST_CASE("errors of the transports have a text each") {
    for (int value = 0; value <= static_cast<int>(transport_errc::shutdown_timeout); ++value) {
        auto const code = make_error_code(static_cast<transport_errc>(value));
        CHECK(code.message() != "unknown transport error");
        CHECK(std::string(code.category().name()) == "runnel.transport");
        CHECK(static_cast<bool>(code) == (value != 0));
    }
    CHECK(make_error_code(static_cast<transport_errc>(10'000)).message() == "unknown transport error");
}

TEST_CASE("a context leaves neither keys nor passwords behind, from files or from memory, also when it is refused") {
    auto const own = authority().issue_server();
    std::string const line = own.private_key_pem.substr(30, 50);  // of the key itself
    scratch const files;
    auto const file = files.write("key.pem", own.private_key_pem);
    runnel::testing::freed_memory_search const search(line.c_str());
    for (bool const from_file : {true, false})
        for (bool const right : {true, false}) {
            tls_options options;
            options.certificate_pem = right ? own.certificate_pem : authority().issue_server().certificate_pem;
            if (from_file)
                options.private_key_file = file;
            else
                options.private_key_pem = own.private_key_pem;
            if (right)
                tls_context const made(options);
            else
                CHECK_THROWS_AS(tls_context{options}, std::system_error);
        }
    CHECK(search.found() == 0);
}

TEST_CASE("a context leaves no pre-shared key behind") {
    std::string const key = "a key of thirty-two bytes, or so";
    runnel::testing::freed_memory_search const search(key.c_str());
    {
        tls_options options;
        options.psk_identity = "device";
        options.psk_key = key;
        tls_context const made(options);
        tls_options const copy = options;
    }
    CHECK(search.found() == 0);
}
