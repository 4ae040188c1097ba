#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/record_pool.hpp>
#include <runnel/core/ring_queue.hpp>
#include <runnel/mqtt/packet/acknowledgement.hpp>
#include <runnel/mqtt/packet/publish.hpp>
#include <runnel/mqtt/protocol/delivery.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::mqtt {

class inbox;

/// Is told what becomes of the QoS 1 and 2 messages of inboxes: by destructors, so that nothing is thrown.
class message_source {
  public:
    /// The application has taken a message: it can be acknowledged.
    virtual void taken(delivery d, reason_code reason, property_view props) noexcept = 0;
    /// The application has given a message back: it is not to be acknowledged.
    virtual void given_back(delivery d, inbox const& by) noexcept = 0;
    /// Nobody will receive from an inbox any more.
    virtual void deserted(inbox const& box) noexcept = 0;
    /// Nobody will receive a message that waits in an inbox; the view is valid until this returns.
    virtual void unread(publish const& packet, delivery d) noexcept = 0;

  protected:
    ~message_source() = default;
};

/// A received message. Its bytes stay where they are until it is destroyed; then a QoS 1 or 2 message is acknowledged,
/// unless an exception has ended the work on it: a message that is destroyed while the stack unwinds for an exception
/// thrown since it came is given back (`abandon`). That is so in a coroutine too, where the exception may be
/// that of a cancellation: for its variables and parameters, but not for what a lambda has captured that was given to
/// `co_spawn`, as that is destroyed only after the exception has been caught.
///
/// Move-only: keep it for as long as the work on it takes, and at-least-once holds to the end of that work.
class message {
  public:
    message() noexcept = default;
    message(message const&) = delete;
    message& operator=(message const&) = delete;
    message(message&& other) noexcept : stored_(std::exchange(other.stored_, nullptr)) {}
    message& operator=(message&& other) noexcept {
        message moved(std::move(other));
        std::swap(stored_, moved.stored_);
        return *this;
    }
    ~message() {
        if (stored_ != nullptr) end();
    }

    std::string_view topic() const noexcept { return view().topic; }
    /// Any bytes.
    std::string_view payload() const noexcept { return view().payload; }
    mqtt::qos qos() const noexcept { return view().qos; }
    /// Whether it is a retained message that was sent because of a new subscription.
    bool retain() const noexcept { return view().retain; }
    /// Whether the sender has sent it before, perhaps.
    bool dup() const noexcept { return view().dup; }
    /// MQTT 5.
    property_view const& props() const noexcept { return view().props; }
    /// All of it, as a view that is valid as long as the message is.
    publish const& view() const noexcept { return stored_->packet; }

    /// Whether there is a message: false after a move, `acknowledge`, `abandon`, and default construction.
    explicit operator bool() const noexcept { return stored_ != nullptr; }

    /// Acknowledges the message now and lets go of it. In MQTT 5 a `reason` of 0x80 and above refuses it, and `props`
    /// may have a reason string and user properties; in MQTT 3.1.1 neither is sent. Throws an `errc`, and does nothing,
    /// if PUBACK or PUBREC cannot have them.
    void acknowledge(reason_code reason = reason_code::success, property_view props = {}) {
        if (stored_ == nullptr) return;
        auto const type = qos() == qos::exactly_once ? packet_type::pubrec : packet_type::puback;
        errc const e = check(acknowledgement{type, 1, reason, props}, protocol_version::v5);
        if (e != errc::ok) RUNNEL_THROW(std::system_error(e));
        release(reason, props);
    }

    /// Lets go of a QoS 1 or 2 message without acknowledging it: the server sends it again on the next connection, with
    /// `dup`, and the subscription gets it again; others that have had it do not. On this connection it goes on to
    /// count for the receive maximum, and later messages of its subscription and QoS, though they can be taken, are
    /// acknowledged only on the next one, where they do not come again.
    RUNNEL_COLD inline void abandon() noexcept;

    /// A copy with memory of its own, of which nothing depends: destroying it acknowledges nothing.
    message copy() const { return copy_of(view()); }
    /// A copy of a message that is there as a view.
    static message copy_of(publish const& view);

