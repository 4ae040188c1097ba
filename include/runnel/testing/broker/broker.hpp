#pragma once

#include <runnel/core/receive_buffer.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/coro/timer.hpp>
#include <runnel/coro/wait_list.hpp>
#include <runnel/coro/waitable_timer.hpp>
#include <runnel/mqtt/codec/fixed_header.hpp>
#include <runnel/testing/broker/detail/core.hpp>
#include <runnel/testing/broker/detail/packet_faults.hpp>
#include <runnel/testing/broker/faults.hpp>
#include <runnel/testing/detail/accept_loop.hpp>
#include <runnel/testing/detail/stoppable.hpp>
#include <runnel/transport/asio_stream.hpp>
#include <runnel/transport/stream.hpp>

#include RUNNEL_ASIO_IP(tcp.hpp)

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::testing {

/// How a listener turns a TCP connection into the stream that MQTT is spoken over. Over plain TCP there is nothing to
/// do; over_tls.hpp and over_websocket.hpp have the layers for TLS and WebSocket.
struct over_tcp {
    static constexpr bool secure = false;
    std::string name() const { return "tcp"; }

    template <stream S>
    asio::awaitable<S, typename S::executor_type> open(S connection) const {
        co_return std::move(connection);
    }
};

/// An MQTT broker inside the process, for tests: both versions of the protocol, over in-memory streams (`attach`) and
/// over sockets on this machine (`listen`), with means to make it misbehave.
///
///     runnel::testing::broker broker{io.get_executor()};
///     std::uint16_t port = broker.listen_tcp();
///
/// Not thread-safe: all of it runs on the executor. Work of the broker keeps the execution context running until
/// `close`. Destroying it closes it. What clients can make it hold is bounded: see docs/testing.md.
template <class Executor = asio::any_io_executor>
class basic_broker {
  public:
    using executor_type = Executor;

    /// Throws `std::out_of_range` if the options are not possible.
    explicit basic_broker(Executor executor, broker_options options = {})
        : state_(std::make_shared<shared>(std::move(executor), std::move(options))) {}
    basic_broker(basic_broker const&) = delete;
    basic_broker& operator=(basic_broker const&) = delete;
    ~basic_broker() {
        close();
        state_->core.hooks = {};  // what they refer to may be gone before the last coroutine has ended
    }

    Executor get_executor() const { return state_->executor; }

    /// Serves a client at the other end of `connection`. Returns at once. With `broker_options::connection_limit`
    /// connections there are, the connection is closed instead.
    template <stream S>
    requires std::same_as<typename S::executor_type, Executor>
    void attach(S connection, connection_info from = {"memory", "", false}) {
        state_->open();
        if (!state_->has_room_for(from)) return;
        auto const l = std::make_shared<link>(*state_, std::move(from));
        state_->start(l, serve(state_, l, std::move(connection)));
    }

    /// Listens on 127.0.0.1 for connections over TCP; port 0 stands for any that is free. Returns the port. Throws
    /// `std::system_error` if it is taken.
    std::uint16_t listen_tcp(std::uint16_t port = 0) { return listen(over_tcp{}, port); }

    /// The same with a layer above TCP: `over_tls`, `over_websocket`.
    template <class Layer>
    std::uint16_t listen(Layer layer, std::uint16_t port = 0) {
        auto acceptor = detail::listening(state_->executor, port);
        auto const actual = acceptor.local_endpoint().port();
        state_->open();
        auto const t = std::make_shared<task>();
        state_->start(t, detail::accept_loop(
                             std::move(acceptor), [t] { return t->stopped; },
                             [self = state_, layer = std::move(layer)](socket_type socket) {
                                 accepted(self, std::move(socket), layer);
                             }));
        return actual;
    }

    /// Ends all listeners and cuts all connections. What runs ends in the next turns of the executor, and nothing is
    /// left that keeps it running. Sessions and retained messages are kept, and the broker can listen and be attached
    /// to again; what has become due until then, as wills and the ends of sessions, is done then.
    void close() {
        state_->closed = true;
        state_->timer.cancel();
        state_->armed.reset();
        for (auto const& t : state_->tasks) {
            t->stopped = true;
            t->stop();
        }
    }
    /// False from `close` until the broker listens or is attached to again.
    bool is_open() const noexcept { return !state_->closed; }

    /// What the broker asks and tells. To be set before clients come.
    broker_hooks& hooks() noexcept { return state_->core.hooks; }
    broker_options const& options() const noexcept { return state_->core.options(); }
    broker_counters const& counters() const noexcept { return state_->core.counters(); }

    /// Publishes a message of the broker's own; its packet identifier is ignored. Returns how many clients get it.
    std::size_t publish(mqtt::publish const& message) {
        return entered([&](auto& core) { return core.publish(message, clock::now()); });
    }
    std::size_t publish(std::string_view topic, std::string_view payload, mqtt::qos quality = mqtt::qos::at_most_once,
                        bool retain = false) {
        return publish({.topic = topic, .payload = payload, .qos = quality, .retain = retain});
    }

    /// Sends a message to one client, whether it has subscribed or not. False: it is not connected.
    bool send_to(std::string_view client, mqtt::publish const& message) {
        return entered([&](auto& core) { return core.send_to(client, message, clock::now()); });
    }

    /// Whether a client of this name (its client identifier, as a rule) is connected.
    bool connected(std::string_view client) const { return state_->core.connected(client); }
    /// Whether any session subscribes to this very filter.
    bool subscribed(std::string_view filter) const { return state_->core.subscribed(filter); }
    std::size_t session_count() const noexcept { return state_->core.session_count(); }
    std::size_t retained_count() const noexcept { return state_->core.retained_count(); }

    /// Cuts a client's network connection now, as a failing network does. False: it is not connected.
    bool drop_client(std::string_view client) {
        return entered([&](auto& core) { return core.drop_client(client, clock::now()); });
    }
    /// Ends a client's connection in good order (MQTT 5: with DISCONNECT). False: it is not connected.
    bool disconnect_client(std::string_view client,
                           mqtt::reason_code reason = mqtt::reason_code::administrative_action) {
        return entered([&](auto& core) { return core.disconnect_client(client, reason, clock::now()); });
    }
    /// Refuses the next `count` CONNECTs.
    void refuse_next(std::size_t count, mqtt::reason_code reason = mqtt::reason_code::server_unavailable) noexcept {
        state_->core.refuse_next(count, reason);
    }
    /// While held, messages of QoS 1 and 2 are not acknowledged; then all are that are still waiting.
    void hold_acknowledgements(bool hold) { state_->core.hold_acknowledgements(hold); }

    // Faults of single packets, where a client does not expect them. Each happens once, or as often as its selection
    // says; of several that are for the same packet the one that was asked for first. They hold for the connections
    // that there are and for those to come. All throw `std::invalid_argument` if no such packet can come.

    /// Loses packets: who has sent them does not know.
    void lose(packet_selection packets) {
        state_->core.faults().add(std::move(packets), {.what = packet_fault::kind::lose});
    }
    /// Lets packets arrive `by` later, 0 or more. What is delayed counts as not sent, and when the sender ends the
    /// connection in good order it arrives before the end; a connection that is cut loses it.
    void delay(packet_selection packets, time_limit by, behind_delayed others = behind_delayed::wait) {
        state_->core.faults().add(std::move(packets),
                                  {.what = packet_fault::kind::delay, .delay = by.value, .others = others});
    }
    /// Cuts the connection at a packet, as a failing network does. (Over a socket the system may then drop what the
    /// client has not read yet.)
    void cut(packet_selection packets, cut_point where = cut_point::behind) {
        state_->core.faults().add(std::move(packets), {.what = packet_fault::kind::cut, .where = where});
    }
    /// Forgets the faults that have not happened. What is delayed already arrives late all the same.
    void clear_faults() noexcept { state_->core.faults().clear(); }
    /// How many calls of `lose`, `delay` and `cut` have something left to happen.
    std::size_t faults_left() const noexcept { return state_->core.faults().size(); }

    /// The messages received last from clients, `broker_options::recorded_messages` at most.
    std::deque<received_message> const& received() const noexcept { return state_->core.received(); }
    void clear_received() noexcept { state_->core.clear_received(); }

  private:
    using clock = steady_clock;
    using packet_fault = detail::packet_faults::fault;
    using socket_type = asio::basic_stream_socket<asio::ip::tcp, Executor>;

    // A coroutine that runs, and how to stop it.
    struct task : detail::stoppable {
        bool stopped = false;
    };

    // What outlives the broker until the last coroutine has ended.
    struct shared : std::enable_shared_from_this<shared> {
        shared(Executor e, broker_options options)
            : executor(std::move(e)), core(std::move(options)), timer(executor) {}

        void start(std::shared_ptr<task> const& t, asio::awaitable<void, Executor> coroutine) {
            tasks.insert(t);
            detail::stoppable::start(t, executor, std::move(coroutine),
                                     [self = this->shared_from_this(), t] { self->tasks.erase(t); });
        }

        // Takes up again what `close` has ended.
        void open() {
            closed = false;
            arm();
        }

        bool has_room_for(connection_info const& from) {
            if (*connections < core.options().connection_limit) return true;
            core.log("closed a connection over " + from.transport + ": there are as many as there may be");
            return false;
        }

        // Sees to it that `advance` is called at the next deadline.
        void arm() {
            auto const next = closed ? std::nullopt : core.next_deadline();
            if (!next || (armed && *armed <= *next)) return;
            armed = next;
            timer.expires_at(*next);
            timer.async_wait([weak = this->weak_from_this()](std::error_code error) {
                auto const self = weak.lock();
                if (error || !self || self->closed) return;
                self->armed.reset();
                self->core.advance(clock::now());
                self->arm();
            });
        }

        Executor executor;
        detail::broker_core core;
        waitable_timer<Executor> timer;
        std::optional<clock::time_point> armed{};
        bool closed = false;
        std::shared_ptr<std::size_t> connections = std::make_shared<std::size_t>();  // links may outlive this
        std::set<std::shared_ptr<task>> tasks{};
    };

    // A client's connection. Nothing runs at the same time, and `core` is entered in one step by all. While a coroutine
    // is suspended, others may write this: `out`, the core, which appends; `write_all` takes it by a swap with a buffer
    // of its own. `input_ended` is written by `read_all`, `output_ended` by `write_all`, `incoming` by `read_all` and
    // its timer, `outgoing` by `write_all`, all else by the core. Only `read_all` reads from the stream, and only
    // `write_all` writes to it.
    struct link final : task, detail::broker_connection {
        link(shared& broker, connection_info from)
            : detail::broker_connection(std::move(from)),
              of(broker),
              count(broker.connections),
              waiters(broker.executor),
              incoming(broker.core.faults(), mqtt::role::client),
              outgoing(broker.core.faults(), mqtt::role::server) {
            ++*count;
        }
        ~link() { --*count; }

        void wake() override { waiters.wake(writer); }
        void abort() override { this->stop(); }

        // Sees to what is delayed at its time.
        void attend_input() {
            if (auto const next = incoming.next_release())
                attend(late_input, *next, [](void* self) { static_cast<link*>(self)->let_in(); });
        }
        void attend_output() {
            if (auto const next = outgoing.next_release())
                attend(late_output, *next, [](void* self) { static_cast<link*>(self)->wake(); });
        }
        void attend(std::optional<timer<Executor>>& late, clock::time_point next,
                    typename timer<Executor>::function call) {
            if (!late) late.emplace(waiters.get_executor(), call, this);
            late->set(next);
        }
        void let_in() {
            incoming.release(clock::now(), [this](std::string_view packet) { receive(packet); });
            if (incoming.is_cut()) abort();
            waiters.wake(reader);
            attend_input();
            of.arm();
        }
        void receive(std::string_view packet) { of.core.receive(*this, packet, clock::now()); }

        shared& of;  // as long as it is served
        std::shared_ptr<std::size_t> count;
        wait_list<Executor> waiters;
        waiter<Executor> writer{};
        waiter<Executor> reader{};
        detail::packet_gate incoming;
        detail::packet_gate outgoing;
        std::optional<timer<Executor>> late_input{};
        std::optional<timer<Executor>> late_output{};
        bool input_ended = false;
        bool output_ended = false;
    };

    using shared_ptr = std::shared_ptr<shared>;
    using link_ptr = std::shared_ptr<link>;

    template <class F>
    auto entered(F f) {
        auto const result = f(state_->core);
        state_->arm();
        return result;
    }

    template <class Layer>
    static void accepted(shared_ptr const& self, socket_type socket, Layer const& layer) {
        asio_error_code ignored;
        socket.set_option(asio::ip::tcp::no_delay(true), ignored);
        auto const peer = socket.remote_endpoint(ignored);
        connection_info from{layer.name(), peer.address().to_string() + ':' + std::to_string(peer.port()),
                             Layer::secure};
        if (!self->has_room_for(from)) return;
        auto const l = std::make_shared<link>(*self, std::move(from));
        self->start(l, accept_one(self, l, asio_stream<socket_type>(std::move(socket)), layer));
    }

    // The handshakes of the layers, then MQTT.
    template <class Layer>
    static asio::awaitable<void, Executor> accept_one(shared_ptr self, link_ptr l, asio_stream<socket_type> socket,
                                                      Layer layer) {
        using stream_type = typename decltype(layer.open(std::move(socket)))::value_type;
        std::optional<stream_type> opened;
        try {
            auto opening = open_layer(layer, std::move(socket), opened);
            auto limited = within<Executor>(l->waiters, self->core.options().connect_limit, asio::error::timed_out,
                                            std::move(opening));
            co_await std::move(limited);
        } catch (std::system_error const& e) {
            self->core.log(l->info.transport + " handshake with " + l->info.peer + " failed: " + e.what());
        }
        if (!opened) co_return;
        auto serving = serve(self, l, std::move(*opened));
        co_await std::move(serving);
    }

    template <class Layer, class Stream>
    static asio::awaitable<void, Executor> open_layer(Layer const& layer, asio_stream<socket_type> socket,
                                                      std::optional<Stream>& opened) {
        auto opening = layer.open(std::move(socket));
        opened.emplace(co_await std::move(opening));
    }

    // One coroutine reads, one writes, until both flows have ended or either fails.
    template <class Stream>
    static asio::awaitable<void, Executor> serve(shared_ptr self, link_ptr l, Stream connection) {
        l->out = send_buffer(Stream::headroom);
        self->core.opened(*l, clock::now());
        self->arm();
        try {
            auto reading = read_all(*self, *l, connection);
            auto writing = write_all(*self, *l, connection);
            co_await race(l->waiters, std::move(reading), std::move(writing));
        } catch (std::exception const& e) {
            if (l->session) self->core.log("client " + l->session->name + ": connection lost: " + e.what());
        }
        l->late_input.reset();
        l->late_output.reset();
        self->core.closed(*l, clock::now());
        self->arm();
    }

    template <class Stream>
    static asio::awaitable<void, Executor> read_all(shared& self, link& l, Stream& connection) {
        receive_buffer in;
        try {
            while (true) {
                while (!self.core.wants_input(l) || holds_enough(self, l.incoming)) co_await wait(l, l.reader);
                auto const room = in.prepare_for_packet(l.expected);
                asio::mutable_buffer const into(room.data(), room.size());
                std::size_t const n = co_await connection.read_some(into);
                in.commit(n);
                auto input = in.data();
                auto const size = input.size();
                take_input(self, l, input);
                in.consume(size - input.size());
                self.arm();
                if (l.incoming.is_cut()) throw_cut();
            }
        } catch (std::system_error const& e) {
            if (e.code() != asio::error::eof) throw;
        }
        while (l.incoming.holds()) co_await wait(l, l.reader);
        l.input_ended = true;
        self.core.input_ended(l, clock::now());
        self.arm();
        while (!l.output_ended) co_await wait(l, l.reader);
    }

    // What has come goes to the core, packet by packet where one may be lost or late.
    static void take_input(shared& self, link& l, std::string_view& input) {
        if (l.incoming.is_open()) return self.core.receive(l, input, clock::now());
        l.expected = 0;
        while (!input.empty() && !l.closing && !l.incoming.is_cut()) {
            auto const found = mqtt::next_frame(input);
            if (found.status != mqtt::parse_status::complete) return self.core.receive(l, input, clock::now());
            auto const packet = input.substr(0, found.total_size);
            input.remove_prefix(packet.size());
            l.incoming.take(packet, found.header.type, l.client, clock::now(),
                            [&](std::string_view passed) { l.receive(passed); });
        }
        input = {};
        l.attend_input();
    }

    // Moves to `writing` what may leave now. Whether anything has been taken out of what had gathered.
    static bool take_output(shared& self, link& l, send_buffer& writing) {
        auto const now = clock::now();
        auto const pass = [&](std::string_view packet) { writing.append(packet); };
        l.outgoing.release(now, pass);
        if (l.out.empty() || holds_enough(self, l.outgoing)) return false;
        if (l.outgoing.is_open() && writing.empty()) {
            writing.swap(l.out);
            return true;
        }
        for (auto rest = l.out.view(); !rest.empty();) {
            auto const found = mqtt::next_frame(rest);
            l.outgoing.take(rest.substr(0, found.total_size), found.header.type, l.client, now, pass);
            rest.remove_prefix(found.total_size);
        }
        l.out.clear();
        return true;
    }

    static bool holds_enough(shared const& self, detail::packet_gate const& gate) noexcept {
        return gate.held_bytes() >= self.core.options().output_limit;
    }
    [[noreturn]] static void throw_cut() { throw std::system_error(asio::error::connection_aborted, "cut on purpose"); }

    // Writes what has gathered, all at once: the reader handles everything that one read brought before this runs.
    template <class Stream>
    static asio::awaitable<void, Executor> write_all(shared& self, link& l, Stream& connection) {
        send_buffer writing(Stream::headroom);
        while (!l.closing || !l.out.empty() || l.outgoing.holds()) {
            bool const has_taken = take_output(self, l, writing);
            l.attend_output();
            if (l.incoming.is_cut()) throw_cut();
            if (!has_taken && writing.empty() && !l.outgoing.is_cut()) {
                co_await wait(l, l.writer);
                continue;
            }
            if (!writing.empty()) co_await connection.write(writing);
            if (l.outgoing.is_cut()) throw_cut();
            self.core.sent(l, clock::now());
            l.waiters.wake(l.reader);
        }
        co_await connection.shutdown();
        l.output_ended = true;
        l.waiters.wake(l.reader);
        // A socket closed with unread input would be reset, and the client might not get what was sent last.
        while (!l.input_ended) co_await wait(l, l.writer);
    }

    static asio::awaitable<void, Executor> wait(link& l, waiter<Executor>& w) {
        co_await l.waiters.wait(w);
        if (w.result) throw std::system_error(w.result);
    }

    shared_ptr state_;
};

/// The usual one, with `asio::any_io_executor`.
using broker = basic_broker<>;

}  // namespace runnel::testing
