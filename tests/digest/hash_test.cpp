#include <runnel/digest/hash.hpp>
#include <runnel/digest/hex.hpp>
#include <runnel/digest/hmac.hpp>
#include <runnel/digest/md5.hpp>
#include <runnel/digest/sha1.hpp>
#include <runnel/digest/sha256.hpp>
#include <runnel/digest/sha512.hpp>

#include <doctest/doctest.h>

using namespace runnel::digest;

namespace {

// The least that the concept asks for: the sum of all bytes.
struct byte_sum {
    static constexpr std::size_t digest_size = 1;
    static constexpr std::size_t block_size = 4;
    constexpr void update(std::string_view bytes) {
        for (char c : bytes) sum = static_cast<unsigned char>(sum + static_cast<unsigned char>(c));
    }
    constexpr std::array<char, 1> finish() { return {static_cast<char>(sum)}; }

    unsigned char sum = 0;
};

struct no_block_size {
    static constexpr std::size_t digest_size = 1;
    void update(std::string_view) {}
    std::array<char, 1> finish() { return {}; }
};

static_assert(runnel::digest::hash<byte_sum>);
static_assert(runnel::digest::hash<md5> && runnel::digest::hash<sha1> && runnel::digest::hash<sha256>);
static_assert(runnel::digest::hash<sha512> && sha512::digest_size == 64 && sha512::block_size == 128);
static_assert(!runnel::digest::hash<no_block_size> && !runnel::digest::hash<int>);
static_assert(md5::digest_size == 16 && sha1::digest_size == 20 && sha256::digest_size == 32);

static_assert(compute<byte_sum>("\x01\x02\x03")[0] == 6);
// Inner: 4 * 0x36 and the key twice mixed, by hand: (0x37 + 3 * 0x36 + 5) then 0x5d + 3 * 0x5c + that.
static_assert(static_cast<unsigned char>(authenticate<byte_sum>("\x01", "\x05")[0]) ==
              ((0x5d + 3 * 0x5c + 0x37 + 3 * 0x36 + 5) & 0xff));

}  // namespace

TEST_CASE_TEMPLATE("a digest does not depend on how its input is cut into pieces", H, md5, sha1, sha256, sha512) {
    std::string input;
    for (int i = 0; i < 200; ++i) input += static_cast<char>(i * 7);
    auto const whole = compute<H>(input);
    for (std::size_t first = 0; first <= input.size(); ++first) {
        CAPTURE(first);
        H h;
        h.update(std::string_view(input).substr(0, first));
        h.update({});
        h.update(std::string_view(input).substr(first));
        CHECK(h.finish() == whole);
    }
    H byte_by_byte;
    for (char const& c : input) byte_by_byte.update({&c, 1});
    CHECK(byte_by_byte.finish() == whole);
}

TEST_CASE_TEMPLATE("a copy of a hash goes on from where the original was", H, md5, sha1, sha256, sha512) {
    H original;
    original.update("a common beginning, ");
    H copy = original;
    original.update("one end");
    copy.update("another end");
    CHECK(original.finish() == compute<H>("a common beginning, one end"));
    CHECK(copy.finish() == compute<H>("a common beginning, another end"));
}

TEST_CASE_TEMPLATE("compile time and run time agree at every length around the block size", H, md5, sha1, sha256,
                   sha512) {
    constexpr std::size_t around = H::block_size;
    constexpr auto digests = [] {
        std::array<typename H::digest_type, 20> all{};
        std::array<char, H::block_size + 16> input{};
        for (std::size_t i = 0; i < all.size(); ++i) {
            input.fill(static_cast<char>(i));
            all[i] = compute<H>({input.data(), around - 14 + i});
        }
        return all;
    }();
    for (std::size_t i = 0; i < digests.size(); ++i) {
        CAPTURE(i);
        CHECK(compute<H>(std::string(around - 14 + i, static_cast<char>(i))) == digests[i]);
    }
}

TEST_CASE_TEMPLATE("the plain compression function agrees with the processor's instructions", C, sha1_compression,
                   sha256_compression) {
    std::string blocks;
    for (int i = 0; i < 64 * 5; ++i) blocks += static_cast<char>(i * i + 3 * i);
    auto plain = C::initial_state;
    auto fastest = C::initial_state;
    C::compress_portably(plain, blocks.data(), 5);
    C::compress(fastest, blocks.data(), 5);
    CHECK(plain == fastest);
}
