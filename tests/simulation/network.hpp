#pragma once

#include <runnel/coro/wait_list.hpp>
#include <runnel/transport/error.hpp>
#include <runnel/transport/stream.hpp>

#include "simulation/machine.hpp"
#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace simulation {

/// How the network is at present.
struct weather {
    microseconds fastest{100};  ///< of the time that bytes are under way
    microseconds slowest{20'000};
    std::size_t capacity = 16 * 1024;  ///< bytes under way in one direction, from which on a writer waits
    std::size_t smallest_piece = 1;    ///< of what a write hands over, and a read gets
    std::size_t largest_piece = 64 * 1024;
    bool refuses = false;  ///< nobody listens
    bool is_deaf = false;  ///< whoever connects gets no answer
};

/// Both ends of a connection, as the two kernels and the network between them see it.
///
/// Bytes that one end has handed over arrive in order, after a while, in pieces. An end that goes with everything read
/// is the end of the flow for the other; with something unread, or if something comes later, a reset. `cut_after`
/// resets the connection at that byte: what is under way then is lost. A link that is half open carries nothing any
/// more, whatever either end does, and nobody is told.
class link : public std::enable_shared_from_this<link> {
  public:
    /// Is told what the client hands over, and what each end reads.
    struct watcher {
        virtual ~watcher() = default;
        virtual bool client_writes(std::string_view bytes) = 0;  // whether a PINGREQ ends in them
        virtual void client_reads(std::string_view bytes) = 0;
        virtual void server_reads(std::string_view bytes) = 0;
        virtual void is_cut() = 0;  // what the client has handed over is lost
    };

    link(machine& m, weather const& w, executor const& client, executor const& server)
        : machine_(m), weather_(w), ends_{end(client), end(server)} {}

    std::unique_ptr<watcher> watch;

    /// The connection is cut after so many more bytes of an end.
    void cut_soon(int which, std::size_t bytes) noexcept {
        cut_after_[which] = std::min(cut_after_[which], ends_[which].written + bytes);
    }
    /// Or not, after all, unless bytes have been lost already.
    void cut_never() noexcept {
        if (!is_cut_) cut_after_[0] = cut_after_[1] = static_cast<std::size_t>(-1);
    }

    bool is_over() const noexcept { return ends_[0].is_gone && ends_[1].is_gone; }
    /// Whether bytes of the client's are under way, of which some have arrived not longer than that ago, and not just
    /// now, when whoever looks may have decided already; while nothing but the answer to a PINGREQ counts, none are.
    bool is_moving(nanoseconds within) const {
        auto const& e = ends_[0];
        auto const since = machine_.now() - moved_;
        bool const has_asked = asked_at_ != 0 && e.written - e.under_way >= asked_at_;
        return !e.is_gone && e.under_way != 0 && !has_asked && !is_silent_ && since < within && since > 10ms;
    }
    void half_open() noexcept { is_silent_ = true; }
    /// Nothing arrives for so long, either way.
    void stall(nanoseconds time) { stalled_until_ = machine_.now() + time; }
    void reset() {
        for (int i : {0, 1}) fail(i, asio::error::connection_reset);
    }
    /// The process at one end has gone, and what it has not handed over never goes.
    /// The other end is told by a reset, unless the whole machine has gone.
    void kill(int which, bool tells) {
        ends_[which].is_dead = true;
        if (tells) send_reset(which);
    }

    // --- what a stream does

    asio::awaitable<std::size_t, executor> read(int which, asio::mutable_buffer into) {
        return read(shared_from_this(), which, into);
    }
    asio::awaitable<void, executor> write(int which, runnel::send_buffer& out) {
        return write(shared_from_this(), which, out);
    }
    asio::awaitable<void, executor> shutdown(int which) { return shutdown(shared_from_this(), which); }
    std::size_t backlog(int which) const noexcept { return ends_[which].under_way; }
    void close(int which) {
        auto& self = ends_[which];
        self.is_gone = true;
        for (auto* w : {&self.reader, &self.writer}) self.waiters.wake(*w, asio::error::operation_aborted);
        if (self.is_dead) return;
        if (self.arrived.empty() && ends_[1 - which].under_way == 0)
            send(which, {}, true);
        else
            send_reset(which);
    }

  private:
    struct segment {
        std::string bytes;
        bool is_end;
    };
    struct end {
        explicit end(executor const& e) : waiters(e) {}
        runnel::wait_list<executor> waiters;
        runnel::waiter<executor> reader, writer;
        std::string arrived;           // and not read
        std::error_code error;         // of the connection
        bool is_gone = false;          // the stream has been destroyed
        bool is_dead = false;          // the process has been killed
        bool is_shut = false;          // nothing more is written
        bool is_input_over = false;    // the peer's end has arrived
        std::size_t written = 0;       // bytes that have been handed over
        std::size_t under_way = 0;     // of these, what has not arrived
        std::deque<segment> segments;  // these
        time_point arrives{};          // when the last of them will
    };
    using shared = std::shared_ptr<link>;

