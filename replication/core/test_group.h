// A group of replicas in one thread for tests: each with a disk that loses what was not persisted, and a network that
// holds every message until it is delivered or dropped. Whatever happens is one line in the trace.
//
// After every event it checks what must always hold, and fails the test where it does not: one leader a term, nobody
// commits another batch than somebody did before at the same offset, nobody truncates what it had committed, what is on
// disk tiles, and appends follow a whole batch of their leader's log.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/executor.h"
#include "common/record/batch.h"
#include "common/text.h"
#include "replication/core/raft.h"

namespace sluice::raft {

/// The same numbers in every run.
class FixedRandom final : public Random {
 public:
  explicit FixedRandom(uint64_t seed) : state_(seed) {}
  uint64_t Next() override;

 private:
  uint64_t state_;
};

/// What a replica's journal holds.
struct DiskImage {
  HardState hard_state;
  Bytes raft_state;
  Offset log_start;
  std::vector<record::Batch> log;
  Offset base;  ///< Where the log begins when it is empty.

  Offset end() const { return log.empty() ? std::max(base, log_start) : log.back().next_offset(); }
  std::vector<EpochStart> epochs() const;
  void Write(const Ready& ready);
  void Reset(Offset offset);
};

class TestGroup {
 public:
  struct Node {
    VoterId id;
    std::unique_ptr<FixedRandom> random;
    std::unique_ptr<Raft> raft;  ///< Null while it is down.
    Configuration initial;
    DiskImage memory;   ///< With everything written.
    DiskImage durable;  ///< What a crash leaves.
    std::vector<Ready> unpersisted;
    std::vector<VoterId> snapshots_wanted;
    std::optional<Offset> state;  ///< What it has applied, where snapshots are a state; else they begin with the log.
    std::optional<SnapshotInstall> install;
    std::vector<ReadIndexResult> reads;
    Offset committed;             ///< The highest that it ever reported.
    std::vector<DiskImage> past;  ///< Before each of the last durable writes.
    bool torn = false;
    bool renounced = false;     ///< Since it started.
    bool was_in_doubt = false;  ///< When it crashed.
  };

  explicit TestGroup(Options options = {});

  static VoterId Id(int node, uint64_t life = 1);
  static Configuration Members(std::vector<int> voters, std::vector<int> learners = {});
  static record::PendingBatch Data(const std::string& value, int records = 1);

  /// A new, empty replica that is created with these members; without any it waits to be told.
  void Add(int node, const Configuration& initial);
  Raft& at(int node) { return *nodes.at(node).raft; }
  Node& node(int node) { return nodes.at(node); }

  // Events; each is traced
  void Tick(int node, int times = 1);
  absl::Status Campaign(int node);
  void Renounce(int node);
  absl::StatusOr<Proposed> Propose(int node, const std::string& value = "x", int records = 1);
  absl::StatusOr<Proposed> Change(int node, const Configuration& next);
  absl::Status Step(Message message);

  /// Carries out one Ready, but for the syncs: what it sends is in the network, what it writes is not durable yet.
  void TakeReady(int node);
  /// Everything written is durable.
  void Persist(int node);
  /// Delivers what is under way to `to` (0: everyone) from `from` (0: everyone); what those send in return waits.
  void Deliver(int to = 0, int from = 0);
  void Drop(int to = 0, int from = 0);
  /// What is under way arrives only with DeliverLate: after what was sent later.
  void Delay(int to = 0, int from = 0);
  void DeliverLate();
  /// Readies, syncs and deliveries until nothing is left, snapshots included. Messages to and from `isolated` are lost.
  void Run();
  /// Comes back with what is durable; messages that it was sent are lost.
  void Restart(int node, bool doubtful = false);
  void Crash(int node);
  /// A crash that also loses what was durable from `end` on: the damage that a replica is in doubt after.
  void LoseTail(int node, Offset end);
  /// A crash that also takes back the last `writes` durable writes; the next start is in doubt.
  void TearOff(int node, size_t writes);
  absl::Status ReadIndex(int node, uint64_t context);
  void MoveLogStart(int node, Offset log_start);
  void SendSnapshot(int node, int to);
  void Install(int node);
  /// Ticks everyone up, running in between, until somebody leads and serves; fails after `ticks_max`.
  int Elect(int ticks_max = 200);
  /// The leader of the highest term; 0: none.
  int Leader() const;

  /// "1: leader t2 log 0..5 committed 5" and its followers.
  std::string Status(int node) const;
  /// "0-0:1 1-3:1": batches of the written log with their epochs.
  std::string Log(int node) const;

  std::map<int, Node> nodes;
  std::deque<Message> network;
  std::deque<Message> delayed;
  std::vector<int> isolated;
  Options options;
  std::string trace;
  bool traced = true;  ///< False: nothing is written to the trace.

 private:
  template <class... Parts>
  void Line(const Parts&... parts) {
    if (traced) trace += Cat(parts..., "\n");
  }
  void Note(int node, const absl::Status& status, const std::string& what);
  void Check();
  void Must(bool holds, int node, std::string_view what) const;
  bool Lost(const Message& message) const;
  std::deque<Message> TakeUnderWay(int to, int from);
  void Start(Node& node, bool doubtful);
  std::vector<record::Batch> Read(const Node& node, const LogRead& read) const;

  std::map<uint64_t, Offset> reads_asked_;  ///< What was committed anywhere when a read came.
  std::map<int32_t, int> leaders_;          ///< Term to node.
  std::map<int64_t, std::pair<int32_t, uint32_t>> committed_batches_;  ///< Last offset to epoch and checksum.
};

}  // namespace sluice::raft
