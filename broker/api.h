// The broker as its adapters see it: plain structs and callbacks, no protobuf, no gRPC. broker/rpc translates the
// public API to this; a simulated client can call it as it is.
//
// Always holds: each callback runs exactly once, on a shard's executor, never inside the call that takes it. It should
// hand over what it got and return: it holds up a shard. A call before Start has answered, or after Stop was called, is
// answered with NOT_AVAILABLE.
// Threads: every method may be called from any thread, unless it says otherwise.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/record/batch.h"
#include "common/types.h"

namespace sluice::broker {

class ReadHold;

/// Why something failed, for programs. Names and numbers are those of sluice.v1.ErrorDetail.Reason; only ever added to.
enum class Reason : int {
  kUnknown = 0,
  kUnknownTopic = 1,  ///< No such topic, or no such partition in it.
  kTopicExists = 2,
  kInvalidArgument = 3,  ///< The message names the field.
  kCorruptBatch = 4,
  kOffsetOutOfRange = 5,        ///< `log_start` and `high_watermark` tell what there is.
  kExpectedOffsetMismatch = 6,  ///< Compare and append: `log_end` tells where what is committed ends.
  kNotLeader = 7,               ///< `leader` names the node to ask, where known.
  kNotAvailable = 8,            ///< No leader yet, or shutting down.
  kMessageTooLarge = 9,
  kQuota = 10,  ///< Bytes in flight; try again later.
  kDiskFull = 11,
  kStaleLeaderEpoch = 12,
  kOutcomeUnknown = 13,  ///< May or may not have been written.
  kSequenceBroken = 14,  ///< An earlier item of this partition failed in this session; `reset` goes on.
  kCorruptLog = 15,
};

/// "UNKNOWN_TOPIC" and so on.
std::string_view ReasonName(Reason reason);

struct Error {
  Reason reason = Reason::kUnknown;
  std::string message;     ///< For people: what was wrong, where, what to do.
  bool retriable = false;  ///< Whether the same request may succeed later.
  std::string leader;      ///< host:port for clients; empty when not known.
  std::string topic;
  PartitionId partition;
  Offset log_end{-1};         ///< The committed end; set with kExpectedOffsetMismatch.
  Offset log_start{-1};       ///< Set with kOffsetOutOfRange.
  Offset high_watermark{-1};  ///< Set with kOffsetOutOfRange.
};

/// A T or an Error. Not default-constructible: it always is one of the two.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return state_.index() == 0; }
  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  const Error& error() const& { return std::get<1>(state_); }
  Error&& error() && { return std::get<1>(std::move(state_)); }

 private:
  std::variant<T, Error> state_;
};

/// What a call without a value answers.
struct Done {};

template <class T>
using Callback = absl::AnyInvocable<void(T)>;

// ---- Produce -------------------------------------------------------------------------------------------------------

/// One client's ordered stream of appends: what an rpc stream holds for its life. After an item of a partition failed,
/// every later item of this session for it is refused with kSequenceBroken until one carries `reset`.
/// Threads: one thread at a time calls Produce with it; it may be dropped from any, while items are in flight too.
class ProduceSession {
 public:
  virtual ~ProduceSession() = default;

 protected:
  ProduceSession() = default;
};

struct ProduceItem {
  std::string topic;
  PartitionId partition;
  record::PendingBatch batch;
  /// Compare and append: refuse unless the batch gets exactly this base offset.
  std::optional<Offset> expected_base_offset = std::nullopt;
  /// The epoch the client knows; 0 does not check.
  LeaderEpoch leader_epoch = LeaderEpoch(0);
  /// Before the item is looked at, clears this session's refusal of the partition, by any item passed before this one,
  /// whether that was answered yet or not.
  bool reset = false;
};

struct ProduceAck {
  Offset base_offset;
  Offset next_offset;  ///< One past the batch's last record.
  LeaderEpoch leader_epoch;
  int64_t log_append_time_ms = -1;  ///< -1 unless the topic uses the broker's time.
};
using ProduceOutcome = Result<ProduceAck>;

// ---- Fetch ---------------------------------------------------------------------------------------------------------

struct FetchItem {
  std::string topic;
  PartitionId partition;
  Offset offset;                              ///< First offset wanted.
  int64_t bytes_max = 0;                      ///< Of this partition; 0 takes the request's.
  LeaderEpoch leader_epoch = LeaderEpoch(0);  ///< The epoch the client knows; 0 does not check.
};

