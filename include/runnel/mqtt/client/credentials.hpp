#pragma once

#include <runnel/core/secret.hpp>

#include <concepts>
#include <optional>
#include <string>

namespace runnel::mqtt {

/// Who the client is.
struct credentials {
    std::string client_id{};  ///< empty: the server chooses one, and each connection begins a new session
    std::optional<std::string> user_name{};
    std::optional<secret_string> password{};
};

/// What makes credentials anew for each attempt to connect: signatures with a timestamp, tokens that expire. Goes into
/// `session_options::make_credentials`. What it throws ends `session::run`. A lambda is one, and so are the signers of
/// clouds, of which nothing here knows; examples/azure_signature.hpp shows how little it takes. Where the signature is
/// part of the URL, as in examples/aws_iot.cpp, `transport_factory` does the same for the transport.
template <class Provider>
concept credentials_provider = std::copy_constructible<Provider> && requires(Provider& p) {
    { p() } -> std::convertible_to<credentials>;
};

}  // namespace runnel::mqtt
