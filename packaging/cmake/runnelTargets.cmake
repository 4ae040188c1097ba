# Makes runnel's targets, of the headers in RUNNEL_INCLUDE_DIR, from whatever brings them here: an installed package or the
# source tree. Nothing is downloaded.
#
# | target          | for                                    | what it needs   |
# |-----------------|----------------------------------------|-----------------|
# | runnel::runnel  | runnel/runnel.hpp                      | Asio, threads   |
# | runnel::tls     | runnel/tls.hpp                         | OpenSSL 3       |
# | runnel::sqlite  | runnel/mqtt/store/sqlite_store.hpp     | SQLite          |
# | runnel::deflate | runnel/websocket/deflate.hpp           | zlib            |
# | runnel::alink   | runnel/aliyun/alink/alink.hpp          | nlohmann/json   |
#
# All but the first also bring runnel::runnel. runnel::compiled is runnel::runnel with the sessions in a static library, so that
# they are compiled once; runnel::compiled_tls is the same of runnel::tls. They are built when they are used, with the settings of
# the project that uses them. A target whose library is missing is not made. Asio is the target asio::asio
# if there is one, else a package "asio" that makes it, else the headers: those in RUNNEL_ASIO_INCLUDE_DIR, those that
# pkg-config knows, or those that the compiler finds. With RUNNEL_USE_BOOST_ASIO it is Boost's (1.81 or newer): the headers in
# RUNNEL_BOOST_INCLUDE_DIR, or those that the compiler finds.

cmake_policy(VERSION 3.20...3.31)

set(_runnel_scope "")
if(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL)
  set(_runnel_scope GLOBAL)
endif()

set(_runnel_components tls sqlite deflate alink compiled compiled_tls)
set(_runnel_missing "")
foreach(_runnel_component IN LISTS runnel_FIND_COMPONENTS)
  if(NOT _runnel_component IN_LIST _runnel_components AND NOT _runnel_component STREQUAL "runnel")
    string(APPEND _runnel_missing "there is no component \"${_runnel_component}\", only: ${_runnel_components}. ")
  endif()
endforeach()

set(_runnel_wanted ${runnel_FIND_COMPONENTS})
if("compiled_tls" IN_LIST _runnel_wanted)
  list(APPEND _runnel_wanted tls)
endif()

# _runnel_read_version(VARIABLE HEADER MACRO): the number as which a header defines a macro, if there is the header.
macro(_runnel_read_version variable header name)
  if(EXISTS "${header}")
    file(STRINGS "${header}" ${variable} REGEX "define ${name} [0-9]")
    string(REGEX REPLACE "[^0-9]*([0-9]+).*" "\\1" ${variable} "${${variable}}")
  endif()
endmacro()

if(NOT TARGET runnel::runnel)
  find_package(Threads QUIET)
  if(RUNNEL_USE_BOOST_ASIO)
    find_path(RUNNEL_BOOST_INCLUDE_DIR boost/asio/awaitable.hpp HINTS ${Boost_INCLUDE_DIRS}
      DOC "the folder with boost/asio.hpp")
    mark_as_advanced(RUNNEL_BOOST_INCLUDE_DIR)
    _runnel_read_version(_runnel_boost_version "${RUNNEL_BOOST_INCLUDE_DIR}/boost/version.hpp" BOOST_VERSION)
  elseif(NOT TARGET asio::asio)
    find_package(asio CONFIG QUIET)
  endif()
  if(NOT TARGET asio::asio AND NOT RUNNEL_USE_BOOST_ASIO)
    find_package(PkgConfig QUIET)
    if(PkgConfig_FOUND)
      pkg_check_modules(_runnel_pc_asio QUIET asio)
    endif()
    find_path(RUNNEL_ASIO_INCLUDE_DIR asio/awaitable.hpp HINTS ${_runnel_pc_asio_INCLUDE_DIRS}
      DOC "the folder with asio.hpp of standalone Asio")
    mark_as_advanced(RUNNEL_ASIO_INCLUDE_DIR)
    _runnel_read_version(_runnel_asio_version "${RUNNEL_ASIO_INCLUDE_DIR}/asio/version.hpp" ASIO_VERSION)
  endif()

  if(NOT Threads_FOUND)
    string(APPEND _runnel_missing "threads are missing: enable_language(CXX or C) comes first. ")
  elseif(RUNNEL_USE_BOOST_ASIO AND NOT RUNNEL_BOOST_INCLUDE_DIR)
    string(APPEND _runnel_missing
      "Boost.Asio is missing (Debian: libboost1.81-dev); RUNNEL_BOOST_INCLUDE_DIR may name the folder of boost/asio.hpp. ")
  elseif(RUNNEL_USE_BOOST_ASIO AND _runnel_boost_version AND _runnel_boost_version LESS 108100)
    string(APPEND _runnel_missing "Boost in ${RUNNEL_BOOST_INCLUDE_DIR} is older than 1.81. ")
  elseif(NOT RUNNEL_USE_BOOST_ASIO AND NOT TARGET asio::asio AND NOT RUNNEL_ASIO_INCLUDE_DIR)
    string(APPEND _runnel_missing
      "standalone Asio is missing (Debian: libasio-dev); RUNNEL_ASIO_INCLUDE_DIR may name the folder of asio.hpp. ")
  elseif(NOT RUNNEL_USE_BOOST_ASIO AND _runnel_asio_version AND _runnel_asio_version LESS 102201)
    string(APPEND _runnel_missing "Asio in ${RUNNEL_ASIO_INCLUDE_DIR} is older than 1.22.1. ")
  else()
    add_library(runnel::runnel INTERFACE IMPORTED ${_runnel_scope})
    target_include_directories(runnel::runnel INTERFACE "${RUNNEL_INCLUDE_DIR}")
    target_compile_features(runnel::runnel INTERFACE cxx_std_20)
    # Asio 1.22 does not know that clang has coroutines; elsewhere this is what Asio defines itself.
    if(RUNNEL_USE_BOOST_ASIO)
      target_compile_definitions(runnel::runnel INTERFACE
        RUNNEL_USE_BOOST_ASIO BOOST_ASIO_HAS_CO_AWAIT=1 BOOST_ASIO_HAS_STD_COROUTINE=1)
    else()
      target_compile_definitions(runnel::runnel INTERFACE
        ASIO_STANDALONE ASIO_HAS_CO_AWAIT=1 ASIO_HAS_STD_COROUTINE=1)
    endif()
    target_link_libraries(runnel::runnel INTERFACE Threads::Threads)
    if(RUNNEL_USE_BOOST_ASIO)
      target_include_directories(runnel::runnel INTERFACE "${RUNNEL_BOOST_INCLUDE_DIR}")
    elseif(TARGET asio::asio)
      target_link_libraries(runnel::runnel INTERFACE asio::asio)
    else()
      target_include_directories(runnel::runnel INTERFACE "${RUNNEL_ASIO_INCLUDE_DIR}")
    endif()
    if(WIN32)
      target_link_libraries(runnel::runnel INTERFACE ws2_32 mswsock)
    endif()
  endif()
