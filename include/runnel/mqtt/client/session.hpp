#pragma once

#include <runnel/core/callback.hpp>
#include <runnel/core/compiler.hpp>
#include <runnel/core/owned_text.hpp>
#include <runnel/core/printable.hpp>
#include <runnel/core/random.hpp>
#include <runnel/coro/capture_error.hpp>
#include <runnel/mqtt/client/detail/authenticating.hpp>
#include <runnel/mqtt/client/detail/connect_request.hpp>
#include <runnel/mqtt/client/detail/connection.hpp>
#include <runnel/mqtt/client/detail/destination.hpp>
#include <runnel/mqtt/client/detail/durability.hpp>
#include <runnel/mqtt/client/detail/operation.hpp>
#include <runnel/mqtt/client/detail/publishing.hpp>
#include <runnel/mqtt/client/detail/session_parts.hpp>
#include <runnel/mqtt/client/event_stream.hpp>
#include <runnel/mqtt/client/negotiated.hpp>
#include <runnel/mqtt/client/queued_message.hpp>
#include <runnel/mqtt/client/session_event.hpp>
#include <runnel/mqtt/client/subscription.hpp>
#include <runnel/mqtt/protocol/version_choice.hpp>
#include <runnel/transport/stream.hpp>

#include <chrono>
#include <cstdint>
#include <exception>
#include <forward_list>
#include <functional>
#include <initializer_list>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

namespace runnel::mqtt {

namespace detail {
template <class Executor>
class requesting;
template <class Executor>
class subscribing;
template <class Executor>
class pieces_part;
struct pieces_access;

// What a session has besides, if its transport asks for it: `with_pieces`.
struct no_pieces {
    template <class Session>
    explicit no_pieces(Session&) noexcept {}
};
template <class Transport>
struct pieces_of {
    using type = no_pieces;
};
template <class Transport>
requires requires { typename Transport::pieces_type; }
struct pieces_of<Transport> {
    using type = typename Transport::pieces_type;
};
}  // namespace detail

// Inside, a session has three kinds of coroutines, on one executor: `run`; a reader and a writer (run.hpp); and the
// user's operations; and one timer (`handle_timeout`). Nothing runs at the same time. Each part says at its head what
// others may write while a coroutine is suspended. Of the session's own members:
//
// | member                                        | is written by                                                |
// |-----------------------------------------------|--------------------------------------------------------------|
// | `state_`, counters, `unrouted_`               | all, in one step: no call of `state_` suspends               |
// | `running_`, `stream_`                         | `run` when it begins (`begin_run`), and `finish`             |
// | `connected_at_`, `server_info_`, `room_`, ... | see run.hpp                                                  |
// | `subscribing_`, `requesting_`, `places_`      | the call that first needs them; then they stay               |
// | `authenticating_`                             | `set_authenticator`, at any time: its coroutines outlive it  |

/// An MQTT client session: it lives on while network connections come and go.
///
/// `run` keeps it connected; all other operations may be begun at any time, also before `run` and while there is no
/// connection. They complete when their promise is fulfilled. All are coroutines: they begin when they are awaited,
/// throw `std::system_error`, and can be cancelled; the overloads with a `std::error_code&` do not throw it. Topics and
/// payloads that a caller passes as views must stay valid until the operation has completed, and so must the
/// properties; a `std::string` that is a temporary, or moved, is kept with the operation, and topic filters are copied.
///
/// Not thread-safe: everything happens on the one executor (with several threads, a strand).
template <transport Transport>
class session final : private detail::session_services {
  public:
    using executor_type = typename Transport::executor_type;
    using subscription = basic_subscription<executor_type>;
    using message_handler = callback<mqtt::publish const&>;
    template <class T>
    using awaitable = asio::awaitable<T, executor_type>;

    /// Throws `std::out_of_range` if an option is out of its range. With `options.store` it goes on where an earlier
    /// process stopped, and throws if that cannot be: the store's error, `store_errc::in_use`, `other_client`,
    /// `unsupported_format` or `corrupt`. Does nothing else until `run`.
    RUNNEL_COLD session(executor_type executor, Transport transport, session_options options = {});
    session(session const&) = delete;
    session& operator=(session const&) = delete;
    /// Does not block; pending operations, `run` among them, end with `errc::disconnected`, and the connection is
    /// closed without DISCONNECT. No event tells of it. Not from a handler of this session's. An operation other than
    /// `run` that has not begun yet must not begin afterwards: `co_spawn` begins it in a later turn, unless the caller
    /// is on the executor.
    RUNNEL_COLD ~session();

