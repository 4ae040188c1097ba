#!/usr/bin/env python3
"""Brings runnel into a small program in every way that the README names, and runs it.

usage: run.py [--full] [--cpm FILE] [WAY...]

--full also builds and runs examples/quickstart.cpp with the installed package. --cpm FILE tries CPM, with that CPM.cmake.
Needs cmake, meson, ninja, pkg-config, Asio, OpenSSL, SQLite, zlib and nlohmann/json; CXX is the compiler. Nothing is
downloaded.
"""

import argparse
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "packaging"))
from release import version  # noqa: E402

COMPONENTS = ["tls", "sqlite", "deflate", "alink"]
MACROS = [f"-DWITH_{name.upper()}" for name in COMPONENTS]
LIBRARIES = ["-lssl", "-lcrypto", "-lsqlite3", "-lz", "-pthread"]
ASIO = ["-DASIO_STANDALONE", "-DASIO_HAS_CO_AWAIT=1", "-DASIO_HAS_STD_COROUTINE=1"]
WARNINGS = ["-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
CXX = shlex.split(os.environ.get("CXX", "g++"))
WAYS = {}


class Failure(Exception):
    pass


def way(function):
    WAYS[function.__name__] = function
    return function


def run(*command, env=None, may_fail=False):
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False
    )
    if done.returncode != 0 and not may_fail:
        raise Failure(f"$ {shlex.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done


def expect(holds, text):
    if not holds:
        raise Failure(text)


def compiles(text):
    done = subprocess.run([*CXX, "-fsyntax-only", "-x", "c++", "-"], input=text, capture_output=True, text=True, check=False)
    return done.returncode == 0


def check(program):
    """What the program prints is the version of the headers that it was compiled with."""
    said = run(program).stdout.strip()
    expect(said == f"runnel {version()}", f"{program} says: {said}")


def cmake(scratch, *arguments, may_fail=False):
    return run("cmake", "-G", "Ninja", "-S", HERE / "cmake", "-B", scratch / "build", *arguments, may_fail=may_fail)


def build_with_cmake(scratch, *arguments):
    cmake(scratch, *arguments)
    run("cmake", "--build", scratch / "build")
    check(scratch / "build/small")


def install_by_cmake(scratch, *arguments):
    run("cmake", "-G", "Ninja", "-S", ROOT, "-B", scratch / "library", f"-DCMAKE_INSTALL_PREFIX={scratch / 'prefix'}", *arguments)
    run("cmake", "--install", scratch / "library")


def install_by_meson(scratch):
    off = [f"-D{what}=disabled" for what in ("tests", "examples", "benchmarks")]
    run("meson", "setup", scratch / "library", ROOT, f"--prefix={scratch / 'prefix'}", *off)
    run("meson", "install", "-C", scratch / "library")


def find_package(scratch, *arguments):
    return ["-DWAY=find_package", f"-DVERSION={version()}", f"-Drunnel_ROOT={scratch / 'prefix'}", *arguments]


@way
def cmake_install(scratch, options):
    install_by_cmake(scratch)
    full = [f"-DFULL={ROOT / 'examples/quickstart.cpp'}"] if options.full else []
    build_with_cmake(scratch, *find_package(scratch, *full))
    if options.full:
        run(scratch / "build/full")


def check_two_files(program):
    said = run(program).stdout.strip()
    expect(said == "hello", f"{program} says: {said}")


@way
def compiled(scratch, options):
    """Sessions are compiled once: by the targets of CMake and meson, by <runnel/src.hpp>, by a file of the user's own."""
    sources = [HERE / "two_files.cpp", HERE / "two_files_say.cpp"]
    command = [*CXX, *WARNINGS, *ASIO, "-DRUNNEL_SEPARATE_COMPILATION", f"-I{ROOT / 'include'}"]
    own = scratch / "own.cpp"
    own.write_text("#include <runnel/mqtt/client/session_source.hpp>\n#include <runnel/transport/tcp.hpp>\n"
                   "template class runnel::mqtt::session<runnel::tcp>;\n")
    run(*command, *sources, own, "-o", scratch / "two_files", "-pthread")
    check_two_files(scratch / "two_files")
    if not options.full:
        return
    for header, *without in (["src"], ["src", "-DASIO_DISABLE_LOCAL_SOCKETS"], ["src_tls"]):
        own.write_text(f"#include <runnel/{header}.hpp>\n")
        run(*command, *without, "-fsyntax-only", own)
    install_by_cmake(scratch)
    cmake(scratch, *find_package(scratch, "-DCOMPILED=ON", "-Dcomponents=tls;compiled"))
    run("cmake", "--build", scratch / "build", "--target", "two_files")
    check_two_files(scratch / "build/two_files")
    # meson's is the same code: what is looked at is that it makes the targets.
    shutil.rmtree(scratch / "build")
    (scratch / "project/subprojects").mkdir(parents=True)
    (scratch / "project/subprojects/runnel").symlink_to(ROOT)
    set_up_with_meson(scratch)
    targets = {t["name"] for t in json.loads(run("meson", "introspect", "--targets", scratch / "build").stdout)}
    expect({"two_files", "runnel-compiled", "runnel-compiled-tls"} <= targets, f"meson has only {targets}")


# What imports runnel, beside two_files.cpp, which includes it.
IMPORTING = """\
#include <asio/awaitable.hpp>
#include <openssl/ssl.h>
#include <nlohmann/json.hpp>
#include <string>
import runnel;
using session = runnel::mqtt::session<runnel::tcp>;
asio::awaitable<void> say(session& s, std::string what);
template class runnel::mqtt::session<runnel::tcp>;
template class runnel::mqtt::session<runnel::wss>;
template class runnel::aliyun::device_session<runnel::ws>;
"""


@way
def module(scratch, options):
    """`import runnel;` with all its parts, in a program whose other file includes."""
    clang = shutil.which("clang++-19")
    if clang is None:
        return "no clang 19"
    parts = [f"-DRUNNEL_MODULE_{name.upper()}" for name in COMPONENTS]
    command = [clang, *WARNINGS, *ASIO, "-pthread", f"-I{ROOT / 'include'}"]
    including = scratch / "including.o"
    run(*command, "-DRUNNEL_SEPARATE_COMPILATION", "-c", HERE / "two_files.cpp", "-o", including)
    run(*command, *parts, "--precompile", ROOT / "include/runnel/runnel.cppm", "-o", scratch / "runnel.pcm")
    say = scratch / "say.cpp"
    say.write_text((HERE / "two_files_say.cpp").read_text().replace('#include "two_files.hpp"\n', IMPORTING))
    imported = [f"-fmodule-file=runnel={scratch / 'runnel.pcm'}", say, scratch / "runnel.pcm"]
    run(*command, *imported, including, "-o", scratch / "two_files", *LIBRARIES)
    check_two_files(scratch / "two_files")


@way
def boost_asio(scratch, options):
    """With Boost's Asio: the headers of the standalone one are of no use then."""
    if not compiles("#include <boost/version.hpp>\n#if BOOST_VERSION < 108100\n#error\n#endif\n"):
        return "no Boost 1.81"
    install_by_cmake(scratch)
    elsewhere = f"-DRUNNEL_ASIO_INCLUDE_DIR={scratch}"
    build_with_cmake(scratch, *find_package(scratch, "-DRUNNEL_USE_BOOST_ASIO=ON", elsewhere))


@way
def cmake_messages(scratch, options):
    """What is missing is named; a version that might not fit is not taken."""
    install_by_cmake(scratch)
    major, minor, _ = map(int, version().split("."))
    refused = [f"{major}.{minor + 1}", f"{major + 1}", f"{version()}.1"]
    if (major, minor) > (0, 0):
        refused.append(f"0.{minor - 1}" if major == 0 else f"{major - 1}.0")
    for asked in refused:
        found = cmake(scratch, *find_package(scratch), f"-DVERSION={asked}", may_fail=True)
        expect(found.returncode != 0, f"version {version()} is taken for {asked}")
    for asked in (f"{major}.{minor}", "0.0...99.0"):
        cmake(scratch, *find_package(scratch), f"-DVERSION={asked}")
    old = scratch / "old/asio"
    old.mkdir(parents=True)
    (old / "version.hpp").write_text("#define ASIO_VERSION 101200 // 1.12.0\n")
    missing = {
        "-Dcomponents=tsl": 'there is no component "tsl"',
        "-DCMAKE_DISABLE_FIND_PACKAGE_ZLIB=ON": "runnel::deflate needs ZLIB",
        "-DCMAKE_IGNORE_PREFIX_PATH=/;/usr;/usr/local": "standalone Asio is missing",
        f"-DRUNNEL_ASIO_INCLUDE_DIR={old.parent}": "is older than 1.22.1",
    }
    for argument, text in missing.items():
        shutil.rmtree(scratch / "build")
        said = cmake(scratch, *find_package(scratch, argument), may_fail=True)
        words = " ".join(said.stderr.split())
        expect(said.returncode != 0 and text in words, f"{argument}: not said: {text}\n{said.stderr}")
    # What is not asked for is not looked for.
    shutil.rmtree(scratch / "build")
    cmake(scratch, *find_package(scratch, "-DCMAKE_DISABLE_FIND_PACKAGE_ZLIB=ON", "-Dcomponents=tls;alink"))


@way
def meson_install(scratch, options):
    install_by_meson(scratch)
    build_with_cmake(scratch, *find_package(scratch))


@way
def same_files(scratch, options):
    """Both installations bring the same headers, CMake package and files for pkg-config."""
    trees = {}
    for name, install in (("cmake", install_by_cmake), ("meson", install_by_meson)):
        install(scratch / name)
        prefix = scratch / name / "prefix"
        trees[name] = {
            file.relative_to(prefix): file.read_bytes()
            for folder in ("include", "share/cmake", "share/pkgconfig")
            for file in (prefix / folder).rglob("*")
            if file.is_file()
        }
    differing = [str(f) for f in {*trees["cmake"], *trees["meson"]} if trees["cmake"].get(f) != trees["meson"].get(f)]
    expect(not differing and len(trees["cmake"]) > 100, f"differ: {', '.join(sorted(differing))}")


@way
def fetch_content(scratch, options):
    build_with_cmake(scratch, "-DWAY=FetchContent", f"-DSOURCE={ROOT}")


@way
def cpm(scratch, options):
    if options.cpm is None:
        return "no --cpm"
    build_with_cmake(scratch, "-DWAY=CPM", f"-DSOURCE={ROOT}", f"-DCPM={pathlib.Path(options.cpm).resolve()}")


@way
def add_subdirectory(scratch, options):
    build_with_cmake(scratch, "-DWAY=add_subdirectory", f"-DSOURCE={ROOT}")


@way
def pkg_config(scratch, options):
    install_by_meson(scratch)
    env = {"PKG_CONFIG_PATH": str(scratch / "prefix/share/pkgconfig")}
    flags = run("pkg-config", "--cflags", "--libs", "runnel", *(f"runnel-{c}" for c in COMPONENTS), env=env).stdout
    small = scratch / "small"
    run(*CXX, "-std=c++20", *MACROS, HERE / "small.cpp", "-o", small, *shlex.split(flags))
    check(small)


def set_up_with_meson(scratch):
    project = scratch / "project"
    for file in ("meson/meson.build", "small.cpp", "two_files.cpp", "two_files_say.cpp", "two_files.hpp"):
        shutil.copy(HERE / file, project)
    run("meson", "setup", "--wrap-mode=nodownload", scratch / "build", project)


def build_with_meson(scratch):
    set_up_with_meson(scratch)
    run("meson", "compile", "-C", scratch / "build")
    check(scratch / "build/small")


@way
def meson_subproject(scratch, options):
    (scratch / "project/subprojects").mkdir(parents=True)
    (scratch / "project/subprojects/runnel").symlink_to(ROOT)
    build_with_meson(scratch)


@way
def meson_wrap(scratch, options):
    """By the release's archive, which is the same to the byte from another clone."""
    run("git", "clone", "-q", ROOT, scratch / "elsewhere/clone")
    made = {}
    for folder, tree in (("project/subprojects", ROOT), ("elsewhere", scratch / "elsewhere/clone")):
        tool = tree / "packaging/release.py"
        for what in ("archive", "sbom"):
            run(sys.executable, tool, what, scratch / folder, env={"TZ": "Asia/Shanghai" if tree == ROOT else "UTC"})
        files = (f for f in (scratch / folder).iterdir() if f.is_file())
        made[folder] = {file.name: file.read_bytes() for file in files}
    first, second = made.values()
    expect(len(first) == 3, f"made: {', '.join(first)}")
    for name in first:
        # The bill of materials has the headers as they are, the archive those of HEAD.
        expect(first[name] == second[name] or name.endswith(".json"), f"{name} differs from that of another clone")
    document = json.loads(first[f"runnel-{version()}.spdx.json"])
    known = {"SPDXRef-DOCUMENT", *(item["SPDXID"] for item in document["packages"] + document["files"])}
    for relation in document["relationships"]:
        expect({relation["spdxElementId"], relation["relatedSpdxElement"]} <= known, f"nobody knows {relation}")
    subprojects = scratch / "project/subprojects"
    (subprojects / "packagefiles").mkdir()
    (subprojects / f"runnel-{version()}.tar.gz").rename(subprojects / f"packagefiles/runnel-{version()}.tar.gz")
    build_with_meson(scratch)


@way
def copied(scratch, options):
    shutil.copytree(ROOT / "include/runnel", scratch / "runnel")
    small = scratch / "small"
    run(*CXX, "-std=c++20", *ASIO, *MACROS, f"-I{scratch}", HERE / "small.cpp", "-o", small, *LIBRARIES)
    check(small)


VCPKG = """\
function(vcpkg_cmake_configure)
  cmake_parse_arguments(arg "" SOURCE_PATH OPTIONS ${ARGN})
  execute_process(COMMAND ${CMAKE_COMMAND} -G Ninja -S ${arg_SOURCE_PATH} -B ${SCRATCH}/library ${arg_OPTIONS} COMMAND_ERROR_IS_FATAL ANY)
endfunction()
function(vcpkg_cmake_install)
  execute_process(COMMAND ${CMAKE_COMMAND} --install ${SCRATCH}/library --prefix ${CURRENT_PACKAGES_DIR} COMMAND_ERROR_IS_FATAL ANY)
endfunction()
function(vcpkg_fixup_pkgconfig)
endfunction()
function(vcpkg_install_copyright)
endfunction()
"""


@way
def recipes(scratch, options):
    """What has no package manager here: vcpkg's port with stand-ins for its functions, of the others the syntax."""
    for name in ("conanfile.py", "test_package/conanfile.py"):
        compile((ROOT / "packaging/conan" / name).read_text(), name, "exec")
    for luac in filter(None, map(shutil.which, ("luac", "luac5.4", "luac5.3"))):
        run(luac, "-p", ROOT / "packaging/xmake/xmake.lua")
    json.loads((ROOT / "packaging/vcpkg/vcpkg.json").read_text())
    (scratch / "vcpkg.cmake").write_text(f"{VCPKG}include({ROOT / 'packaging/vcpkg/portfile.cmake'})\n")
    settings = {"PORT": "runnel", "SCRATCH": scratch, "CURRENT_PACKAGES_DIR": scratch / "prefix"}
    run("cmake", *(f"-D{name}={value}" for name, value in settings.items()), "-P", scratch / "vcpkg.cmake")
    build_with_cmake(scratch, *find_package(scratch))


@way
def versions(scratch, options):
    run(sys.executable, ROOT / "packaging/release.py", "check")


@way
def single_header(scratch, options):
    """examples/hello.cpp with the single files, in any order and more than once; nothing else of runnel is there."""
    run(sys.executable, ROOT / "packaging/single_header.py", scratch)
    hello = (ROOT / "examples/hello.cpp").read_text()
    includes = "".join(f'#include "{name}.hpp"\n' for name in ("runnel", "runnel-tls", "runnel"))
    expect("#include <runnel/runnel.hpp>\n" in hello, "examples/hello.cpp includes something else")
    source = scratch / "hello.cpp"
    text = hello.replace("#include <runnel/runnel.hpp>\n", includes)
    source.write_text(text + "\ntemplate class runnel::mqtt::session<runnel::wss>;\n")
    run(*CXX, *WARNINGS, *ASIO, f"-I{scratch}", source, "-o", scratch / "hello", *LIBRARIES)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--cpm")
    parser.add_argument("ways", nargs="*", metavar="WAY", help=", ".join(WAYS))
    options = parser.parse_args()
    failed = 0
    for name in options.ways or WAYS:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                skipped = WAYS[name](pathlib.Path(scratch), options)
                print(f"{name}: skipped, {skipped}" if skipped else f"{name}: ok", flush=True)
            except Failure as failure:
                failed += 1
                print(f"{name}: FAILED\n{failure}", flush=True)
    sys.exit(1 if failed else 0)


main()
