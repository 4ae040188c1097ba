#pragma once

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <source_location>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace test {

/// Skips the tests of a file where the real peer that they are about is not there:
/// `test::skip_unless const ready([] { return installed(); }, "nginx is not installed");`
/// A program that is asked for that file alone (`--source-file=*interop/nginx_test.cpp`) then ends before its first
/// test, with the status that meson shows as SKIP.
class skip_unless {
  public:
    /// `there` is asked only where the file's tests are to run.
    skip_unless(std::function<bool()> there, char const* reason,
                std::source_location where = std::source_location::current()) {
        all().push_back({where.file_name(), std::move(there), reason});
    }

    /// What `main` does first. Returns what doctest gets besides its arguments; nothing if empty.
    static std::string apply(int argc, char const* const* argv) {
        constexpr std::string_view only = "--source-file=*";
        std::string_view asked_for;
        for (int i = 1; i < argc; ++i)
            if (std::string_view const argument = argv[i]; argument.starts_with(only))
                asked_for = argument.substr(only.size());

        std::string excluded;
        for (auto const& f : all()) {
            if (!f.file.ends_with(asked_for) || f.there()) continue;
            std::printf("skipped: %s\n", f.reason);
            std::fflush(stdout);
            if (!asked_for.empty()) std::_Exit(77);
            excluded.append(excluded.empty() ? "--source-file-exclude=" : ",").append(f.file);
        }
        return excluded;
    }

  private:
    struct file {
        std::string_view file;
        std::function<bool()> there;
        char const* reason;
    };
    static std::vector<file>& all() {
        static std::vector<file> files;
        return files;
    }
};

}  // namespace test
