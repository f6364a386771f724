// The part of a disk that one replica sees through the journal: writes become durable in the order they were made, and
// a crash keeps a prefix of those that were not durable yet, perhaps with the first part of one more.
//
// `appended` is what the process reads back, `durable` what would survive now. A damaged journal may also lose a suffix
// of what had been durable (Damage), never beyond the last reset or advance of the log start.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "common/bytes.h"
#include "common/record/batch.h"
#include "common/types.h"
#include "replication/core/raft.h"
#include "tests/simulation/sim_executor.h"

namespace sluice::raft_simulation {

struct TruncateTo {
  Offset end;
};
struct StateBlob {
  Bytes bytes;
};
struct StartAt {
  Offset log_start;
};
/// The log is emptied and begins anew.
struct ResetTo {
  Offset base;
};
using DiskOp = std::variant<raft::HardState, TruncateTo, StateBlob, record::Batch, StartAt, ResetTo>;

struct DiskImage {
  raft::HardState hard_state;
  Bytes raft_state;
  Offset log_start;
  Offset log_end;
  std::vector<record::Batch> batches;  ///< Tile up to log_end; the first ones may lie below log_start.

  /// FailedPrecondition, and nothing changed, for what no journal takes: a gap, a cut inside a batch.
  absl::Status Apply(const DiskOp& op, int64_t keep_below_start);
  /// The batch that `offset` lies in; null where there is none.
  const record::Batch* At(Offset offset) const;
  /// Has exactly this batch, or has had it and moved its start past it.
  bool Holds(const record::Batch& batch) const;
  std::vector<raft::EpochStart> Epochs() const;
};

class ModelDisk {
 public:
  /// A log keeps about `keep_below_start` records below its start, as whole segments do.
  explicit ModelDisk(int64_t keep_below_start) : keep_below_start_(keep_below_start) {}

  const DiskImage& appended() const { return appended_; }
  const DiskImage& durable() const { return durable_; }
  /// The number of the last write; 0 before any.
  uint64_t last_write() const { return last_write_; }
  bool idle() const { return pending_.empty(); }

  /// One journal write. As Apply for errors.
  absl::Status Write(std::vector<DiskOp> ops);
  /// Write `number` and all before it will survive.
  void MakeDurable(uint64_t number);

  struct Lost {
    size_t writes = 0;
    bool torn = false;
  };
  Lost Crash(simulation::SimRandom& random);
  /// Right after Crash: the journal loses up to `most` of the last durable steps too. Returns the batches that went.
  std::vector<record::Batch> Damage(simulation::SimRandom& random, size_t most);

 private:
  struct Pending {
    uint64_t number;
    std::vector<DiskOp> ops;
  };
  void Harden(const DiskOp& op);

  const int64_t keep_below_start_;
  DiskImage appended_;
  DiskImage durable_;
  std::deque<Pending> pending_;
  uint64_t last_write_ = 0;
  // What a damaged journal is replayed from.
  DiskImage checkpoint_;
  std::vector<DiskOp> since_checkpoint_;
};

}  // namespace sluice::raft_simulation
