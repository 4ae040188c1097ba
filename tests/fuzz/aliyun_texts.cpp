// Texts of the Aliyun platform, and those that name its servers and devices: topics, client identifiers with their
// parameters, endpoints, answers to a registration. The first byte says which. What is accepted must come back when it
// is put together again.

#include <runnel/aliyun/client_id.hpp>
#include <runnel/aliyun/endpoint.hpp>
#include <runnel/aliyun/registration_request.hpp>
#include <runnel/aliyun/topics.hpp>
#include <runnel/core/utf8.hpp>

#include "fuzz.hpp"
#include <string>
#include <string_view>

namespace {

namespace aliyun = runnel::aliyun;
using aliyun::errc;
using test::require;

void check_topic(std::string_view topic) {
    aliyun::topic_parts parts{.product_key = "untouched"};
    if (aliyun::parse_topic(topic, parts) != errc::ok) {
        require(parts.product_key == "untouched");
        return;
    }
    aliyun::topic_name again;
    errc const built = aliyun::build_topic(parts, again);
    require(built == errc::ok || (built == errc::topic_too_long && topic.size() > aliyun::max_topic_size));
    if (built == errc::ok) require(again.view() == topic);
}

void check_client_id(std::string_view text) {
    aliyun::client_id_parts parts;
    if (aliyun::split_client_id(text, parts) != errc::ok) return;
    require(parts.client_id.size() <= aliyun::max_client_id_size);
    require(std::string(parts.client_id) + "|" + std::string(parts.parameters) + "|" == text);
    std::string again;
    for (std::string_view rest = parts.parameters, name, value; !rest.empty();) {
        require(aliyun::next_parameter(rest, name, value) && !name.empty());
        require(aliyun::find_parameter(parts.parameters, name).has_value());
        again.append(name).append("=").append(value);
        if (!rest.empty()) again += ',';
    }
    // One comma may stand behind the last.
    require(again == parts.parameters || again + "," == parts.parameters);
}

void check_endpoints(test::input_reader& in) {
    auto const key = in.until('\n');
    auto const region = in.rest();
    aliyun::endpoint made;
    for (errc const e : {aliyun::public_endpoint(key, region, made), aliyun::instance_endpoint(region, made)}) {
        if (e != errc::ok) continue;
        // Nothing in a name may lead to another host.
        for (char const c : made.host.view()) require(aliyun::is_letter_or_digit(c) || c == '-' || c == '.');
        require(made.host.view().ends_with(".aliyuncs.com"));
    }
}

void check_registration(std::string_view payload) {
    aliyun::product const p{"a1B2c3D4e5F", "secret"};
    aliyun::registration got;
    if (aliyun::read_registration(payload, p, "device", got) != errc::ok) {
        require(got.product_key.empty() && got.device_secret.empty());
        return;
    }
    require(got.product_key == p.product_key && got.device_name == "device");
    require(!got.device_secret.empty() || (got.has_token() && !got.client_id.empty()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    test::input_reader in(data, size);
    switch (in.byte() % 4) {
        case 0: check_topic(in.rest()); break;
        case 1: check_client_id(in.rest()); break;
        case 2: check_endpoints(in); break;
        default: check_registration(in.rest());
    }
    return 0;
}
