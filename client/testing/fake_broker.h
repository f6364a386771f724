// A broker in memory behind the channel seam, for tests of what stands on the client: topics, logs that begin with a
// control batch as real ones do, compare-and-append, fetches without long polls, and faults on demand. Or a cluster of
// them: nodes that share the logs, each partition with one leader, which alone takes what concerns it.
//
// Threads: everything on the executor; a test's thread goes through RunOn (client/await.h).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/admin.h"
#include "client/channel.h"
#include "client/error.h"
#include "common/executor.h"
#include "common/record/batch.h"

namespace sluice::client {

class FakeBroker : public ChannelFactory {
 public:
  explicit FakeBroker(Executor& executor) : executor_(executor) {}
  /// The executor must still run. Calls under way are never answered.
  ~FakeBroker() override;
  std::unique_ptr<Channel> Open(const std::string& address) override;

  static constexpr char kAddress[] = "fake:7400";

  /// One node of the cluster and what ails it.
  struct Node {
    bool reachable = true;
    bool black_hole = false;                     // not even a refusal to connect comes back
    bool silent = false;                         // takes calls and messages, but does and answers nothing
    bool unready = false;                        // answers everything with NOT_AVAILABLE
    bool ignorant = false;                       // has heard of no topic yet
    absl::Duration slow = absl::ZeroDuration();  // every answer is late by this
    int calls = 0;
    int items = 0;  // of produce requests, whatever became of them
  };
  /// The first is kAddress, which is there from the beginning.
  void AddNode(const std::string& address) { nodes_[address]; }
  Node& node(const std::string& address) { return nodes_[address]; }
  /// Ends its connections: what it has not answered is lost.
  void Kill(const std::string& address);
  /// Moves a partition to another leader, in a new epoch that begins with a control batch; "" leaves it without one.
  void Lead(const TopicPartition& partition, const std::string& address);
  /// What a node that does not lead a partition tells of the leader (NOT_LEADER); who leads, when this is empty.
  std::function<std::string(const std::string& node, const TopicPartition&)> hint;
  /// What a node tells of a topic's leaders; who leads, when this is empty.
  std::function<std::string(const std::string& node, const TopicPartition&)> told;

  void CreateTopic(const std::string& name, int partitions);
  /// Values of the data records in a partition's log, in order.
  std::vector<std::string> Values(const TopicPartition& partition) const;
  /// Appends one batch of these values, as another writer would.
  void AppendValues(const TopicPartition& partition, const std::vector<std::string>& values);
  void AppendControl(const TopicPartition& partition);
  /// Ends every produce stream, with the answers that were held back lost.
  void BreakStreams(const absl::Status& status);
  /// Answers what was held back.
  void Release();
  /// Answers of what was held back only the last request, as when the ones before it also have other partitions' items.
  void ReleaseNewest();

  struct Log {
    std::vector<record::Batch> batches;
    Offset start;
    std::string leader = kAddress;
    LeaderEpoch epoch{1};
    std::string trouble;     // of a replica that could not be opened
    size_t uncommitted = 0;  // batches at the end that no reader sees yet
    Offset committed() const { return uncommitted == 0 ? end() : batches[batches.size() - uncommitted].base_offset(); }
    Offset end() const { return batches.empty() ? Offset(0) : batches.back().next_offset(); }
  };

  // Faults.
  bool reachable = true;
  bool silent = false;        // unary calls are never answered, and end by their time limit
  bool hold_answers = false;  // of produce streams: written, but the answer waits
  /// Asked before each item is written; what it returns is the item's error.
  std::function<std::optional<ErrorDetail>(const TopicPartition&)> refuse;
  /// Asked after each item is written by an Append; true leaves it uncommitted, and the call loses its connection.
  std::function<bool(const TopicPartition&)> stall;
  /// Asked before a topic is made; what it returns is the call's error.
  std::function<std::optional<ErrorDetail>(const std::string& topic)> refuse_topic;
  /// Told of each unary call before it is looked at.
  std::function<void(const std::string& method)> on_call;
  /// Asked for each fetch item; may change the bytes that go out.
  std::function<void(std::string* batches)> tamper;

  /// A larger message of a produce stream ends it, as gRPC does it; 0: none does.
  size_t message_bytes_max = 0;

  // What happened.
  int channels_opened = 0;
  int streams_opened = 0;
  int requests = 0;
  int items = 0;
  int resets = 0;
  std::map<std::string, int> calls;  // by method

  std::map<TopicPartition, Log> logs;

 private:
  friend class FakeChannel;
  friend class FakeStream;

  absl::StatusOr<Bytes> Answer(const std::string& node, std::string_view method, const Bytes& request);
  absl::StatusOr<Bytes> Describe(const std::string& node, const Bytes& request);
  std::string Produce(const std::string& node, const Bytes& request, std::set<TopicPartition>* refused);
  std::string Fetch(const std::string& node, const Bytes& request);
  std::string ListOffsets(const std::string& node, const Bytes& request);
  std::string DeleteRecords(const std::string& node, const Bytes& request);
  /// Why this node does not serve the partition; nothing, when it does.
  std::optional<ErrorDetail> NotServed(const std::string& node, const TopicPartition& partition) const;

  Executor& executor_;
  // Whether this is still there, for what waits on the executor; read and written there.
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::set<class FakeStream*> streams_;
  std::map<std::string, Node> nodes_{{kAddress, Node()}};
};

}  // namespace sluice::client