  private:
    friend inbox;

    // The packet's views point to the bytes that follow the structure.
    struct stored {
        publish packet;
        delivery token;
        int exceptions;  // that were on their way when it came
        inbox* box;      // nullptr: the memory is the message's own

        static std::size_t size_of(publish const& p) noexcept {
            return sizeof(stored) + p.topic.size() + p.props.raw().size() + p.payload.size();
        }

        static stored* put(void* memory, publish const& p, delivery token, int exceptions, inbox* box) noexcept {
            auto* const s = ::new (memory) stored{p, token, exceptions, box};
            char* at = reinterpret_cast<char*>(s + 1);
            auto const keep = [&at](std::string_view bytes) {
                if (!bytes.empty()) std::memcpy(at, bytes.data(), bytes.size());
                return std::string_view(std::exchange(at, at + bytes.size()), bytes.size());
            };
            s->packet.topic = keep(p.topic);
            s->packet.props = p.props.relocated(keep(p.props.raw()));
            s->packet.payload = keep(p.payload);
            return s;
        }
    };

    explicit message(stored* s) noexcept : stored_(s) {}
    inline void end() noexcept;
    inline void release(reason_code reason, property_view props) noexcept;

    stored* stored_ = nullptr;
};

/// Where a subscription's messages wait for the application, in order of arrival.
///
/// Its size is bounded for QoS 0: beyond `capacity` bytes such messages are dropped and counted; but one is taken in,
/// whatever its size, where none waits and the application holds at most one. QoS 1 and 2 messages are always taken in:
/// they are bounded by `session_options::receive_maximum`, as they are acknowledged only once the application lets go
/// of them.
///
/// It has one owner, and lives until that has gone and the application holds no message of it.
class inbox {
    struct leave {
        void operator()(inbox* box) const noexcept {
            box->is_owned_ = false;
            box->end_if_unused();
        }
    };

  public:
    using owner = std::unique_ptr<inbox, leave>;
    static owner make(std::size_t capacity) { return owner(new inbox(capacity)); }

    inbox(inbox const&) = delete;
    inbox& operator=(inbox const&) = delete;
    /// The one to be told when messages are taken, as long as it exists.
    void set_source(std::weak_ptr<message_source> source) noexcept { source_ = std::move(source); }
    /// Whether that is `source`, and exists.
    bool is_of(message_source const* source) const noexcept { return source_.lock().get() == source; }

    /// Makes sure that the memory for a message is there, so that `push` cannot fail.
    void prepare(publish const& packet) {
        unread_.make_room();
        pool_.prepare(message::stored::size_of(packet));
    }

    /// Copies a message into the inbox. False: there is no room.
    bool push(publish const& packet, delivery token) {
        std::size_t const size = message::stored::size_of(packet);
        if (bytes_ + size > capacity_ && packet.qos == qos::at_most_once && !has_room_for_one()) {
            ++dropped_;
            return false;
        }
        if (unread_.empty()) exceptions_ = std::uncaught_exceptions();
        unread_.make_room();  // what can fail comes first
        unread_.place(message::stored::put(pool_.take(size), packet, token, exceptions_, this));
        bytes_ += size;
        return true;
    }

    /// The oldest message that has not been received, or none.
    message pop() noexcept {
        if (unread_.empty()) return {};
        auto* const s = unread_.front();
        unread_.pop();
        ++held_;
        return message(s);
    }

    /// Nobody will receive what waits: the source is told.
    RUNNEL_COLD void drop_unread() {
        while (!unread_.empty()) {
            auto* const s = unread_.front();
            unread_.pop();
            bool const unread = s->token.quality != qos::at_most_once && !is_unwanted_;
            if (auto const source = unread ? source_.lock() : nullptr) source->unread(s->packet, s->token);
            unread ? static_cast<void>(free(s)) : let_go(s, reason_code::success, {});
        }
    }
    /// Nobody will receive from it any more.
    RUNNEL_COLD void desert() {
        if (auto const source = source_.lock()) source->deserted(*this);
        drop_unread();
    }
    /// The application wants no more of the messages, so that what nobody reads is as good as taken.
    void set_unwanted() noexcept { is_unwanted_ = true; }
    bool is_unwanted() const noexcept { return is_unwanted_; }

