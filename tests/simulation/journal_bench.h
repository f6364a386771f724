// A journal in its rig, and a model of what it was told: what most tests of the journal stand on.
#pragma once

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>

#include "tests/simulation/journal_rig.h"

namespace sluice::storage {

inline const ReplicaId kA = simulation::TestReplica(0);
inline const ReplicaId kB = simulation::TestReplica(1);

struct JournalBench {
  explicit JournalBench(uint64_t seed = 1) : fs(seed), rig(fs, seed) {}

  void Open(int64_t file_bytes = 32768, int64_t total_bytes_max = 1 << 20) {
    const absl::Status status = rig.Open(file_bytes, total_bytes_max);
    REQUIRE(status == absl::OkStatus());
    state = rig.state;
  }
  /// After a power loss.
  void Reopen() {
    rig.Kill();
    fs.Crash();
    Open();
  }
  /// Writes, and waits for it.
  void Write(const JournalRecord& record) {
    REQUIRE(rig.Write(record) == absl::OkStatus());
    REQUIRE(state.Apply(record).ok());
  }
  void Create(const ReplicaId& id = kA) { Write(CreateRecord{id, Uuid::FromRandom(3, 3)}); }
  AppendRecord Append(const ReplicaId& id, size_t size, bool roll = false) {
    AppendRecord append = Next(size, id, roll);
    Write(append);
    return append;
  }
  void Checkpoint(const ReplicaId& id = kA) { Write(NextCheckpoint(id)); }
  /// What fits behind what there is; not written.
  AppendRecord Next(size_t size, const ReplicaId& id = kA, bool roll = false) {
    return simulation::NextAppend(state, id, size, roll, 1, ++salt);
  }
  /// Of all there is.
  CheckpointRecord NextCheckpoint(const ReplicaId& id = kA) const {
    const SegmentState& last = state.Find(id)->segments.back();
    return {id, last.id, last.end_position};
  }
  bool Refuses() const { return absl::IsResourceExhausted(rig.journal->Admit()); }
  void Settle() { rig.scheduler.RunFor(absl::Seconds(2)); }
  JournalStats stats() const { return rig.journal->stats(); }

  simulation::SimFileSystem fs;
  simulation::JournalRig rig;
  JournalState state;
  uint64_t salt = 0;
};

}  // namespace sluice::storage
