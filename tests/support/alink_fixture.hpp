#pragma once

#include <runnel/aliyun/alink/alink.hpp>
#include <runnel/aliyun/connect.hpp>
#include <runnel/mqtt/client/session.hpp>
#include <runnel/testing/aliyun/cloud.hpp>
#include <runnel/transport/memory.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include <functional>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace test {

namespace aliyun = runnel::aliyun;
namespace alink = runnel::aliyun::alink;
namespace mqtt = runnel::mqtt;
using alink::json;

inline constexpr aliyun::device thermostat{"a1B2c3D4e5F", "thermostat-7", "a secret between us"};
inline std::string const own = "/sys/a1B2c3D4e5F/thermostat-7";

/// The simulated platform, in memory, with one known device's session, which is connected.
struct alink_fixture {
    explicit alink_fixture(aliyun::device const& who = thermostat,
                           mqtt::protocol_version version = mqtt::protocol_version::v3_1_1, bool clean_start = false)
        : cloud(io.get_executor()), session(io.get_executor(), transport(), options(who, version, clean_start)) {
        cloud.add_device(who);
        session_running.emplace(io, session.run());
        run(io, session.connected());
    }

    static mqtt::session_options options(aliyun::device const& who, mqtt::protocol_version version, bool clean_start) {
        aliyun::connect_options how;
        how.version = version;
        auto o = aliyun::session_options<runnel::memory_transport>(who, how);
        o.clean_start = clean_start;
        o.reconnect.initial = o.reconnect.maximum = std::chrono::milliseconds(1);
        return o;
    }
    runnel::memory_transport transport() {
        return runnel::memory_transport([this](runnel::memory_stream<> s) {
            if (refuses && refuses()) throw std::system_error(asio::error::connection_refused);
            cloud.attach(std::move(s));
        });
    }

    /// Options that note faults in `faults`.
    alink::options noting(alink::options o = {}) {
        o.on_fault = [this](alink::fault const& f) {
            faults.push_back(f.why);
            details.emplace_back(f.detail);
        };
        return o;
    }

    void settle() { test::settle(io); }

    /// Ends the session in good order, and with it `running`.
    template <class T>
    void disconnect(task<T>& running) {
        run(io, session.disconnect());
        CHECK_FALSE(running.run_for_error());
        CHECK_FALSE(session_running->run_for_error());
    }

    asio::io_context io;
    std::function<bool()> refuses;  // if set: whether the platform cannot be reached
    std::vector<std::error_code> faults;
    std::vector<std::string> details;
    runnel::testing::aliyun_cloud cloud;
    std::optional<task<void>> session_running;  // outlives what it runs, as the means to cancel it must
    memory_session session;
};

using alink_device = alink::device<memory_session>;

}  // namespace test