struct FetchSpec {
  std::vector<FetchItem> items;
  absl::Duration wait_max;      ///< How long to wait for bytes_min; zero answers with what there is.
  int64_t bytes_min = 1;        ///< Answer as soon as all items together have this.
  int64_t bytes_max = 1 << 20;  ///< Of all items together; the first batch found always comes, however large.
  /// How long to wait for memory where reads hold all there is; then the items have kQuota for their error.
  absl::Duration memory_wait_max = absl::InfiniteDuration();
};

struct FetchOutcome {
  std::string topic;
  PartitionId partition;
  /// Whole committed batches that tile, control batches among them; the first may begin before the offset asked for.
  std::vector<record::Batch> batches;
  Offset next_offset;  ///< Where to read on; the offset asked for when nothing was read.
  Offset high_watermark{-1};
  Offset log_start{-1};
  LeaderEpoch leader_epoch;
  std::optional<Error> error;
  /// What counts the batches' bytes, one for all outcomes; null without batches. Kept as long as the batches are.
  std::shared_ptr<ReadHold> memory = nullptr;
};

/// A fetch under way.
class FetchCall {
 public:
  virtual ~FetchCall() = default;
  /// Stops waiting: the callback still runs, soon, with what there is. No effect once it ran.
  virtual void Cancel() = 0;
};
/// Dropping it cancels nothing.
using FetchHandle = std::shared_ptr<FetchCall>;

// ---- Offsets -------------------------------------------------------------------------------------------------------

struct ListOffsetsItem {
  enum class Kind { kLatest = 0, kEarliest = 1, kTimestamp = 2, kLatestData = 3 };  // as in sluice.v1
  std::string topic;
  PartitionId partition;
  Kind kind = Kind::kLatest;
  int64_t timestamp_ms = 0;
};

struct ListOffsetsOutcome {
  std::string topic;
  PartitionId partition;
  Offset offset{-1};          ///< -1 when no record is that late.
  int64_t timestamp_ms = -1;  ///< Of that record; -1 when not asked by time.
  LeaderEpoch leader_epoch;
  Offset log_end{-1};  ///< The committed end: what expected_base_offset would have to be, were nothing under way.
  std::optional<Error> error;
};

struct DeleteRecordsItem {
  std::string topic;
  PartitionId partition;
  Offset before;  ///< Records below it go; -1 means all that is committed.
};

struct DeleteRecordsOutcome {
  std::string topic;
  PartitionId partition;
  Offset log_start{-1};
  std::optional<Error> error;
};

// ---- Topics and cluster --------------------------------------------------------------------------------------------

using TopicConfig = std::map<std::string, std::string>;

struct CreateTopicSpec {
  std::string name;
  int32_t partitions = 0;  ///< 0: the node's default.
  int32_t replicas = 0;    ///< 0: min(3, nodes).
  TopicConfig config = {};
  bool internal = false;  ///< Only for the broker's own topics: allows (and demands) a name that begins with "__".
};

struct TopicInfo {
  std::string name;
  TopicId id;
  int32_t partitions = 0;
  int32_t replicas = 0;
  TopicConfig config;  ///< Only what was set.
  int64_t created_ms = 0;
};

struct PartitionInfo {
  PartitionId partition;
  NodeId leader_node;  ///< 0: none.
  std::string leader;  ///< host:port for clients.
  LeaderEpoch leader_epoch;
  std::vector<NodeId> replica_nodes;
  Offset log_start;
  Offset high_watermark;
  int64_t size_bytes = 0;
  std::optional<Error> error = std::nullopt;  ///< Why it is not served: damage, mostly, until a restart.
};

struct TopicDescription {
  TopicInfo topic;
  std::vector<PartitionInfo> partitions;
};

struct AlterTopicSpec {
  std::string name;
  TopicConfig set = {};
  std::vector<std::string> unset = {};
};

struct NodeInfo {
  NodeId id;
  std::string address;  ///< host:port for clients.
  std::string rack;
  std::string version;
  int64_t started_ms = 0;
  int64_t disk_free_bytes = 0;
  int64_t disk_used_bytes = 0;
  bool alive = false;       ///< Neither this nor fenced: nobody knows, as the controller has no leader.
  bool fenced = false;      ///< Registered, but not heard of: gets no new replicas.
  bool draining = false;    ///< Stopping: gives its leaderships away.
  int32_t feature_min = 0;  ///< The feature levels that its program can work at.
  int32_t feature_max = 0;
  std::string peer_address;       ///< host:port for other nodes; empty where it takes none.
  bool controller_voter = false;  ///< Of group 0; the others only follow it.
};