    executor_type const& get_executor() const noexcept { return packets_.queue()->get_executor(); }
    /// Whether the server has accepted the connection, an authenticator the server, and it has not been lost.
    bool is_connected() const noexcept { return state_.connected() && !connection_.is_held(); }
    session_counters counters() const noexcept;
    /// What holds on the connection; nothing while there is none. From the event `connected` on.
    RUNNEL_COLD std::optional<negotiated_settings> negotiated() const;

    /// The events from now on; `session_options::on_event` is told the same.
    event_stream<executor_type> events();

    /// QoS 1 and 2 messages that `publish` and `try_publish` have accepted; with a store those of earlier processes
    /// included, so that a producer of numbered messages knows where it stopped, also after kill -9.
    std::uint64_t accepted() const noexcept { return state_.accepted(); }
    /// QoS 1 and 2 messages not yet acknowledged that the constructor has found in the store: they are sent first, and
    /// nobody is told of their outcome.
    std::size_t restored() const noexcept { return durability_.restored(); }
    /// Stores now whatever is not stored yet. While `run` runs that happens by itself: before each write to the
    /// network, and in the executor's next turn. So it is for those who must know that it has happened, for messages
    /// published before `run`, and for what the user has added to the transaction of an `sqlite_store`. Throws the
    /// store's error; then nothing of it is stored. Without a store it does nothing.
    ///
    /// Where an error has undone what the user has added, the session stores nothing more, at its end neither, and
    /// `run` ends with that error again, until this is called: it stores what is left, without what has been undone.
    void save() { durability_.save_anew(); }

    /// Makes the session authenticate itself by a method of its own (MQTT 5, 4.12) from the next connection on. From
    /// then on an automatic session speaks MQTT 5 only: else a server could do without.
    template <authenticator<executor_type> A>
    void set_authenticator(A a) {
        if (options_.version == protocol_version::v3_1_1)
            throw std::system_error(errc::unsupported_protocol_version, "set_authenticator");
        detail::session_services& services = *this;
        authenticating_ =
            std::make_unique<detail::authenticating<executor_type, A>>(state_, packets_, services, std::move(a));
    }

    /// Connects, and connects again whenever the connection is lost, with pauses as `options.reconnect` says. Completes
    /// after `disconnect`. Throws what ended the last attempt when trying again is pointless (`recovery_from`) or the
    /// policy's attempts or time are used up: a `reason_code` if the server refused; and what a message handler throws.
    /// There is one at a time: throws `std::logic_error` while another one runs, and changes nothing.
    ///
    /// When it completes, is cancelled or throws, the connection is closed and all pending operations end with
    /// `errc::disconnected`, and a text that says what has ended `run`. So do, at once, those that begin later, of
    /// `publish`, `try_publish` and `subscribe` also those that begin after `disconnect`, until `run` is called again.
    /// Messages of QoS 1 and 2 stay in the session. Before `run` is called first, operations wait for it.
    ///
    /// An error of the store ends it too: nothing is written to the network that depends on what could not be stored.
    RUNNEL_COLD awaitable<void> run() { return run(connection_.reader().share()); }

    /// Publishes a message. QoS 0 completes when there is room for it (`maximum_unwritten`, or `maximum_queued` while
    /// not connected), QoS 1 and 2 when the server has acknowledged it: then the result is the server's reason, always
    /// `success` in MQTT 3.1.1. Messages wait for a connection if there is none.
    ///
    /// Throws an `errc` if the message cannot be sent (see `check(publish)`), a `reason_code` if the server refuses it,
    /// `errc::session_lost` if the server lost the session when only it could tell whether a QoS 2 message arrived, and
    /// `errc::disconnected` when `run` ends. After cancellation a QoS 1 or 2 message is sent all the same.
    awaitable<publish_result> publish(std::string_view topic, std::string_view payload, publish_options o = {});
    awaitable<publish_result> publish(std::string_view topic, std::string_view payload, publish_options o,
                                      std::error_code& error);

