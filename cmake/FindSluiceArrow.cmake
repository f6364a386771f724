# Apache Arrow C++ with Parquet and S3: a system installation where there is one, else the libraries and headers inside
# the pyarrow wheel that `./dev setup` unpacks (Debian 12 has no Arrow package; the wheel's libraries use the new C++ ABI).
#
# Targets:  SluiceArrow::arrow    tables, readers, file systems
#           SluiceArrow::parquet  Parquet files
#           SluiceArrow::s3       the S3 file system
# Variables: SluiceArrow_FOUND, SluiceArrow_VERSION
#
# The wheel lies in ${SLUICE_DEPS}/arrow, SLUICE_DEPS being the environment variable of that name or `.deps` at the top.
#
# libparquet of the wheel exports a whole static OpenSSL, and simdjson of another version than Debian's. Debian's libssl,
# libcrypto and libsimdjson must stand before it in a program's NEEDED list, or gRPC's and Beast's calls end in the wrong
# OpenSSL and ours in the wrong simdjson. Link options come before every library on the command line, so naming them
# there puts them first; sluice_test_openssl_first() (Sluice.cmake) asserts the result.

if(TARGET SluiceArrow::arrow)
  return()
endif()

set(_SluiceArrow_openssl_first "LINKER:--push-state,--no-as-needed,-lssl,-lcrypto,-lsimdjson,--pop-state")

find_package(Arrow CONFIG QUIET)
find_package(Parquet CONFIG QUIET)
if(Arrow_FOUND AND Parquet_FOUND)
  set(SluiceArrow_VERSION ${ARROW_VERSION})
  set(SluiceArrow_LIBRARY Arrow::arrow_shared)
  add_library(SluiceArrow::arrow INTERFACE IMPORTED)
  target_link_libraries(SluiceArrow::arrow INTERFACE Arrow::arrow_shared)
  target_link_options(SluiceArrow::arrow INTERFACE ${_SluiceArrow_openssl_first})
  add_library(SluiceArrow::parquet INTERFACE IMPORTED)
  target_link_libraries(SluiceArrow::parquet INTERFACE SluiceArrow::arrow Parquet::parquet_shared)
  # Arrow's own packages keep S3 inside libarrow.
  add_library(SluiceArrow::s3 INTERFACE IMPORTED)
  target_link_libraries(SluiceArrow::s3 INTERFACE SluiceArrow::arrow)
else()
  if(DEFINED ENV{SLUICE_DEPS})
    set(_SluiceArrow_root "$ENV{SLUICE_DEPS}/arrow")
  else()
    set(_SluiceArrow_root "${CMAKE_SOURCE_DIR}/.deps/arrow")
  endif()
  find_path(SluiceArrow_INCLUDE_DIR arrow/util/config.h PATHS "${_SluiceArrow_root}/include" NO_DEFAULT_PATH)
  if(SluiceArrow_INCLUDE_DIR)
    file(STRINGS "${SluiceArrow_INCLUDE_DIR}/arrow/util/config.h" _SluiceArrow_config REGEX "define ARROW_(SO_VERSION|VERSION_STRING) ")
    string(REGEX MATCH "ARROW_SO_VERSION \"([0-9]+)\"" _ "${_SluiceArrow_config}")
    set(_SluiceArrow_so "${CMAKE_MATCH_1}")
    string(REGEX MATCH "ARROW_VERSION_STRING \"([0-9.]+)[^\"]*\"" _ "${_SluiceArrow_config}")
    set(SluiceArrow_VERSION "${CMAKE_MATCH_1}")
    foreach(part arrow parquet arrow_s3)
      find_library(SluiceArrow_${part}_LIBRARY NAMES lib${part}.so.${_SluiceArrow_so} PATHS "${_SluiceArrow_root}" NO_DEFAULT_PATH)
      mark_as_advanced(SluiceArrow_${part}_LIBRARY)
    endforeach()
    set(SluiceArrow_LIBRARY ${SluiceArrow_arrow_LIBRARY})
  endif()
  mark_as_advanced(SluiceArrow_INCLUDE_DIR)
  if(SluiceArrow_arrow_LIBRARY AND SluiceArrow_parquet_LIBRARY AND SluiceArrow_arrow_s3_LIBRARY)
    foreach(pair arrow:arrow parquet:parquet s3:arrow_s3)
      string(REPLACE ":" ";" pair ${pair})
      list(GET pair 0 _target)
      list(GET pair 1 _part)
      add_library(SluiceArrow::${_target} SHARED IMPORTED)
      set_target_properties(SluiceArrow::${_target} PROPERTIES
        IMPORTED_LOCATION "${SluiceArrow_${_part}_LIBRARY}"
        IMPORTED_SONAME "lib${_part}.so.${_SluiceArrow_so}"
        INTERFACE_INCLUDE_DIRECTORIES "${SluiceArrow_INCLUDE_DIR}"
        INTERFACE_LINK_OPTIONS "${_SluiceArrow_openssl_first}")
    endforeach()
    target_link_libraries(SluiceArrow::parquet INTERFACE SluiceArrow::arrow)
    target_link_libraries(SluiceArrow::s3 INTERFACE SluiceArrow::arrow)
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(SluiceArrow
  REQUIRED_VARS SluiceArrow_LIBRARY
  VERSION_VAR SluiceArrow_VERSION
  REASON_FAILURE_MESSAGE "run ./dev setup, which unpacks it into .deps/arrow (or into $SLUICE_DEPS/arrow)")
