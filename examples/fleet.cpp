// A load generator: thousands of clients, or signed devices, over several threads, with figures each second. Its
// options are those of emqtt-bench where they mean the same.
//
// Without a host it brings its own server: the simulated IoT Platform, in this process, so that it needs neither
// account nor network; then its clients are devices that sign their connections.
#include <runnel/aliyun/connect.hpp>
#include <runnel/aliyun/device.hpp>
#include <runnel/aliyun/topics.hpp>
#include <runnel/testing/aliyun/platform.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/testing/over_websocket.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/tls.hpp>
#include <runnel/websocket/transport.hpp>

#include "fleet/machine.hpp"
#include "fleet/options.hpp"
#include "fleet/platform.hpp"
#include "fleet/show.hpp"
#include "settings.hpp"
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace {

using fleet::executor;
using tcp = runnel::basic_tcp<executor>;
using mqtts = runnel::tls<tcp>;
using ws = runnel::websocket::over<tcp>;
using wss = runnel::websocket::over<mqtts>;

constexpr char usage[] = R"(usage: fleet [conn | pub | sub | both] [OPTION]...

  conn  connects clients and keeps them connected
  pub   connects clients that publish
  sub   connects clients that subscribe
  both  (default) connects clients that subscribe to what they publish, and counts what is lost

Where to:
  -h, --host HOSTS          server, or several, separated by commas, among which the clients are shared out
      --embedded            the simulated IoT Platform in this process, with signed devices; default without --host
  -p, --port PORT           1 to 65535; default by transport: 1883, 8883, 80, 443
  -S, --ssl                 TLS
      --ws                  WebSocket; with --ssl: WebSocket Secure
      --path PATH           of WebSocket; default /mqtt
      --cacertfile FILE     authorities to trust (PEM); default: the system's
      --certfile FILE       the clients' certificate (PEM), with
      --keyfile FILE        its private key
      --insecure            do not verify the server's certificate

Who connects, and how:
  -c, --count N             clients, 1 to 1000000; default 200
  -R, --connrate N          connections begun in a second, 0 to 1000000; default 0: see --interval
  -i, --interval MS         from one connection begun to the next, 0 to 3600000 ms; default 10
  -n, --startnumber N       the first client's number, 0 to 1000000000; default 0
      --prefix TEXT         of client identifiers (and names of embedded devices), behind which the number comes
  -u, --username TEXT       may contain the variables of --topic
  -P, --password TEXT       may contain them too
      --devices FILE        devices of the IoT Platform, which sign: lines "product_key device_name device_secret"
  -V, --version N           4 (MQTT 3.1.1) or 5; default 5 for plain clients, 4 for devices
  -k, --keepalive S         0 to 65535 s, for devices 30 to 1200 s; default 300
  -C, --clean BOOL          true or false: whether each connection begins a new session; default true
  -x, --session-expiry S    how long the server keeps a session, 0 to 4294967295 s; default 0
      --attempts N          failures in a row after which a client gives up, 0 (never) to 1000000; default 5

What they do:
  -t, --topic TOPIC         %i: number, %c: client identifier, %u: user name, %p: product key, %d: device name; default
                            fleet/%i, for devices /%p/%d/user/fleet
      --share GROUP         subscribe as $share/GROUP/TOPIC: each message goes to one of the clients (MQTT 5)
  -q, --qos N               0, 1 or 2 (devices: 0 or 1); default 0
  -s, --size BYTES          of a message, 0 to 16777216, with both 32 or more; default 256
  -r, --retain BOOL         true or false; default false
  -I, --interval_of_msg MS  of one client, 0 (as fast as it can) to 86400000 ms; default 1000
  -F, --inflight N          messages of one client sent and not acknowledged, 1 to 1000; default 1
  -L, --limit N             messages of all clients together, 0 (any number) to 1000000000000; default 0
  -w, --wait-before-publishing
                            publish when all are connected; always so with both

The run:
      --seconds S           how long, once all are connected: 0 (until interrupted) to 31536000 s; default 10, with
                            --limit 0
      --threads N           threads, each with clients of its own, 1 to 256; default: one a processor

Exit status: 0 if nothing was lost and nothing failed, 1 otherwise, 2 for a mistake in the options.
)";

/// What the clients of one kind of transport have in common, for each thread a copy of its own.
template <class Transport>
std::vector<Transport> transports(fleet::options const& o, runnel::tls_options const& trust) {
    std::vector<Transport> made;
    for (unsigned i = 0; i < o.p.threads; ++i) {
        Transport t;
        t.port = o.port;
        if constexpr (requires { t.path; }) t.path = o.path;
        if constexpr (requires { t.next.context; })
            t.next.context = runnel::tls_context(trust);
        else if constexpr (requires { t.context; })
            t.context = runnel::tls_context(trust);
        made.push_back(std::move(t));
    }
    return made;
}

template <class Transport>
bool run(fleet::options const& o, runnel::tls_options const& trust) {
    auto const ways = transports<Transport>(o, trust);
    auto const make = [&](auto& clients, fleet::surroundings& here, executor e, unsigned index) {
        auto where = ways[index % o.p.threads];
        where.host = o.hosts[index % o.hosts.size()];
        auto const names = o.names_of(index);
        auto options = o.common;
        if (o.signs) {
            auto const mode = runnel::aliyun::secure_mode_for<Transport>;
            options.make_credentials = runnel::aliyun::device_signer(o.devices[index], mode, o.how);
        } else {
            options.credentials.client_id = names.client_id;
            if (o.has_user_name) options.credentials.user_name = names.user_name;
            if (o.has_password) options.credentials.password = fleet::expand(o.password, names);
        }
        auto const topic = fleet::expand(o.topic, names);
        clients.emplace_back(here, e, index, std::move(where), std::move(options), topic,
                             o.share.empty() ? topic : "$share/" + o.share + '/' + topic);
    };
    fleet::show<Transport> show(o.p, make);
    return show.run();
}

bool run(fleet::options& o) {
    runnel::tls_options trust = o.trust;
    std::optional<fleet::platform> platform;
    if (o.embedded) {
        platform.emplace(o.devices, o.ssl, o.ws);
        o.port = platform->port();
        trust.ca_pem = platform->authority_pem();
    }
    if (o.ssl) return o.ws ? run<wss>(o, trust) : run<mqtts>(o, trust);
    return o.ws ? run<ws>(o, trust) : run<tcp>(o, trust);
}

}  // namespace

int main(int argc, char** argv) {
    return example::run(usage, argc, argv, [&] {
        auto o = fleet::read_options(usage, argc, argv);
        std::printf("%u clients on %u threads, to %s over %s\n", o.p.count, o.p.threads,
                    o.embedded ? "the simulated IoT Platform" : o.hosts[0].c_str(),
                    o.ssl ? (o.ws ? "wss" : "tls") : (o.ws ? "ws" : "tcp"));
        std::fflush(stdout);
        return run(o) ? 0 : 1;
    });
}
