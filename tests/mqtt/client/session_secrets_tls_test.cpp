#include <runnel/aliyun/client/device_session.hpp>
#include <runnel/digest/base64.hpp>
#include <runnel/digest/hex.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/testing/over_websocket.hpp>
#include <runnel/testing/proxy.hpp>
#include <runnel/transport/proxy/http.hpp>
#include <runnel/transport/proxy/socks5.hpp>
#include <runnel/websocket/transport.hpp>

#include <doctest/doctest.h>

#include "support/run.hpp"
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

// What sessions say of the secrets that they are given, and what a process has of them in its memory once the sessions
// are gone. A child process makes the secrets, so that this one, which has the servers, cannot have left them there.

#ifdef __linux__

namespace {

namespace mqtt = runnel::mqtt;
using namespace std::chrono_literals;
using through_http = runnel::websocket::over<runnel::tls<runnel::http_proxy<runnel::tcp>>>;
using through_socks5 = runnel::tls<runnel::socks5_proxy<runnel::tcp>>;

// What is looked for: bytes that are kept in another form, so that they are not found where they are looked for.
class wanted {
  public:
    wanted(char const* name, std::string_view secret) : name_(name), hidden_(secret) {
        for (char& c : hidden_) c = hide(c);
    }
    char const* name() const noexcept { return name_; }

    std::size_t count_in(char const* begin, char const* end) const noexcept {
        std::size_t found = 0;
        auto const size = static_cast<std::ptrdiff_t>(hidden_.size());
        for (char const* at = begin; end - at >= size; ++at) {
            at = static_cast<char const*>(std::memchr(at, hide(hidden_[0]), static_cast<std::size_t>(end - at)));
            if (at == nullptr || end - at < size) break;
            std::ptrdiff_t i = 1;
            while (i < size && at[i] == hide(hidden_[static_cast<std::size_t>(i)])) ++i;
            found += i == size ? 1 : 0;
        }
        return found;
    }

  private:
    static char hide(char c) noexcept { return static_cast<char>(c ^ 0x5A); }

    char const* name_;
    std::string hidden_;
};

// Looks through all memory of this process that can be written. What a sanitizer has for itself is far larger than what
// a program has.
std::size_t count_in_memory(wanted const& w) {
    std::FILE* const maps = std::fopen("/proc/self/maps", "r");
    std::FILE* const memory = std::fopen("/proc/self/mem", "rb");
    std::size_t found = 0;
    static char block[1 << 16];
    char line[512];
    while (maps != nullptr && memory != nullptr && std::fgets(line, sizeof(line), maps) != nullptr) {
        std::uintptr_t begin = 0, end = 0;
        char access[5] = {};
        if (std::sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &begin, &end, access) != 3) continue;
        if (access[0] != 'r' || access[1] != 'w' || end - begin > (std::uintptr_t{1} << 30)) continue;
        // Blocks overlap by what a secret may have.
        for (auto at = begin; at < end; at += sizeof(block) - 256) {
            auto const own = reinterpret_cast<std::uintptr_t>(block);
            if (at < own + sizeof(block) && own < at + sizeof(block)) continue;
            auto const size = std::min<std::size_t>(sizeof(block), end - at);
            if (::pread(::fileno(memory), block, size, static_cast<off_t>(at)) != static_cast<ssize_t>(size)) break;
            found += w.count_in(block, block + size);
        }
    }
    std::memset(block, 0, sizeof(block));
    if (maps != nullptr) std::fclose(maps);
    if (memory != nullptr) std::fclose(memory);
    return found;
}

// The two processes tell each other texts.
class line {
  public:
    explicit line(int descriptor) : descriptor_(descriptor) {}

    void say(std::string_view text) const {
        auto const size = static_cast<std::uint32_t>(text.size());
        if (::send(descriptor_, &size, sizeof(size), MSG_NOSIGNAL) != sizeof(size) ||
            ::send(descriptor_, text.data(), size, MSG_NOSIGNAL) != static_cast<ssize_t>(size))
            throw std::runtime_error("the other process is gone");
    }
    // Into memory that is wiped.
    runnel::secret_string hear() const {
        std::uint32_t size = 0;
        if (::recv(descriptor_, &size, sizeof(size), MSG_WAITALL) != sizeof(size))
            throw std::runtime_error("the other process is gone");
        runnel::secret_string text(size, '\0');
        if (size > 0 && ::recv(descriptor_, text.data(), size, MSG_WAITALL) != static_cast<ssize_t>(size))
            throw std::runtime_error("the other process is gone");
        return text;
    }

  private:
    int descriptor_;
};

// A token by which a client logs in, as data of enhanced authentication.
struct token_bearer {
    std::string method() const { return "TOKEN"; }
    asio::awaitable<std::string> begin() { co_return std::string(token); }
    asio::awaitable<std::string> answer(std::string) { co_return std::string(token); }
    asio::awaitable<void> finish(std::string) { co_return; }
    runnel::secret_string token;
};

