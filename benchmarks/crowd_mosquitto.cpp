// Many clients of libmosquitto in one thread, which waits for all their sockets and calls the functions that there are
// for such loops: mosquitto_loop() and the library's own threads wait by select() and bear 300. As in those loops, who
// has lost the connection tries again after a second. See crowd.hpp.

#include "crowd.hpp"
#include <deque>
#include <memory>
#include <mosquitto.h>
#include <sys/epoll.h>

namespace {

struct client {
    enum class state { away, connecting, connected };

    bench::crowd& all;
    int const epoll;
    std::size_t& connecting;  // how many are
    mosquitto* m;
    state is = state::away;

    client(bench::crowd& a, int e, std::size_t& others, std::size_t number)
        : all(a),
          epoll(e),
          connecting(others),
          m(mosquitto_new(("crowd-" + std::to_string(number)).c_str(), true, this)) {
        mosquitto_connect_callback_set(m, [](mosquitto*, void* self, int refused) {
            if (refused == 0) static_cast<client*>(self)->become(state::connected);
        });
        mosquitto_int_option(m, MOSQ_OPT_TCP_NODELAY, 1);
    }

    void become(state next) {
        if (is == state::connecting) --connecting;
        if (next == state::connecting) ++connecting;
        if (is == state::connected) all.lost();
        if (next == state::connected) all.connected();
        is = next;
    }
    bool watch(int result) {
        if (result != MOSQ_ERR_SUCCESS) return false;
        become(state::connecting);
        epoll_event e{};
        e.events = EPOLLIN;
        e.data.ptr = this;
        return ::epoll_ctl(epoll, EPOLL_CTL_ADD, mosquitto_socket(m), &e) == 0;
    }
    bool connect() { return watch(mosquitto_connect(m, "127.0.0.1", all.port, all.keep_alive)); }
    bool reconnect() { return watch(mosquitto_reconnect(m)); }

    bool read() { return still(mosquitto_loop_read(m, 1)); }
    bool look() { return still(mosquitto_loop_misc(m)); }

    // False: the connection has ended.
    bool still(int result) {
        if (result == MOSQ_ERR_SUCCESS && mosquitto_want_write(m)) result = mosquitto_loop_write(m, 1);
        if (result == MOSQ_ERR_SUCCESS) return true;
        become(state::away);
        return false;
    }
};

class loop {
  public:
    explicit loop(bench::crowd& all) : all_(all), epoll_(::epoll_create1(0)) {}

    void begin(std::size_t number) {
        clients_.push_back(std::make_unique<client>(all_, epoll_, connecting_, number));
        if (!clients_.back()->connect()) std::exit(1);
    }

    void turn() {
        epoll_event events[256];
        int const n = ::epoll_wait(epoll_, events, 256, away_.empty() ? 100 : 10);
        auto const now = bench::now(CLOCK_MONOTONIC);
        for (int i = 0; i < n; ++i) {
            auto* const c = static_cast<client*>(events[i].data.ptr);
            if (!c->read()) away_.push_back({now + second, c});
        }
        // Connecting blocks while the broker's queue is full, so it is not filled.
        while (connecting_ < all_.at_once && !away_.empty() && away_.front().due <= now) {
            auto* const c = away_.front().who;
            away_.pop_front();
            if (!c->reconnect()) away_.push_back({now + second, c});
        }
        if (now < next_look_) return;
        next_look_ = now + second;
        for (auto const& c : clients_)
            if (mosquitto_socket(c->m) >= 0 && !c->look()) away_.push_back({now + second, c.get()});
    }

  private:
    static constexpr std::int64_t second = 1'000'000'000;
    struct waiting {
        std::int64_t due;
        client* who;
    };

    bench::crowd& all_;
    int epoll_;
    std::size_t connecting_ = 0;
    std::vector<std::unique_ptr<client>> clients_;
    std::deque<waiting> away_;
    std::int64_t next_look_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
    bench::crowd all(argc, argv, "libmosquitto");
    mosquitto_lib_init();
    loop l(all);
    all.run([&](std::size_t number) { l.begin(number); }, [&] { l.turn(); });
    std::_Exit(0);
}