struct ClusterInfo {
  Uuid cluster_id;
  std::string cluster_name;
  NodeId controller_node;
  std::vector<NodeInfo> nodes;
  int32_t topics = 0;
  int32_t partitions = 0;
  int32_t under_replicated_partitions = 0;  ///< Fewer replicas in sync than there should be.
  int32_t leaderless_partitions = 0;        ///< Nobody known takes writes now.
  int32_t offline_partitions = 0;           ///< Cannot be served before a node comes back or is repaired.
  int32_t feature_level = 0;                ///< That the cluster works at.
};

/// One replica, as the partition's leader sees it.
struct ReplicaStatus {
  NodeId node;
  bool learner = false;  ///< Follows without a vote.
  bool in_sync = false;  ///< Has all that is committed, and is heard of; false while there is no leader to tell.
  int64_t lag = -1;      ///< Offsets from its end to the leader's; -1 where nobody knows.
};

struct PartitionStatus {
  std::string topic;
  PartitionId partition;
  NodeId leader_node;  ///< 0: none known.
  std::string leader;  ///< host:port for clients.
  LeaderEpoch leader_epoch;
  NodeId preferred_leader;
  std::vector<ReplicaStatus> replicas;  ///< By their place in the assignment.
  Offset log_start;
  Offset high_watermark;
  int64_t size_bytes = 0;                     ///< At the leader.
  std::optional<Error> error = std::nullopt;  ///< The same.
  size_t sound = 0;                           ///< Replicas that answered without an error; only where nobody leads.
};

/// All that is set must hold.
struct ListPartitionsSpec {
  std::string topic = {};  ///< Empty: all topics, the broker's own too.
  NodeId node = {};        ///< 0: all; otherwise only what has a replica there.
  bool under_replicated = false;
  bool leaderless = false;
};

/// Whether fewer replicas than there should be are in sync.
inline bool IsUnderReplicated(const PartitionStatus& partition) {
  for (const ReplicaStatus& replica : partition.replicas) {
    if (!replica.in_sync) return true;
  }
  return false;
}
inline bool IsLeaderless(const PartitionStatus& partition) {
  return partition.leader_node == NodeId(0);
}
/// Whether its error keeps it from being served or, where nobody leads, its sound replicas are no majority: an ordinary
/// election does not end that. One that failed while it ran still votes, so two of three that fail may be said to be
/// offline although the third may lead.
inline bool IsOffline(const PartitionStatus& partition) {
  return IsLeaderless(partition) ? 2 * partition.sound <= partition.replicas.size() : partition.error.has_value();
}
/// Whether ListPartitions shows it.
inline bool Matches(const ListPartitionsSpec& spec, const PartitionStatus& partition) {
  if (!spec.topic.empty() && partition.topic != spec.topic) return false;
  if (spec.under_replicated && !IsUnderReplicated(partition)) return false;
  if (spec.leaderless && !IsLeaderless(partition)) return false;
  if (spec.node == NodeId(0)) return true;
  for (const ReplicaStatus& replica : partition.replicas) {
    if (replica.node == spec.node) return true;
  }
  return false;
}

struct ElectLeaderSpec {
  std::string topic;
  PartitionId partition;
  NodeId node = {};  ///< 0: the preferred leader.
};

struct ElectedLeader {
  NodeId leader_node;
  std::string leader;  ///< host:port for clients.
  LeaderEpoch leader_epoch;
};

// ---- What metrics are made of --------------------------------------------------------------------------------------

/// Counters since start; a counter never goes down while the process lives (that of a deleted topic goes with it).
struct PartitionStats {
  std::string topic;
  PartitionId partition;
  int64_t produced_batches = 0;
  int64_t produced_records = 0;
  int64_t produced_bytes = 0;
  int64_t produce_errors = 0;
  int64_t fetched_bytes = 0;
  int64_t fetches = 0;
  Offset log_start;
  Offset high_watermark;
  Offset log_end;
  int64_t size_bytes = 0;
  bool failed = false;  ///< Could not be opened; everything asked of it is an error.
};