// The child's side: makes secrets, lets sessions use them, and looks what is left.
class client {
  public:
    explicit client(line const& parent) : parent_(parent) {}

    // What was found, a line each.
    std::string run() {
        {
            runnel::testing::certificate_authority const authority("clients");
            parent_.say(authority.certificate_pem());
            auto own = authority.issue_client();
            key_pem_ = runnel::secret_string(own.private_key_pem);
            runnel::secure_wipe(own.private_key_pem);
            certificate_pem_ = own.certificate_pem;
        }
        for (auto* const s : {&password_, &proxy_password_, &device_secret_, &psk_, &token_, &header_}) make(*s);
        for (auto const* const s : {&password_, &proxy_password_, &device_secret_, &psk_, &token_}) parent_.say(*s);
        look_for("password", password_);
        look_for("proxy's password", proxy_password_);
        look_for("device secret", device_secret_);
        look_for("pre-shared key", psk_);
        look_for("token", token_);
        look_for("header", header_);
        look_for("private key", std::string_view(key_pem_).substr(60, 40));
        {
            runnel::secret_string pair("proxy-user:");
            pair.reserve(100);
            pair += proxy_password_;
            runnel::secret_string coded(runnel::digest::base64_size(pair.size()), '\0');
            runnel::digest::encode_base64(pair, coded.data());
            look_for("proxy's password in base64", std::string_view(coded).substr(16, 24));
            for (auto const& w : wanted_)
                if (count_in_memory(w) == 0) report_ += std::string("the search does not find the ") + w.name() + "\n";
        }
        hear_ports();
        use_all();
        for (auto* const s : {&key_pem_, &password_, &proxy_password_, &device_secret_, &psk_, &token_, &header_})
            runnel::secure_wipe(*s);
        for (auto const& w : wanted_) {
            if (w.count_in(said_.data(), said_.data() + said_.size()) != 0)
                report_ += std::string("something tells the ") + w.name() + "\n";
            if (auto const n = count_in_memory(w))
                report_ += std::string("left in memory: ") + w.name() + ", " + std::to_string(n) + " times\n";
        }
        return report_;
    }

  private:
    // 32 characters.
    static void make(runnel::secret_string& s) {
        char random[16];
        runnel::fill_random(random, sizeof(random));
        s.assign(32, '\0');
        runnel::digest::encode_hex({random, sizeof(random)}, s.data());
        runnel::secure_wipe(random, sizeof(random));
    }
    void look_for(char const* name, std::string_view secret) { wanted_.emplace_back(name, secret); }
    void hear_ports() {
        ca_pem_ = parent_.hear();
        for (auto* const p : {&proxy_port_, &wss_port_, &tls_port_, &psk_port_})
            *p = static_cast<std::uint16_t>(std::stoi(parent_.hear()));
    }

    runnel::tls_options trust() const {
        runnel::tls_options o;
        o.ca_pem = ca_pem_;
        o.certificate_pem = certificate_pem_;
        o.private_key_pem = key_pem_;
        return o;
    }
    template <class Proxy>
    void set_up(runnel::tls<Proxy>& t, std::string const& password) const {
        t.context = runnel::tls_context(trust());
        t.next.proxy.host = "127.0.0.1";
        t.next.proxy.port = proxy_port_;
        t.next.user_name = "proxy-user";
        t.next.password = password;
    }
    through_http over_websocket(std::string const& proxy_password) const {
        through_http t;
        t.host = "localhost";
        t.port = wss_port_;
        t.headers.push_back({"Authorization", header_});
        set_up(t.next, proxy_password);
        return t;
    }
    through_socks5 over_tls(std::string const& proxy_password) const {
        through_socks5 t;
        t.host = "localhost";
        t.port = tls_port_;
        set_up(t, proxy_password);
        return t;
    }

    mqtt::session_options options(std::string const& password) {
        mqtt::session_options o;
        o.credentials = {.client_id = "client", .user_name = "user", .password = runnel::secret_string(password)};
        o.reconnect.attempts = 1;
        o.on_event = [this](mqtt::session_event const& e) { say(to_string(e) + e.url + e.detail); };
        return o;
    }
    void say(std::string const& text) { said_.append(text).append("\n"); }

    // Runs a session until it is connected, and ends it.
    template <class Session>
    void use(asio::io_context& io, Session& s, bool is_let_in) {
        test::task<void> running(io, s.run());
        auto const leave = [&]() -> asio::awaitable<void> {
            co_await s.connected();
            co_await s.disconnect();
        };
        test::task<void> leaving(io, leave());
        auto const error = running.run_for_error();
        say(running.error_text());
        leaving.run_for_error();
        say(leaving.error_text());
        if (!error != is_let_in) report_ += "not as it was meant to go: " + running.error_text() + "\n";
    }
    template <class Transport, class... More>
    void session(Transport const& t, mqtt::session_options const& o, bool is_let_in, More&&... more) {
        asio::io_context io;
        say(t.url());
        mqtt::session<Transport> s(io.get_executor(), t, o);
        (s.set_authenticator(more), ...);
        use(io, s, is_let_in);
    }

