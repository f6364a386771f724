// Who takes part in one Raft group, and what of Raft a replica keeps beside its log and its vote.
//
// A configuration is in use from the moment it is appended (committed or not) until a truncation removes it, so a
// replica remembers those that it may have to go back to: the last one known to be committed (and durable), and what
// came after. Bytes: docs/formats.md, "Raft configuration" and "Raft state of a replica".
//
// Threads: value types. Errors: InvalidArgument for a configuration that cannot be, DataLoss for bytes that are none,
// FailedPrecondition for a step that is not allowed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/types.h"
#include "replication/core/epoch_history.h"

namespace sluice::raft {

/// Always holds (after Make or Decode): both lists ascend, nobody is in both, none is "none". No voters: a replica that
/// does not know its group yet.
struct Configuration {
  static constexpr size_t kMembersMax = 64;

  std::vector<VoterId> voters;    ///< Vote and are counted.
  std::vector<VoterId> learners;  ///< Receive the log and are never counted.

  static absl::StatusOr<Configuration> Make(std::vector<VoterId> voters, std::vector<VoterId> learners);
  static absl::StatusOr<Configuration> Decode(std::string_view bytes);
  std::string Encode() const;

  bool empty() const { return voters.empty() && learners.empty(); }
  bool IsVoter(const VoterId& id) const;
  bool IsLearner(const VoterId& id) const;
  bool Contains(const VoterId& id) const { return IsVoter(id) || IsLearner(id); }
  /// How many voters decide.
  size_t Quorum() const { return voters.size() / 2 + 1; }
  /// OK when exactly one member's part differs: added, removed, promoted or demoted. Then any quorum of one meets any
  /// quorum of the other (dissertation section 4.1).
  absl::Status CheckStep(const Configuration& next) const;
  /// "voters 1, 2, 3; learners 4" by node, for people.
  std::string ToString() const;

  bool operator==(const Configuration&) const = default;
};

/// A configuration and the entry that brought it. Offset -1: the one that the group began with.
struct ConfigurationAt {
  Offset offset{-1};
  LeaderEpoch epoch;
  Configuration configuration;
  bool operator==(const ConfigurationAt&) const = default;
};

/// The blob that a replica stores (storage's RaftConfigRecord). It is written before the batches and after the
/// truncation that it belongs to, so after a crash it may know of entries that the log has not; those are left out.
struct ReplicaRaftState {
  /// What came before the log; counts only where `start` is still the log start.
  struct Base {
    Offset start;
    BaseEpoch epoch;
    bool operator==(const Base&) const = default;
  };
  Base base;
  Base installing;        ///< Of the log that a snapshot is to begin; all zero: none.
  bool in_doubt = false;  ///< The replica came back from damage, and its doubt has not ended (Raft, "Doubt").
  /// Ascending by offset, then epoch; the last known committed one first.
  std::vector<ConfigurationAt> configurations;

  static absl::StatusOr<ReplicaRaftState> Decode(std::string_view bytes);
  std::string Encode() const;
  bool operator==(const ReplicaRaftState&) const = default;
};

}  // namespace sluice::raft