endif()

# _runnel_add(COMPONENT TARGET-OF-THE-LIBRARY PACKAGE ARGUMENTS...)
macro(_runnel_add component library)
  if(TARGET runnel::runnel AND NOT TARGET runnel::${component}
     AND (NOT runnel_FIND_COMPONENTS OR "${component}" IN_LIST _runnel_wanted))
    find_package(${ARGN} QUIET)
    if(TARGET ${library})
      add_library(runnel::${component} INTERFACE IMPORTED ${_runnel_scope})
      target_link_libraries(runnel::${component} INTERFACE runnel::runnel ${library})
    elseif(runnel_FIND_REQUIRED_${component})
      string(APPEND _runnel_missing "runnel::${component} needs ${ARGN}, which is not found. ")
    endif()
  endif()
  if(TARGET runnel::${component})
    set(runnel_${component}_FOUND TRUE)
  endif()
endmacro()
_runnel_add(tls OpenSSL::SSL OpenSSL 3.0)
_runnel_add(sqlite SQLite::SQLite3 SQLite3)
_runnel_add(deflate ZLIB::ZLIB ZLIB)
_runnel_add(alink nlohmann_json::nlohmann_json nlohmann_json 3.9)

# _runnel_compile(TARGET ITS-HEADERS TRANSPORT HEADER...): a file for each transport, so that a program gets those it uses
function(_runnel_compile name headers)
  if(NOT TARGET runnel::${headers} OR TARGET runnel::${name})
    return()
  endif()
  set(_runnel_sources "")
  while(ARGN)
    list(POP_FRONT ARGN RUNNEL_TRANSPORT RUNNEL_HEADER)
    set(_runnel_source "${CMAKE_CURRENT_BINARY_DIR}/runnel_${RUNNEL_TRANSPORT}.cpp")
    configure_file("${RUNNEL_SOURCE_TEMPLATE}" "${_runnel_source}" @ONLY)
    list(APPEND _runnel_sources "${_runnel_source}")
  endwhile()
  add_library(runnel_${name} STATIC EXCLUDE_FROM_ALL ${_runnel_sources})
  add_library(runnel::${name} ALIAS runnel_${name})
  set_target_properties(runnel_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_compile_definitions(runnel_${name} PUBLIC RUNNEL_SEPARATE_COMPILATION)
  target_link_libraries(runnel_${name} PUBLIC runnel::${headers})
endfunction()
if(NOT runnel_FIND_COMPONENTS OR "compiled" IN_LIST runnel_FIND_COMPONENTS OR "compiled_tls" IN_LIST runnel_FIND_COMPONENTS)
  _runnel_compile(compiled runnel
    tcp runnel/transport/tcp.hpp ws runnel/runnel.hpp
    unix_socket runnel/transport/unix_socket.hpp any_transport runnel/transport/any_transport.hpp)
  _runnel_compile(compiled_tls tls mqtts runnel/tls.hpp wss runnel/tls.hpp)
  if(TARGET runnel::compiled_tls)
    target_link_libraries(runnel_compiled_tls PUBLIC runnel::compiled)
  endif()
endif()

foreach(_runnel_component runnel compiled compiled_tls)
  if(TARGET runnel::${_runnel_component})
    set(runnel_${_runnel_component}_FOUND TRUE)
  elseif(runnel_FIND_REQUIRED_${_runnel_component} AND NOT _runnel_missing)
    string(APPEND _runnel_missing "runnel::${_runnel_component} needs what is not found. ")
  endif()
endforeach()
if(_runnel_missing)
  set(runnel_FOUND FALSE)
  set(runnel_NOT_FOUND_MESSAGE "${_runnel_missing}")
endif()
