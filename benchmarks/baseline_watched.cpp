// The rows of sessions over TCP at which somebody looks on: `traced`, with packets as lines for a sink that does
// nothing, `quiet`, the same at the level of connections, and `metered`. See baseline.hpp.

#include <runnel/mqtt/client/metered.hpp>
#include <runnel/mqtt/client/traced.hpp>

#include "baseline.hpp"

int main(int argc, char** argv) {
    using namespace runnel::mqtt;
    return bench::counted::main(argc, argv, [](bench::options const& o, runnel::tcp const& tcp, auto run) {
        trace_options trace{.sink = [](trace_line const&) {}};
        if (o.group == "quiet") trace.level = trace_level::connections;
        if (o.group == "metered")
            run(metered<runnel::tcp>(tcp));
        else
            run(traced<runnel::tcp>(tcp, trace));
    });
}
