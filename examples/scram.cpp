// SCRAM (MQTT 5): a client and its server prove to each other that they know the password, which never crosses the
// wire. The client keeps the keys that it derives from the password, and needs no password when it is started again.
//
// The broker runs in this process, and keeps what a server keeps: neither passwords nor anything to log in with.
#include <runnel/mqtt/client/scram_authenticator.hpp>
#include <runnel/runnel.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/testing/broker/scram.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>
#include <map>
#include <optional>
#include <string>

namespace mqtt = runnel::mqtt;
using mechanism = mqtt::scram_sha_256;
using session = mqtt::session<runnel::tcp>;

// The users' file of a server.
class credential_store {
  public:
    void enroll(std::string const& user, std::string const& password) {
        std::string salt(16, '\0');
        runnel::fill_random(salt.data(), salt.size());
        users_[user] = mqtt::scram_verifier_from<mechanism>(mqtt::derive_scram_keys<mechanism>(password, salt, 10'000));
    }
    std::optional<mqtt::scram_verifier> find(std::string_view user) const {
        auto const found = users_.find(std::string(user));
        return found != users_.end() ? std::optional(found->second) : std::nullopt;
    }

  private:
    std::map<std::string, mqtt::scram_verifier> users_;
};

// Runs a session with these credentials until it is connected, and authenticates once more.
void run_session(asio::io_context& context, runnel::tcp const& server, mqtt::scram_credentials who,
                 std::optional<mqtt::scram_keys>& kept) {
    mqtt::session_options options;
    options.version = mqtt::protocol_version::v5;
    options.credentials.client_id = "meter-12";
    session s(context.get_executor(), server, options);
    s.set_authenticator(mqtt::scram_authenticator<mechanism>(std::move(who), {}, [&](mqtt::scram_keys const& derived) {
        std::printf("  keys derived, of %u iterations\n", unsigned{derived.iterations});
        kept = derived;  // a program would store them as it stores a private key
    }));

    bool ended = false;
    asio::co_spawn(context, s.run(), [&](std::exception_ptr error) {
        ended = true;
        try {
            if (error) std::rethrow_exception(error);
        } catch (std::exception const& e) {
            std::printf("  refused: %s\n", e.what());
        }
    });
    auto const use = [](session& of) -> asio::awaitable<void> {
        co_await of.connected();
        std::puts("  connected; the server has proved that it knows the user");
        co_await of.reauthenticate();
        std::puts("  authenticated again");
        co_await of.disconnect();
    };
    asio::co_spawn(context, use(s), [](std::exception_ptr) {});
    context.restart();
    while (!ended) context.run_one();
}

int main() try {
    asio::io_context context;
    credential_store store;
    store.enroll("meter", "pencil");
    runnel::testing::broker broker(context.get_executor());
    broker.hooks().authenticate = runnel::testing::scram_authentication<mechanism>(
        [&](runnel::testing::authentication_attempt const&, std::string_view user) { return store.find(user); },
        10'000);
    runnel::tcp const server{.host = "127.0.0.1", .port = broker.listen_tcp()};

    std::optional<mqtt::scram_keys> kept;
    std::puts("with the password:");
    run_session(context, server, {.user_name = "meter", .password = "pencil"}, kept);
    std::puts("with the keys alone:");
    run_session(context, server, {.user_name = "meter", .keys = kept}, kept);
    std::puts("with another password:");
    run_session(context, server, {.user_name = "meter", .password = "a guess"}, kept);
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