    // The stream may be destroyed with an operation under way: the operation has a share in the link.
    static asio::awaitable<std::size_t, executor> read(shared self, int which, asio::mutable_buffer into) {
        auto& e = self->ends_[which];
        for (;;) {
            if (e.is_gone) throw std::system_error(asio::error::operation_aborted);
            if (!e.arrived.empty()) break;
            if (e.error) throw std::system_error(e.error);
            if (e.is_input_over) throw std::system_error(asio::error::eof);
            co_await e.waiters.wait(e.reader);
            if (e.reader.result) throw std::system_error(e.reader.result);
        }
        auto const n = std::min({e.arrived.size(), into.size(), self->piece()});
        std::memcpy(into.data(), e.arrived.data(), n);
        auto const bytes = std::string_view(e.arrived).substr(0, n);
        if (which == 0) self->asked_at_ = 0;
        if (self->watch && !e.is_dead) which == 0 ? self->watch->client_reads(bytes) : self->watch->server_reads(bytes);
        e.arrived.erase(0, n);
        auto& peer = self->ends_[1 - which];
        peer.waiters.wake(peer.writer);
        co_return n;
    }
    static asio::awaitable<void, executor> write(shared self, int which, runnel::send_buffer& out) {
        auto& e = self->ends_[which];
        for (;;) {
            if (e.is_gone) throw std::system_error(asio::error::operation_aborted);
            if (out.empty()) co_return;
            if (e.error) throw std::system_error(e.error);
            if (e.is_shut) throw std::system_error(runnel::transport_errc::stream_broken);
            if (auto const room = self->room(which); room != 0) {
                auto const n = std::min({out.size(), room, self->piece()});
                self->hand_over(which, {out.data(), n});
                out.consume(n);
                continue;
            }
            co_await e.waiters.wait(e.writer);
            if (e.writer.result) throw std::system_error(e.writer.result);
        }
    }
    static asio::awaitable<void, executor> shutdown(shared self, int which) {
        auto& e = self->ends_[which];
        if (e.is_gone) throw std::system_error(asio::error::operation_aborted);
        if (!std::exchange(e.is_shut, true)) self->send(which, {}, true);
        co_return;
    }

    std::size_t piece() { return machine_.random().between(weather_.smallest_piece, weather_.largest_piece); }
    std::size_t room(int which) const {
        auto const held = ends_[which].under_way + ends_[1 - which].arrived.size();
        return weather_.capacity - std::min(weather_.capacity, held);
    }

    // The kernel takes bytes. Of those from the cut on nothing is left; but their writer does not know.
    void hand_over(int which, std::string_view bytes) {
        auto& e = ends_[which];
        if (e.is_dead) return;
        auto const whole = bytes.size();
        bytes = bytes.substr(0, cut_after_[which] - std::min(cut_after_[which], e.written));
        is_cut_ = is_cut_ || bytes.size() < whole;
        e.written += bytes.size();
        if (which == 0 && watch && watch->client_writes(bytes)) asked_at_ = e.written;
        if (which == 0 && watch && bytes.size() < whole) watch->is_cut();
        if (!bytes.empty()) send(which, std::string(bytes), false);
        if (bytes.size() < whole) machine_.after(delay(), [self = shared_from_this()] { self->reset(); });
    }
    nanoseconds delay() {
        return machine_.random().between<std::int64_t>(static_cast<std::size_t>(weather_.fastest.count()),
                                                       static_cast<std::size_t>(weather_.slowest.count())) *
               microseconds(1);
    }
    void send(int which, std::string bytes, bool is_end) {
        auto& e = ends_[which];
        e.under_way += bytes.size();
        e.segments.push_back({std::move(bytes), is_end});
        e.arrives = std::max({e.arrives, machine_.now() + delay(), stalled_until_});
        machine_.at(e.arrives, [self = shared_from_this(), which] { self->arrive(which); });
    }
    void arrive(int from) {
        auto& sender = ends_[from];
        auto& receiver = ends_[1 - from];
        if (is_silent_ || receiver.error) return;
        if (machine_.now() < stalled_until_)
            return machine_.at(stalled_until_, [self = shared_from_this(), from] { self->arrive(from); });
        auto const next = std::move(sender.segments.front());
        sender.segments.pop_front();
        sender.under_way -= next.bytes.size();
        if (from == 0 && !next.bytes.empty()) moved_ = machine_.now();
        if (receiver.is_gone) {
            if (!next.is_end) send_reset(1 - from);
            return;
        }
        receiver.arrived += next.bytes;
        receiver.is_input_over = receiver.is_input_over || next.is_end;
        receiver.waiters.wake(receiver.reader);
        sender.waiters.wake(sender.writer);
    }
    void send_reset(int which) {
        machine_.after(delay(), [self = shared_from_this(), to = 1 - which] {
            if (!self->is_silent_) self->fail(to, asio::error::connection_reset);
        });
    }
    void fail(int which, std::error_code why) {
        auto& e = ends_[which];
        if (e.error) return;
        e.error = why;
        e.waiters.wake(e.reader);
        e.waiters.wake(e.writer);
    }

