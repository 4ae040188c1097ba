import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load, rmdir


class Runnel(ConanFile):
    """`conan create packaging/conan --build=missing`: the sources are those around this recipe."""

    name = "runnel"
    description = "MQTT for C++20 coroutines over TCP, TLS and WebSocket, and the Aliyun IoT Platform"
    license = "MIT"
    topics = ("mqtt", "websocket", "coroutines", "asio", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"tls": [True, False], "sqlite": [True, False], "deflate": [True, False], "alink": [True, False]}
    default_options = {"tls": True, "sqlite": False, "deflate": False, "alink": False}
    no_copy_source = True

    def set_version(self):
        text = load(self, os.path.join(self.recipe_folder, "../../include/runnel/version.hpp"))
        parts = (re.search(rf"RUNNEL_VERSION_{part} (\d+)", text)[1] for part in ("MAJOR", "MINOR", "PATCH"))
        self.version = ".".join(parts)

    def export_sources(self):
        for pattern in ("include/*", "packaging/cmake/*", "CMakeLists.txt", "LICENSE"):
            copy(self, pattern, os.path.join(self.recipe_folder, "../.."), self.export_sources_folder)

    def layout(self):
        cmake_layout(self)

    def requirements(self):
        self.requires("asio/[>=1.22.1 <2]", transitive_headers=True)
        if self.options.tls:
            self.requires("openssl/[>=3 <4]", transitive_headers=True)
        if self.options.sqlite:
            self.requires("sqlite3/[>=3 <4]", transitive_headers=True)
        if self.options.deflate:
            self.requires("zlib/[>=1.2 <2]", transitive_headers=True)
        if self.options.alink:
            self.requires("nlohmann_json/[>=3.9 <4]", transitive_headers=True)

    def validate(self):
        check_min_cppstd(self, 20)

    def package_id(self):
        self.info.clear()

    def generate(self):
        CMakeToolchain(self).generate()

    def build(self):
        CMake(self).configure()

    def package(self):
        CMake(self).install()
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))
        rmdir(self, os.path.join(self.package_folder, "share"))  # Conan makes its own CMake package

    def package_info(self):
        self.cpp_info.set_property("cmake_file_name", "runnel")
        core = self.cpp_info.components["runnel"]
        core.set_property("cmake_target_name", "runnel::runnel")
        core.set_property("pkg_config_name", "runnel")
        core.requires = ["asio::asio"]
        core.defines = ["ASIO_STANDALONE", "ASIO_HAS_CO_AWAIT=1", "ASIO_HAS_STD_COROUTINE=1"]
        core.bindirs = core.libdirs = []
        if self.settings.os in ("Linux", "FreeBSD"):
            core.system_libs = ["pthread"]
        elif self.settings.os == "Windows":
            core.system_libs = ["ws2_32", "mswsock"]
        needed = {"tls": "openssl::openssl", "sqlite": "sqlite3::sqlite3", "deflate": "zlib::zlib",
                  "alink": "nlohmann_json::nlohmann_json"}
        for name, library in needed.items():
            if self.options.get_safe(name):
                component = self.cpp_info.components[name]
                component.set_property("cmake_target_name", f"runnel::{name}")
                component.set_property("pkg_config_name", f"runnel-{name}")
                component.requires = ["runnel", library]
                component.bindirs = component.libdirs = component.includedirs = []
