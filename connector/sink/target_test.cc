#include "connector/sink/target.h"

#include <catch2/catch.hpp>

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

}  // namespace sluice::connector