struct BrokerStats {
  std::vector<PartitionStats> partitions;  ///< By topic name and partition.
  int64_t inflight_bytes = 0;              ///< Of produce items not answered yet.
  int64_t inflight_bytes_max = 0;
  int64_t waiting_fetches = 0;
  int64_t read_bytes = 0;  ///< Of answers to readers, being read or not written to the client yet.
  int64_t read_bytes_max = 0;
  int64_t reads_waiting = 0;    ///< For memory.
  int64_t reads_called_in = 0;  ///< Answers given up because their client did not take them while others waited.
  int64_t disk_free_bytes = 0;
  bool disk_refusing_writes = false;
  int32_t topics = 0;
  std::map<std::string, int64_t> errors;  ///< By ReasonName, of all calls.
};

// ---- The broker ----------------------------------------------------------------------------------------------------

class Broker {
 public:
  virtual ~Broker() = default;

  /// Opens what is on disk, replays the controller's log and answers once every partition serves, but for those whose
  /// files are damaged: they answer everything with kCorruptLog, or with whom to ask. Call once.
  virtual void Start(Callback<absl::Status> done) = 0;
  /// Before Stop, so that no call fails by it: hands what this node leads over to other nodes, and still serves; what
  /// has moved is refused with who leads it now. Answers when that is done, or has taken too long. While Start has not
  /// answered yet: that waits for the cluster no more.
  virtual void PrepareStop(Callback<Done> done) { done(Done{}); }
  /// Refuses new calls, wakes waiting fetches, answers what is in flight, then answers here. Call once, after Start
  /// has answered. The broker must live until then.
  virtual void Stop(Callback<Done> done) = 0;
  /// Between Start's success and Stop.
  virtual bool IsServing() const = 0;
  /// Serves, and its cluster counts on it now: it is registered and not fenced, and the controller has a leader that
  /// hears it, or had one a few seconds ago.
  virtual bool IsReady() const { return IsServing(); }

  virtual std::shared_ptr<ProduceSession> NewSession() = 0;
  /// Appends; answered once committed as the topic's durability says. Items that one thread passes for one partition
  /// are written and answered in that order; answers of different partitions come in any order.
  virtual void Produce(ProduceItem item, const std::shared_ptr<ProduceSession>& session,
                       Callback<ProduceOutcome> done) = 0;
  /// Where within a block the memory of the session's next batch for a partition had better begin (MutableBytes), so
  /// that it need not be copied again on its way to a file. On the thread that passes the items, once for each.
  virtual size_t PlaceOf(ProduceSession& session, const std::string& topic, PartitionId partition, size_t bytes) {
    (void)session, (void)topic, (void)partition, (void)bytes;
    return 0;
  }
  /// Outcomes in the items' order. Waits at the end of the log to be woken; an item's error answers at once.
  virtual FetchHandle Fetch(FetchSpec spec, Callback<std::vector<FetchOutcome>> done) = 0;
  virtual void ListOffsets(std::vector<ListOffsetsItem> items, Callback<std::vector<ListOffsetsOutcome>> done) = 0;
  virtual void DeleteRecords(std::vector<DeleteRecordsItem> items,
                             Callback<std::vector<DeleteRecordsOutcome>> done) = 0;

  virtual void CreateTopic(CreateTopicSpec spec, Callback<Result<TopicInfo>> done) = 0;
  /// By name; `internal` adds those that begin with "__".
  virtual void ListTopics(bool internal, Callback<Result<std::vector<TopicInfo>>> done) = 0;
  virtual void DescribeTopic(std::string name, Callback<Result<TopicDescription>> done) = 0;
  virtual void AlterTopic(AlterTopicSpec spec, Callback<Result<TopicInfo>> done) = 0;
  /// `partitions` is the new total.
  virtual void AddPartitions(std::string name, int32_t partitions, Callback<Result<TopicInfo>> done) = 0;
  virtual void DeleteTopic(std::string name, Callback<Result<Done>> done) = 0;

  virtual void DescribeCluster(Callback<Result<ClusterInfo>> done) = 0;
  /// By topic and partition. kUnknownTopic where the spec names a topic that there is not.
  virtual void ListPartitions(ListPartitionsSpec spec, Callback<Result<std::vector<PartitionStatus>>> done) = 0;
  /// Hands the partition's leadership over and answers who leads then; at once where that node leads already.
  /// kInvalidArgument for a node without a replica, kCorruptLog for one whose replica cannot read its log,
  /// kNotAvailable (retriable) where it did not come to lead in time, for one that is behind or not alive.
  virtual void ElectLeader(ElectLeaderSpec spec, Callback<Result<ElectedLeader>> done) = 0;
  virtual void Stats(Callback<BrokerStats> done) = 0;
};

}  // namespace sluice::broker
