#pragma once

#include <runnel/aliyun/alink/device.hpp>
#include <runnel/aliyun/alink/protocol/detail/sub_device_login.hpp>
#include <runnel/aliyun/alink/protocol/topology.hpp>
#include <runnel/core/clock.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel::aliyun::alink {

template <counting_session Session>
class sub_device;

}  // namespace runnel::aliyun::alink

namespace runnel::aliyun::alink::detail {

/// The part of a gateway that logs its sub-devices in and out: does what `sub_device_login` says.
///
/// While a coroutine is suspended, others may write this, each in one step:
///
/// | member                | is written by                                                                            |
/// |-----------------------|------------------------------------------------------------------------------------------|
/// | `members_`            | a `sub_device` when it is made and when it goes: so whoever waits has shares in the      |
/// |                       | members that it is about                                                                 |
/// | `login` of a member   | all: what is wanted, the user's calls; what the platform tells, handlers and             |
/// |                       | `notice_connection`. From `begin_login` or `begin_logout` on the end of that request is  |
/// |                       | told by who has sent it alone: meanwhile the login `is_busy`, and nobody begins another  |
/// | `connection_`         | `notice_connection`, by all                                                              |
/// | `count` of `changes_` | who changes a login (`tell`); who waits has taken the count before it looked             |
///
/// So all ask anew what is to be done, and what is known, when they go on.
template <counting_session Session>
class logins : public device<Session> {
  public:
    using base = device<Session>;
    template <class T>
    using awaitable = typename base::template awaitable<T>;

    logins(Session& session, aliyun::device const& who, alink::options o) : base(session, who, std::move(o)) {}

  protected:
    friend class sub_device<Session>;
    using clock = steady_clock;

    // What the gateway knows of a sub-device; outlives it, as long as it is in use here.
    struct membership {
        membership(aliyun::device const& d, sub_device_login l) : who(d), login(std::move(l)) {}
        membership(membership const&) = delete;
        membership& operator=(membership const&) = delete;
        ~membership() { secure_wipe(who.device_secret); }
        aliyun::device who;
        sub_device_login login;
    };
    using member = std::shared_ptr<membership>;

    // Where those wait whose business the logins are. The count tells whether there has been a change since.
    struct changes_type {
        explicit changes_type(typename base::executor_type e) : waiters(std::move(e)) {}
        wait_list<typename base::executor_type> waiters;
        std::uint64_t count = 0;
    };

    // Nobody logs in any more.
    struct finisher {
        std::weak_ptr<changes_type> changes;
        ~finisher() {
            if (auto const here = changes.lock()) here->waiters.wake_all(mqtt::errc::disconnected);
        }
    };

    // A sub-device whose logout somebody sees to.
    struct leaver {
        leaver(logins& g, member m) : who(std::move(m)), changes(g.changes_) { who->login.add_leaver(); }
        leaver(leaver&&) = default;
        leaver& operator=(leaver&&) = delete;
        ~leaver() {
            if (!who) return;
            who->login.remove_leaver();
            if (auto const here = changes.lock()) tell(*here);
        }
        member who;
        std::weak_ptr<changes_type> changes;
    };
    // The devices of one logout, and those of them that are sub-devices here.
    struct leaving {
        std::vector<device_id> ids{};
        std::vector<leaver> members = {};
    };

    // A request to log in or out, as long as it is under way.
    struct request_here {
        request_here(logins& g, std::vector<member> o) : changes(g.changes_), of(std::move(o)) {}
        ~request_here() {
            for (auto const& m : of)
                if (m->login.is_busy()) m->login.lost();
            if (auto const here = changes.lock()) tell(*here);
        }
        request_here(request_here const&) = delete;
        request_here& operator=(request_here const&) = delete;
        void settled() noexcept { of.clear(); }
        std::weak_ptr<changes_type> changes;
        std::vector<member> of;
    };

    // What has come of such a request.
    struct outcome {
        bool gone = false;  // the connection, before there was an answer
        std::error_code error{};
        std::string text{};
        json data{};
    };

    static json list(std::span<device_id const> ids) {
        json all = json::array();
        for (auto const& id : ids) all.push_back(make_id(id.product_key, id.device_name));
        return all;
    }

    std::uint64_t connection() { return this->session().counters().connections; }
    // Nobody is logged in on a new connection.
    void notice_connection() {
        if (std::exchange(connection_, connection()) == connection()) return;
        for (auto const& m : members_) m->login.reconnected();
    }
    bool is_online(membership const& m) {
        notice_connection();
        return m.login.is_in() && this->session().is_connected();
    }

    member join(aliyun::device const& who) {
        notice_connection();
        auto m = std::make_shared<membership>(who, sub_device_login(this->box().options.login_pause));
        members_.push_back(m);
        return m;
    }
    void leave(member const& m) { std::erase(members_, m); }

    void want(membership& m, bool wanted) {
        notice_connection();
        m.login.want(wanted);
        changed();
    }
    void ended(membership& m, std::error_code why) {
        m.login.ended(why);
        changed();
    }

