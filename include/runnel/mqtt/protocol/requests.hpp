#pragma once

#include <cassert>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>

namespace runnel::mqtt {

/// The requests of a session (MQTT 5, 4.10), and the one subscription through which all their responses come. Without
/// I/O: it decides who subscribes, who waits for whom, and who is told what.
///
/// The subscription, which the first request makes:
///
/// | state   | event                                    | then    |
/// |---------|------------------------------------------|---------|
/// | closed  | `next` of a request, which is to make it | opening |
/// | opening | `opened`                                 | open    |
/// | opening | `not_opened`                             | closed  |
/// | open    | `refused`: by the server, at a renewal   | closed  |
///
/// A request; `tell` is called where one that waits is to go on:
///
/// | state    | event                                            | then     |      |
/// |----------|--------------------------------------------------|----------|------|
/// | -        | `add`                                            | ready    |      |
/// | ready    | `next`, the subscription is closed               | opening  |      |
/// | ready    | `next`, it is opening                            | waiting  |      |
/// | ready    | `next`, it is open: the message is to be sent    | asked    |      |
/// | opening  | `opened`, `not_opened`                           | ready    |      |
/// | waiting  | `opened`, `not_opened`                           | ready    | told |
/// | asked    | `on_response`                                    | answered | told |
/// | asked    | `refused`: no response can come any more         | failed   | told |
/// | waiting, asked | `end` of the session's `run`               | failed   | told |
/// | ready, opening | `end`; it goes on by itself                | failed   |      |
/// | any      | `remove`; of one that is opening: `not_opened`   | -        |      |
class requests {
  public:
    enum class stage : std::uint8_t { ready, opening, waiting, asked, answered, failed };
    enum class step : std::uint8_t {
        open,  ///< subscribe, then `opened` or `not_opened`
        wait,  ///< until told
        send,  ///< the message; from now on the response may come
    };

    /// A request: a part of what the driver keeps of it.
    struct entry {
        std::string correlation{};  ///< its correlation data
        stage at = stage::ready;
        std::error_code error{};  ///< of `failed`
    };

    requests() = default;
    requests(requests const&) = delete;
    requests& operator=(requests const&) = delete;

    /// False: there is one with this correlation data. It must live until `remove`.
    bool add(entry& e) { return all_.emplace(e.correlation, &e).second; }

    /// Nobody waits for its response any more. True: its message is to be withdrawn if it has not been sent.
    template <class Tell>
    bool remove(entry& e, Tell tell) {
        if (e.at == stage::opening) end_opening(e, tell);
        all_.erase(e.correlation);
        return e.at == stage::asked || e.at == stage::failed;
    }

    /// What a request has to do now.
    step next(entry& e) noexcept {
        assert(e.at == stage::ready);
        if (is_open_) return e.at = stage::asked, step::send;
        if (opener_ != nullptr) return e.at = stage::waiting, step::wait;
        opener_ = &e;
        return e.at = stage::opening, step::open;
    }

    /// The request that was to subscribe has done so.
    template <class Tell>
    void opened(entry& e, Tell tell) {
        is_open_ = true;
        end_opening(e, tell);
    }
    /// It has not, and the next one may try.
    template <class Tell>
    void not_opened(entry& e, Tell tell) {
        end_opening(e, tell);
    }

    /// The server does not renew the subscription.
    template <class Tell>
    void refused(std::error_code why, Tell tell) {
        assert(is_open_);
        is_open_ = false;
        for (auto const& [correlation, e] : all_)
            if (e->at == stage::asked) fail(*e, why, tell);
    }

    /// The one to which a response belongs, and which is to be told; nullptr: nobody waits for it.
    entry* on_response(std::string_view correlation) noexcept {
        auto const found = all_.find(correlation);
        if (found == all_.end() || found->second->at != stage::asked) return nullptr;
        found->second->at = stage::answered;
        return found->second;
    }

    /// `run` has ended. Also those fail that have been told and have not gone on yet, and the one that subscribes, as
    /// soon as it has.
    template <class Tell>
    void end(std::error_code why, Tell tell) {
        for (auto const& [correlation, e] : all_) {
            if (e->at == stage::asked || e->at == stage::waiting)
                fail(*e, why, tell);
            else if (e->at == stage::opening)
                e->error = why;
            else if (e->at == stage::ready)
                fail(*e, why, [](entry&) {});
        }
    }

    bool is_open() const noexcept { return is_open_; }

  private:
    template <class Tell>
    void end_opening(entry& e, Tell tell) {
        assert(opener_ == &e && e.at == stage::opening);
        opener_ = nullptr;
        e.at = e.error ? stage::failed : stage::ready;
        for (auto const& [correlation, other] : all_) {
            if (other->at != stage::waiting) continue;
            other->at = stage::ready;
            tell(*other);
        }
    }

    template <class Tell>
    static void fail(entry& e, std::error_code why, Tell const& tell) {
        e.at = stage::failed;
        e.error = why;
        tell(e);
    }

    std::unordered_map<std::string_view, entry*> all_{};  // by correlation data
    entry* opener_ = nullptr;                             // the one that subscribes
    bool is_open_ = false;
};

}  // namespace runnel::mqtt
