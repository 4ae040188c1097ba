#pragma once

#include <runnel/core/secret.hpp>
#include <runnel/transport/tls/detail/pem.hpp>
#include <runnel/transport/tls/options.hpp>

#include <openssl/evp.h>
#include <openssl/store.h>
#include <openssl/ui.h>

#include <memory>
#include <string>

namespace runnel {

namespace detail {

using store_context_ptr = std::unique_ptr<OSSL_STORE_CTX, openssl_freer<OSSL_STORE_close>>;
using store_info_ptr = std::unique_ptr<OSSL_STORE_INFO, openssl_freer<OSSL_STORE_INFO_free>>;
using ui_method_ptr = std::unique_ptr<UI_METHOD, openssl_freer<UI_destroy_method>>;

/// The URI for a text of an error: without what stands behind a "?", where a PIN may be (RFC 7512 2.4).
inline std::string without_query(std::string const& uri) { return uri.substr(0, uri.find('?')); }

}  // namespace detail

/// Loads a private key by its URI, for `tls_options::private_key`: by OSSL_STORE of OpenSSL 3, so of any kind for which
/// a provider is loaded (OSSL_PROVIDER_load, or openssl.cnf). "pkcs11:token=...;object=..." (RFC 7512) is understood
/// with pkcs11-provider, and "handle:..." with tpm2-openssl, and the key stays in its token; "file:/..." always is.
/// `password` is that of the key, or the token's PIN, and is given if it is asked for.
///
/// Blocks as long as the token does, as do the signatures in handshakes later. Throws `std::system_error` with
/// `transport_errc::private_key_password_wrong` or `private_key_unusable`, whose text has the URI up to a "?".
///
///     options.private_key = runnel::load_private_key("pkcs11:token=device;object=mqtt", pin);
inline std::shared_ptr<evp_pkey_st> load_private_key(std::string const& uri, secret_string const& password = {}) {
    ERR_clear_error();
    detail::password_use use{&password, false};
    detail::ui_method_ptr const method(UI_UTIL_wrap_read_pem_callback(detail::give_password, 0));
    if (!method) throw std::bad_alloc();
    std::string const name = "private key '" + detail::without_query(uri) + "'";
    auto const fail = [&] {
        auto const why = use.asked ? transport_errc::private_key_password_wrong : transport_errc::private_key_unusable;
        take_openssl_error(why).raise(name);
    };
    detail::store_context_ptr const store(OSSL_STORE_open(uri.c_str(), method.get(), &use, nullptr, nullptr));
    if (!store) fail();
    OSSL_STORE_expect(store.get(), OSSL_STORE_INFO_PKEY);
    while (OSSL_STORE_eof(store.get()) == 0) {
        detail::store_info_ptr const found(OSSL_STORE_load(store.get()));
        if (!found || OSSL_STORE_INFO_get_type(found.get()) != OSSL_STORE_INFO_PKEY) continue;
        std::shared_ptr<evp_pkey_st> key(OSSL_STORE_INFO_get1_PKEY(found.get()), EVP_PKEY_free);
        ERR_clear_error();
        if (key) return key;
    }
    fail();
    return nullptr;
}

}  // namespace runnel
