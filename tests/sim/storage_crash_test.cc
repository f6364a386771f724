// Power is lost in the middle of every file operation of a workload that appends, truncates, deletes, rolls and
// checkpoints. The journal keeps order, so what comes back must be exactly the state after some first k of the calls
// made, with k no smaller than what was answered.
#include <catch2/catch.hpp>

#include <algorithm>
#include <set>

#include "tests/sim/storage_node.h"
#include "tests/simulation/seeds.h"

namespace sluice::simulation {
namespace {

using storage::Log;

struct Model {
  Offset start;
  Offset end;
  LeaderEpoch term;
  std::vector<record::Batch> batches;
};

class Workload {
 public:
  /// With `syncs_fail`, those of segment files do, now and then.
  Workload(StorageNode& node, std::shared_ptr<Log> log, SimRandom& random, Model from, bool syncs_fail = false)
      : node_(node), log_(std::move(log)), random_(random), syncs_fail_(syncs_fail) {
    states_.push_back(std::move(from));
    epoch_ = std::max(log_->last_epoch(), LeaderEpoch(0)) + 1;
  }

  /// Makes calls, a few at a time, until `calls` are answered or the disk stops.
  void Run(int calls) {
    for (int i = 0; i < calls; ++i) {
      if (syncs_fail_ && random_.OneIn(4)) {
        node_.fs.FailSyncsOf(".log", 1 + random_.Below(2), random_.OneIn(2));
        node_.store->CheckpointAll([](const absl::Status&) {});
        node_.scheduler.RunFor(absl::Microseconds(static_cast<int64_t>(random_.Below(3000))));
      }
      // Appends are refused while a segment is written anew; then nothing more would happen.
      if (syncs_fail_ && !node_.RunUntil([&] { return log_->Admit(1).ok(); })) return;
      MakeCall();
      const size_t open_max = random_.Below(5);
      const bool goes_on = node_.RunUntil([&] { return submitted() - answered_ <= open_max; });
      if (!goes_on || node_.fs.crashed()) return;
    }
    node_.RunUntil([&] { return submitted() == answered_; });
  }

  size_t answered() const { return answered_; }
  size_t submitted() const { return states_.size() - 1; }
  const Model& state(size_t k) const { return states_[k]; }
  const std::vector<std::string>& errors() const { return errors_; }
  int truncated_cold() const { return truncations_; }

 private:
  auto Answered() {
    return [this, number = submitted()](absl::Status status) {
      if (node_.fs.crashed()) return;
      if (!status.ok()) {
        errors_.push_back(std::string(status.message()));
      } else if (number != answered_ + 1) {
        errors_.push_back("answered out of order");
      }
      ++answered_;
    };
  }

  void MakeCall() {
    const uint64_t kind = random_.Below(20);
    Model next = states_.back();
    if (kind < 13) return Append(std::move(next));
    if (kind < 15 && !next.batches.empty()) return Truncate(std::move(next));
    if (kind < 17 && next.end > next.start) return AdvanceStart(std::move(next));
    if (kind == 17) {
      next.term = std::max(next.term, epoch_) + 1;
      states_.push_back(next);
      log_->SaveHardState({.term = next.term, .voted_for = {}}, Answered());
      return;
    }
    if (kind == 18) log_->CloseActiveSegment();
    if (random_.OneIn(3)) {
      log_->CarryForward(nullptr);
      return;
    }
    node_.store->CheckpointAll([](const absl::Status&) {});
  }

  void Append(Model next) {
    const int count = random_.OneIn(6) ? 2 : 1;
    std::vector<record::Batch> batches;
    for (int i = 0; i < count; ++i) {
      size_t bytes = random_.OneIn(8) ? 3000 + random_.Below(7000) : 20 + random_.Below(600);
      if (random_.OneIn(24)) bytes += MutableBytes::kAlignedFrom;  // written from where it lies
      record::Batch batch =
          InPlace(MakeBatch("v" + std::to_string(random_.Next()), 1 + static_cast<int>(random_.Below(3)), bytes,
                            static_cast<int64_t>(random_.Below(5000))),
                  *log_->append_place())
              .Assign(next.end, epoch_);
      next.end = batch.next_offset();
      next.batches.push_back(batch);
      batches.push_back(std::move(batch));
    }
    states_.push_back(std::move(next));
    log_->Append(std::move(batches), Answered());
  }

  void Truncate(Model next) {
    // Mostly the last few batches, now and then far back, where only files still have it.
    const size_t reach = random_.OneIn(3) ? next.batches.size() : std::min<size_t>(next.batches.size(), 4);
    const size_t drop = 1 + random_.Below(reach);
    const Offset target = next.batches[next.batches.size() - drop].base_offset();
    if (target < next.start) return;
    next.batches.resize(next.batches.size() - drop);
    next.end = target;
    epoch_ = epoch_ + 1;
    ++truncations_;
    states_.push_back(std::move(next));
    log_->Truncate(target, Answered());
  }

