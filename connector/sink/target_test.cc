#include "connector/sink/target.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "runtime/posix_file_system.h"
#include "tests/simulation/sim_file_system.h"

namespace sluice::connector {

TEST_CASE("a folder that somebody removed meanwhile is made again, and survives a power loss") {
  simulation::SimFileSystem files(1);
  const auto target = MakeLocalTarget(&files, "far/lake");
  const auto write = [&](const std::string& path) {
    auto file = target->Create(path);
    INFO(file.status().ToString());
    REQUIRE(file.ok());
    REQUIRE((*file)->Write("a line\n").ok());
    REQUIRE((*file)->Commit().ok());
  };
  write("dt=1/a");
  REQUIRE(files.Remove("far/lake/dt=1/a").ok());
  REQUIRE(files.RemoveDir("far/lake/dt=1").ok());
  const bool whole_lake = GENERATE(false, true);
  if (whole_lake) {
    REQUIRE(files.RemoveDir("far/lake").ok());
    REQUIRE(files.RemoveDir("far").ok());
  }
  write("dt=1/b");
  files.Crash();
  CHECK(files.Contents("far/lake/dt=1/b") == "a line\n");
}

// As on the image of a live system. /proc has no sync of folders either, and leads to where there is one.
TEST_CASE("a sink's folder may be below folders that cannot be synced") {
  std::string pattern = (std::filesystem::temp_directory_path() / "sluice-target-XXXXXX").string();
  const std::filesystem::path folder = ::mkdtemp(pattern.data());
  runtime::PosixFileSystem files;
  {
    const auto target = MakeLocalTarget(&files, "/proc/self/root" + (folder / "lake").string());
    auto file = target->Create("dt=1/a");
    INFO(file.status().ToString());
    REQUIRE(file.ok());
    REQUIRE((*file)->Write("a line\n").ok());
    REQUIRE((*file)->Commit().ok());
  }
  CHECK(std::filesystem::file_size(folder / "lake/dt=1/a") == 7);
  std::filesystem::remove_all(folder);
}

}  // namespace sluice::connector
