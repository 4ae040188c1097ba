// What a broker bears: one session publishes, another one gets it all, and each message that comes lets the next one
// leave, so that there always are as many on their way as the case says.
//
//     benchmark-load PORT GROUP/publish_qosN_window_M MESSAGES

#include <runnel/transport/tcp.hpp>

#include "session_runnel.hpp"

namespace {

using namespace bench::of_runnel;
using session = mqtt::session<runnel::tcp>;

class load {
  public:
    explicit load(bench::options const& o) : o_(o), how_{.qos = static_cast<mqtt::qos>(o.qos())} {}

    void run() {
        spawn(publisher_.run());
        spawn(subscriber_.run());
        spawn(begin());
        io_.run();
    }

  private:
    void spawn(task<void> t) {
        asio::co_spawn(io_, std::move(t), [](std::exception_ptr e) {
            if (e) std::rethrow_exception(e);
        });
    }

    task<void> begin() {
        auto const handler = [this](mqtt::publish const&) {
            if (meter_.count()) io_.stop();
            publish();
        };
        co_await publisher_.connected();
        co_await subscriber_.subscribe(bench::filter, handler);
        for (std::size_t i = 0; i < o_.window(); ++i) publish();
    }

    void publish() {
        if (publisher_.try_publish(bench::topic, o_.payload, how_)) return;
        std::fprintf(stderr, "no room\n");
        std::exit(1);
    }

    mqtt::session_options options(char const* id) {
        auto all = options_for(id);
        all.on_event = [](mqtt::session_event const& e) {
            if (!e.error) return;
            std::fprintf(stderr, "%s\n", to_string(e).c_str());
            std::exit(1);
        };
        return all;
    }

    bench::options const& o_;
    mqtt::publish_options how_;
    bench::meter meter_{o_, who};
    asio::io_context io_{1};
    runnel::tcp way_{.host = "127.0.0.1", .port = o_.port};
    session publisher_{io_.get_executor(), way_, options("publisher")};
    session subscriber_{io_.get_executor(), way_, options("subscriber")};
};

}  // namespace

int main(int argc, char** argv) {
    bench::options const o(argc, argv);
    load(o).run();
    std::fflush(stdout);
    std::_Exit(0);
}
