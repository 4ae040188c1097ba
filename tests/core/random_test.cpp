#include <runnel/core/random.hpp>

#include <doctest/doctest.h>

#include <set>
#include <string>
#include <vector>

#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>
#endif

TEST_CASE("random bytes are all overwritten, and no value comes twice in a row of many") {
    std::set<std::uint32_t> seen;
    for (int i = 0; i < 2000; ++i) seen.insert(runnel::random_32());
    // 2000 draws out of 2^32: a collision is as good as excluded, two of them all the more.
    CHECK(seen.size() >= 1998);
}

TEST_CASE("requests of any size are filled completely") {
    for (std::size_t size : {0u, 1u, 3u, 16u, 2047u, 2048u, 2049u, 100'000u}) {
        // Every byte differs from 0 in at least one of 20 fillings, unless bytes are left out (2^-160 a byte).
        std::vector<char> ever(size, 0);
        for (int round = 0; round < 20; ++round) {
            std::vector<char> bytes(size + 1, 0);
            runnel::fill_random(bytes.data(), size);
            for (std::size_t i = 0; i < size; ++i) ever[i] = static_cast<char>(ever[i] | bytes[i]);
            CHECK(bytes[size] == 0);
        }
        bool all = true;
        for (char c : ever) all = all && c != 0;
        CHECK(all);
    }
}

TEST_CASE("the bits are balanced") {
    std::string bytes(1 << 16, '\0');
    runnel::fill_random(bytes.data(), bytes.size());
    std::size_t ones = 0;
    for (char c : bytes)
        for (int bit = 0; bit < 8; ++bit) ones += (static_cast<unsigned char>(c) >> bit) & 1u;
    // 2^19 bits: the standard deviation is 362.
    CHECK(ones > (1u << 18) - 4000);
    CHECK(ones < (1u << 18) + 4000);
}

#if defined(__unix__)
TEST_CASE("a forked process does not draw what its parent draws") {
    static_cast<void>(runnel::random_32());  // the stock is filled before the fork
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    pid_t const child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        std::uint32_t const drawn = runnel::random_32();
        ::_exit(::write(ends[1], &drawn, sizeof(drawn)) == sizeof(drawn) ? 0 : 1);
    }
    std::uint32_t theirs = 0;
    REQUIRE(::read(ends[0], &theirs, sizeof(theirs)) == sizeof(theirs));
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
    CHECK(theirs != runnel::random_32());
    ::close(ends[0]);
    ::close(ends[1]);
}
#endif
