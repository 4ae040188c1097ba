"""What it costs to compile and to link."""

import os
import pathlib
import subprocess
import tempfile

from groups.figures import run

PUBLISHER = """
#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>

asio::awaitable<void> publish(runnel::mqtt::session<runnel::tcp>& session) {
    co_await session.publish("sensors/1", "21.5", {.qos = runnel::mqtt::qos::at_least_once});
    co_await session.disconnect();
}

int main() {
    asio::io_context io;
    runnel::mqtt::session session(io.get_executor(), runnel::tcp{.host = "127.0.0.1"});
    asio::co_spawn(io, session.run(), asio::detached);
    asio::co_spawn(io, publish(session), asio::detached);
    io.run();
}
"""
# As much with Asio alone: looks up, connects, writes.
BARE_ASIO = """
#include <asio/awaitable.hpp>
#include <asio/co_spawn.hpp>
#include <asio/connect.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>

asio::awaitable<void> write(asio::io_context& io) {
    asio::ip::tcp::resolver resolver(io);
    auto const found = co_await resolver.async_resolve("127.0.0.1", "1883", asio::use_awaitable);
    asio::ip::tcp::socket socket(io);
    co_await asio::async_connect(socket, found, asio::use_awaitable);
    co_await asio::async_write(socket, asio::buffer("21.5", 4), asio::use_awaitable);
}

int main() {
    asio::io_context io;
    asio::co_spawn(io, write(io), asio::detached);
    io.run();
}
"""
SOURCES = {
    "bare_asio": BARE_ASIO,
    "publisher": PUBLISHER,
    # One that is not the first: the session is compiled elsewhere.
    "further_publisher": "#define RUNNEL_SEPARATE_COMPILATION\n" + PUBLISHER,
    "include": "#include <runnel/mqtt/client/session.hpp>\n#include <runnel/transport/tcp.hpp>\nint main() {}\n",
    "include_codec": "#include <runnel/mqtt/packet.hpp>\nint main() {}\n",
}


def footprint(figures, _, options):
    compiler, include, runs = options.compiler.split(","), options.include, options.runs
    if os.path.basename(compiler[0]) == "ccache":
        compiler = compiler[1:]
    for name, source in SOURCES.items():
        with tempfile.TemporaryDirectory() as folder:
            here = pathlib.Path(folder)
            (here / "main.cpp").write_text(source)
            command = [*compiler, "-std=c++20", "-O2", "-DASIO_STANDALONE", "-I", include, "-c", "main.cpp", "-o", "main.o"]
            for _ in range(runs):
                process = subprocess.Popen(command, cwd=here)
                _, status, used = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                if process.returncode != 0:
                    figures.failures.append(f"footprint: {name} does not compile")
                    return
                figures.add(f"footprint/{name}", "runnel", "s CPU", used.ru_utime + used.ru_stime)
                figures.add(f"footprint/{name}", "runnel", "MiB compiler memory", used.ru_maxrss / 1024)
            if not name.startswith("further") and run(figures, [*compiler, "main.o", "-o", "main", "-s", "-pthread"], name, cwd=here):
                figures.add(f"footprint/{name}", "runnel", "KiB stripped", (here / "main").stat().st_size / 1024)
    bare, further = (figures.median(f"footprint/{name}", "s CPU", "runnel") for name in ("bare_asio", "further_publisher"))
    figures.add("footprint/further_publisher", "runnel", "times bare Asio", further / bare)
