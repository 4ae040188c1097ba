#include <runnel/testing/certificate.hpp>
#include <runnel/transport/tls/key_uri.hpp>
#include <runnel/transport/tls/tls.hpp>

#include <doctest/doctest.h>
#include <openssl/engine.h>
#include <openssl/provider.h>

#include "support/process.hpp"
#include "support/skip.hpp"
#include "support/tls_pair.hpp"
#include <array>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

// A private key that stays in a PKCS#11 token, that of SoftHSM: by pkcs11-provider where OpenSSL has it, else by the
// engine of libp11, which is what Debian 12 has.

namespace {

namespace fs = std::filesystem;

std::string first_file(std::vector<std::string> const& names) {
    for (auto const& name : names)
        if (fs::exists(name)) return name;
    return {};
}

std::string const machine = "/usr/lib/x86_64-linux-gnu";
std::string const arm = "/usr/lib/aarch64-linux-gnu";

std::string module() {
    return first_file({"/usr/lib/softhsm/libsofthsm2.so", machine + "/softhsm/libsofthsm2.so",
                       arm + "/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so"});
}
std::string engine() {
    return first_file(
        {machine + "/engines-3/pkcs11.so", arm + "/engines-3/pkcs11.so", "/usr/lib64/engines-3/pkcs11.so"});
}
std::string provider() {
    return first_file(
        {machine + "/ossl-modules/pkcs11.so", arm + "/ossl-modules/pkcs11.so", "/usr/lib64/ossl-modules/pkcs11.so"});
}

test::skip_unless const ready(
    [] {
        return !test::child_process::find("softhsm2-util").empty() && !module().empty() &&
               !(engine().empty() && provider().empty());
    },
    "softhsm2 is not installed, or neither pkcs11-provider nor libengine-pkcs11-openssl is");

constexpr char const* pin = "4711";
constexpr char const* uri = "pkcs11:token=runnel;object=mqtt;type=private";

// A token with one key.
class token {
  public:
    explicit token(std::string const& private_key_pem) {
        fs::create_directory(files_.path() / "tokens");
        auto const settings =
            files_.write("softhsm2.conf", "directories.tokendir = " + (files_.path() / "tokens").string() + "\n");
        ::setenv("SOFTHSM2_CONF", settings.c_str(), 1);
        ::setenv("PKCS11_PROVIDER_MODULE", module().c_str(), 1);
        auto const key = files_.write("key", private_key_pem);
        util({"--init-token", "--free", "--label", "runnel", "--pin", pin, "--so-pin", "12345678"});
        util({"--import", key, "--token", "runnel", "--label", "mqtt", "--id", "01", "--pin", pin});
        fs::remove(key);
    }

  private:
    void util(std::vector<std::string> arguments) const {
        arguments.insert(arguments.begin(), "softhsm2-util");
        test::child_process process(arguments, (files_.path() / "log").string(), test::rights::same);
        REQUIRE(process.wait(std::chrono::seconds(20)));
        REQUIRE_MESSAGE(process.exit_status() == 0, files_.read("log"));
    }
    test::scratch_directory files_;
};

// OpenSSL 3 calls engines deprecated.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
std::shared_ptr<evp_pkey_st> by_engine() {
    ENGINE_load_dynamic();
    ENGINE* const made = ENGINE_by_id("dynamic");
    std::string const file = engine();
    std::string const library = module();
    REQUIRE(ENGINE_ctrl_cmd_string(made, "SO_PATH", file.c_str(), 0) == 1);
    REQUIRE(ENGINE_ctrl_cmd_string(made, "LOAD", nullptr, 0) == 1);
    REQUIRE(ENGINE_ctrl_cmd_string(made, "MODULE_PATH", library.c_str(), 0) == 1);
    REQUIRE(ENGINE_ctrl_cmd_string(made, "PIN", pin, 0) == 1);
    REQUIRE(ENGINE_init(made) == 1);
    std::shared_ptr<evp_pkey_st> key(ENGINE_load_private_key(made, uri, nullptr, nullptr), EVP_PKEY_free);
    ENGINE_free(made);
    return key;
}
#pragma GCC diagnostic pop

std::shared_ptr<evp_pkey_st> load() {
    if (provider().empty()) return by_engine();
    // Until the process ends.
    REQUIRE(OSSL_PROVIDER_load(nullptr, "default") != nullptr);
    REQUIRE(OSSL_PROVIDER_load(nullptr, "pkcs11") != nullptr);
    return runnel::load_private_key(uri, pin);
}

}  // namespace

TEST_CASE("a key that stays in a PKCS#11 token proves a client's certificate and a server's, in both versions of TLS") {
    auto const own = test::authority().issue_server();
    token const kept(own.private_key_pem);
    auto const key = load();
    REQUIRE(key != nullptr);
    runnel::tls_options server;
    server.certificate_pem = own.certificate_pem;
    server.private_key = key;
    for (auto const version : {runnel::tls_version::v1_2, runnel::tls_version::v1_3}) {
        auto client = test::client_options();
        client.maximum = version;
        test::tls_pair c(client, server);
        c.connect();
    }
    // Another certificate's key is not this one.
    server.certificate_pem = test::authority().issue_server().certificate_pem;
    CHECK_THROWS_AS(runnel::tls_context{server}, std::system_error);
}
