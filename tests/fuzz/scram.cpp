// Feeds messages to both ends of SCRAM: none is accepted that is not a message, a client is asked for no more
// iterations than its limits, and nobody is let in without the keys.

#include <runnel/mqtt/protocol/scram_client.hpp>
#include <runnel/mqtt/protocol/scram_server.hpp>

#include "fuzz.hpp"
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

using namespace runnel::mqtt;
using runnel::secret_string;
using test::require;

namespace {

using mechanism = scram_sha_1;

scram_keys keys_of(std::string_view salt, std::uint32_t iterations) {
    return {std::string(salt), iterations, secret_string(std::string(20, 'c')), secret_string(std::string(20, 's'))};
}

// A client that has the keys for one salt, and no password: nothing is derived here.
void be_client(std::string_view challenge, std::string_view last) {
    scram_client<mechanism> client({.user_name = "u=s,er", .keys = keys_of("salt", 4096)}, {.most = 10'000});
    require(client.begin("nonce") == "n,,n=u=3Ds=2Cer,r=nonce");
    if (client.challenge(challenge) == scram_errc::ok) {
        require(challenge.starts_with("r=nonce") && challenge.find(",s=c2FsdA==,i=4096") != std::string_view::npos);
        auto const answer = client.answer();
        require(answer.starts_with("c=biws,r=nonce") && answer.find('\0') == std::string::npos);
        require(client.challenge(challenge) == scram_errc::ok && client.answer() == answer);
        if (client.verify(last) == scram_errc::ok) require(last.starts_with("v="));
    } else {
        require(client.verify(last) == scram_errc::signature_missing);
    }
}

// A server that is challenged to let somebody in.
void be_server(std::string_view first, std::string_view last) {
    std::string memory, answer;
    scram_server server(memory);
    auto const kept = scram_verifier_from<mechanism>(keys_of("salt", 4096));
    if (server.begin(first) == scram_errc::ok) {
        require(memory == first && !server.user_name().empty());
        auto const user = server.user_name();
        auto const challenge = server.challenge("nonce", kept.salt, kept.iterations);
        require(server.user_name() == user && challenge.ends_with("nonce,s=c2FsdA==,i=4096"));
        // The one client that has the keys, by whatever first message.
        if (first.starts_with("n,,n=user,r=own")) {
            scram_client<mechanism> client({.user_name = "user", .keys = keys_of("salt", 4096)});
            client.begin("own");
            bool const theirs = first == "n,,n=user,r=own";
            if (client.challenge(challenge) == scram_errc::ok) {
                bool const let_in = server.finish<mechanism>(client.answer(), kept, answer) == scram_errc::ok;
                require(let_in == theirs && (client.verify(answer) == scram_errc::ok) == theirs);
            }
        } else {
            require(server.finish<mechanism>(last, kept, answer) != scram_errc::ok);
        }
    }
    require(server.finish<mechanism>(last, kept, answer) != scram_errc::ok);
    require(memory.empty() && server.user_name().empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    test::input_reader input(data, size);
    bool const is_client = (input.byte() & 1) != 0;
    auto const first = input.until('\n');
    if (is_client)
        be_client(first, input.rest());
    else
        be_server(first, input.rest());
    return 0;
}