    /// The same for what nobody else keeps: temporaries and moved strings go along with the operation, so that it can
    /// be begun by `asio::co_spawn(executor, s.publish("t/" + id, std::move(json)), ...)` and left to itself.
    template <class Topic, class Payload>
    requires(owned_text<Topic> || owned_text<Payload>)
    awaitable<publish_result> publish(Topic&& topic, Payload&& payload, publish_options o = {}) {
        return publish_kept<kept_text<Topic>, kept_text<Payload>>(*this, std::forward<Topic>(topic),
                                                                  std::forward<Payload>(payload), o);
    }
    template <class Topic, class Payload>
    requires(owned_text<Topic> || owned_text<Payload>)
    awaitable<publish_result> publish(Topic&& topic, Payload&& payload, publish_options o, std::error_code& error) {
        return capture_error(publish(std::forward<Topic>(topic), std::forward<Payload>(payload), o), error);
    }

    /// Publishes a message without waiting for anything: of QoS 1 and 2 nobody is told the outcome. False: there is no
    /// room at present. Throws an `errc` if the message cannot be sent.
    bool try_publish(std::string_view topic, std::string_view payload, publish_options o = {}) {
        return publishing_.try_publish(topic, payload, o);
    }

    /// The messages that wait to be sent or acknowledged, in order. QoS 2 messages that the server has, and for which
    /// only the rest of the exchange is to come, are not among them.
    std::vector<queued_message> queued();

    /// Takes a message of `queued` out of the session and of its store: it is not sent again, and who waits for its
    /// acknowledgement gets `errc::message_discarded`. False: there is no such message (any more). Throws the store's
    /// error; then the message may come back in the next process.
    bool discard(std::uint64_t number);

    /// Subscribes; the messages wait in the subscription's inbox until they are received. Completes when the server has
    /// granted it; from then on the subscription is renewed whenever the server has lost it. A message that matches
    /// several subscriptions arrives in each.
    ///
    /// Throws an `errc` if the filter is not valid, a `reason_code` if the server refuses, `errc::disconnected` when
    /// `run` ends. After an error or cancellation there is no subscription.
    RUNNEL_COLD awaitable<subscription> subscribe(std::string_view filter, subscribe_options o = {});
    RUNNEL_COLD awaitable<subscription> subscribe(std::string_view filter, subscribe_options o, std::error_code& error);

    /// Subscribes with a handler instead of an inbox: it is called with each message as soon as it has been decoded, as
    /// a view that is valid until it returns; then the message is acknowledged. It must not block. What it throws ends
    /// `run`; the message is not acknowledged then, and comes again on the next connection.
    RUNNEL_COLD awaitable<subscription> subscribe(std::string_view filter, message_handler handler,
                                                  subscribe_options o = {});

    /// Subscribes to several filters by one SUBSCRIBE, as one subscription: a message arrives once, even if several of
    /// the filters match. The server must grant all of them: if it refuses one, the others are given up too. The array
    /// is one with a name: braces do not compile, as g++ 12 cannot have them in a `co_await` expression.
    RUNNEL_COLD awaitable<subscription> subscribe(std::span<std::string_view const> filters, subscribe_options o = {});
    RUNNEL_COLD awaitable<subscription> subscribe(std::span<std::string_view const> filters, message_handler handler,
                                                  subscribe_options o = {});
    template <class T>
    auto subscribe(std::initializer_list<T>, subscribe_options = {}) ->
        typename refused_braces<T, awaitable<subscription>>::type;
    template <class T>
    auto subscribe(std::initializer_list<T>, message_handler, subscribe_options = {}) ->
        typename refused_braces<T, awaitable<subscription>>::type;

    /// Ends a subscription: at once here, and completes when the server has answered, also after reconnecting. Messages
    /// that wait in its inbox can still be received. Throws the `reason_code` with which the server refuses (MQTT 5),
    /// and `errc::disconnected` when `run` ends.
    ///
    /// A subscription of another session, or of one that is gone, is not touched: `errc::disconnected`.
    ///
    /// Whatever becomes of the call, the server is owed UNSUBSCRIBE until it has accepted it or lost the session: it is
    /// sent, or sent again, on the next connection. Between two runs the call completes at once, therefore. After an
    /// error it may be called once more.
    ///
    /// MQTT 5: `props` are user properties of UNSUBSCRIBE, as long as the call waits; they are copied. What the server
    /// has answered is then told by `subscription::reason` and `details`.
    awaitable<void> unsubscribe(subscription const& s, user_property_list props = {});

