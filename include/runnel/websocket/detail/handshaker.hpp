#pragma once

#include <runnel/core/authority.hpp>
#include <runnel/core/clock.hpp>
#include <runnel/core/compiler.hpp>
#include <runnel/core/remark.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/transport/connect_progress.hpp>
#include <runnel/transport/error.hpp>
#include <runnel/transport/stream.hpp>
#include <runnel/websocket/handshake_refused.hpp>
#include <runnel/websocket/options.hpp>
#include <runnel/websocket/protocol/handshake.hpp>
#include <runnel/websocket/protocol/refusal_body.hpp>

#include RUNNEL_ASIO(error.hpp)

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel::websocket::detail {

/// What a handshake has agreed on.
struct handshake_result {
    std::string subprotocol{};
    /// The value of the reply's Sec-WebSocket-Extensions.
    std::string extensions{};
    /// Path and query of the request.
    std::string target{};
    /// Bytes that came behind the handshake: the first frames.
    std::string surplus{};
};

/// The input and output of the opening handshake over a connected stream.
///
/// There is one `ask` or `answer` at a time, and one child of it that works (`limit`). While a coroutine is suspended,
/// here that one, only the child may write this: `heard_`, and what it was given in its parent's frame. The parent
/// reads that when the child has ended.
template <runnel::stream Next>
class handshaker {
  public:
    using executor_type = typename Next::executor_type;

    explicit handshaker(Next& next) : next_(next), waiters_(next.get_executor()) {}

    /// Performs the client's part, offering `extensions`. Throws `handshake_refused`, also when it is cancelled while
    /// it reads the refusal's body, or `std::system_error` with this layer's or the lower layers' errors. `budget`: the
    /// time of whoever waits for it, who learns of a refusal before that is over.
    asio::awaitable<handshake_result, executor_type> ask(client_options const& options, std::string_view extensions,
                                                         connect_budget budget = {}) {
        check_opening(options.timeout, options.limits);
        handshake_key const key = make_handshake_key();
        client_request const request{options.host,        options.port, options.default_port, options.path,
                                     options.subprotocol, extensions,   options.headers,      options.authority};
        send_buffer out(Next::headroom);
        wiped_at_end const wiping(out);      // the headers may hold credentials
        out.prepare(largest_size(request));  // what it grew out of would not be wiped
        if (errc const e = encode(request, key, out); e != errc::ok) throw std::system_error(e);

        http_head reply(options.limits);
        handshake_result result{.subprotocol = {}, .extensions = {}, .target = options.path, .surplus = {}};
        std::error_code failed;
        std::string remark;  // of the stream below
        auto exchanging = send_and_read(out, reply, result.surplus, &write_reply);
        auto limited = limit(options.timeout, std::move(exchanging), failed);
        try {
            co_await std::move(limited);
        } catch (std::system_error const& e) {
            if (e.code() == asio::error::operation_aborted) throw;
            failed = e.code();
            remark = remark_of(e);
        }
        errc verdict = errc::ok;
        if (!failed || reply.complete())
            verdict = judge(reply, key, {options.subprotocol, options.accept_no_subprotocol, !extensions.empty()});
        if (is_refusal(verdict)) {
            refusal_body body(reply, handshake_refused::max_body);
            body.write(result.surplus);
            auto reading = read_shortly(body, options.timeout, budget);
            co_await std::move(reading);
            throw handshake_refused(verdict, reply, body.text(), doing(options));
        }
        if (!failed) failed = verdict;
        if (failed) {
            std::string text = doing(options) + question(failed);
            add_remark(text, remark);
            throw std::system_error(failed, text);
        }
        result.subprotocol = reply.value("Sec-WebSocket-Protocol");
        result.extensions = reply.value("Sec-WebSocket-Extensions");
        co_return std::move(result);
    }

    /// Performs the server's part. `judge(server_request)` returns 101, or the status with which the request is refused
    /// (403 for an origin, 404 for a path); `choose_extensions(head)` returns the value of the reply's header. Throws
    /// `std::system_error` when the request is refused, after the refusal has been sent.
    template <class Judge, class ChooseExtensions>
    asio::awaitable<handshake_result, executor_type> answer(server_options const& options, Judge& judge_request,
                                                            ChooseExtensions choose_extensions) {
        check_opening(options.timeout, options.limits);
        http_head head(options.limits);
        handshake_result result;
        send_buffer nothing(Next::headroom);
        std::error_code late;
        auto const take = [](http_head& to, std::string_view bytes) { return to.write(bytes); };
        auto receiving = send_and_read(nothing, head, result.surplus, take);
        auto limited = limit(options.timeout, std::move(receiving), late);
        co_await std::move(limited);

        server_request const request(head);
        errc e = late ? errc::handshake_timeout : request.check();
        int status = 101;
        if (e == errc::ok) status = judge_request(request);
        if (e == errc::ok && status != 101) e = status == 403 ? errc::origin_refused : errc_for_status(status);
        send_buffer out(Next::headroom);
        if (e == errc::ok) {
            result.target = request.target();
            result.subprotocol = request.choose_subprotocol(options.subprotocols);
            result.extensions = choose_extensions(head);
            e = options.require_subprotocol && result.subprotocol.empty()
                    ? errc::no_subprotocol
                    : encode_agreement(request.key(), result.subprotocol, result.extensions, options.headers, out);
        }
        if (e != errc::ok) encode_refusal(e, out, status == 101 ? 0 : status);
        auto writing = next_.write(out);
        limited = limit(options.timeout, std::move(writing), late);
        co_await std::move(limited);
        if (e != errc::ok) {
            // A socket closed with bytes unread would take the refusal back that is still on its way.
            auto leaving = leave();
            limited = limit(std::chrono::milliseconds(1000), std::move(leaving), late);
            co_await std::move(limited);
            throw std::system_error(e);
        }
        if (late) throw std::system_error(late);
        co_return std::move(result);
    }

  private:
    // Writes `out`, then reads a head, which `take` gathers, and what comes with it.
    asio::awaitable<void, executor_type> send_and_read(send_buffer& out, http_head& head, std::string& surplus,
                                                       std::size_t (*take)(http_head&, std::string_view)) {
        if (!out.empty()) co_await next_.write(out);
        char bytes[1024];
        while (!head.complete() && head.error() == errc::ok) {
            std::size_t const n = co_await next_.read_some(asio::buffer(bytes));
            if (heard_.size() < 64) heard_.append(bytes, std::min<std::size_t>(n, 64));
            std::size_t const used = take(head, {bytes, n});
            if (head.complete()) surplus.assign(bytes + used, n - used);
        }
    }

    // Reads what is still wanted of a refusal's body, for a moment only: whoever waits for the handshake may have
    // little time left, and is to learn of the refusal. However the reading ends, that is what matters.
    asio::awaitable<void, executor_type> read_shortly(refusal_body& body, std::chrono::milliseconds timeout,
                                                      connect_budget budget) {
        std::chrono::milliseconds time(500);
        if (timeout.count() != 0) time = (std::min)(time, timeout);
        auto const left = std::chrono::floor<std::chrono::milliseconds>(budget.left(steady_clock::now()) / 2);
        if (budget.is_limited()) time = (std::min)(time, left);
        if (body.complete() || time.count() == 0) co_return;
        auto reading = read(body);
        std::error_code late;
        auto limited = limit(time, std::move(reading), late);
        try {
            co_await std::move(limited);
        } catch (std::system_error const&) {
        }
    }

    asio::awaitable<void, executor_type> read(refusal_body& body) {
        char bytes[1024];
        while (!body.complete()) {
            std::size_t const n = co_await next_.read_some(asio::buffer(bytes));
            body.write({bytes, n});
        }
    }

    // What a client does, and with whom; the query may hold secrets.
    RUNNEL_COLD static std::string doing(client_options const& options) {
        auto const path = options.path.substr(0, options.path.find('?'));
        return "WebSocket handshake with " + authority_of(options.host, options.port) + path;
    }

    // What usually is the reason.
    RUNNEL_COLD std::string question(std::error_code failed) const {
        bool const closed = failed == asio::error::eof || failed == asio::error::connection_reset ||
                            failed == asio::error::broken_pipe || failed == errc::handshake_timeout ||
                            failed == transport_errc::stream_truncated;
        if (!closed && failed != errc::malformed_http) return {};
        if (heard_.empty()) return " (no answer: is this a WebSocket port?)";
        return heard_.starts_with("HTTP/") ? std::string() : " (" + strange_answer(heard_) + ')';
    }

    asio::awaitable<void, executor_type> leave() {
        co_await next_.shutdown();
        char bytes[1024];
        try {
            for (;;) co_await next_.read_some(asio::buffer(bytes));
        } catch (std::system_error const& error) {
            if (error.code() == asio::error::operation_aborted) throw;
        }
    }

    asio::awaitable<void, executor_type> limit(std::chrono::milliseconds time,
                                               asio::awaitable<void, executor_type> task, std::error_code& late) {
        if (time.count() == 0) {
            co_await std::move(task);
            co_return;
        }
        auto sleeping = sleep_for<executor_type>(next_.get_executor(), time);
        std::size_t const first = co_await race(waiters_, std::move(task), std::move(sleeping));
        if (first == 1) late = errc::handshake_timeout;
    }

    Next& next_;
    wait_list<executor_type> waiters_;
    std::string heard_{};  // the first bytes
};

}  // namespace runnel::websocket::detail
