// One run: a group of replicas, its clients, and everything that happens to it, drawn from one seed. First a time of
// faults, then all of them heal, and the group has to elect, converge, take one more value and answer one more read.
//
// The fault atlas. Some faults destroy: a wiped disk, a damaged journal. They strike only where, in every configuration
// that may be in use, those that lack something stay a minority of the voters; else nobody could ask the group for
// what it had promised. A replica counts as lacking until the core has ended its doubt.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "common/record/record.h"
#include "tests/simulation/raft/context.h"
#include "tests/simulation/raft/network.h"
#include "tests/simulation/raft/replica.h"
#include "tests/simulation/seed_report.h"

namespace sluice::raft_simulation {

struct Outcome {
  uint64_t seed = 0;
  std::optional<Violation> violation;
  uint64_t trace_hash = 0;
  uint64_t events = 0;
  size_t terms_led = 0;
  size_t batches_committed = 0;
  FaultCounts faults;
};

/// Runs one seed. `trace`: where to write what happens; null: nowhere.
Outcome RunSeed(uint64_t seed, std::ostream* trace = nullptr);

/// "seed 17 breaks "logs match": ...", and how to see it again.
std::string Report(const Outcome& outcome);

/// How many seeds a short run has.
inline constexpr uint64_t kSeedsShort = 3000;

using simulation::CurrentSeed;

class Group final : public Replica::Group {
 public:
  Group(uint64_t seed, std::ostream* trace);
  Outcome Run();

  std::vector<Observed> Everyone() const override;
  void OnLeader(Replica& replica) override;
  void OnCandidate(Replica& replica) override;
  void OnInstall(Replica& replica) override;

 private:
  VoterId MakeId(size_t slot);
  void Begin();
  void RunTicks(double ticks);

  // clients.cc
  void ScheduleClient();
  void ClientActs();
  /// One that leads, or sometimes one that does not.
  Replica* Addressed();
  void Propose(Replica& replica);

  // misfortune.cc
  void ScheduleAction();
  void Act(Action action);
  void CrashOne(Replica& replica);
  void StartLater(Replica& replica);
  void Damage(Replica& replica);
  void DamageBehindLeader();
  void Wipe();
  void Pause(Replica& replica);
  void PauseFor(Replica& replica, absl::Duration time);
  void ChangeMembers();
  bool ProposeChange(Replica& leader, const raft::Configuration& to);
  bool RemoveOther(Replica& leader);
  bool Demote(Replica& leader, const VoterId& voter);
  std::vector<raft::Configuration> Steps(const raft::Configuration& from) const;
  void CountChange(const VoterId& leader, const raft::Configuration& from, const raft::Configuration& to);
  /// Every configuration that some replica uses, could go back to, or could be sent.
  std::vector<raft::Configuration> InUse() const;
  /// A voter that is gone or may lack something.
  bool Lacks(const VoterId& id) const;
  bool Bearable(const raft::Configuration& members, const VoterId& also_lost) const;
  bool MayLose(const VoterId& id) const;

  // storm.cc
  void DivideForVote();
  void CampaignFor(Replica& candidate);
  void CampaignUntil(Replica& candidate, absl::Duration end);
  void MeetCandidate(Replica& candidate);
  void MeetVoter(Replica& voter, absl::Duration late);

  // group.cc: the end
  void Heal();
  void MustSettle();
  void LosePower();
  bool Settled(const Replica& leader) const;
  std::string WhyNotSettled() const;

  Replica* Leader() const;
  Replica* InSlot(size_t slot) const { return slots_[slot]; }
  Replica* Find(const VoterId& id) const;
  Replica* RandomReplica();

  Context context_;
  std::unique_ptr<Network> network_;
  std::vector<std::unique_ptr<Replica>> replicas_;  ///< Of all incarnations, also those that are gone.
  std::vector<Replica*> slots_;                     ///< Who lives there now.
  std::vector<raft::Message> to_the_gone_;          ///< Messages for incarnations that are no more.
  struct Change {
    raft::Configuration members;
    raft::Proposed at;
  };
  std::vector<Change> changes_;
  std::vector<bool> supporters_;  ///< By slot: who is to hear of the next candidacy; empty: anybody.
  record::BatchBuilder builder_;
  int64_t values_made_ = 0;
  uint8_t incarnations_made_ = 0;
};

}  // namespace sluice::raft_simulation