    /// Sends a request and completes with its response (MQTT 5, 4.10): the message that comes to the session's own
    /// response topic with the correlation data of this request; both properties are added to those in `o`. The server
    /// may acknowledge the request's message later. Throws `errc::response_timeout` after `timeout`, and else what
    /// `publish` and `subscribe` throw; also the server's reason if it does not renew the response subscription. A
    /// request that ends before its message could be sent is withdrawn: nobody carries it out later.
    awaitable<message> request(std::string_view topic, std::string_view payload, std::chrono::milliseconds timeout,
                               publish_options o = {.qos = qos::at_least_once});
    awaitable<message> request(std::string_view topic, std::string_view payload, std::chrono::milliseconds timeout,
                               publish_options o, std::error_code& error);
    template <class Topic, class Payload>
    requires(owned_text<Topic> || owned_text<Payload>)
    awaitable<message> request(Topic&& topic, Payload&& payload, std::chrono::milliseconds timeout,
                               publish_options o = {.qos = qos::at_least_once}) {
        return request_kept<kept_text<Topic>, kept_text<Payload>>(*this, std::forward<Topic>(topic),
                                                                  std::forward<Payload>(payload), timeout, o);
    }
    template <class Topic, class Payload>
    requires(owned_text<Topic> || owned_text<Payload>)
    awaitable<message> request(Topic&& topic, Payload&& payload, std::chrono::milliseconds timeout, publish_options o,
                               std::error_code& error) {
        return capture_error(request(std::forward<Topic>(topic), std::forward<Payload>(payload), timeout, o), error);
    }

    /// Publishes the response to a request, to the topic that the request names. Throws `errc::no_response_topic` if it
    /// names none, and else what `publish` throws. `to` must stay valid until it has completed.
    awaitable<publish_result> respond(mqtt::publish const& to, std::string_view payload, publish_options o = {});

    template <owned_text Payload>
    awaitable<publish_result> respond(mqtt::publish const& to, Payload&& payload, publish_options o = {}) {
        return respond_kept(*this, to, std::move(payload), o);
    }

    /// Authenticates again on this connection (4.12.1), while everything else goes on; one after another, if it is
    /// called several times. Throws `errc::not_connected`, `errc::disconnected` when the connection ends, as it does if
    /// the server refuses, and what the authenticator throws: then the connection ends with
    /// `errc::authentication_failed` [MQTT-4.12.1-2], unless nothing has been sent yet.
    ///
    /// After cancellation the connection goes on, though the server may wait for its answer: the next call brings that
    /// authentication to its end instead of beginning another one.
    RUNNEL_COLD awaitable<void> reauthenticate();

    /// Completes as soon as there is a connection; `errc::disconnected` when `run` ends first.
    awaitable<void> connected();

    /// Completes as soon as there have been more than `after` connections, with how many there have been: with
    /// `counters().connections` for `after` it notices the next one. `errc::disconnected` when `run` ends first.
    awaitable<std::uint64_t> connected(std::uint64_t after);

    /// Completes as soon as all that has been accepted is delivered: QoS 0 messages have been written to the network,
    /// and those of QoS 1 and 2 acknowledged, which is stored; calls of `publish` that wait for room are not waited
    /// for. Put before `disconnect` it leaves nothing behind; `within` gives it a limit. `errc::disconnected` when
    /// `run` ends first, also because that cannot be stored; without `run`, then, the store's error.
    awaitable<void> drained();

