// Three nodes with a replicated log, and one of them fails at each of its disk's operations in turn: power is lost, a
// sync fails, the disk is full. Whatever was acknowledged must be there, on every replica the same; what was answered
// with a definite failure must not; and the group must go on, with two nodes and with three.
#include <catch2/catch.hpp>

#include "tests/simulation/raft_workload.h"
#include "tests/simulation/seeds.h"

namespace sluice::simulation {
namespace {

constexpr int kCalls = 120;
constexpr int64_t kRoomy = 20'000'000;

struct Struck {
  uint64_t times = 0;
  uint64_t snapshots = 0;
  uint64_t power_lost_again = 0;
  uint64_t processes_stopped = 0;  ///< By a journal that failed.
  uint64_t refused_for_space = 0;
};

RaftClusterOptions CrashOptions() {
  RaftClusterOptions options;
  options.raft.log.raft.window_bytes_max = 1 << 10;  // so that followers are served from the log
  options.store.disk_low_watermark_bytes = 100'000;
  options.store.disk_high_watermark_bytes = 200'000;
  return options;
}

class CrashRun {
 public:
  CrashRun(uint64_t seed, uint64_t n)
      : n_(n),
        cluster_(seed, CrashOptions()),
        workload_(cluster_, seed),
        victim_(cluster_.node(NodeId(static_cast<int32_t>(1 + seed % 3)))) {
    for (auto& node : cluster_.nodes) node->fs.SetCapacity(kRoomy);
    cluster_.StartAll();
    cluster_.Leader();
  }

  void PowerLoss(Struck* struck) {
    const uint64_t before = victim_.fs.operations();
    victim_.fs.CrashAt(n_ == 0 ? 0 : before + n_);
    workload_.Run(kCalls, [&] { return victim_.fs.crashed(); });
    operations_ = victim_.fs.operations() - before;
    victim_.fs.CrashAt(0);
    if (victim_.fs.crashed()) {
      ++struck->times;
      Die();
      GoOnWithTwo();
      if (n_ % 3 == 0) {
        victim_.fs.CrashAt(victim_.fs.operations() + 1 + n_ % 29);
        (void)victim_.TryStart();
        cluster_.RunUntil([&] { return victim_.fs.crashed(); }, absl::Milliseconds(300));
        if (victim_.fs.crashed()) ++struck->power_lost_again;
        Die();
      }
      cluster_.Start(victim_.id());
    }
    Finish(struck);
  }

  /// The nth sync of the node, of whatever.
  void SyncFailure(Struck* struck) {
    const uint64_t before = victim_.fs.counts().sync_errors;
    victim_.fs.FailCall(SimFileSystem::Call::kSync, n_);
    workload_.Run(kCalls, [&] { return !victim_.fatal.ok(); });
    cluster_.RunUntil([&] { return !victim_.fatal.ok(); }, absl::Seconds(1));
    victim_.fs.FailNoCall(SimFileSystem::Call::kSync);
    if (victim_.fs.counts().sync_errors > before) ++struck->times;
    if (!victim_.fatal.ok()) {
      ++struck->processes_stopped;
      Die();
      GoOnWithTwo();
      cluster_.Start(victim_.id());
    }
    Finish(struck);
  }

  /// The disk is full from the nth call on, and has room again after a while.
  void FullDisk(Struck* struck) {
    workload_.Run(static_cast<int>(n_), [] { return false; });
    victim_.fs.SetCapacity(victim_.fs.UsedBytes() + 30'000);
    cluster_.RunFor(absl::Seconds(2));  // until it is noticed
    workload_.Run(kCalls, [&] { return !victim_.fatal.ok(); });
    INFO(victim_.fatal.ToString());
    REQUIRE(victim_.fatal.ok());
    cluster_.network.HealAll();
    cluster_.RunFor(absl::Seconds(5));
    if (cluster_.Leader() != victim_.id()) workload_.RequireProgress();
    struck->refused_for_space += victim_.log()->stats().appends_refused;
    ++struck->times;
    victim_.fs.SetCapacity(kRoomy);
    cluster_.RunFor(absl::Seconds(2));
    Finish(struck);
  }

  uint64_t operations() const { return operations_; }

 private:
  void Die() {
    cluster_.Crash(victim_.id());
    workload_.Forget(victim_.id());
  }
  void GoOnWithTwo() {
    cluster_.network.HealAll();
    workload_.RequireProgress();
  }
  void Finish(Struck* struck) {
    workload_.Run(10, [] { return false; });
    cluster_.network.HealAll();
    workload_.RequireProgress();
    workload_.RequirePromises();
    for (auto& node : cluster_.nodes) struck->snapshots += node->log()->stats().snapshots_installed;
    // All that is promised stands on disks.
    for (auto& node : cluster_.nodes) cluster_.Crash(node->id());
    cluster_.StartAll();
    workload_.RequireProgress();
    workload_.RequirePromises();
  }

  const uint64_t n_;
  RaftCluster cluster_;
  RaftWorkload workload_;
  RaftClusterNode& victim_;
  uint64_t operations_ = 0;
};

uint64_t OperationsOf(uint64_t seed) {
  Struck none;
  CrashRun run(seed, 0);
  run.PowerLoss(&none);
  return run.operations();
}

TEST_CASE("a replica that loses power at any operation of its disk costs nothing that was acknowledged") {
  Struck struck;
  for (const uint64_t seed : Seeds(6)) {
    const uint64_t operations = OperationsOf(seed);
    REQUIRE(operations > 40);
    for (uint64_t n = 1; n <= operations; ++n) {
      CAPTURE(seed, n);
      CrashRun(seed, n).PowerLoss(&struck);
    }
  }
  CHECK(struck.times > 100);
  CHECK(struck.power_lost_again > 10);
  CHECK(struck.snapshots > 10);
}

TEST_CASE("a replica whose sync fails stops or writes anew, and costs nothing that was acknowledged") {
  Struck struck;
  for (const uint64_t seed : Seeds(4)) {
    for (uint64_t n = 1; n <= 60; ++n) {
      CAPTURE(seed, n);
      CrashRun(seed, n).SyncFailure(&struck);
    }
  }
  CHECK(struck.times > 40);
  CHECK(struck.processes_stopped > 20);
  CHECK(struck.processes_stopped < struck.times);  // some syncs are those of segments
}

TEST_CASE("a replica whose disk is full holds nothing up but itself, and goes on once there is room") {
  Struck struck;
  for (const uint64_t seed : Seeds(6)) {
    for (uint64_t n = 1; n <= kCalls; n += 5) {
      CAPTURE(seed, n);
      CrashRun(seed, n).FullDisk(&struck);
    }
  }
  CHECK(struck.times >= 30);
  CHECK(struck.refused_for_space > 0);
}

}  // namespace
}  // namespace sluice::simulation