    void doubt(membership& m) {
        m.login.doubted();
        changed();
    }

    static void tell(changes_type& c) {
        ++c.count;
        c.waiters.wake_all({});
    }
    void changed() { tell(*changes_); }

    static awaitable<void> wait_for_change(std::shared_ptr<changes_type> c, std::uint64_t since) {
        if (c->count != since) co_return;
        waiter<typename base::executor_type> w;
        co_await c->waiters.wait(w);
        if (w.result) throw std::system_error(w.result);
    }
    awaitable<void> wait_for_change() { return wait_for_change(changes_, changes_->count); }
    awaitable<void> wait_for_connection(std::uint64_t after) { co_await this->session().connected(after); }

    // --- run: has done what `sub_device_login` says

    // Ends by an exception only; that the session has ended is the handlers' `run` to tell.
    awaitable<void> keep_logged_in() {
        auto keeping = log_in_and_out();
        try {
            co_await std::move(keeping);
        } catch (std::system_error const& e) {
            if (e.code() != mqtt::errc::disconnected && e.code() != errc::disconnected) throw;
        }
        waiter<typename base::executor_type> never;
        while (!never.result) co_await changes_->waiters.wait(never);
        throw std::system_error(never.result);
    }

    awaitable<void> log_in_and_out() {
        co_await this->start();
        for (;;) {
            notice_connection();
            auto const changes = changes_->count;
            if (this->session().is_connected()) {
                if (auto batch = due(sub_device_login::step::log_in); !batch.empty()) {
                    auto logging_in = log_in(std::move(batch));
                    co_await std::move(logging_in);
                    continue;
                }
                if (auto batch = due(sub_device_login::step::log_out); !batch.empty()) {
                    auto logging_out = log_out_again(std::move(batch.front()));
                    co_await std::move(logging_out);
                    continue;
                }
            }
            auto changing = wait_for_change(changes_, changes);
            auto connecting = wait_for_connection(connection_);
            auto sleeping = sleep_until_due();
            co_await race(this->box().waiters, std::move(changing), std::move(connecting), std::move(sleeping));
        }
    }

    std::vector<member> due(sub_device_login::step what) {
        std::vector<member> batch;
        auto const now = clock::now();
        for (auto const& m : members_) {
            if (m->login.next(now) != what) continue;
            if (m->login.is_single() && !batch.empty()) continue;  // its turn comes
            batch.push_back(m);
            if (m->login.is_single() || batch.size() == max_login_batch) break;
        }
        return batch;
    }

    awaitable<void> sleep_until_due() {
        auto first = (clock::time_point::max)();
        if (this->session().is_connected())
            for (auto const& m : members_) first = (std::min)(first, m->login.due());
        // If there is nothing, somebody else wakes: any long time will do.
        auto const pause = std::min<clock::duration>(std::chrono::hours(1), first - (std::min)(first, clock::now()));
        return sleep_for<typename base::executor_type>(this->session().get_executor(), pause);
    }

    awaitable<void> log_in(std::vector<member> batch) {
        for (auto const& m : batch) m->login.begin_login();
        request_here here(*this, batch);
        auto asking = settle(ask_to_log_in(batch), connection_);
        outcome const came = co_await std::move(asking);
        if (came.gone) co_return;
        here.settled();
        auto const answer = answer_of(came.error);
        bool const is_of_one = batch.size() == 1 || answer != sub_device_login::answer::refused_ever;
        for (auto const& m : batch) is_of_one ? take_login(*m, answer, came) : m->login.returned();
        changed();
    }

    void take_login(membership& m, sub_device_login::answer answer, outcome const& came) {
        bool const kept = m.login.is_kept();
        m.login.answered(answer, clock::now(), came.error, came.text);
        // Nobody need be waiting for it.
        if (kept && came.error && !m.login.is_in())
            this->box().report(came.error, this->topics().template of<topic_kind::sub_device_login>().view(),
                               aliyun_name(m.who) + ": " + came.text);
    }

    // What comes of a request on this connection, the session's end excepted, which is thrown.
    awaitable<outcome> settle(awaitable<json> asking, std::uint64_t on) {
        outcome came;
        auto keeping = keep(std::move(asking), came);
        auto connecting = wait_for_connection(on);
        came.gone = co_await race(this->box().waiters, std::move(keeping), std::move(connecting)) == 1;
        // First of all: what was sent on the new connection already must not be taken for lost with the old one.
        notice_connection();
        bool const over = came.error == asio::error::operation_aborted || came.error == errc::disconnected ||
                          came.error == mqtt::errc::disconnected;
        if (over && !came.gone) throw std::system_error(came.error);
        co_return std::move(came);
    }
    static awaitable<void> keep(awaitable<json> asking, outcome& came) {
        try {
            came.data = co_await std::move(asking);
        } catch (std::system_error const& e) {
            came.error = e.code();
            came.text = e.what();
        }
    }

