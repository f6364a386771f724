// Bugs that tests plant, to see that the checkers find them. Production code asks Planted(...) at the place where the
// rule is kept; in every ordinary build the answer is a constant false, and nothing of it is compiled in. A test
// program that is built with SLUICE_PLANTED_BUGS (never a library that others link) chooses one with PlantBug. It may
// build only the files that ask, and link the rest as it ships: the two kinds of Planted have different names.
#pragma once

#include <string_view>

namespace sluice {

enum class PlantedBug {
  kNone,
  kAnswerVoteBeforeDurable,    ///< A vote leaves before the disk has it.
  kAnswerAppendBeforeDurable,  ///< A follower acknowledges batches before its disk has them.
  kVoteTwice,                  ///< A second candidate of the same term gets a vote too.
  kCommitOldTermByCounting,    ///< Raft paper, figure 8.
  kForgetTruncation,           ///< A conflicting tail stays, and is acknowledged as if it were the leader's.
  kIgnorePreviousCheck,        ///< Batches are taken without comparing what stands before them.
  kTwoMembershipChanges,       ///< A second change is taken while the first one is uncommitted.
  kMembershipBeforeOwnCommit,  ///< A change is taken before the leader has committed an entry of its own term.
  kReadIndexWithoutQuorum,     ///< A read index is answered without hearing from a quorum.
  kLeaderCountsBeforeDurable,  ///< The leader counts itself before its own disk has the batches.
  kServeBeforeOwnCommit,       ///< A new leader serves reads before it has committed an entry of its own term.
  kVoteForShorterLog,          ///< The candidate's log is not compared.
  kVoteInDoubt,                ///< A replica whose log may have lost its tail votes and counts like any other.
  kEndDoubtAtOnce,             ///< A doubt ends though a vote that was forgotten may still elect somebody.
  kForgetMembershipRollback,   ///< A truncation leaves the configuration that it removed in use.
  kCommitBeyondVerified,       ///< A follower takes the leader's commit for entries that it has not compared.
  // above the core
  kSkipJournalSync,          ///< The journal answers without a sync.
  kAcknowledgeBeforeCommit,  ///< A proposal is answered with success once it is in the log.
  kForgetLogStart,           ///< A log start is answered, and not written down.
  kServeAboveCommit,         ///< Readers get what is in the log, committed or not.
  kIgnoreExpectedOffset,     ///< Compare and append, without comparing.
  kSayUnknownIsRefused,      ///< What may have been written is reported as not written.
  kForgetBrokenSession,      ///< Items behind a failed one of their session are taken.
  kAcceptAnyClientEpoch,     ///< A client's epoch is not compared.
  kDeleteToEnd,              ///< Records are deleted up to the high watermark, whatever was asked.
  kSkipABatch,               ///< A fetch leaves out its first batch and goes on behind it.
  kTrustTheDisk,             ///< What is read back is taken for what was written; its checksum is not compared.
  kForgetDeletedTopic,       ///< The controller does not take a deleted topic out of its state.
  kStaleLeaderAnswers,       ///< A leader says where its log ends without asking whether it still leads.
  // of the cluster
  kControllerAppliesUncommitted,  ///< The controller takes what is in group 0's log, committed or not.
  kAnswerChangeBeforeCommit,      ///< A change of the cluster's state is answered once it is proposed.
  kJoinWithAnyDisk,               ///< A node that comes with another disk gets the replica of the one it had.
  kRepeatUnknownChange,           ///< A change that may have been made is passed on once more.
  kForgetToUnfence,               ///< A node that was silent once is never counted on again.
  kResetBeforeState,              ///< A follower's log begins anew before the state that it continues is saved.
  kCompactBeforeSaved,            ///< The log start moves over what the metadata store does not have yet.
  kForgetToDropReplicas,          ///< A deleted topic's replicas are forgotten before they are dropped.
  kKeepOldAddress,                ///< A node that registers with another address stays where it was.
  kForgetRacks,                   ///< Replicas are placed whatever the racks are.
  kKeepDeadVoter,                 ///< A voter of group 0 that is gone keeps its vote.
  kTakeVoteTooEarly,              ///< It loses it before another node could have it.
  kRaiseLevelTooEarly,            ///< The feature level is raised to what the leader supports.
};

#ifdef SLUICE_PLANTED_BUGS
inline namespace planting {
inline PlantedBug planted_bug = PlantedBug::kNone;
inline void PlantBug(PlantedBug bug) {
  planted_bug = bug;
}
inline bool Planted(PlantedBug bug) {
  return planted_bug == bug;
}
}  // namespace planting
#else
constexpr bool Planted(PlantedBug) {
  return false;
}
#endif

}  // namespace sluice