    machine& machine_;
    weather const& weather_;
    end ends_[2];
    std::size_t cut_after_[2] = {static_cast<std::size_t>(-1), static_cast<std::size_t>(-1)};
    time_point stalled_until_{};
    time_point moved_{};        // when bytes of the client's arrived last
    std::size_t asked_at_ = 0;  // where a PINGREQ ends that is not answered yet; 0: there is none
    bool is_silent_ = false;
    bool is_cut_ = false;
};

/// One end of a link.
class stream {
  public:
    using executor_type = executor;
    static constexpr std::size_t headroom = 0;

    stream(executor e, std::shared_ptr<link> l, int which) : executor_(e), link_(std::move(l)), which_(which) {}
    stream(stream&&) noexcept = default;
    stream& operator=(stream&& other) noexcept {
        stream moved(std::move(other));
        std::swap(executor_, moved.executor_);
        std::swap(link_, moved.link_);
        std::swap(which_, moved.which_);
        return *this;
    }
    ~stream() {
        if (link_) link_->close(which_);
    }

    executor get_executor() const noexcept { return executor_; }
    asio::awaitable<std::size_t, executor> read_some(asio::mutable_buffer into) { return link_->read(which_, into); }
    asio::awaitable<void, executor> write(runnel::send_buffer& out) { return link_->write(which_, out); }
    asio::awaitable<void, executor> shutdown() { return link_->shutdown(which_); }
    std::size_t backlog() const noexcept { return link_->backlog(which_); }

  private:
    executor executor_;
    std::shared_ptr<link> link_;
    int which_;
};

/// The network between clients and one server.
class network {
  public:
    network(machine& m, executor client, executor server) : machine_(m), client_(client), server_(server) {}

    weather now;
    std::function<void(stream)> accept;                 ///< the server's end of a new connection
    std::function<void(link&)> on_open = [](link&) {};  ///< before anything goes over it

    /// Calls `f` with each connection that has not ended at both ends.
    template <class F>
    void for_each(F f) {
        std::erase_if(links_, [](auto const& l) { return l.expired(); });
        for (std::size_t i = 0; i < links_.size(); ++i)
            if (auto const l = links_[i].lock(); l && !l->is_over()) f(*l);
    }
    std::size_t opened() const noexcept { return opened_; }

    asio::awaitable<stream, executor> open() {
        auto const pause = std::make_shared<pausing>(client_);
        machine_.after(delay() + delay(), [pause, this] {
            if (!now.is_deaf) pause->waiters.wake(pause->w);
        });
        co_await pause->waiters.wait(pause->w);
        if (pause->w.result) throw std::system_error(pause->w.result);
        if (now.refuses) throw std::system_error(asio::error::connection_refused, "simulated");
        auto const l = std::make_shared<link>(machine_, now, client_, server_);
        links_.push_back(l);
        ++opened_;
        on_open(*l);
        stream own(client_, l, 0);
        accept(stream(server_, l, 1));
        co_return own;
    }

  private:
    struct pausing {
        explicit pausing(executor const& e) : waiters(e) {}
        runnel::wait_list<executor> waiters;
        runnel::waiter<executor> w;
    };
    nanoseconds delay() {
        return machine_.random().between<std::int64_t>(static_cast<std::size_t>(now.fastest.count()),
                                                       static_cast<std::size_t>(now.slowest.count())) *
               microseconds(1);
    }

    machine& machine_;
    executor client_, server_;
    std::vector<std::weak_ptr<link>> links_;
    std::size_t opened_ = 0;
};

/// Opens streams over a network.
class transport {
  public:
    using executor_type = executor;
    using stream_type = stream;
    static constexpr bool secure = false;

    explicit transport(network& n) noexcept : network_(&n) {}
    std::string url() const { return "simulated://broker"; }
    asio::awaitable<stream, executor> open(executor) const { return network_->open(); }
    friend bool operator==(transport const&, transport const&) = default;

  private:
    network* network_;
};

}  // namespace simulation
