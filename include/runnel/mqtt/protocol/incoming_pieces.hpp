#pragma once

#include <runnel/core/bytes.hpp>
#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/codec/fixed_header.hpp>
#include <runnel/mqtt/codec/topic.hpp>
#include <runnel/mqtt/packet/publish.hpp>
#include <runnel/mqtt/protocol/delivery.hpp>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace runnel::mqtt {

/// How long the body of a PUBLISH is without its payload, as far as `body` shows it: topic, packet identifier and
/// properties (3.3.2). Nothing: that is not to be seen yet.
constexpr std::optional<std::size_t> publish_head_size(fixed_header const& header, std::string_view body,
                                                       protocol_version version) noexcept {
    if (body.size() < 2) return std::nullopt;
    std::size_t size = 2u + read_big_endian<std::uint16_t>(body.data());
    if ((header.flags & 6) != 0) size += 2;
    if (version == protocol_version::v3_1_1) return size;
    if (body.size() < size) return std::nullopt;
    auto const length = read_variable_integer(body.substr(size));
    if (length.size == 0) return length.error == errc::ok ? std::nullopt : std::optional(size);
    return size + length.size + length.value;
}

/// Messages that are received in pieces: who wants them, and what has come of the one that is coming. Without I/O.
///
/// | state      | what comes                                      | then                                         |
/// |------------|-------------------------------------------------|----------------------------------------------|
/// | `idle`     | packets                                         | `begin`: `coming`; `skip`: passed over       |
/// | `coming`   | the payload, for a taker                        | its last byte: `whole`; `abort`: `aborted`   |
/// | `whole`    | packets; the taker has not finished             | `finish`: `idle`                             |
/// | `aborted`  | packets; the taker has not been told yet        | `finish`: `idle`                             |
///
/// In `idle`, `whole` and `aborted` a payload that nobody wants may be passed over (`skip`). One message at a time: the
/// head of another one has to wait until the taker has finished. What has come and has not been taken is never more
/// than `piece_size`; behind that nothing is read.
class incoming_pieces {
  public:
    /// Bytes of the largest piece.
    static constexpr std::size_t piece_size = 64 * 1024;
    /// Bytes of topic, packet identifier and properties up to which a message can come in pieces; else it comes whole.
    static constexpr std::size_t max_head = 128 * 1024;

    enum class state : std::uint8_t { idle, coming, whole, aborted };
    /// Who takes messages in pieces, as the caller knows him; never null.
    using taker = void*;

    state current() const noexcept { return state_; }

    /// From now on messages whose topic matches one of `filters` are for `who`.
    void add(taker who, std::vector<std::string> filters) { takers_.push_back({who, std::move(filters)}); }
    /// `who` takes no more. Returns the message that he has not finished, which the peer is to send again, if there is
    /// one; what comes of it is passed over.
    std::optional<delivery> remove(taker who) noexcept {
        std::erase_if(takers_, [&](entry const& e) { return e.who == who; });
        if (taker_ != who || state_ == state::idle) return std::nullopt;
        bool const is_over = state_ == state::aborted;
        if (state_ == state::coming) skipped_ = left_;
        finish();
        return is_over ? std::nullopt : std::optional(token_);
    }
    /// Whether anybody takes messages in pieces.
    bool is_wanted() const noexcept { return !takers_.empty(); }

    /// Who takes messages of this topic; of several the first. Null: nobody.
    taker find(std::string_view topic) const noexcept {
        for (auto const& e : takers_)
            if (std::ranges::any_of(e.filters, [&](auto const& f) { return is_match(f, topic); })) return e.who;
        return nullptr;
    }

    // --- what comes

    /// Whether what comes next is payload.
    bool in_payload() const noexcept { return state_ == state::coming || skipped_ != 0; }
    /// Whether there is a message that has not been finished.
    bool is_busy() const noexcept { return state_ != state::idle; }
    /// Whether nothing more can be taken in until the taker has gone on.
    bool is_held() const noexcept { return is_held_; }
    void hold() noexcept { is_held_ = true; }

    /// A message begins, whose payload of `size` bytes is to come. `head` is copied.
    void begin(taker who, publish const& head, std::uint64_t size, delivery token) {
        assert(!is_busy() && skipped_ == 0);
        if (head_.use_count() != 1) head_ = std::make_shared<kept_head>();
        head_->keep(head);
        buffer_.reserve(static_cast<std::size_t>(std::min<std::uint64_t>(size, piece_size)));
        token_ = token;
        taker_ = who;
        size_ = left_ = size;
        state_ = size == 0 ? state::whole : state::coming;
    }
    /// The payload of a message that nobody wants is to come.
    void skip(std::uint64_t size) noexcept { skipped_ = size; }

