# Compiler settings and the few helpers that every folder's CMakeLists.txt uses.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
# Programs land in one place, whatever folder builds them, so that ./bin can link to them.
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

set(SLUICE_SANITIZE "" CACHE STRING "Sanitizers to build with: address,undefined or thread; empty for none")
# Debian's gRPC and Abseil are not built for the thread sanitizer, so such a build leaves out what links gRPC.
option(SLUICE_WITH_GRPC "Build what links gRPC: broker, client, connector, tools" ON)
option(SLUICE_FUZZ "Build the libFuzzer targets (clang only)" OFF)

find_program(SLUICE_CCACHE ccache)
if(SLUICE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${SLUICE_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${SLUICE_CCACHE})
endif()
find_program(SLUICE_MOLD mold)
if(SLUICE_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

add_library(sluice_options INTERFACE)
target_include_directories(sluice_options INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(sluice_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wimplicit-fallthrough -Werror
  -fno-omit-frame-pointer)
target_compile_definitions(sluice_options INTERFACE SLUICE_VERSION="${PROJECT_VERSION}")
if(SLUICE_SANITIZE)
  # GCC's flow analysis loses its way in instrumented code (Abseil's InlinedVector); plain builds keep the warning.
  target_compile_options(sluice_options INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  # Asio has a fence of its own between handlers, which the thread sanitizer does not model; the locks around it are.
  if(SLUICE_SANITIZE MATCHES "thread")
    target_compile_options(sluice_options INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-tsan>)
  endif()
  target_compile_options(sluice_options INTERFACE -fsanitize=${SLUICE_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(sluice_options INTERFACE -fsanitize=${SLUICE_SANITIZE})
endif()
if(SLUICE_FUZZ)
  target_compile_options(sluice_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

find_package(Threads REQUIRED)
find_package(absl REQUIRED)

# sluice_library(NAME SOURCES a.cc b.cc [DEPS PUBLIC x PRIVATE y])
function(sluice_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC sluice_options)
  if(ARG_DEPS)
    target_link_libraries(${name} ${ARG_DEPS})
  endif()
endfunction()

# sluice_program(NAME SOURCES main.cc DEPS PRIVATE x)
function(sluice_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE sluice_options)
  if(ARG_DEPS)
    target_link_libraries(${name} ${ARG_DEPS})
  endif()
endfunction()

# sluice_test(NAME SOURCES a_test.cc DEPS x y [LABEL unit] [TIMEOUT seconds])
# One executable, each TEST_CASE a CTest test of its own. LABEL is the tier: unit (default), sim, e2e, cluster.
function(sluice_test name)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "SOURCES;DEPS" ${ARGN})
  if(NOT BUILD_TESTING)
    return()
  endif()
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(SLUICE_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 5")  # what a sanitizer slows a program down by, and some
  endif()
  find_package(Catch2 2 REQUIRED)
  # Catch2's package adds its folder to the module path only once, in the scope that first asked for it.
  list(APPEND CMAKE_MODULE_PATH ${Catch2_DIR})
  include(Catch)
  if(NOT TARGET sluice_test_main)
    file(WRITE ${CMAKE_BINARY_DIR}/catch_main.cc "#define CATCH_CONFIG_MAIN\n#include <catch2/catch.hpp>\n")
    add_library(sluice_test_main STATIC ${CMAKE_BINARY_DIR}/catch_main.cc)
    target_link_libraries(sluice_test_main PUBLIC Catch2::Catch2)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} sluice_options sluice_test_main)
  catch_discover_tests(${name} TEST_PREFIX "${name}: "
    PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT})
endfunction()

# sluice_fuzz(NAME SOURCES x_fuzz.cc DEPS y): a libFuzzer target, only in the fuzz preset (clang).
function(sluice_fuzz name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  if(NOT SLUICE_FUZZ)
    return()
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} sluice_options)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  if(NOT TARGET sluice_fuzzers)
    add_custom_target(sluice_fuzzers)
  endif()
  add_dependencies(sluice_fuzzers ${name})
endfunction()

# sluice_test_openssl_first(PROGRAM): a unit test that the program's NEEDED list has Debian's libssl, libcrypto and libsimdjson before
# libparquet, which exports an OpenSSL of its own (cmake/FindSluiceArrow.cmake).
function(sluice_test_openssl_first program)
  if(NOT BUILD_TESTING)
    return()
  endif()
  add_test(NAME "house: ${program} takes OpenSSL and simdjson from the system, not from libparquet"
    COMMAND /usr/bin/python3 ${CMAKE_SOURCE_DIR}/tests/house/openssl_first.py $<TARGET_FILE:${program}>)
  set_tests_properties("house: ${program} takes OpenSSL and simdjson from the system, not from libparquet" PROPERTIES LABELS unit)
endfunction()
