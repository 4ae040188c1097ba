#pragma once

// How the examples with many settings read them: the text that explains the settings is also the list of them.

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <initializer_list>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace example {

/// A mistake in the settings, in words for who made it.
struct usage_error : std::runtime_error {
    using runtime_error::runtime_error;
};

/// The settings of a program, by name: from the command line first, from the environment second.
///
/// `usage` has a line for each, which begins with two spaces or more and the name, as in
///
///       --host HOST     what it is       (has a value)
///       -c, --count N   what it is       (has a value, and a short name)
///       --ws            what it is       (is on or off)
class settings {
  public:
    /// Reads the arguments from `first` on. With an `environment`, what is not given is looked for under that name with
    /// the setting's behind it: "ALIYUN_" and --client-id make ALIYUN_CLIENT_ID. Throws `usage_error`.
    settings(std::string_view usage, int argc, char** argv, int first = 1, std::string environment = {})
        : environment_(std::move(environment)) {
        read_usage(usage);
        for (int i = first; i < argc; ++i) {
            std::string name = argv[i];
            auto const equals = name.find('=');
            bool const joined = name.starts_with("--") && equals != std::string::npos;
            std::string value = joined ? name.substr(equals + 1) : std::string();
            if (joined) name.resize(equals);
            auto const known = known_.find(name);
            if (known == known_.end()) throw usage_error("there is no setting '" + name + "'");
            if (!known->second.has_value && joined) throw usage_error(name + " has no value");
            if (known->second.has_value && !joined) {
                if (++i == argc) throw usage_error(name + " needs a value");
                value = argv[i];
            }
            given_[known->second.name] = value;
        }
    }

    /// Whether the setting was given.
    bool has(std::string const& name) const { return given_.contains(name) || from_environment(name) != nullptr; }

    std::string get(std::string const& name, std::string const& otherwise = {}) const {
        if (auto const found = given_.find(name); found != given_.end()) return found->second;
        char const* const value = from_environment(name);
        return value != nullptr ? value : otherwise;
    }

    std::string required(std::string const& name) const {
        auto value = get(name);
        if (value.empty()) throw usage_error("--" + name + " is missing");
        return value;
    }

    /// A number in the range, or a `usage_error` that tells the range.
    std::uint64_t number(std::string const& name, std::uint64_t otherwise, std::uint64_t minimum,
                         std::uint64_t maximum) const {
        auto const text = get(name);
        if (text.empty() && !given_.contains(name)) return otherwise;
        std::uint64_t value = 0;
        auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error != std::errc{} || end != text.data() + text.size() || value < minimum || value > maximum)
            throw usage_error("--" + name + " must be a number from " + std::to_string(minimum) + " to " +
                              std::to_string(maximum));
        return value;
    }

    /// One of some words, or a `usage_error` that tells them.
    std::string choice(std::string const& name, std::string const& otherwise,
                       std::initializer_list<std::string_view> words) const {
        auto value = get(name, otherwise);
        std::string all;
        for (auto const word : words) {
            if (value == word) return value;
            all += (all.empty() ? "" : word == *(words.end() - 1) ? " or " : ", ") + std::string(word);
        }
        throw usage_error("--" + name + " must be " + all);
    }

  private:
    struct setting {
        std::string name;
        bool has_value;
    };

    void read_usage(std::string_view text) {
        while (!text.empty()) {
            auto const line = text.substr(0, text.find('\n'));
            text.remove_prefix(std::min(text.size(), line.size() + 1));
            auto const at = line.find("--");
            auto const before = line.substr(0, at);
            if (at == std::string_view::npos || at < 2 || !before.starts_with("  ")) continue;
            std::string short_name(before.substr(2));
            if (short_name.find_first_not_of(' ') == std::string::npos)
                short_name.clear();
            else if (short_name.size() != 4 || !short_name.starts_with('-') || !short_name.ends_with(", "))
                continue;
            auto const end = std::min(line.size(), line.find(' ', at));
            bool const has_value = end + 1 < line.size() && line[end + 1] != ' ';
            setting const one{std::string(line.substr(at + 2, end - at - 2)), has_value};
            known_[std::string(line.substr(at, end - at))] = one;
            if (!short_name.empty()) known_[short_name.substr(0, 2)] = one;
        }
    }

    char const* from_environment(std::string const& name) const {
        if (environment_.empty()) return nullptr;
        std::string variable = environment_ + name;
        for (char& c : variable) c = c == '-' ? '_' : c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
        return std::getenv(variable.c_str());
    }

    std::string environment_;
    std::map<std::string, setting> known_;
    std::map<std::string, std::string> given_;
};

/// The frame of a `main`: prints the usage when asked for it, calls `program`, and tells what goes wrong. Returns the
/// program's status, or 2 for a mistake in the settings, 1 for any other failure.
template <class Program>
int run(char const* usage, int argc, char** argv, Program program) {
    try {
        for (int i = 1; i < argc; ++i) {
            std::string_view const argument = argv[i];
            bool const is_short = argument == "-h" && std::string_view(usage).find("  -h, ") == std::string_view::npos;
            if (argument != "--help" && !is_short) continue;
            std::fputs(usage, stdout);
            return 0;
        }
        return program();
    } catch (usage_error const& mistake) {
        std::fprintf(stderr, "%s\n\n%s", mistake.what(), usage);
        return 2;
    } catch (std::exception const& error) {
        std::fprintf(stderr, "failed: %s\n", error.what());
        return 1;
    }
}

}  // namespace example