    void use_all() {
        std::string const wrong = "wrong";
        session(over_websocket(proxy_password_), options(password_), true);
        session(over_websocket(proxy_password_), options(wrong), false);
        session(over_websocket(wrong), options(password_), false);
        session(over_tls(proxy_password_), options(password_), true);
        session(over_tls(wrong), options(password_), false);
        session(over_tls(proxy_password_), options(wrong), false);
        {
            auto with_key = over_tls(proxy_password_);
            runnel::tls_options keyed;
            keyed.psk_identity = "device";
            keyed.psk_key = psk_;
            with_key.context = runnel::tls_context(keyed);
            with_key.port = psk_port_;
            session(with_key, options(password_), true);
            with_key.port = tls_port_;
            session(with_key, options(password_), false);
        }
        {
            auto o = options({});
            o.credentials.user_name = "token";
            o.credentials.password.reset();
            o.version = mqtt::protocol_version::v5;
            session(over_tls(proxy_password_), o, true, token_bearer{token_});
        }
        {
            asio::io_context io;
            runnel::aliyun::device d{"a1B2c3D4e5F", "thermostat-7", std::string_view(device_secret_)};
            auto o = runnel::aliyun::session_options<through_socks5>(d);
            o.on_event = options({}).on_event;
            runnel::aliyun::device_session<through_socks5> s(io.get_executor(), d, over_tls(proxy_password_), o);
            use(io, s, true);
            runnel::secure_wipe(d);
        }
    }

    line const& parent_;
    std::vector<wanted> wanted_;
    runnel::secret_string key_pem_, password_, proxy_password_, device_secret_, psk_, token_, header_;
    std::string certificate_pem_, ca_pem_;
    std::uint16_t proxy_port_ = 0, wss_port_ = 0, tls_port_ = 0, psk_port_ = 0;
    std::string said_;
    std::string report_;
};

// The servers, which know the secrets, too, and must not tell them either.
std::string serve(line const& child, pid_t pid) {
    asio::io_context io;
    runnel::testing::certificate_authority const authority;
    runnel::tls_options mutual;
    auto const own = authority.issue_server();
    mutual.certificate_pem = own.certificate_pem;
    mutual.private_key_pem = own.private_key_pem;
    mutual.require_client_certificate = true;
    mutual.ca_pem = child.hear();
    std::vector<runnel::secret_string> secrets;
    while (secrets.size() < 5) secrets.push_back(child.hear());
    runnel::tls_options keyed;
    keyed.psk_identity = "device";
    keyed.psk_key = secrets[3];
    std::string log;
    runnel::testing::broker broker(io.get_executor());
    broker.hooks().log = [&](std::string_view text) { log.append(text).append("\n"); };
    broker.hooks().on_connect = [&](runnel::testing::connect_attempt& a) {
        bool const elsewhere = a.packet.user_name == "thermostat-7&a1B2c3D4e5F" || a.packet.user_name == "token";
        return elsewhere || a.packet.password == std::string_view(secrets[0])
                   ? mqtt::reason_code::success
                   : mqtt::reason_code::bad_user_name_or_password;
    };
    broker.hooks().authenticate = [&](runnel::testing::authentication_attempt& a) {
        if (a.data != std::string_view(secrets[4])) return mqtt::reason_code::not_authorized;
        return a.step == 0 ? mqtt::reason_code::continue_authentication : mqtt::reason_code::success;
    };
    runnel::testing::proxy proxy(io.get_executor(), {.user_name = "proxy-user", .password = secrets[1]});
    child.say(authority.certificate_pem());
    using runnel::testing::over_tls;
    runnel::tls_context const context(mutual);
    child.say(std::to_string(proxy.listen()));
    child.say(std::to_string(broker.listen(runnel::testing::over_websocket(over_tls(context)))));
    child.say(std::to_string(broker.listen(over_tls(context))));
    child.say(std::to_string(broker.listen(over_tls(runnel::tls_context(keyed)))));
    int status = 0;
    for (int i = 0; i < 6000 && ::waitpid(pid, &status, WNOHANG) == 0; ++i) io.run_for(10ms);
    std::string report = child.hear();
    for (auto const& s : secrets)
        if (log.find(s) != std::string::npos) report += "the broker's log tells a secret\n";
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) report += "the client did not end as it should\n";
    return report;
}

}  // namespace

TEST_CASE("sessions tell no secret in events, errors and logs, and leave none in the memory of their process") {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    pid_t const pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        ::close(ends[0]);
        line const parent(ends[1]);
        try {
            parent.say(client(parent).run());
        } catch (std::exception const& e) {
            parent.say(std::string("the client failed: ") + e.what() + "\n");
        }
        ::_exit(0);
    }
    ::close(ends[1]);
    auto const report = serve(line(ends[0]), pid);
    CHECK(report == "");
    ::close(ends[0]);
}

#endif
