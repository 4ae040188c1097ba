#pragma once

#include <runnel/aliyun/alink/protocol/codec.hpp>
#include <runnel/core/saturating.hpp>
#include <runnel/digest/hex.hpp>
#include <runnel/digest/md5.hpp>
#include <runnel/digest/sha256.hpp>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// What the platform offers for download, firmware and remote configurations, and the check of what was downloaded.

namespace runnel::aliyun::alink {

/// How a download's digest is made.
enum class digest_method : std::uint8_t { md5, sha256 };

/// A file to be downloaded.
struct remote_file {
    std::string url{};   ///< HTTPS, valid for a limited time (24 hours for firmware)
    std::string name{};  ///< of one of several files; else empty
    std::uint64_t size = 0;
    digest_method method = digest_method::md5;
    std::string digest{};  ///< hexadecimal, in either case
};

/// A firmware on offer.
struct firmware {
    std::string module{};  ///< what it is for; empty: the device itself
    std::string version{};
    bool is_difference = false;        ///< files hold the difference to the version in use
    std::vector<remote_file> files{};  ///< one or more
    json extra = json::object();       ///< what was added to the offer ("extData")

    /// Bytes of all files; the largest number where they are said to have more.
    std::uint64_t size() const noexcept {
        std::uint64_t sum = 0;
        for (auto const& f : files) sum = add_saturating(sum, f.size);
        return sum;
    }
};

/// A remote configuration on offer.
struct configuration {
    std::string id{};
    remote_file file{};
};

/// Reads the method and the digest of a file: "signMethod" and "sign", or "md5" alone, as older offers have it.
inline errc read_digest(json const& data, char const* sign, char const* md5, std::string method, remote_file& out) {
    for (char& c : method)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (method == "sha256")
        out.method = digest_method::sha256;
    else if (method == "md5" || method.empty())
        out.method = digest_method::md5;
    else
        return errc::digest_unsupported;
    if (!read_text(data, sign, out.digest)) return errc::member_of_wrong_type;
    if (out.digest.empty() && out.method == digest_method::md5 && !read_text(data, md5, out.digest))
        return errc::member_of_wrong_type;
    std::size_t const digits = out.method == digest_method::sha256 ? 64 : 32;
    bool const good = out.digest.size() == digits && digest::decode_hex(out.digest).has_value();
    return good ? errc::ok : out.digest.empty() ? errc::member_missing : errc::member_of_wrong_type;
}

/// Reads the description of a firmware: the member "data" of an upgrade notice, or of the reply to a query. `out` is
/// left alone on an error.
inline errc decode(json const& data, firmware& out) {
    if (!data.is_object()) return errc::not_an_object;
    firmware made;
    std::string method;
    int difference = 0;
    if (!read_text(data, "module", made.module) || !read_text(data, "version", made.version) ||
        !read_text(data, "signMethod", method) || !read_number(data, "isDiff", difference))
        return errc::member_of_wrong_type;
    if (made.version.empty()) return errc::member_missing;
    made.is_difference = difference != 0;
    if (json const* const extra = find(data, "extData")) made.extra = *extra;

    auto const add = [&](json const& from, char const* const(&names)[5]) {
        remote_file f;
        if (!read_text(from, names[0], f.url) || !read_text(from, names[1], f.name) ||
            !read_number(from, names[2], f.size))
            return errc::member_of_wrong_type;
        if (f.url.empty() || find(from, names[2]) == nullptr) return errc::member_missing;
        errc const e = read_digest(from, names[3], names[4], method, f);
        made.files.push_back(std::move(f));
        return e;
    };
    errc e = errc::ok;
    if (json const* const files = find(data, "files")) {
        if (!files->is_array()) return errc::member_of_wrong_type;
        if (files->empty()) return errc::member_missing;
        for (auto const& f : *files)
            if (e == errc::ok) e = add(f, {"fileUrl", "fileName", "fileSize", "fileSign", "fileMd5"});
    } else {
        e = add(data, {"url", "fileName", "size", "sign", "md5"});
    }
    if (e == errc::ok) out = std::move(made);
    return e;
}

/// Reads the description of a remote configuration: the data of the reply to a query, or the parameters of a push.
inline errc decode(json const& data, configuration& out) {
    if (!data.is_object()) return errc::not_an_object;
    configuration made;
    std::string method;
    if (!read_text(data, "configId", made.id) || !read_text(data, "url", made.file.url) ||
        !read_text(data, "signMethod", method) || !read_number(data, "configSize", made.file.size))
        return errc::member_of_wrong_type;
    if (made.id.empty() || made.file.url.empty() || find(data, "configSize") == nullptr) return errc::member_missing;
    errc const e = read_digest(data, "sign", "md5", std::move(method), made.file);
    if (e == errc::ok) out = std::move(made);
    return e;
}

/// Checks a file while it is downloaded, piece by piece, in the order of its bytes.
class download_check {
  public:
    explicit download_check(remote_file const& file) : file_(file) {}

    /// Takes the next bytes. `size_mismatch` as soon as there are more than announced.
    errc add(std::string_view piece) noexcept {
        if (piece.size() > file_.size - bytes_) return errc::size_mismatch;
        bytes_ += piece.size();
        if (file_.method == digest_method::sha256)
            sha256_.update(piece);
        else
            md5_.update(piece);
        return errc::ok;
    }

    /// Bytes so far.
    std::uint64_t bytes() const noexcept { return bytes_; }

    /// The verdict, once all has been added: `ok`, `size_mismatch` or `digest_mismatch`. Call it once.
    errc finish() {
        if (bytes_ != file_.size) return errc::size_mismatch;
        std::string const announced = digest::decode_hex(file_.digest).value_or(std::string());
        auto const matches = [&](auto const& found) {
            return announced == std::string_view(found.data(), found.size());
        };
        bool const good = file_.method == digest_method::sha256 ? matches(sha256_.finish()) : matches(md5_.finish());
        return good ? errc::ok : errc::digest_mismatch;
    }

  private:
    remote_file file_;
    std::uint64_t bytes_ = 0;
    digest::md5 md5_{};
    digest::sha256 sha256_{};
};

/// Where a fetcher hands over what it downloads: `pieces(bytes)`, in order. Throws `errc::size_mismatch` as soon as a
/// file is longer than announced: the download can then be given up.
class pieces {
  public:
    /// `advanced` is told the bytes of this file so far, after each piece.
    pieces(remote_file const& file, std::function<void(std::uint64_t)> advanced)
        : check_(file), advanced_(std::move(advanced)) {}

    void operator()(std::string_view bytes) {
        if (errc const e = check_.add(bytes); e != errc::ok) throw std::system_error(make_error_code(e));
        if (advanced_) advanced_(check_.bytes());
    }
    /// The verdict on the whole file.
    errc finish() { return check_.finish(); }

  private:
    download_check check_;
    std::function<void(std::uint64_t)> advanced_;
};

}  // namespace runnel::aliyun::alink
