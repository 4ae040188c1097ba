// Alink messages as the platform sends them, or somebody in its place: requests, replies, shadows, offers of firmware
// and configurations, lists of devices. What can be read must be the same after it has been written and read again; and
// the small reader of texts in JSON, which registration uses, must find what the large one finds.

#include <runnel/aliyun/alink/protocol/codec.hpp>
#include <runnel/aliyun/alink/protocol/download.hpp>
#include <runnel/aliyun/alink/protocol/log.hpp>
#include <runnel/aliyun/alink/protocol/shadow.hpp>
#include <runnel/aliyun/alink/protocol/topology.hpp>
#include <runnel/aliyun/detail/json_text.hpp>

#include "fuzz.hpp"
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace runnel::aliyun::alink;
using runnel::aliyun::detail::find_json_text;
using test::require;

void check_requests(std::string_view text) {
    call asked;
    if (decode(text, asked) == errc::ok) {
        call again;
        require(decode(encode_call(asked.id, asked.method, asked.params, asked.wants_reply), again) == errc::ok);
        require(again.id == asked.id && again.method == asked.method && again.params == asked.params);
        require(again.wants_reply == asked.wants_reply);
    }
    reply answer;
    if (decode(text, answer) == errc::ok) {
        reply again;
        require(decode(encode(answer), again) == errc::ok);
        require(again.id == answer.id && again.code == answer.code && again.data == answer.data);
        require(again.message == answer.message);
    } else {
        require(answer.data.empty() && answer.message.empty());
    }
}

void check_file(remote_file const& f) {
    require(!f.url.empty() && f.digest.size() == (f.method == digest_method::sha256 ? 64u : 32u));
    download_check check(f);
    std::string_view const bytes = f.url;
    bool const fits = bytes.size() <= f.size;
    require((check.add(bytes) == errc::ok) == fits && check.bytes() == (fits ? bytes.size() : 0));
    errc const verdict = check.finish();
    require(verdict == errc::digest_mismatch || verdict == errc::size_mismatch);
}

void check_data(json const& data) {
    firmware offer;
    if (decode(data, offer) == errc::ok) {
        require(!offer.version.empty() && !offer.files.empty());
        for (auto const& f : offer.files) {
            require(offer.size() >= f.size);
            check_file(f);
        }
    } else {
        require(offer.files.empty());
    }
    configuration config;
    if (decode(data, config) == errc::ok) check_file(config.file);
    std::vector<device_id> ids;
    if (decode(data, ids) == errc::ok) {
        json list = json::array();
        for (auto const& id : ids) list.push_back(make_id(id.product_key, id.device_name));
        std::vector<device_id> again;
        require(decode(list, again) == errc::ok && again == ids);
    }
    registrations made;
    if (decode(data, made) == errc::ok)
        for (auto const& d : made.made) require(!d.device_secret.empty());
    bool wanted = false;
    if (read_log_mode(data, wanted) != errc::ok) require(!wanted);
}

// Where no name is there twice, both readers must find the same.
void check_texts(std::string_view text) {
    std::size_t names = 0;
    json const object = json::parse(
        text.begin(), text.end(),
        [&](int depth, json::parse_event_t event, json&) {
            names += event == json::parse_event_t::key && depth == 1 ? 1 : 0;
            return true;
        },
        false);
    if (!object.is_object() || object.size() != names) return;
    for (auto const& [name, value] : object.items()) {
        auto const found = find_json_text(text, name);
        if (value.is_string())
            require(found == value.get_ref<std::string const&>());
        else
            require(!found);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    std::string_view const text(reinterpret_cast<char const*>(data), size);
    json any;
    errc const read = parse(text, any);
    require(read == errc::ok || any.is_null());
    check_requests(text);
    shadow_message message;
    if (decode(text, message) != errc::ok) require(message.text.empty() && message.shadow.version == 0);
    if (read == errc::ok) {
        check_data(any);
        check_texts(text);
    }
    return 0;
}