    /// Ends the connection in good order: sends what is ready to be sent, then DISCONNECT, reads on until the server
    /// has ended the connection too, and closes, all within `close_timeout`. Completes when `run` has completed. Before
    /// the server has answered CONNECT, DISCONNECT follows that. In MQTT 5 the reason `disconnect_with_will_message`
    /// makes the server publish the will.
    ///
    /// `props` may change the session expiry interval, and have a reason string and user properties. Throws an `errc`,
    /// and does nothing, if DISCONNECT cannot have the reason or the properties, whether there is a connection or not,
    /// and `errc::packet_too_large` if the server takes none of its size, without the reason string and the user
    /// properties: they are left out where they do not fit. If not all could be sent, so that QoS 0 messages may be
    /// lost and the will be published, it throws `errc::close_timeout`, or what has ended the connection before: the
    /// server's reason if it gave one, else the network's error. What `run` throws, it throws too, and
    /// `errc::disconnected` if `run` is cancelled.
    ///
    /// What the network has taken counts as sent; that the server has it, only acknowledgements tell (see `drained`).
    /// A server that does not end the connection upon DISCONNECT is shut out 200 ms after it was heard or has taken
    /// anything, or when half of `close_timeout` is over.
    RUNNEL_COLD awaitable<void> disconnect(reason_code reason = reason_code::normal_disconnection,
                                           property_view props = {});

  private:
    template <class>
    friend class detail::pieces_part;
    friend struct detail::pieces_access;
    using pieces_type = typename detail::pieces_of<Transport>::type;
    static constexpr bool has_pieces = !std::is_same_v<pieces_type, detail::no_pieces>;

    // Operations that keep what they were given.
    template <class Topic, class Payload>
    static awaitable<publish_result> publish_kept(session& s, Topic topic, Payload payload, publish_options o) {
        auto publishing = s.publish(std::string_view(topic), std::string_view(payload), o);
        co_return co_await std::move(publishing);
    }
    template <class Topic, class Payload>
    static awaitable<message> request_kept(session& s, Topic topic, Payload payload, std::chrono::milliseconds timeout,
                                           publish_options o) {
        auto requesting = s.request(std::string_view(topic), std::string_view(payload), timeout, o);
        co_return co_await std::move(requesting);
    }
    static awaitable<publish_result> respond_kept(session& s, mqtt::publish const& to, std::string payload,
                                                  publish_options o) {
        auto responding = s.respond(to, std::string_view(payload), o);
        co_return co_await std::move(responding);
    }

    using clock = session_clock;
    using stream_type = typename Transport::stream_type;
    static constexpr bool reads_directly =
        requires(stream_type& s, read_outcome& outcome) { s.read_directly(asio::mutable_buffer(), outcome); };

    // Whether all of `out` has been written already.
    static bool write_directly([[maybe_unused]] stream_type& s, [[maybe_unused]] send_buffer& out) {
        if constexpr (requires { s.write_directly(out); })
            return s.write_directly(out);
        else
            return false;
    }

    // `run` in progress.
    struct run_guard : detail::operation_base<session> {
        explicit run_guard(session& s) noexcept : detail::operation_base<session>(&s, s.running_here_) {}
        RUNNEL_COLD ~run_guard() {
            if (this->of == nullptr) return;
            this->of->connection_.abandon();  // if the execution context has ended it: the stream goes with it
            std::error_code code = errc::disconnected;
            std::string text;
            try {
                text = detail::end_text(failure, code);
            } catch (std::bad_alloc const&) {
            }
            this->of->finish(failure && !cancelled ? code : error, text);
        }
        std::error_code error = errc::disconnected;  // for `disconnect`, unless `run` throws
        std::exception_ptr failure{};                // what `run` throws
        bool cancelled = false;
    };

    // What the server has said.
    struct server_info {
        std::string assigned_client_id{};
        std::string response_prefix{};                     // the beginning of response topics
        std::string detail{};                              // of the end of the last connection
        std::string redirect{};                            // the server that it named
        std::string remark{};                              // of the stream, beside the error by which it has ended
        std::string connack{};                             // the bytes of `agreed`
        property_view agreed{};                            // of CONNACK, if there are any that nobody else keeps
        std::shared_ptr<publish_details const> details{};  // of the end, as the server tells it
        std::error_code refused{};                         // by CONNACK

        RUNNEL_COLD void forget_connection() {
            detail = redirect = remark = connack = {};
            agreed = {};
            details = {};
            refused.clear();
        }
    };
    RUNNEL_COLD server_info& from_server() {
        if (!server_info_) server_info_ = std::make_unique<server_info>();
        return *server_info_;
    }

