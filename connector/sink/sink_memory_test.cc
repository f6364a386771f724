// What a sink holds while it drains many partitions: measured as what the process has resident at most, over the client
// itself and a broker in memory whose partitions share their batches, so that the data costs next to nothing.
#include <catch2/catch.hpp>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "client/testing/client_fixture.h"
#include "common/text.h"
#include "connector/sink/fake_client.h"
#include "connector/sink/sink.h"
#include "runtime/system.h"
#include "tests/simulation/sim_file_system.h"

namespace sluice::connector {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

int64_t OfProcess(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name)) return std::stoll(line.substr(name.size())) << 10;
  }
  FAIL("the kernel does not tell " << name);
  return 0;
}

/// How much more than at its start the process ever had resident.
class Peak {
 public:
  Peak() {
    std::ofstream("/proc/self/clear_refs") << "5\n";  // sets the peak to what is resident now
    at_start_ = OfProcess("VmRSS:");
    REQUIRE(OfProcess("VmHWM:") < at_start_ + kMiB);
  }
  int64_t growth() const { return OfProcess("VmHWM:") - at_start_; }

 private:
  int64_t at_start_ = 0;
};

class World {
 public:
  World() {
    config.to = "file://lake";
    config.roll = {.records = 0, .bytes = 0, .age = absl::InfiniteDuration()};
  }
  /// Partitions that all hold these batches, each a list of values.
  void Fill(int partitions, const std::vector<std::vector<std::string>>& batches) {
    partitions_ = partitions;
    client_.Topic("t", partitions);
    client_.On([&] {
      for (const auto& values : batches) client_.broker.AppendValues({"t", PartitionId(0)}, values);
      for (int i = 1; i < partitions; ++i) {
        client_.broker.logs[{"t", PartitionId(i)}] = client_.broker.logs[{"t", PartitionId(0)}];
      }
    });
  }
  /// Drains everything; the growth of the process meanwhile.
  int64_t Drain() {
    const Peak peak;
    auto sink = MakeFileSink({.pipeline = "p",
                              .name = "s",
                              .topic = "t",
                              .partitions = partitions_,
                              .config = config,
                              .memory_bytes = 4 * kMiB},
                             {.client = client_.client.get(), .state = &state_, .clock = &clock_, .files = &files_});
    REQUIRE(sink.ok());
    REQUIRE((*sink)->Open().ok());
    REQUIRE((*sink)->Finish([] {}).ok());
    progress = (*sink)->progress();
    return peak.growth();
  }

  SinkConfig config;
  SinkProgress progress;

 private:
  int partitions_ = 0;
  CrashPoint crash_;
  FakeStateStore state_{&crash_};
  runtime::SystemClock clock_;
  simulation::SimFileSystem files_{1};
  client::ClientFixture client_;
};

// A megabyte in records of 16 KiB.
std::vector<std::string> Megabyte() {
  std::vector<std::string> values;
  for (int i = 0; i < 64; ++i) values.push_back(Cat(R"({"n":)", i, R"(,"s":")", std::string(16'000, 'x'), R"("})"));
  return values;
}

}  // namespace

// The consumer's buffer, its answers while they are taken apart, and the files being written come to about 60 MiB
// here, whatever the partitions hold; that is far below the half GiB that goes through.
TEST_CASE("A sink drains half a GiB of large records from many partitions in bounded memory") {
  World world;
  world.config.kind = GENERATE(SinkKind::kRaw, SinkKind::kParquet);
  world.config.infer_schema = true;
  INFO((world.config.kind == SinkKind::kRaw ? "raw" : "parquet"));
  world.Fill(64, {Megabyte(), Megabyte(), Megabyte(), Megabyte(), Megabyte(), Megabyte(), Megabyte(), Megabyte()});
  const int64_t growth = world.Drain();
  CHECK(world.progress.records == 64 * 8 * 64);
  CAPTURE(growth / kMiB);
  CHECK(growth < 200 * kMiB);
}

TEST_CASE("A small batch that waits for its chunk does not hold the answer that it came in") {
  World world;
  world.config.roll.records = 64;  // the first batch is written at once, the second waits for more
  world.Fill(300, {Megabyte(), {R"({"n":1})"}});
  const int64_t growth = world.Drain();
  CHECK(world.progress.records == 300 * 65);
  CAPTURE(growth / kMiB);
  CHECK(growth < 200 * kMiB);
}

}  // namespace sluice::connector