    static std::string aliyun_name(aliyun::device const& d) { return d.product_key.str() + "/" + d.device_name.str(); }

    static sub_device_login::answer answer_of(std::error_code e) noexcept {
        using enum sub_device_login::answer;
        if (!e) return done;
        if (e.category() != make_error_code(errc::ok).category()) return nothing;  // the session's
        switch (static_cast<errc>(e.value())) {
            case errc::login_repeated: return done;
            case errc::throttled:
            case errc::internal_error:
            case errc::product_query_failed:
            case errc::metadata_query_failed:
            case errc::system_error: return refused;
            case errc::timed_out:
            case errc::answer_invalid: return nothing;
            default: return refused_ever;
        }
    }
    // The same for a logout, after which there is no login in these cases either.
    static sub_device_login::answer answer_of_logout(std::error_code e) noexcept {
        for (errc const code : {errc::session_missing, errc::device_deleted, errc::session_device_disabled,
                                errc::device_unknown, errc::topology_missing})
            if (e == code) return sub_device_login::answer::out_already;
        return answer_of(e);
    }

    awaitable<json> ask_to_log_in(std::vector<member> const& batch) {
        if (batch.size() == 1)
            return this->template request<topic_kind::sub_device_login>(make_login(batch.front()->who, base::now()));
        json devices = json::array();
        for (auto const& m : batch) devices.push_back(make_login(m->who, base::now()));
        json const params = {{"deviceList", devices}};
        return this->template request<topic_kind::sub_device_batch_login>(params);
    }

    // --- logging out

    // A logout that nobody sees to any more, and of which nobody knows what has come.
    awaitable<void> log_out_again(member m) {
        std::vector<member> one(1, m);
        auto asking = ask_to_log_out(std::move(one), {id_of(m->who)}, std::chrono::milliseconds(0));
        co_await std::move(asking);
    }

    awaitable<void> log_out_all(std::vector<leaving> batches) {
        bool overtaken = false;
        for (auto& batch : batches) {
            auto leaving_now = log_out(std::move(batch), overtaken);
            co_await std::move(leaving_now);
        }
        if (overtaken) throw std::system_error(make_error_code(errc::overtaken));
    }

    // Logs out when nothing else is under way for the same sub-devices: what they have been told last counts.
    awaitable<json> log_out(leaving batch, bool& overtaken) {
        auto const deadline = base::deadline_after(std::chrono::milliseconds(0));
        while (is_busy(batch.members)) {
            auto waiting = wait_until_idle(batch.members);
            auto limited = this->limit(std::move(waiting), base::left_until(deadline));
            co_await std::move(limited);
        }
        std::vector<member> members;
        for (auto const& one : batch.members) {
            if (!one.who->login.is_wanted()) {
                members.push_back(one.who);
                continue;
            }
            overtaken = true;
            std::erase(batch.ids, id_of(one.who->who));
        }
        if (batch.ids.empty() || !this->session().is_connected()) co_return json();
        auto asking = ask_to_log_out(std::move(members), batch.ids, base::left_until(deadline));
        outcome came = co_await std::move(asking);
        // With the connection the logins have gone.
        if (came.error && !came.gone) throw std::system_error(came.error, came.text);
        co_return std::move(came.data);
    }

    static bool is_busy(std::vector<leaver> const& all) {
        return std::ranges::any_of(all,
                                   [](leaver const& l) { return l.who->login.is_busy() && !l.who->login.is_wanted(); });
    }
    awaitable<void> wait_until_idle(std::vector<leaver> const& all) {
        while (is_busy(all)) {
            auto changing = wait_for_change();
            co_await std::move(changing);
        }
    }

    awaitable<outcome> ask_to_log_out(std::vector<member> members, std::vector<device_id> ids,
                                      std::chrono::milliseconds timeout) {
        notice_connection();
        request_here const here(*this, members);
        for (auto const& m : members) m->login.begin_logout();
        request_options const how{.timeout = timeout};
        auto asking =
            settle(ids.size() == 1 ? this->template request<topic_kind::sub_device_logout>(
                                         make_id(ids.front().product_key, ids.front().device_name), how)
                                   : this->template request<topic_kind::sub_device_batch_logout>(list(ids), how),
                   connection_);
        outcome came = co_await std::move(asking);
        if (came.gone) co_return std::move(came);
        auto const now = clock::now();
        auto const answer = answer_of_logout(came.error);
        using enum sub_device_login::answer;
        // It may be for the sake of one of them.
        bool const is_of_one = ids.size() == 1 || (answer != out_already && answer != refused_ever);
        for (auto const& m : members) is_of_one ? m->login.answered(answer, now) : m->login.returned();
        co_return std::move(came);
    }

    std::vector<member> members_{};
    std::uint64_t connection_ = 0;  // the latest that has been noticed
    std::shared_ptr<changes_type> changes_{std::make_shared<changes_type>(this->session().get_executor())};
};

}  // namespace runnel::aliyun::alink::detail