    // Where coroutines wait: for what the name says.
    struct places {
        RUNNEL_COLD explicit places(wake_queue_share<executor_type> const& q) : connected(q), drained(q), ended(q) {}
        wait_list<executor_type> connected, drained, ended;
    };
    RUNNEL_COLD places& where_to_wait();
    // Throws if there is no use in waiting. The session may have gone when it completes.
    RUNNEL_COLD awaitable<void> wait(wait_list<executor_type> places::* where);

    // What the session state and the connection tell.
    struct listener : session_handler {
        static constexpr bool is_client = true;
        static constexpr bool takes_pieces = has_pieces;
        session& self;
        explicit listener(session& s) noexcept : self(s) {}
        void on_connack(connack const& answer) { self.accepted_or_refused(answer); }
        RUNNEL_COLD void on_session_lost() noexcept {
            if (self.subscribing_) self.subscribing_->on_session_lost();
        }
        RUNNEL_ALWAYS_INLINE void on_message(mqtt::publish const& packet, delivery token) {
            self.dispatch(packet, token);
        }
        RUNNEL_COLD std::uint16_t lane_of(mqtt::publish const& packet) { return self.lane_of(packet); }
        auto& pieces()
        requires has_pieces
        {
            return self.pieces_.in();
        }
        void on_pieces()
        requires has_pieces
        {
            ++self.messages_received_;
            self.pieces_.on_piece();
        }
        void on_piece()
        requires has_pieces
        {
            self.pieces_.on_piece();
        }
        void on_published(void* owner, acknowledgement const& ack) { self.publishing_.on_published(owner, ack); }
        void on_sent(void* owner) { self.publishing_.on_sent(owner); }
        void on_lost(void* owner) { on_refused(owner, errc::session_lost); }
        void on_refused(void* owner, errc why) { self.publishing_.on_refused(owner, why); }
        void on_suback(void* owner, suback const& answer) { self.subscribing_->on_suback(owner, answer); }
        void on_unsuback(void* owner, unsuback const& answer) { self.subscribing_->on_unsuback(owner, answer); }
        void on_pingresp() { self.connection_.on_answer(); }
        bool is_held() const noexcept { return self.connection_.is_held(); }
        RUNNEL_COLD void on_auth(auth const& packet) {
            if (auto* const progress = self.destination_->progress())
                progress->at(connect_step::authenticate, "authentication");
            if (self.authenticating_) self.authenticating_->on_auth(packet);
        }
        RUNNEL_COLD void on_disconnect(mqtt::disconnect const& packet) {
            bool const ended = packet.reason == reason_code::success;
            self.connection_.blame(ended ? make_error_code(errc::disconnected) : make_error_code(packet.reason));
            self.from_server().detail = printable(packet.props.get<property_id::reason_string>().value_or(""));
            self.from_server().redirect = packet.props.get<property_id::server_reference>().value_or("");
            self.from_server().details = publish_details::of(packet.props);
        }
        RUNNEL_COLD void on_violation(std::string_view input) { self.note_answer(input); }
        void on_read() {
            if (self.quarantine_ && self.quarantine_->is_active()) [[unlikely]]
                self.look_at_answers();
            if (self.subscribing_) self.subscribing_->on_read();
            self.publishing_.offer_room();
            self.wake_if_drained();
            if (self.connection_.received() >= self.weigh_at_) [[unlikely]]
                self.weigh();
            if (self.state_.is_paced()) self.packets_.timer().soon();
        }
        void on_write() { self.save_before_write(); }
        void on_room() {
            self.state_.send_more(self.packets_.out());
            self.publishing_.offer_room();
        }
    };

    // --- run.hpp: connection after connection, and one from opening to loss

    using coroutine = typename child_task<executor_type>::coroutine;
    using task_share = typename child_task<executor_type>::share_type;
    using task_presence = typename child_task<executor_type>::presence;