    /// The number of messages received so far.
    std::uint64_t received() const noexcept { return unread_.first(); }
    /// Whether QoS 1 or 2 messages wait.
    RUNNEL_COLD bool holds_acknowledgements() noexcept {
        for (auto n = unread_.first(); n != unread_.next(); ++n)
            if (unread_[n]->token.quality != qos::at_most_once) return true;
        return false;
    }

    /// Calls `f(delivery)` for each QoS 1 or 2 message that waits.
    template <class F>
    RUNNEL_COLD void for_each_unread(F&& f) {
        for (auto n = unread_.first(); n != unread_.next(); ++n)
            if (unread_[n]->token.quality != qos::at_most_once) f(unread_[n]->token);
    }

    /// The number of messages that wait.
    std::size_t size() const noexcept { return unread_.size(); }
    /// Bytes of all messages that wait or that the application holds.
    std::size_t bytes() const noexcept { return bytes_; }
    /// Of these, bytes beyond the bound that QoS 0 messages keep to.
    std::size_t excess() const noexcept { return bytes_ - (std::min)(bytes_, capacity_); }
    /// QoS 0 messages dropped for want of room.
    std::uint64_t dropped() const noexcept { return dropped_; }

  private:
    friend message;

    explicit inbox(std::size_t capacity) noexcept : capacity_(capacity) {}
    ~inbox() { drop_unread(); }

    void end_if_unused() noexcept {
        if (held_ == 0 && !is_owned_) [[unlikely]]
            delete this;
    }

    // A message that the application has held: what is told may end the owner.
    void let_go_of_held(message::stored* s, reason_code reason, property_view props) noexcept {
        if (s->token.quality == qos::at_most_once) [[likely]]
            free(s);
        else
            let_go(s, reason, props);
        --held_;
        end_if_unused();
    }
    RUNNEL_COLD void give_back_held(message::stored* s) noexcept {
        delivery const token = free(s);
        if (auto const source = token.quality != qos::at_most_once ? source_.lock() : nullptr)
            source->given_back(token, *this);
        --held_;
        end_if_unused();
    }

    RUNNEL_NOINLINE void let_go(message::stored* s, reason_code reason, property_view props) noexcept {
        delivery const token = free(s);
        if (token.quality == qos::at_most_once) return;
        if (auto const source = source_.lock()) source->taken(token, reason, props);
    }
    delivery free(message::stored* s) noexcept {
        delivery const token = s->token;
        bytes_ -= message::stored::size_of(s->packet);
        pool_.give_back(s);
        return token;
    }

    RUNNEL_COLD RUNNEL_NOINLINE bool has_room_for_one() const noexcept {
        return unread_.empty() && pool_.records() <= 1;
    }

    record_pool pool_{};
    ring_queue<message::stored*> unread_{};
    std::size_t capacity_;
    std::size_t bytes_ = 0;
    std::uint64_t dropped_ = 0;
    std::size_t held_ = 0;  // messages that the application holds
    int exceptions_ = 0;
    bool is_unwanted_ = false;
    bool is_owned_ = true;
    std::weak_ptr<message_source> source_{};
};

inline void message::end() noexcept {
    if (qos() != qos::at_most_once && std::uncaught_exceptions() > stored_->exceptions) [[unlikely]]
        abandon();
    else
        release(reason_code::success, {});
}

inline void message::release(reason_code reason, property_view props) noexcept {
    auto* const s = std::exchange(stored_, nullptr);
    if (s->box != nullptr) [[likely]]
        s->box->let_go_of_held(s, reason, props);
    else
        ::operator delete(s);
}

inline void message::abandon() noexcept {
    if (stored_ == nullptr) return;
    auto* const s = std::exchange(stored_, nullptr);
    if (s->box != nullptr)
        s->box->give_back_held(s);
    else
        ::operator delete(s);
}

inline message message::copy_of(publish const& view) {
    return message(stored::put(::operator new(stored::size_of(view)), view, {}, 0, nullptr));
}

}  // namespace runnel::mqtt
