// What QoS 1 messages cost with a `sqlite_store`: cases that end with `_process` survive the end of the process, those
// that end with `_power` a power failure, too. The file is in the working directory, and removed in the end.

#include <runnel/mqtt/store/sqlite_store.hpp>
#include <runnel/transport/tcp.hpp>

#include "session_runnel.hpp"
#include <filesystem>
#include <memory>
#include <unistd.h>

int main(int argc, char** argv) {
    using namespace bench::of_runnel;
    using survives = mqtt::sqlite_options::survives;
    bench::options const o(argc, argv);
    auto const folder = std::filesystem::path("benchmark-store-" + std::to_string(::getpid()));
    std::filesystem::create_directory(folder);
    {
        auto options = options_for("runnel");
        options.store = std::make_shared<mqtt::sqlite_store>(
            (folder / "client.db").string(),
            mqtt::sqlite_options{.what = o.name.ends_with("_power") ? survives::power : survives::process});
        client c(o, runnel::tcp{.host = "127.0.0.1", .port = o.port}, std::move(options));
        c.run();
    }
    std::filesystem::remove_all(folder);
    return 0;
}