  void AdvanceStart(Model next) {
    next.start = next.start + 1 + static_cast<int64_t>(random_.Below(static_cast<uint64_t>(next.end - next.start)));
    states_.push_back(next);
    log_->SetLogStart(next.start, Answered());
  }

  StorageNode& node_;
  std::shared_ptr<Log> log_;
  SimRandom& random_;
  std::vector<Model> states_;  // [k]: after k calls
  size_t answered_ = 0;
  LeaderEpoch epoch_;
  const bool syncs_fail_;
  int truncations_ = 0;
  std::vector<std::string> errors_;
};

/// Whether the log holds exactly `model`; batches below the start may be there or not.
bool Matches(const Log& log, const std::vector<record::Batch>& found, const Model& model) {
  if (log.log_start() != model.start || log.log_end() != model.end || log.hard_state().term != model.term) return false;
  std::vector<record::Batch> expected;
  for (const record::Batch& batch : model.batches) {
    if (batch.last_offset() >= model.start) expected.push_back(batch);
  }
  return std::equal(found.begin(), found.end(), expected.begin(), expected.end(),
                    [](const record::Batch& a, const record::Batch& b) { return a.bytes() == b.bytes(); });
}

/// Opens the node again and finds out which state came back; checks that it is one that may.
Model Recover(StorageNode& node, const Workload& workload, std::shared_ptr<Log>* log) {
  const absl::Status opened = node.Open();
  INFO(opened.ToString());
  REQUIRE(opened.ok());
  *log = node.Attach(StorageNode::Replica());
  auto found = node.ReadAll(**log);
  INFO(found.status().ToString());
  REQUIRE(found.ok());
  for (size_t k = workload.submitted() + 1; k-- > workload.answered();) {
    if (Matches(**log, *found, workload.state(k))) return workload.state(k);
  }
  FAIL("what came back (" << (*log)->log_start() << " to " << (*log)->log_end() << ", term "
                          << (*log)->hard_state().term << ", " << found->size() << " batches) is not the state after "
                          << workload.answered() << " to " << workload.submitted() << " calls");
  return {};
}

constexpr int kCalls = 40;

uint64_t OperationsOf(uint64_t seed, bool syncs_fail) {
  StorageNode node(seed);
  REQUIRE(node.Open().ok());
  REQUIRE(node.Create(StorageNode::Replica()).ok());
  const uint64_t before = node.fs.operations();
  SimRandom random(seed);
  Workload workload(node, node.Attach(StorageNode::Replica()), random, {}, syncs_fail);
  workload.Run(kCalls);
  node.fs.FailSyncsOf("", 0);
  INFO((workload.errors().empty() ? "" : workload.errors().front()));
  REQUIRE(workload.errors().empty());
  REQUIRE(workload.answered() == workload.submitted());
  (void)node.Do([&](auto done) { node.store->CheckpointAll(std::move(done)); });
  return node.fs.operations() - before;
}

/// How many syncs have failed in all.
uint64_t CrashAtEveryOperation(uint64_t seed, bool syncs_fail = false) {
  uint64_t sync_errors = 0;
  const uint64_t operations = OperationsOf(seed, syncs_fail);
  REQUIRE(operations > 40);
  for (uint64_t n = 1; n <= operations; ++n) {
    CAPTURE(seed, n);
    StorageNode node(seed);
    REQUIRE(node.Open().ok());
    REQUIRE(node.Create(StorageNode::Replica()).ok());
    SimRandom random(seed);
    node.fs.CrashAt(node.fs.operations() + n);
    Workload workload(node, node.Attach(StorageNode::Replica()), random, {}, syncs_fail);
    workload.Run(kCalls);
    node.fs.FailSyncsOf("", 0);
    node.Crash();

    std::shared_ptr<Log> log;
    // Every third time power is lost once more, while the store recovers.
    if (n % 3 == 0) {
      node.fs.CrashAt(node.fs.operations() + 1 + random.Below(30));
      (void)node.Open();
      node.Crash();
    }
    const Model recovered = Recover(node, workload, &log);
    // And what came back carries on.
    Workload second(node, log, random, recovered);
    second.Run(10);
    INFO((second.errors().empty() ? "" : second.errors().front()));
    REQUIRE(second.errors().empty());
    REQUIRE(node.Do([&](auto done) { log->Scrub(std::move(done)); }).ok());
    log.reset();
    node.Crash();
    Recover(node, second, &log);
    sync_errors += node.fs.counts().sync_errors;
  }
  return sync_errors;
}

TEST_CASE("power lost at any file operation loses nothing acknowledged and brings back a prefix of the calls") {
  for (const uint64_t seed : Seeds(10)) CrashAtEveryOperation(seed);
}

TEST_CASE("the same while syncs of segments fail, are lost, and the segments are written anew") {
  for (const uint64_t seed : Seeds(10)) CHECK(CrashAtEveryOperation(seed, true) > 10);
}

}  // namespace
}  // namespace sluice::simulation
