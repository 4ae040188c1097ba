#pragma once

#include <runnel/core/authority.hpp>
#include <runnel/core/callback.hpp>
#include <runnel/core/clock.hpp>
#include <runnel/core/compiler.hpp>
#include <runnel/core/printable.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/mqtt/protocol/packet_trace.hpp>
#include <runnel/transport/connect_progress.hpp>
#include <runnel/transport/stream.hpp>
#include <runnel/transport/tapped_transport.hpp>

#include RUNNEL_ASIO(error.hpp)

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::mqtt {

/// A line of a trace.
struct trace_line {
    trace_level level = trace_level::none;
    std::uint64_t connection = 0;       ///< which attempt of the transport and its copies, from 1 on
    std::chrono::microseconds time{0};  ///< since that attempt has begun
    std::string_view text{};            ///< valid during the call; without line breaks and other controls
};

/// The line as text: "#1 0.001234 s: sent PINGREQ, 2 bytes".
RUNNEL_COLD inline std::string to_string(trace_line const& line) {
    auto const micros = line.time.count();
    auto const fraction = std::to_string(1'000'000 + micros % 1'000'000).substr(1);
    auto const begin =
        "#" + std::to_string(line.connection) + ' ' + std::to_string(micros / 1'000'000) + '.' + fraction;
    return (begin + " s: ").append(line.text);
}

/// Who is given the lines. It is called from within the session, and may not destroy it. What it throws is dropped, so
/// that a trace never ends a connection; `traced::lost_lines` counts it.
using trace_sink = callback<trace_line const&>;

/// What is traced, and for whom.
struct trace_options {
    trace_level level = trace_level::packets;
    std::size_t payload = 0;  ///< as `packet_trace_options::payload`
    std::size_t line = 1000;  ///< as `packet_trace_options::line`
    trace_sink sink{};        ///< empty: nothing is told
};

namespace detail {

/// What the copies of a transport share.
struct trace_target {
    explicit trace_target(trace_options o) : options(std::move(o)) {}

    bool wants(trace_level level) const noexcept { return level <= options.level && options.sink; }

    trace_options options;
    std::uint64_t connections = 0;
    std::uint64_t lost = 0;
};

/// The trace of one connection; a tap of its stream.
///
/// Nothing here suspends: who opens, reads, writes or destroys the stream calls it in one step each. While a coroutine
/// is suspended, others may write all of this, and other connections `*to_`. The sink may destroy the stream in the
/// middle of a call: so `is_closed_` is looked at for each line.
class connection_trace {
  public:
    RUNNEL_COLD explicit connection_trace(std::shared_ptr<trace_target> to)
        : to_(std::move(to)),
          number_(++to_->connections),
          began_(steady_clock::now()),
          packets_(std::make_unique<packet_tracer>(
              packet_trace_options{to_->options.level, to_->options.payload, to_->options.line})) {}

    /// False once the connection is closed, and of one that has been moved from.
    bool wants(trace_level level) const noexcept { return to_ != nullptr && !is_closed_ && to_->wants(level); }

    /// `text` makes the text.
    template <class F>
    RUNNEL_COLD void tell(trace_level level, F&& text) noexcept {
        if (!wants(level)) return;
        try {
            tell_text(level, text());
        } catch (...) {
            ++to_->lost;
        }
    }

    RUNNEL_COLD void sent(std::string_view bytes) noexcept {
        sent_ += bytes.size();
        feed(trace_direction::sent, bytes);
    }
    RUNNEL_COLD void received(std::string_view bytes) noexcept {
        received_ += bytes.size();
        feed(trace_direction::received, bytes);
    }
    RUNNEL_COLD void failed(std::error_code error, bool is_write) noexcept {
        if (error == asio::error::operation_aborted) return;  // of this end's own will
        if (error == asio::error::eof && !is_write)
            return tell(trace_level::connections, [] { return std::string("the peer has ended the connection"); });
        tell(trace_level::failures,
             [&] { return (is_write ? "writing has failed: " : "reading has failed: ") + error.message(); });
    }
    RUNNEL_COLD void closed() noexcept {
        tell(trace_level::connections, [&] {
            auto text = "closed: " + std::to_string(sent_) + " bytes sent, " + std::to_string(received_) + " received";
            for (auto const way : {trace_direction::sent, trace_direction::received}) {
                auto const what = way == trace_direction::sent ? " sent" : " received";
                if (packets_->is_within_packet(way))
                    text.append(", the last packet").append(what).append(" is not whole");
                if (auto const n = packets_->unread(way); n != 0)
                    text.append(", ").append(std::to_string(n)).append(what).append(" not looked at");
            }
            return text;
        });
        is_closed_ = true;
    }

  private:
    RUNNEL_COLD void tell_text(trace_level level, std::string_view text) noexcept {
        try {
            auto const time = std::chrono::duration_cast<std::chrono::microseconds>(steady_clock::now() - began_);
            to_->options.sink(trace_line{level, number_, time, text});
        } catch (...) {
            ++to_->lost;
        }
    }
    RUNNEL_COLD void feed(trace_direction way, std::string_view bytes) noexcept {
        if (!wants(trace_level::failures)) return;
        try {
            packets_->feed(way, bytes, [&](trace_level level, std::string_view text) {
                if (!is_closed_) tell_text(level, text);
            });
        } catch (...) {  // no memory: nothing more is told of this direction
            ++to_->lost;
        }
    }

    std::shared_ptr<trace_target> to_;
    std::uint64_t number_;
    steady_clock::time_point began_;
    std::unique_ptr<packet_tracer> packets_;
    std::uint64_t sent_ = 0;
    std::uint64_t received_ = 0;
    bool is_closed_ = false;
};

/// What the layers of a stream say of themselves, from the bottom up: addresses, TLS, WebSocket. As far as they do: of
/// an `any_stream` nothing is known.
template <class Stream>
RUNNEL_COLD void describe_layers(Stream& of, std::string& out) {
    auto const begin = [&] { out += out.empty() ? "" : "; "; };
    if constexpr (requires { requires stream<std::remove_cvref_t<decltype(of.next_layer())>>; }) {
        describe_layers(of.next_layer(), out);
    } else if constexpr (requires(asio_error_code& e) {
                             of.next_layer().lowest_layer().remote_endpoint(e).address().to_string();
                         }) {
        asio_error_code error;
        auto const& socket = of.next_layer().lowest_layer();
        auto const remote = socket.remote_endpoint(error);
        auto const local = socket.local_endpoint(error);
        begin();
        out += "TCP to " + authority_of(remote.address().to_string(), remote.port()) + " from " +
               authority_of(local.address().to_string(), local.port());
    }
    if constexpr (requires { of.protocol_version(), of.cipher(), of.alpn(), of.resumed(); }) {
        begin();
        out.append(of.protocol_version()).append(", ").append(of.cipher());
        if (!of.alpn().empty()) out.append(", ALPN \"").append(printable(of.alpn(), 100)).append("\"");
        out += of.resumed() ? ", resumed" : "";
    }
    if constexpr (requires { of.subprotocol(), of.compressed(), of.received_code(); }) {
        begin();
        out += "WebSocket, status 101, subprotocol \"" + printable(of.subprotocol(), 100) + '"';
        out += of.compressed() ? ", compressed" : "";
    }
}

/// Tells of the steps of connecting, and passes them on to who has watched before.
class step_watch {
  public:
    RUNNEL_COLD step_watch(connection_trace& trace, connect_progress& progress)
        : trace_(trace), progress_(progress), before_(progress.watch({&told, this})) {}
    step_watch(step_watch const&) = delete;
    step_watch& operator=(step_watch const&) = delete;
    RUNNEL_COLD ~step_watch() { progress_.watch(before_); }

  private:
    RUNNEL_COLD static void told(void* of, connect_progress const& progress) noexcept {
        auto& self = *static_cast<step_watch*>(of);
        if (self.before_.told != nullptr) self.before_.told(self.before_.of, progress);
        if (progress.step() != connect_step::none && progress.step() != connect_step::open)
            self.trace_.tell(trace_level::connections, [&] { return printable(progress.doing()); });
    }

    connection_trace& trace_;
    connect_progress& progress_;
    connect_progress::watcher before_;
};

}  // namespace detail

/// A transport that tells what goes over its connections: packets as lines, steps of connecting, with whom and how, and
/// how connections end. What it wraps is used as it is; programs that do not name this type pay nothing.
///
///     mqtt::traced<runnel::mqtts> to({.host = "broker.example"},
///                                    {.sink = [](auto const& line) { std::cerr << to_string(line) << '\n'; }});
///     mqtt::session<mqtt::traced<runnel::mqtts>> session(executor, to, options);
///
/// It is the outermost layer, above TLS and WebSocket, where packets are. What is never told: passwords and
/// authentication data; see `trace_level` and `packet_trace.hpp` for the rest.
///
/// Bytes are looked at when they are handed to the stream below, and when they have been read. Of each direction at
/// most `packet_tracer::maximum_kept` bytes are kept. A `session` reads and writes with a coroutine frame for each,
/// which it does without on a bare socket.
template <transport Next>
class traced : public tapped_transport<Next, detail::connection_trace> {
    using base = tapped_transport<Next, detail::connection_trace>;

  public:
    using typename base::executor_type;
    using typename base::stream_type;

    RUNNEL_COLD traced(Next next, trace_options options)
        : base(std::move(next)), target_(std::make_shared<detail::trace_target>(std::move(options))) {}

    /// Lines that the sink has not taken, as it has thrown, or that could not be made for want of memory.
    std::uint64_t lost_lines() const noexcept { return target_->lost; }

    /// As that of what is wrapped, and throws what that throws.
    RUNNEL_COLD asio::awaitable<stream_type, executor_type> open(executor_type executor,
                                                                 connect_progress* progress = nullptr) const {
        detail::connection_trace trace(target_);
        connect_progress own;
        if (progress == nullptr) progress = &own;
        trace.tell(trace_level::connections, [&] { return "opening " + this->url(); });
        detail::step_watch const watch(trace, *progress);
        try {
            auto opening = open_stream(this->next(), executor, progress);
            auto opened = co_await std::move(opening);
            trace.tell(trace_level::connections, [&] { return what_is_open(opened, *progress); });
            co_return stream_type(std::move(opened), std::move(trace));
        } catch (std::exception const& e) {
            tell_failure(trace, e, *progress);
            throw;
        }
    }

    /// As the function of the same name for what is wrapped; the trace goes on.
    RUNNEL_COLD std::optional<traced> redirected(std::string_view reference) const {
        return base::redirect(*this, reference);
    }

    /// Equal if what they wrap is and they share the sink: a copy is equal to its original.
    friend bool operator==(traced const& a, traced const& b) { return a.next() == b.next() && a.target_ == b.target_; }

  private:
    RUNNEL_COLD static std::string what_is_open(typename Next::stream_type& opened, connect_progress const& progress) {
        std::string layers;
        detail::describe_layers(opened, layers);
        auto text = "open" + (layers.empty() ? "" : ": " + layers);
        if (!progress.passed_over.empty()) text += " (before: " + printable(progress.passed_over) + ')';
        return text;
    }

    RUNNEL_COLD static void tell_failure(detail::connection_trace& trace, std::exception const& e,
                                         connect_progress const& progress) {
        auto const* const error = dynamic_cast<std::system_error const*>(&e);
        if (error != nullptr && error->code() == asio::error::operation_aborted)
            return trace.tell(trace_level::connections, [&] {
                return "given up at the step " + std::string(name(progress.step())) + ": " +
                       printable(progress.doing());
            });
        trace.tell(trace_level::failures, [&] {
            return "could not be opened, at the step " + std::string(name(progress.step())) + ": " +
                   printable(e.what());
        });
    }

    std::shared_ptr<detail::trace_target> target_;
};

}  // namespace runnel::mqtt
