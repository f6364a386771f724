// The driver of one replica, as small as it can be: it carries out what the core's Readys say against a model disk and
// the simulated network, and reports all of it to the checker.
//
// A replica is one incarnation of one slot. It starts, crashes and starts again; each start is a life of its own, and
// what an earlier life had under way is dropped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "replication/core/raft.h"
#include "tests/simulation/raft/context.h"
#include "tests/simulation/raft/model_disk.h"
#include "tests/simulation/raft/network.h"

namespace sluice::raft_simulation {

class Replica {
 public:
  /// What the replica tells the group of.
  class Group {
   public:
    virtual ~Group() = default;
    virtual std::vector<Observed> Everyone() const = 0;
    virtual void OnLeader(Replica& replica) = 0;
    /// It asks for votes in a term of its own.
    virtual void OnCandidate(Replica& replica) = 0;
    /// It is to install a snapshot.
    virtual void OnInstall(Replica& replica) = 0;
  };

  /// `initial`: the members that the group begins with, or none.
  Replica(Context& context, Network& network, Group& group, VoterId id, raft::Configuration initial);

  const VoterId& id() const { return id_; }
  size_t slot() const { return SlotOf(id_); }
  bool up() const { return raft_ != nullptr; }
  bool paused() const { return paused_; }
  bool installing() const { return install_.has_value(); }
  /// Its disk may lack what it had; so it is until the core knows better, and its disk too.
  bool doubtful() const { return doubtful_; }
  bool leads() const { return up() && raft_->role() == raft::Role::kLeader; }
  raft::Raft* raft() { return raft_.get(); }
  const raft::Raft* raft() const { return raft_.get(); }
  const ModelDisk& disk() const { return disk_; }
  Observed observed() const { return {id_, raft_.get(), &disk_, installing()}; }
  const raft::Configuration& initial() const { return initial_; }

  void Start();
  void Crash();
  /// While down: the journal turns out to be damaged at its end. `most`: durable steps that may be gone.
  void Damage(size_t most);
  void Pause();
  void Resume();

  void Deliver(const Envelope& envelope);
  /// As if the transport had mistaken the replica for an earlier incarnation.
  void DeliverMisaddressed(const raft::Message& message);

  // ---- Orders; nothing happens where the replica is down, paused, or refuses
  void Propose(record::PendingBatch batch, int64_t value);
  void ReadIndex();
  bool ProposeMembership(const raft::Configuration& next);
  void Transfer(const VoterId& to);
  void Campaign();
  void StepDown();
  void ReportUnreachable(const VoterId& to);
  void ReportLeaderLost();
  void MoveLogStart();
  size_t reads_answered() const { return reads_answered_; }

 private:
  struct Installation {
    raft::SnapshotInstall what;
    uint64_t write = 0;
    bool begun = false;
  };
  struct PendingRead {
    uint64_t context;
    Offset committed_before;
  };

  /// Runs `event` now if the replica is up, later if it is paused; then looks at what came of it.
  template <class F>
  void Event(F event);
  /// The same after `delay`, unless the replica has crashed by then.
  template <class F>
  void After(absl::Duration delay, F event);
  void AfterEvent();
  bool StoredInDoubt() const;
  void TakeReadys();
  void CarryOut(raft::Ready ready);
  void WriteReady(raft::Ready& ready);
  /// Makes the disk's last write durable after a while; then `done` runs.
  template <class F>
  void WhenDurable(F done);
  void Read(const raft::LogRead& read);
  void AnswerRead(const raft::LogRead& read);
  void OfferSnapshot(const VoterId& to);
  void BeginInstall();
  void AnswerReadIndexes(const std::vector<raft::ReadIndexResult>& results);
  void SettleProposals();
  void StartTicking();
  void SendNodeAlive();
  void HearOf(const NodeAlive& alive);

  Context& context_;
  Network& network_;
  Group& group_;
  const VoterId id_;
  const raft::Configuration initial_;
  SimRandom random_;  ///< The core's.
  ModelDisk disk_;
  Offset applied_;  ///< Of the log as the disk has it: known to be committed.
  bool doubtful_ = false;

  // Of one life
  std::unique_ptr<raft::Raft> raft_;
  uint64_t life_ = 0;
  bool paused_ = false;
  std::deque<Task> while_paused_;
  /// How often in a row each said that it does not follow in that term.
  std::map<std::pair<VoterId, LeaderEpoch>, int> denied_;
  bool drain_scheduled_ = false;
  uint64_t last_number_ = 0;
  uint64_t told_durable_ = 0;
  absl::Duration disk_free_at_;
  std::optional<Installation> install_;
  std::vector<std::pair<int64_t, raft::Proposed>> proposals_;
  std::vector<PendingRead> reads_;
  uint64_t reads_made_ = 0;
  size_t reads_answered_ = 0;
};

}  // namespace sluice::raft_simulation
