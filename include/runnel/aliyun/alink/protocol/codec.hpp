#pragma once

#include <runnel/aliyun/alink/error.hpp>
#include <runnel/aliyun/limits.hpp>

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

// Alink messages as text: requests `{"id","version","sys","params","method"}` and replies `{"id","code","data",...}`.
// No I/O, and decoders do not throw. This is the only family of headers that needs nlohmann/json (3.9 or later).

namespace runnel::aliyun::alink {

/// What values and parameters are given and taken as.
using json = nlohmann::json;

/// How deep objects and arrays of a received message may be nested. The platform's thing models need about eight.
inline constexpr std::size_t max_depth = 32;

/// Thrown by a handler, it becomes the reply: `code` and `message`. The platform leaves the codes 100000 to 110000 to
/// devices.
class refusal : public std::runtime_error {
  public:
    refusal(int code, std::string const& message) : std::runtime_error(message), code_(code) {}
    int code() const noexcept { return code_; }

  private:
    int code_;
};

/// A request, as the platform calls a service or a device asks the platform.
struct call {
    std::string id{};  ///< a number as text; what is a number in the message is text here
    std::string version{};
    std::string method{};  ///< "thing.service.reboot"; some of the platform's topics have none
    json params{};         ///< an object or an array; an empty object if there are none
    bool wants_reply = true;
};

/// The answer to a request.
struct reply {
    std::string id{};
    int code = 200;  ///< 200 is success
    std::string message = {};
    json data = json::object();
};

/// Whether the objects and arrays of a text that may be JSON are nested deeper than `limit`. One pass, no recursion.
constexpr bool is_nested_deeper(std::string_view text, std::size_t limit) noexcept {
    std::size_t depth = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        char const c = text[i];
        if (in_string) {
            if (c == '\\') ++i;
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > limit) return true;
        } else if (c == '}' || c == ']') {
            if (depth > 0) --depth;
        }
    }
    return false;
}

/// Reads any JSON: `not_json` (also if its text is not UTF-8), `too_deep`. `out` is left alone on an error.
inline errc parse(std::string_view text, json& out) {
    if (is_nested_deeper(text, max_depth)) return errc::too_deep;
    json parsed = json::parse(text.begin(), text.end(), nullptr, false);
    if (parsed.is_discarded()) return errc::not_json;
    out = std::move(parsed);
    return errc::ok;
}

/// The same for what must be an object; otherwise `not_an_object`.
inline errc parse_object(std::string_view text, json& out) {
    json parsed;
    if (errc const e = parse(text, parsed); e != errc::ok) return e;
    if (!parsed.is_object()) return errc::not_an_object;
    out = std::move(parsed);
    return errc::ok;
}

/// JSON as text. Throws `errc::text_not_utf8` for strings that are not UTF-8, `errc::payload_too_long` for more than
/// the platform takes in one message.
inline std::string write(json const& value) {
    std::string text;
    try {
        text = value.dump();
    } catch (json::exception const&) {
        throw std::system_error(make_error_code(errc::text_not_utf8));
    }
    if (text.size() > max_payload_size) throw std::system_error(make_error_code(errc::payload_too_long));
    return text;
}

/// The member `name` of an object; null if there is none, or `object` is none.
inline json const* find(json const& object, char const* name) {
    if (!object.is_object()) return nullptr;
    auto const at = object.find(name);
    return at == object.end() ? nullptr : &*at;
}

/// A member that is a string. What is a number is taken for its text: the platform's own examples write identifiers and
/// codes both ways. False if it is neither; a missing member, or null, is left alone and true.
inline bool read_text(json const& object, char const* name, std::string& out) {
    json const* const member = find(object, name);
    if (member == nullptr || member->is_null()) return true;
    if (member->is_string())
        out = member->get_ref<std::string const&>();
    else if (member->is_number_integer())
        out = member->dump();
    else
        return false;
    return true;
}

/// A member that is an integer, or a string with nothing but one. Otherwise as `read_text`.
template <class Integer>
bool read_number(json const& object, char const* name, Integer& out) {
    std::string text;
    if (!read_text(object, name, text)) return false;
    if (find(object, name) == nullptr || find(object, name)->is_null()) return true;
    Integer value{};
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return false;
    out = value;
    return true;
}

/// Reads a request. `id_missing` if there is none; `member_of_wrong_type` leaves what could be read in `out`, so that
/// the request can be refused by its identifier.
inline errc decode(std::string_view text, call& out) {
    json message;
    if (errc const e = parse_object(text, message); e != errc::ok) return e;
    out = {};
    bool good = read_text(message, "id", out.id);
    if (good && out.id.empty()) return errc::id_missing;
    good = good && read_text(message, "version", out.version) && read_text(message, "method", out.method);
    if (json const* const sys = find(message, "sys")) {
        int ack = 1;
        good = good && read_number(*sys, "ack", ack);
        out.wants_reply = ack != 0;
    }
    out.params = json::object();
    if (auto const at = message.find("params"); at != message.end() && !at->is_null()) out.params = std::move(*at);
    good = good && (out.params.is_object() || out.params.is_array());
    return good ? errc::ok : errc::member_of_wrong_type;
}

/// Reads a reply. On an error `out` has no more than its identifier, if it has one.
inline errc decode(std::string_view text, reply& out) {
    out = {};
    json message;
    if (errc const e = parse_object(text, message); e != errc::ok) return e;
    if (!read_text(message, "id", out.id)) return errc::member_of_wrong_type;
    if (out.id.empty()) return errc::id_missing;
    json const* const code = find(message, "code");
    if (code == nullptr || code->is_null()) return errc::code_missing;
    reply made;
    if (!read_number(message, "code", made.code) || !read_text(message, "message", made.message))
        return errc::member_of_wrong_type;
    made.id = out.id;
    if (auto const at = message.find("data"); at != message.end() && !at->is_null()) made.data = std::move(*at);
    out = std::move(made);
    return errc::ok;
}

/// Writes a request. Without a `method` none is written. Throws as `write`.
inline std::string encode_call(std::string_view id, std::string_view method, json const& params,
                               bool wants_reply = true) {
    json message = {{"id", id}, {"version", "1.0"}, {"params", params}};
    if (!method.empty()) message["method"] = method;
    // Left out it means the product's setting, so it is always said.
    message["sys"] = {{"ack", wants_reply ? 1 : 0}};
    return write(message);
}

/// Writes a reply. Throws as `write`.
inline std::string encode(reply const& r) {
    json message = {{"id", r.id}, {"code", r.code}, {"data", r.data}};
    if (!r.message.empty()) message["message"] = r.message;
    return write(message);
}

/// The method that goes with a thing model's topic: `/sys/PK/DN/thing/service/property/set` becomes
/// `thing.service.property.set`. Empty for other topics.
inline std::string method_of(std::string_view topic) {
    constexpr std::string_view prefix = "/sys/";
    if (!topic.starts_with(prefix)) return {};
    topic.remove_prefix(prefix.size());
    for (int names = 0; names < 2; ++names) {
        auto const slash = topic.find('/');
        if (slash == topic.npos) return {};
        topic.remove_prefix(slash + 1);
    }
    if (!topic.starts_with("thing/")) return {};
    std::string method(topic);
    for (char& c : method)
        if (c == '/') c = '.';
    return method;
}

}  // namespace runnel::aliyun::alink
