#pragma once

#include <arpa/inet.h>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <grp.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sstream>
#include <stdexcept>
#include <string>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace test {

/// The account that servers are started under when the tests run as root: none of them needs more.
struct unprivileged {
    uid_t user = ::getuid();
    gid_t group = ::getgid();

    static unprivileged account() {
        unprivileged result;
        if (result.user == 0) {
            if (passwd const* const nobody = ::getpwnam("nobody")) {
                result.user = nobody->pw_uid;
                result.group = nobody->pw_gid;
            }
        }
        return result;
    }
};

/// A directory for one test, gone with its contents when the test ends. The servers it starts can read and write it.
class scratch_directory {
  public:
    scratch_directory() {
        std::string name = (std::filesystem::temp_directory_path() / "runnel-test-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) throw std::system_error(errno, std::generic_category(), "mkdtemp");
        path_ = name;
        give_away(path_);
    }
    scratch_directory(scratch_directory const&) = delete;
    scratch_directory& operator=(scratch_directory const&) = delete;
    ~scratch_directory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }

    std::filesystem::path const& path() const noexcept { return path_; }

    /// Writes a file and returns its full name.
    std::string write(std::string const& name, std::string const& text) const {
        auto const file = path_ / name;
        std::ofstream(file, std::ios::binary) << text;
        give_away(file);
        return file.string();
    }

    /// The contents of a file; nothing if there is none.
    std::string read(std::string const& name) const {
        std::ifstream const file(path_ / name, std::ios::binary);
        std::ostringstream text;
        text << file.rdbuf();
        return text.str();
    }

  private:
    static void give_away(std::filesystem::path const& path) {
        auto const account = unprivileged::account();
        if (::chown(path.c_str(), account.user, account.group) != 0)
            throw std::system_error(errno, std::generic_category(), "chown " + path.string());
    }

    std::filesystem::path path_;
};

/// Whether to keep the account of the tests or to give up root's rights.
enum class rights { unprivileged, same };

/// A program that runs beside the test and ends with it.
class child_process {
  public:
    /// Starts `arguments[0]`, found on the PATH and among the system's daemons; its output goes to the file `log`.
    child_process(std::vector<std::string> arguments, std::string const& log, rights r = rights::unprivileged) {
        // All that allocates happens before fork.
        auto const account = r == rights::unprivileged ? unprivileged::account() : unprivileged{};
        std::string const program = find(arguments.at(0));
        if (program.empty()) throw std::runtime_error("no program " + arguments[0]);
        std::vector<char*> argv;
        for (auto& argument : arguments) argv.push_back(argument.data());
        argv.push_back(nullptr);

        pid_ = ::fork();
        if (pid_ < 0) throw std::system_error(errno, std::generic_category(), "fork");
        if (pid_ != 0) return;
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // also when the test is killed
        int const out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        int const in = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
        ::dup2(in, 0);
        ::dup2(out, 1);
        ::dup2(out, 2);
        if (::getuid() == 0 && account.user != 0 &&
            (::setgroups(0, nullptr) != 0 || ::setgid(account.group) != 0 || ::setuid(account.user) != 0))
            ::_exit(126);
        ::execv(program.c_str(), argv.data());
        ::_exit(127);
    }
    child_process(child_process&& other) noexcept
        : pid_(std::exchange(other.pid_, -1)), status_(std::exchange(other.status_, 0)) {}
    child_process& operator=(child_process&& other) noexcept {
        std::swap(pid_, other.pid_);
        std::swap(status_, other.status_);
        return *this;
    }
    ~child_process() {
        if (running()) kill();
    }

    pid_t pid() const noexcept { return pid_; }

    bool running() {
        if (pid_ <= 0) return false;
        if (::waitpid(pid_, &status_, WNOHANG) != pid_) return true;
        pid_ = -1;
        return false;
    }

    /// Asks it to end, waits, and forces it to after `limit`. True if it ended by itself.
    bool terminate(std::chrono::milliseconds limit = std::chrono::seconds(10)) {
        if (pid_ > 0) ::kill(pid_, SIGTERM);
        if (wait(limit)) return true;
        kill();
        return false;
    }

    /// Ends it at once, as a crash does.
    void kill() {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, &status_, 0);
        pid_ = -1;
    }

    /// Waits until it ends; false if it has not within `limit`.
    bool wait(std::chrono::milliseconds limit) {
        auto const end = std::chrono::steady_clock::now() + limit;
        while (running()) {
            if (std::chrono::steady_clock::now() > end) return false;
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        return true;
    }

    /// The exit status, after it has ended; -1 if a signal ended it.
    int exit_status() const noexcept { return WIFEXITED(status_) ? WEXITSTATUS(status_) : -1; }

    /// The full name of a program; empty if there is none.
    static std::string find(std::string const& name) {
        if (name.find('/') != std::string::npos) return ::access(name.c_str(), X_OK) == 0 ? name : std::string();
        char const* const path = std::getenv("PATH");
        std::istringstream directories((path != nullptr ? std::string(path) : std::string()) +
                                       ":/usr/local/sbin:/usr/sbin:/sbin");
        for (std::string directory; std::getline(directories, directory, ':');) {
            auto const candidate = directory + "/" + name;
            if (!directory.empty() && ::access(candidate.c_str(), X_OK) == 0) return candidate;
        }
        return {};
    }

  private:
    pid_t pid_ = -1;
    int status_ = 0;
};

/// Whether `call`, which is `bind` or `connect`, succeeds for a new socket and a loopback port.
inline bool works(int (*call)(int, sockaddr const*, socklen_t), std::uint16_t port) {
    int const socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    bool const done = call(socket, reinterpret_cast<sockaddr const*>(&address), sizeof(address)) == 0;
    ::close(socket);
    return done;
}

/// Whether a server could listen on a loopback port.
inline bool is_free(std::uint16_t port) { return works(::bind, port); }

/// A loopback port that is free at this moment, for a server that may be away for a while. It is below those that the
/// kernel gives to clients (32768 and up): else somebody's client could get it meanwhile, or one that looks for the
/// server be connected to itself. Tests side by side, which are processes, begin at different ones.
inline std::uint16_t free_port() {
    constexpr std::uint32_t lowest = 10'000, count = 22'000, apart = 50;
    static std::uint32_t next = static_cast<std::uint32_t>(::getpid()) * apart;
    for (std::uint32_t tried = 0; tried < count; ++tried) {
        auto const port = static_cast<std::uint16_t>(lowest + next++ % count);
        if (is_free(port)) return port;
    }
    throw std::runtime_error("no free port on 127.0.0.1");
}

/// Whether something accepts connections on a loopback port.
inline bool accepts(std::uint16_t port) { return works(::connect, port); }

/// Waits until `process` accepts connections on all `ports`; false if it ends or takes longer than `limit`.
inline bool wait_until_ready(child_process& process, std::vector<std::uint16_t> const& ports,
                             std::chrono::milliseconds limit = std::chrono::seconds(20)) {
    auto const end = std::chrono::steady_clock::now() + limit;
    for (auto const port : ports) {
        while (!accepts(port)) {
            if (!process.running() || std::chrono::steady_clock::now() > end) return false;
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
    }
    return process.running();
}

}  // namespace test