    RUNNEL_COLD awaitable<void> run(task_share here);
    RUNNEL_COLD static bool goes_on(session* of, task_share const& here, bool is_cancelled);
    RUNNEL_COLD void begin_run(std::optional<stream_type>& s);
    RUNNEL_COLD void begin_attempt();
    RUNNEL_COLD bool end_attempt();
    RUNNEL_COLD bool ended_by_peer() const;
    RUNNEL_COLD bool judge_version();
    RUNNEL_COLD protocol_version next_version() const {
        return authenticating_ ? protocol_version::v5 : version_.version();
    }
    RUNNEL_COLD void forget_connection();
    RUNNEL_COLD session_event how_it_ended();
    RUNNEL_COLD void note(std::system_error const& e) noexcept;
    RUNNEL_COLD bool note_answer(std::string_view bytes);
    RUNNEL_COLD void tell_of_no_run();
    RUNNEL_COLD bool has_lasted() const;
    RUNNEL_COLD bool follow_redirect();
    RUNNEL_COLD void begin_pause(reconnect_schedule& schedule, bool opened);
    RUNNEL_COLD void handle_timeout();
    RUNNEL_COLD void send_rest();
    RUNNEL_COLD static void on_timer(void* of);
    RUNNEL_COLD clock::time_point send_due(clock::time_point now);
    RUNNEL_COLD std::error_code save_if_due();
    RUNNEL_COLD void look_at_answers();
    RUNNEL_COLD void tell_of_overtaken();
    RUNNEL_COLD std::string topic_of(std::uint64_t number);
    RUNNEL_COLD void judge();
    flow_position position();
    RUNNEL_COLD coroutine attempt(std::optional<stream_type>& s, task_share here);
    void handle(read_outcome const& read);
    coroutine write_loop(stream_type& s, task_share here);
    RUNNEL_COLD awaitable<void> open(std::optional<stream_type>& s, task_share const& here);
    RUNNEL_COLD void check_opening();
    RUNNEL_COLD void send_connect();
    RUNNEL_COLD void accepted_or_refused(connack const& answer);
    RUNNEL_COLD void connection_begins();
    RUNNEL_COLD void keep_agreed(property_view const& props);

    // --- messages

    RUNNEL_ALWAYS_INLINE void dispatch(mqtt::publish const& packet, delivery token) {
        ++messages_received_;
        auto const to = subscribing_ ? subscribing_->dispatch(packet, token) : detail::routing::nowhere;
        if (to != detail::routing::done) [[unlikely]]
            attend(to, packet, token);
    }
    RUNNEL_COLD RUNNEL_NOINLINE void attend(detail::routing to, mqtt::publish const& packet, delivery token) {
        if (to == detail::routing::failed) fail(subscribing_->take_failure());
        if (to == detail::routing::unwanted) return drop(token);
        keep(packet, token);
    }

    // A message that no subscription wants, at present: it may belong to a subscription of an earlier process, say.
    RUNNEL_COLD void keep(mqtt::publish const& packet, delivery token) override;
    RUNNEL_COLD std::uint16_t lane_of(mqtt::publish const& packet);
    RUNNEL_COLD void drop(delivery token);
    RUNNEL_COLD detail::run_end const& end() override { return publishing_.end(); }
    RUNNEL_COLD void on_proven() override {
        connection_.release();
        if (state_.connected()) connection_begins();
    }
    RUNNEL_COLD void on_secret() noexcept override { connection_.wipe_when_written(); }
    RUNNEL_COLD unrouted* kept() noexcept override { return unrouted_.get(); }
    RUNNEL_COLD clock::time_point attend_messages(clock::time_point now);
    RUNNEL_COLD awaitable<void> wait_for_room(task_share const& here);
    RUNNEL_COLD void attend_held_up();
    // Whether nothing is read, as the application does not take its messages.
    bool is_deaf() const noexcept {
        if constexpr (has_pieces)
            return room_ != nullptr || pieces_.is_held();
        else
            return room_ != nullptr;
    }
    // Whether the reader is in the middle of a message that is taken in pieces, and counts as not taken meanwhile.
    bool is_in_pieces() noexcept {
        if constexpr (has_pieces)
            return pieces_.in().in_payload();
        else
            return false;
    }
    RUNNEL_COLD void weigh() noexcept;
    RUNNEL_COLD clock::time_point begin_anew(clock::time_point now);

    // What is written must not be ahead of what is stored.
    void save_before_write() {
        if (!durability_) return;
        try {
            durability_.save();
        } catch (...) {
            fail(std::current_exception());
        }
    }

