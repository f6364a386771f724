// What must hold of one Raft group, whatever happens to it. The simulation reports to a Checker everything that it sees
// and that no single replica can know: every message that leaves, every disk, every promise to a client. The first rule
// that is broken ends the run.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "common/record/batch.h"
#include "common/types.h"
#include "replication/core/raft.h"
#include "tests/simulation/raft/model_disk.h"

namespace sluice::raft_simulation {

enum class Invariant : uint8_t {
  kOneLeaderPerTerm,
  kOneVotePerTerm,          ///< No incarnation gives two votes in one term (damage apart).
  kVoteDurableFirst,        ///< A vote leaves only once the disk has it.
  kAckDurableFirst,         ///< An acknowledgement leaves only for what the disk has.
  kQuorumHasCommitted,      ///< When a leader commits, the disks of a quorum of its configuration have the batch.
  kOwnTermCommits,          ///< A leader's commit moves only to a batch of its own term (Raft paper, 5.4.2).
  kCommittedPrefixesAgree,  ///< Byte for byte, on every replica.
  kCommittedStays,          ///< What a replica knew as committed it never cuts off.
  kLeaderComplete,          ///< A leader has everything that was committed in earlier terms (5.4.3).
  kLogsMatch,               ///< Same epoch and offset: same batch, and the same before it (5.3).
  kBatchesTile,
  kNothingGoesBack,      ///< Term, commit, log start.
  kDurableEndHonest,     ///< durable_end() is never beyond what the disk has.
  kSuccessIsFinal,       ///< A success is in the log, once, where it was said; in the order of the clients' clocks.
  kFailureIsFinal,       ///< What was reported as failed, or never proposed, is not in the log.
  kReadsLinearizable,    ///< A read index covers everything committed before it was asked for, and no more.
  kOneMembershipChange,  ///< A leader's log holds at most one that is not committed.
  kMembershipAfterOwnCommit,  ///< A change is taken only by a leader that has committed an entry of its term.
  kConfigurationIsLogs,       ///< The configuration in use is the log's last one.
  kPeersUnderstood,           ///< Nothing that a correct peer says is refused as an error.
  kRestores,                  ///< A replica starts from what its disk has.
  kReadySound,                ///< A Ready can be carried out as it says.
  kAppendsAtBatches,          ///< A leader sends what follows a batch of its log, not what follows a part of one.
  kLiveness,                  ///< Once faults heal, the group elects, converges, commits and answers.
};
std::string_view InvariantName(Invariant invariant);

struct Violation {
  Invariant invariant;
  std::string what;
};

/// What the checker may look at of a replica.
struct Observed {
  VoterId id;
  const raft::Raft* raft = nullptr;  ///< Null while it is down.
  const ModelDisk* disk = nullptr;
  bool resetting = false;  ///< A snapshot is being installed: its disk may be ahead of what it knows.
};

/// One value that a client gave to a leader, as one batch.
struct Proposal {
  int64_t value = 0;
  raft::Proposed at;
  uint32_t crc = 0;
  Offset acknowledged_before;  ///< Everything below was reported as done before this was proposed.
  enum class State : uint8_t { kOpen, kDone, kFailed, kUnknown } state = State::kOpen;
};

class Checker {
 public:
  const std::optional<Violation>& violation() const { return violation_; }
  void Fail(Invariant invariant, std::string what);

  /// Everything below was committed at some leader.
  Offset committed() const { return committed_.empty() ? Offset(0) : committed_.back().batch.next_offset(); }
  size_t committed_batches() const { return committed_.size(); }
  size_t leaders_seen() const { return leaders_.size(); }

  // ---- The life of a replica
  /// `batch` is in its log now.
  void OnAppend(const Observed& replica, const record::Batch& batch);
  /// Its log is about to be cut, for batches that begin with one of epoch `instead`.
  void OnTruncate(const Observed& replica, Offset new_end, LeaderEpoch instead);
  void OnStarted(const Observed& replica);
  /// Damage took `gone` from its disk, and perhaps votes.
  void OnDamaged(const VoterId& id, const std::vector<record::Batch>& gone);
  /// After every event at `replica`, before its Ready is taken.
  void OnStep(const Observed& replica, const std::vector<Observed>& all);
  /// After its Readys have been carried out.
  void OnCarriedOut(const Observed& replica);
  void OnSend(const Observed& replica, const raft::Message& message);

  // ---- Clients
  void OnProposed(Proposal proposal);
  /// The outcome is known: what stands at the proposal's place is `done`.
  void OnOutcome(int64_t value, Proposal::State state);
  void OnMembershipProposed(const Observed& leader);
  Offset acknowledged() const { return acknowledged_; }
  void OnReadIndex(Offset asked_at_committed, Offset index);

  /// Where the batch that ends at `end` stands in what is committed; nullptr where none ends there.
  const record::Batch* CommittedEndingAt(Offset end) const;
  /// Of the committed log and the proposals; for the trace hash.
  uint64_t Hash() const;

 private:
  struct Committed {
    record::Batch batch;
    LeaderEpoch by_term;  ///< Of the leader that committed it.
  };
  struct Known {  // of a running replica, as of its last event
    raft::Role role = raft::Role::kFollower;
    LeaderEpoch term;
    Offset committed;
    Offset log_start;
    Offset compared;  ///< Its log is the committed one up to here.
  };
  struct Entry {
    record::Batch batch;
    std::optional<LeaderEpoch> previous;
  };

  void CheckLeader(const Observed& replica, const Known& before);
  void CheckMonotone(const Observed& replica, const Known& before);
  void ExtendCommitted(const Observed& replica, const std::vector<Observed>& all);
  bool QuorumHas(const Observed& leader, const record::Batch& batch, const std::vector<Observed>& all);
  void CompareCommitted(const Observed& replica, Known* known);
  void CheckConfiguration(const Observed& replica);
  void NoteVote(const Observed& replica, LeaderEpoch term, const VoterId& candidate);
  void CheckCommittedValue(const record::Batch& batch);
  size_t CommittedIndex(Offset offset) const;

  std::optional<Violation> violation_;
  std::vector<Committed> committed_;  ///< From offset 0 on, without a gap.
  std::map<LeaderEpoch, VoterId> leaders_;
  std::map<std::pair<VoterId, LeaderEpoch>, VoterId> votes_;
  std::map<VoterId, Known> known_;
  std::map<std::pair<LeaderEpoch, Offset>, Entry> entries_;  ///< Every batch that any log ever held.
  std::set<std::tuple<VoterId, Offset, LeaderEpoch>> damaged_;
  std::map<int64_t, Proposal> proposals_;
  std::set<int64_t> committed_values_;
  Offset acknowledged_;
};

}  // namespace sluice::raft_simulation
