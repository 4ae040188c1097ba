// What decides whom a client talks to: pins of keys, PEM text, and the name of another server that a server gives.

#include <runnel/core/authority.hpp>
#include <runnel/transport/lasting_error.hpp>
#include <runnel/transport/redirect.hpp>
#include <runnel/transport/tls/context.hpp>

#include "fuzz.hpp"
#include <string>
#include <string_view>
#include <system_error>

namespace {

using test::require;

void check_pin(std::string_view text) {
    runnel::tls_options options;
    options.ca_path = "/";  // so that the system's authorities are not read
    options.pins = {std::string(text)};
    bool accepted = true;
    try {
        runnel::tls_context const made(options);
    } catch (std::system_error const& e) {
        require(e.code() == runnel::transport_errc::tls_option_invalid);
        accepted = false;
    }
    auto const bytes = runnel::digest::decode_base64(text);
    require(accepted == (bytes && bytes->size() == 32));
}

void check_pem(std::string_view text) {
    try {
        auto const pin = runnel::tls_pin(text);
        require(runnel::digest::decode_base64(pin)->size() == 32);
    } catch (std::system_error const& e) {
        require(e.code() == runnel::transport_errc::pem_invalid);
    }
    runnel::tls_options options;
    options.ca_pem = text;
    options.certificate_pem = text;
    options.private_key_pem = text;
    try {
        runnel::tls_context const made(options);
    } catch (std::system_error const& e) {
        require(runnel::is_lasting_error(e.code()));
    }
    require(ERR_peek_error() == 0);
}

void check_reference(std::string_view text) {
    auto const server = runnel::parse_server_reference(text);
    if (!server) return;
    require(!server->host.empty() && server->host.size() <= 255);
    for (char const c : server->host) require(c > 0x20 && c < 0x7F && c != '@' && c != '/');
    std::string const again =
        server->port != 0 ? runnel::authority_of(server->host, server->port) : runnel::host_in_url(server->host);
    require(runnel::parse_server_reference(again) == server);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    test::input_reader in(data, size);
    switch (in.byte() % 3) {
        case 0: check_pin(in.rest()); break;
        case 1: check_pem(in.rest()); break;
        default: check_reference(in.rest());
    }
    return 0;
}