    bool is_drained() noexcept { return !state_.holds_messages() && connection_.is_empty(); }
    void wake_if_drained() {
        if (places_ && places_->drained.occupied()) [[unlikely]]
            wake_once_stored();
    }
    // If that fails `run` ends, and tells them; without it they are told why.
    RUNNEL_COLD RUNNEL_NOINLINE void wake_once_stored() {
        if (!is_drained()) return;
        auto const error = save_if_due();
        if (!error || !running_) places_->drained.wake_all(error);
    }

    // --- the end

    // Ends `run` with an exception that no new attempt can mend.
    RUNNEL_COLD [[noreturn]] void fail(std::exception_ptr why) {
        connection_.fail(why);
        std::rethrow_exception(std::move(why));
    }

    RUNNEL_COLD void finish(std::error_code ended, std::string_view text) noexcept;

    RUNNEL_COLD void tell(session_event const& event) override;
    RUNNEL_COLD RUNNEL_NOINLINE void tell(session_event::kind what, std::error_code error, std::string_view detail,
                                          std::chrono::milliseconds pause = {});

    RUNNEL_COLD void end_connection(errc why) override {
        if (state_.connected()) connection_.end_over(why);
    }
    RUNNEL_COLD void end_run(std::exception_ptr why) noexcept override {
        if (running_) connection_.fail(std::move(why));
    }

    // In [0, 1).
    static double uniform() {
        std::uint32_t bits = 0;
        read_system_entropy(reinterpret_cast<char*>(&bits), sizeof(bits));
        return bits / 4294967296.0;
    }

    // --- the parts that come to be when they are needed

    RUNNEL_COLD RUNNEL_NOINLINE detail::subscribing<executor_type>& subscriptions();
    RUNNEL_COLD RUNNEL_NOINLINE detail::requesting<executor_type>& requests();

    session_options options_;
    std::shared_ptr<detail::destination<Transport>> destination_;
    session_state state_;
    detail::durability durability_;
    std::unique_ptr<detail::quarantine> quarantine_{};  // nullptr: no connection has ended as if for a message
    detail::output_queue<executor_type> packets_;
    detail::connection<executor_type> connection_;
    detail::publishing<executor_type> publishing_;
    std::unique_ptr<unrouted> unrouted_{};
    wait_list<executor_type>* room_ = nullptr;  // where the reader waits until messages have been taken
    std::unique_ptr<detail::subscribing_part> subscribing_{};
    std::unique_ptr<detail::requesting_part> requesting_{};
    std::unique_ptr<detail::authenticating_part<executor_type>> authenticating_{};
    std::forward_list<std::weak_ptr<detail::event_watcher>> watchers_{};

    std::unique_ptr<places> places_{};  // nullptr: nobody has waited yet
    list_link running_here_{};
    std::uint64_t connections_ = 0, messages_received_ = 0, messages_unrouted_ = 0;
    std::uint64_t overtaken_ = session_state::no_exchange;  // the message last told of
    std::optional<clock::time_point> connected_at_{};       // the last connection, if it was accepted
    std::unique_ptr<server_info> server_info_{};            // nullptr: nothing
    std::optional<stream_type>* stream_ = nullptr;          // of `run`
    clock::time_point begins_anew_at_{};                    // at the latest; the epoch: it is not to
    std::uint16_t receive_maximum_ = options_.receive_maximum;
    std::uint64_t weigh_at_ = 0;  // when so many bytes have been received; 0: at once
    bool is_laden_ = false;       // the application has as many bytes of messages as it may
    bool running_ = false;
    std::uint8_t turns_without_run_ = 0;
    bool session_present_ = false;  // as CONNACK says
    bool begins_anew_ = false;      // this end has ended the connection, to get messages again
    version_choice version_{options_.version};
    RUNNEL_NO_UNIQUE_ADDRESS pieces_type pieces_{*this};
};

}  // namespace runnel::mqtt

// With RUNNEL_SEPARATE_COMPILATION what follows is compiled once, in the file that includes <runnel/src.hpp>.
#ifndef RUNNEL_SEPARATE_COMPILATION
#include <runnel/mqtt/client/detail/operations.hpp>
#include <runnel/mqtt/client/detail/run.hpp>
#endif