    /// Takes in payload; returns how much. Less than there is: the rest is no payload, or `is_held`.
    std::size_t feed(std::string_view input) {
        if (skipped_ != 0) {
            auto const n = std::min<std::uint64_t>(input.size(), skipped_);
            skipped_ -= n;
            return static_cast<std::size_t>(n);
        }
        std::size_t const room = piece_size - buffer_.size();
        auto const n = static_cast<std::size_t>(std::min<std::uint64_t>((std::min)(room, input.size()), left_));
        buffer_.append(input.substr(0, n));
        left_ -= n;
        if (left_ == 0) state_ = state::whole;
        is_held_ = left_ != 0 && buffer_.size() == piece_size;
        return n;
    }

    /// The connection has gone, or nothing of the peer counts any more. Returns the message of which the rest will not
    /// come, and which is to be sent again.
    std::optional<delivery> abort() noexcept {
        skipped_ = 0;
        is_held_ = false;
        if (state_ != state::coming) return std::nullopt;
        state_ = state::aborted;
        buffer_.clear();
        return token_;
    }

    // --- for the taker

    /// Whether the message that there is is for `who`.
    bool is_for(taker who) const noexcept { return is_busy() && taker_ == who; }
    taker current_taker() const noexcept { return is_busy() ? taker_ : nullptr; }
    /// The message, without its payload: views that are valid until `finish`.
    publish const& head() const noexcept { return head_->message; }
    /// The same, valid for as long as it is shared.
    std::shared_ptr<publish const> share_head() const noexcept { return {head_, &head_->message}; }
    /// Bytes of its whole payload.
    std::uint64_t size() const noexcept { return size_; }
    delivery token() const noexcept { return token_; }
    /// By which the message is told from another one with its packet identifier: it has the size for payload.
    publish mark() const noexcept { return marked(head(), size_, size_text_); }
    static publish marked(publish head, std::uint64_t size, std::array<char, 8>& text) noexcept {
        write_big_endian(text.data(), size);
        head.payload = {text.data(), text.size()};
        return head;
    }

    /// Whether a piece waits to be taken.
    bool has_piece() const noexcept { return !buffer_.empty(); }
    /// Exchanges the piece for an empty buffer, which `into` becomes.
    void take(std::string& into) noexcept {
        into.clear();
        into.swap(buffer_);
        is_held_ = false;
    }
    /// The taker is done with the message.
    void finish() noexcept {
        state_ = state::idle;
        taker_ = nullptr;
        is_held_ = false;
        buffer_.clear();
    }
    /// Gives memory back that is kept for the next message.
    void release() noexcept {
        buffer_ = {};
        head_.reset();
    }

  private:
    struct entry {
        taker who;
        std::vector<std::string> filters{};
    };

    // A message without its payload, whose views are into `bytes`.
    struct kept_head {
        void keep(publish const& head) {
            bytes.clear();
            bytes.reserve(head.topic.size() + head.props.raw().size());
            bytes.append(head.topic).append(head.props.raw());
            message = head;
            message.topic = std::string_view(bytes).substr(0, head.topic.size());
            message.props = head.props.relocated(std::string_view(bytes).substr(head.topic.size()));
            message.payload = {};
        }
        std::string bytes{};
        publish message{};
    };

    static bool is_match(std::string_view filter, std::string_view topic) noexcept {
        auto const plain = split_shared(filter).filter;
        if (matches(plain, topic)) return true;
        auto const inner = inner_filter(plain);
        return !inner.empty() && matches(inner, topic);
    }

    std::vector<entry> takers_{};
    std::shared_ptr<kept_head> head_{};
    std::string buffer_{};  // payload that has not been taken
    mutable std::array<char, 8> size_text_{};
    delivery token_{};
    taker taker_ = nullptr;
    std::uint64_t size_ = 0;     // of the payload
    std::uint64_t left_ = 0;     // of it is still to come
    std::uint64_t skipped_ = 0;  // bytes of another payload that are to be passed over
    state state_ = state::idle;
    bool is_held_ = false;
};

}  // namespace runnel::mqtt
