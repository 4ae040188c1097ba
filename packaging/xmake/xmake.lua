-- For a project's xmake.lua: includes("path/to/runnel/packaging/xmake"), then
--
--     add_requires("runnel", {configs = {tls = true}})
--     target("program") add_packages("runnel")
--
-- The sources are those around this file.
package("runnel")
    set_kind("library", {headeronly = true})
    set_description("MQTT for C++20 coroutines over TCP, TLS and WebSocket, and the Aliyun IoT Platform")
    set_license("MIT")
    set_sourcedir(path.join(os.scriptdir(), "..", ".."))

    local needed = {tls = "openssl3", sqlite = "sqlite3", deflate = "zlib", alink = "nlohmann_json"}
    for name, library in pairs(needed) do
        add_configs(name, {description = "bring " .. library, default = name == "tls", type = "boolean"})
    end
    add_deps("asio >=1.22.1")
    add_defines("ASIO_STANDALONE", "ASIO_HAS_CO_AWAIT=1", "ASIO_HAS_STD_COROUTINE=1")
    if is_plat("linux", "bsd") then
        add_syslinks("pthread")
    elseif is_plat("windows", "mingw") then
        add_syslinks("ws2_32", "mswsock")
    end

    on_load(function (package)
        for name, library in pairs(needed) do
            if package:config(name) then
                package:add("deps", library)
            end
        end
    end)

    on_install(function (package)
        os.cp("include/runnel", package:installdir("include"))
    end)

    on_test(function (package)
        assert(package:has_cxxincludes("runnel/runnel.hpp", {configs = {languages = "c++20"}}))
    end)
package_end()
