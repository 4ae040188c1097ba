#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

namespace runnel_mutation {

// Defined by the header that mutation.py puts beside those with faults; not there in an executable that includes none
// of them.
extern unsigned char reached[] __attribute__((weak));

/// Writes to the file RUNNEL_MUTATION_REACHED which faults each test case comes by, itself or in processes that it
/// forks: `= SECONDS NAME`, then a number a line.
class listener : public doctest::IReporter {
  public:
    explicit listener(doctest::ContextOptions const&) {
        if (char const* const path = std::getenv("RUNNEL_MUTATION_REACHED")) file_ = std::fopen(path, "w");
        if (file_ != nullptr && reached != nullptr) share_with_children();
    }
    ~listener() override {
        if (file_ != nullptr) std::fclose(file_);
    }
    listener(listener const&) = delete;
    listener& operator=(listener const&) = delete;

    void test_case_start(doctest::TestCaseData const& test) override {
        name_ = test.m_name;
        began_ = std::chrono::steady_clock::now();
        for (unsigned i = 0; reached != nullptr && i < highest; ++i) reached[i] = 0;
    }
    void test_case_end(doctest::CurrentTestCaseStats const&) override {
        if (file_ == nullptr) return;
        std::chrono::duration<double> const took = std::chrono::steady_clock::now() - began_;
        std::fprintf(file_, "= %.3f %s\n", took.count(), name_);
        for (unsigned i = 0; reached != nullptr && i < highest; ++i)
            if (reached[i] != 0) std::fprintf(file_, "%u\n", i);
    }

    void report_query(doctest::QueryData const&) override {}
    void test_run_start() override {}
    void test_run_end(doctest::TestRunStats const&) override {}
    void test_case_reenter(doctest::TestCaseData const&) override {}
    void test_case_exception(doctest::TestCaseException const&) override {}
    void subcase_start(doctest::SubcaseSignature const&) override {}
    void subcase_end() override {}
    void log_assert(doctest::AssertData const&) override {}
    void log_message(doctest::MessageData const&) override {}
    void test_case_skipped(doctest::TestCaseData const&) override {}

  private:
    static constexpr unsigned highest = 131072;  // as in mutation.py

    // New memory in the place of the array, which is whole pages.
    static void share_with_children() {
        auto* const there =
            ::mmap(reached, highest, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (there == reached) return;
        std::perror("mutation/reached.hpp: mmap");
        std::abort();
    }

    std::FILE* file_ = nullptr;
    char const* name_ = "";
    std::chrono::steady_clock::time_point began_;
};

DOCTEST_REGISTER_LISTENER("runnel_mutation", 1, listener);

}  // namespace runnel_mutation
