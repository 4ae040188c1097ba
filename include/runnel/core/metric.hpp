#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/printable.hpp>
#include <runnel/core/utf8.hpp>

#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace runnel {

/// What a metric's value is, by OpenTelemetry's names of instruments.
enum class metric_kind : std::uint8_t {
    counter,          ///< a sum that only grows
    up_down_counter,  ///< a sum that grows and shrinks: that of several sources means something
    gauge,            ///< a value of now: that of several sources does not add up
};

/// What tells values of the same name apart: a name and a value, of Prometheus a label.
struct metric_attribute {
    std::string name{};
    std::string value{};

    friend bool operator==(metric_attribute const&, metric_attribute const&) = default;
};

/// One value, measured, and what an exporter of OpenTelemetry's needs to know of it.
struct metric {
    std::string name{};         ///< by OpenTelemetry's conventions, with dots: "runnel.mqtt.io"
    std::string description{};  ///< for people
    std::string unit{};         ///< UCUM's: "By", "s"; what is counted in braces: "{message}"; or nothing
    metric_kind kind = metric_kind::counter;
    double value = 0;  ///< counts are exact up to 2 to the power of 53
    std::vector<metric_attribute> attributes{};

    friend bool operator==(metric const&, metric const&) = default;
};

/// A snapshot: metrics with attributes that all of them have, such as which session of a program they are of.
class metric_list {
  public:
    metric_list() = default;
    RUNNEL_COLD metric_list(std::initializer_list<metric_attribute> common) : common_(common) {}
    RUNNEL_COLD explicit metric_list(std::vector<metric_attribute> common) : common_(std::move(common)) {}

    /// Adds one. `attributes` stand behind those of all.
    RUNNEL_COLD void add(metric m) {
        m.attributes.insert(m.attributes.begin(), common_.begin(), common_.end());
        metrics_.push_back(std::move(m));
    }
    /// Adds all of another list, with their own attributes.
    RUNNEL_COLD void add(metric_list const& other) {
        metrics_.insert(metrics_.end(), other.metrics_.begin(), other.metrics_.end());
    }

    std::vector<metric> const& metrics() const noexcept { return metrics_; }
    auto begin() const noexcept { return metrics_.begin(); }
    auto end() const noexcept { return metrics_.end(); }

  private:
    std::vector<metric_attribute> common_{};
    std::vector<metric> metrics_{};
};

namespace detail {

// Letters, digits and underscores; what else there is becomes one, and stands in front of a digit at the beginning.
RUNNEL_COLD inline std::string prometheus_identifier(std::string_view text) {
    std::string out;
    for (char const c : text) {
        bool const is_digit = c >= '0' && c <= '9';
        bool const is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (is_digit && out.empty()) out += '_';
        out += is_digit || is_letter ? c : '_';
    }
    return out.empty() ? "_" : out;
}

RUNNEL_COLD inline void append_escaped(std::string& out, std::string_view text, bool in_quotes) {
    std::string readable;
    if (!is_utf8(text)) {
        readable = printable(text);
        text = readable;
    }
    for (char const c : text) {
        if (c == '\n') {
            out += "\\n";
            continue;
        }
        if (c == '\\' || (in_quotes && c == '"')) out += '\\';
        out += c;
    }
}

RUNNEL_COLD inline void append_number(std::string& out, double value) {
    if (std::isnan(value)) {
        out += "NaN";
    } else if (std::isinf(value)) {
        out += value < 0 ? "-Inf" : "+Inf";
    } else {
        char text[32];
        constexpr double exact = 9'007'199'254'740'992;  // 2 to the power of 53
        bool const is_whole = std::abs(value) <= exact && std::trunc(value) == value;
        auto const end = is_whole ? std::to_chars(text, text + sizeof(text), static_cast<std::int64_t>(value)).ptr
                                  : std::to_chars(text, text + sizeof(text), value).ptr;
        out.append(text, end);
    }
}

}  // namespace detail

/// The name of a metric as Prometheus has it: dots become underscores, the unit stands behind ("_bytes", "_seconds"),
/// and
/// "_total" behind that of a counter.
RUNNEL_COLD inline std::string prometheus_name(metric const& m) {
    auto name = detail::prometheus_identifier(m.name);
    std::string_view const unit = m.unit == "By" ? "_bytes" : m.unit == "s" ? "_seconds" : "";
    if (!name.ends_with(unit)) name += unit;
    if (m.kind == metric_kind::counter && !name.ends_with("_total")) name += "_total";
    return name;
}

/// The metrics in Prometheus' text format, version 0.0.4; to be served as `prometheus_content_type`. `labels` stand in
/// front of each one's attributes. Metrics of one name are put together, as the format asks for; their help and type
/// are those of the first. Two of one name with the same attributes are the caller's mistake, which Prometheus refuses.
RUNNEL_COLD inline std::string to_prometheus(std::span<metric const> metrics,
                                             std::span<metric_attribute const> labels = {}) {
    std::vector<std::string> names;
    for (auto const& m : metrics) names.push_back(prometheus_name(m));
    std::vector<bool> done(metrics.size());
    std::string out;
    auto const append_sample = [&](std::string const& name, metric const& m) {
        out += name;
        char before = '{';
        for (auto const list : {labels, std::span<metric_attribute const>(m.attributes)}) {
            for (auto const& label : list) {
                out += std::exchange(before, ',');
                out.append(detail::prometheus_identifier(label.name)).append("=\"");
                detail::append_escaped(out, label.value, true);
                out += '"';
            }
        }
        if (before == ',') out += '}';
        out += ' ';
        detail::append_number(out, m.value);
        out += '\n';
    };
    for (std::size_t i = 0; i < metrics.size(); ++i) {
        if (done[i]) continue;
        auto const& first = metrics[i];
        out.append("# HELP ").append(names[i]).append(1, ' ');
        detail::append_escaped(out, first.description, false);
        out.append("\n# TYPE ").append(names[i]);
        out += first.kind == metric_kind::counter ? " counter\n" : " gauge\n";
        for (std::size_t j = i; j < metrics.size(); ++j) {
            if (done[j] || names[j] != names[i]) continue;
            append_sample(names[i], metrics[j]);
            done[j] = true;
        }
    }
    return out;
}

/// The same for a list.
RUNNEL_COLD inline std::string to_prometheus(metric_list const& list, std::span<metric_attribute const> labels = {}) {
    return to_prometheus(std::span<metric const>(list.metrics()), labels);
}

/// What an HTTP server says of such a text: its Content-Type.
inline constexpr std::string_view prometheus_content_type = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace runnel
