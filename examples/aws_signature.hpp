#pragma once

#include <runnel/digest/hex.hpp>
#include <runnel/digest/hmac.hpp>
#include <runnel/digest/sha256.hpp>

#include <array>
#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>

// Signature Version 4 of Amazon Web Services, as far as presigned URLs take it.

namespace aws {

/// Who signs.
struct identity {
    std::string access_key_id;
    std::string secret_access_key;
    std::string session_token;  ///< of temporary credentials; otherwise empty
};

/// What is signed: a GET of `path` at `host`, for a service in a region.
struct resource {
    std::string host;
    std::string path;
    std::string region;
    std::string service;
    /// The SHA-256 of the request's payload. By default that of no bytes; S3 has the word UNSIGNED-PAYLOAD.
    std::string payload_hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
};

inline std::string percent_encode(std::string_view text) {
    std::string out;
    for (char const c : text) {
        bool const plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                           std::string_view("-_.~").find(c) != std::string_view::npos;
        char code[4] = {};
        if (!plain) std::snprintf(code, sizeof(code), "%%%02X", static_cast<unsigned>(static_cast<unsigned char>(c)));
        out += plain ? std::string(1, c) : code;
    }
    return out;
}

/// "20130524T000000Z"
inline std::string timestamp(std::chrono::sys_seconds at) {
    auto const day = std::chrono::floor<std::chrono::days>(at);
    std::chrono::year_month_day const date(day);
    std::chrono::hh_mm_ss const time(at - day);
    char text[32];
    std::snprintf(text, sizeof(text), "%04d%02u%02uT%02d%02d%02dZ", static_cast<int>(date.year()),
                  static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                  static_cast<int>(time.hours().count()), static_cast<int>(time.minutes().count()),
                  static_cast<int>(time.seconds().count()));
    return text;
}

inline std::string hmac(std::string_view key, std::string_view text) {
    auto const code = runnel::digest::authenticate<runnel::digest::sha256>(key, text);
    return {code.data(), code.size()};
}

/// The key of one day, region and service.
inline std::string signing_key(std::string_view secret, std::string_view day, std::string_view region,
                               std::string_view service) {
    return hmac(hmac(hmac(hmac("AWS4" + std::string(secret), day), region), service), "aws4_request");
}

/// The path with the query that lets whoever has it in for `expires`.
inline std::string presign(identity const& who, resource const& what, std::chrono::sys_seconds now,
                           std::chrono::seconds expires) {
    auto const time = timestamp(now);
    auto const day = time.substr(0, 8);
    auto const scope = day + "/" + what.region + "/" + what.service + "/aws4_request";
    auto query =
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + percent_encode(who.access_key_id + "/" + scope) +
        "&X-Amz-Date=" + time + "&X-Amz-Expires=" + std::to_string(expires.count()) + "&X-Amz-SignedHeaders=host";
    auto const request = "GET\n" + what.path + "\n" + query + "\nhost:" + what.host + "\n\nhost\n" + what.payload_hash;
    auto const hash = runnel::digest::encode_hex(runnel::digest::compute<runnel::digest::sha256>(request)).str();
    auto const signature = hmac(signing_key(who.secret_access_key, day, what.region, what.service),
                                "AWS4-HMAC-SHA256\n" + time + "\n" + scope + "\n" + hash);
    query += "&X-Amz-Signature=" + runnel::digest::encode_hex(std::string_view(signature));
    // AWS IoT wants the token added after signing.
    if (!who.session_token.empty()) query += "&X-Amz-Security-Token=" + percent_encode(who.session_token);
    return what.path + "?" + query;
}

}  // namespace aws
