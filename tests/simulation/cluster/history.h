// What clients did and what they were told, and what must hold of both, whatever happens to the nodes. Nothing here
// knows how the nodes work: only calls, answers, and records that somebody saw. The first rule that is broken ends the
// run.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "common/record/batch.h"
#include "common/types.h"

namespace sluice::cluster_simulation {

enum class Rule : uint8_t {
  kAcknowledgedStays,    ///< What was acknowledged is in the log, where the answer said.
  kWrittenOnce,          ///< No value is at two places.
  kRefusedNever,         ///< What was refused is in no log.
  kNoPhantom,            ///< Nothing is in a log that nobody sent there, and nothing is changed on the way.
  kOrderOfSession,       ///< A session's items stand in a partition in the order sent.
  kOrderOfTime,          ///< What was sent after an answer stands behind what that answer acknowledged.
  kFailedSessionStops,   ///< Behind a failed item of a session nothing is written without a reset.
  kCompareAndAppend,     ///< An item that names its offset gets that one or is not written.
  kContentNeverChanges,  ///< An offset's content is the same for everybody, always.
  kBatchesTile,          ///< What a fetch brings covers the offset asked for, without a gap.
  kOnlyCommittedSeen,    ///< What anybody saw is in the log at the end.
  kNothingGoesBack,      ///< High watermark, log start and epoch, as far as answers must know of earlier ones.
  kOneLeaderPerEpoch,    ///< Nobody else answers for an epoch.
  kLogStartOnlyAsAsked,  ///< Nothing is deleted that nobody asked to delete.
  kTopicsAsAnswered,     ///< Topics are there, or gone, as their changes were answered.
  kReplicasEqual,        ///< Replicas hold the same.
  kReplicasAsPlaced,     ///< A node has the replicas that were placed on it, and in the end no others.
  kRacksSpread,          ///< A partition's replicas are in as many racks as they could be, evenly.
  kClusterAsItIs,        ///< In quiet times nodes that run are counted on, others not; and as many vote as should.
  kVotesKept,            ///< In group 0 nobody loses a vote before another could have it.
  kFeatureLevel,         ///< It is never above what a node supports that was registered, and never goes down.
  kOnlyMembersJoin,      ///< Who comes with another disk than it is registered with is not let in.
  kNodeStarts,           ///< A node starts, unless its disk refuses to work.
  kAnswersOnce,          ///< Every call is answered, once.
  kLiveness,             ///< In quiet times everything works again, soon.
};
std::string_view RuleName(Rule rule);

struct Violation {
  Rule rule;
  std::string what;
};

struct PartitionKey {
  std::string topic;  ///< Its name; a world never uses one twice.
  int32_t partition = 0;
  auto operator<=>(const PartitionKey&) const = default;
  std::string ToString() const;
};

/// One item that a producer sent, with a value that no other item has.
struct Attempt {
  int64_t value = 0;
  PartitionKey key;
  uint64_t session = 0;
  int64_t sequence = 0;  ///< In its session.
  int64_t resets = 0;    ///< Sent in this session for this partition, its own among them.
  int32_t records = 0;
  std::optional<Offset> expected;
  LeaderEpoch epoch;           ///< Of the leader that it was meant for; 0: of any.
  Offset acknowledged_before;  ///< Where what was known to be acknowledged ended when it was sent.
  enum class State : uint8_t { kOpen, kDone, kRefused, kUnknown } state = State::kOpen;
  Offset base{-1};  ///< Once acknowledged or seen.
};

class History {
 public:
  const std::optional<Violation>& violation() const { return violation_; }
  void Fail(Rule rule, std::string what);

  // ---- Producers
  /// Numbers the attempt, and completes it.
  const Attempt& OnSend(Attempt attempt);
  void OnAcknowledged(int64_t value, Offset base, Offset next, LeaderEpoch epoch, NodeId by);
  /// `by_node`: its node said so; otherwise it never got there.
  void OnRefused(int64_t value, bool by_node);
  void OnUnknown(int64_t value);

  // ---- Readers
  /// A committed batch that somebody was given.
  void OnSeen(const PartitionKey& key, const record::Batch& batch);
  void OnEpoch(const PartitionKey& key, LeaderEpoch epoch, NodeId by);
  /// Where everything that was acknowledged until now ends; what is asked later must know of it.
  Offset AcknowledgedEnd(const PartitionKey& key) const;
  /// The highest log start that was answered until now.
  Offset LogStartKnown(const PartitionKey& key) const;
  /// Who answered for the latest epoch; 0 where nobody did yet.
  NodeId LeaderKnown(const PartitionKey& key) const;
  /// An answer that is linearizable: of a question asked when `end_then` and `start_then` were known.
  void OnEndAnswered(const PartitionKey& key, Offset end, Offset end_then);
  void OnStartAnswered(const PartitionKey& key, Offset start, Offset start_then);
  void OnDeleteAsked(const PartitionKey& key, Offset before);

  /// The whole log, from `start` to `end`, was just seen by OnSeen, with nothing under way: it must have everything.
  void CheckComplete(const PartitionKey& key, Offset start, Offset end);

  int64_t attempts() const { return static_cast<int64_t>(attempts_.size()); }
  int64_t acknowledged() const { return acknowledged_; }
  int64_t unknown() const { return unknown_; }
  /// Changes of leader that clients noticed.
  uint64_t leader_changes() const;
  int64_t batches_seen() const { return batches_seen_; }
  uint64_t Hash() const;

 private:
  struct Seen {
    Offset next;
    LeaderEpoch epoch;
    uint32_t crc = 0;
    int64_t value = 0;  ///< 0 for control batches.
  };
  struct Partition {
    std::map<Offset, Seen> seen;
    std::map<Offset, int64_t> acknowledged;  ///< By base offset.
    std::map<LeaderEpoch, NodeId> leaders;
    Offset acknowledged_end;
    Offset end_known;  ///< The highest that was answered.
    Offset log_start_known;
    Offset delete_asked;
  };
  /// What of one session and partition is known to be written, and what was refused.
  struct Lane {
    std::map<int64_t, Offset> written;         ///< By sequence.
    std::map<int64_t, int64_t> refused_first;  ///< By resets: the first sequence that was refused.
    std::map<int64_t, int64_t> written_last;   ///< By resets: the last that is written.
  };
  using LaneKey = std::tuple<uint64_t, PartitionKey>;

  /// Finds the value that a batch carries; fails where it is none that was sent there.
  int64_t ValueOf(const PartitionKey& key, const record::Batch& batch);
  void OnWritten(Attempt& attempt, Offset base);
  void CheckLane(const Attempt& attempt, const Lane& lane);
  void CheckNeighbours(const PartitionKey& key, const Partition& partition, Offset base);

  std::optional<Violation> violation_;
  std::map<int64_t, Attempt> attempts_;
  std::map<PartitionKey, Partition> partitions_;
  std::map<LaneKey, Lane> lanes_;
  int64_t acknowledged_ = 0;
  int64_t unknown_ = 0;
  int64_t batches_seen_ = 0;
};

/// The text of an attempt's records: each begins with the attempt's number, the record's, and a colon.
std::string ValueText(int64_t value, int32_t record);

}  // namespace sluice::cluster_simulation
