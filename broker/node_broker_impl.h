// The class behind MakeNodeBroker; its parts stand in node_broker.cc (starting, stopping, what the node says of
// itself), node_broker_cluster.cc, node_broker_records.cc and node_broker_topics.cc. For those files only.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "broker/admission.h"
#include "broker/catalog.h"
#include "broker/clock_watch.h"
#include "broker/cluster_client.h"
#include "broker/cluster_service.h"
#include "broker/controller.h"
#include "broker/error.h"
#include "broker/fetch.h"
#include "broker/gather.h"
#include "broker/group0_membership.h"
#include "broker/limits.h"
#include "broker/node_broker.h"
#include "broker/node_registry.h"
#include "broker/produce_session.h"
#include "broker/read_quota.h"
#include "broker/reconciler.h"
#include "broker/topic_calls.h"
#include "broker/topic_manager.h"
#include "common/text.h"

namespace sluice::broker {

class NodeBroker final : public Broker, private ControllerObserver {
 public:
  NodeBroker(BrokerOptions options, BrokerSeams seams)
      : options_(std::move(options)),
        seams_(std::move(seams)),
        memory_(std::make_shared<MemoryQuota>(options_.inflight_bytes_max)),
        reads_(std::make_shared<ReadQuota>(options_.read_bytes_max, seams_.clock)),
        disk_(options_.disk_free_low_bytes, options_.disk_free_high_bytes),
        node_{.clock = seams_.clock,
              .memory = *memory_,
              .disk = disk_,
              .id = options_.node,
              .address = options_.address,
              .addresses = addresses_,
              .full = &full_nodes_},
        controller_({.executor = home(),
                     .blocking = seams_.blocking,
                     .clock = seams_.clock,
                     .store = seams_.metadata,
                     .calls = seams_.peers},
                    {.log_bytes = options_.controller_log_bytes,
                     .snapshot_piece_bytes = options_.controller_snapshot_piece_bytes}),
        reconciler_(options_.topic_defaults, {.shards = seams_.shards,
                                              .controller = controller_,
                                              .logs = seams_.logs,
                                              .node = node_,
                                              .addresses = addresses_,
                                              .catalog = catalog_,
                                              .log = seams_.log}),
        topics_({.node = options_.node,
                 .default_partitions = options_.default_partitions,
                 .default_replicas = options_.default_replicas,
                 .defaults = options_.topic_defaults,
                 .message_bytes_max = options_.message_bytes_max},
                {.home = home(),
                 .controller = controller_,
                 .reconciler = reconciler_,
                 .clock = seams_.clock,
                 .random = seams_.random,
                 .log = seams_.log,
                 .forward = seams_.peers == nullptr ? nullptr : &forward_,
                 .without_room = [this] { return group0_.WithoutRoom(); }}),
        registry_({.feature_max = options_.feature_max},
                  {.executor = home(), .clock = seams_.clock, .controller = controller_, .log = seams_.log}),
        service_({.controller = controller_, .registry = registry_, .random = seams_.random, .log = seams_.log}),
        group0_({.executor = home(),
                 .clock = seams_.clock,
                 .controller = controller_,
                 .log = seams_.log,
                 .registry = &registry_,
                 .disk_full = [this] { return disk_.refusing(); }},
                {.replace_voter_after = options_.replace_voter_after}),
        client_(ClientOptions(options_), {.executor = home(),
                                          .controller = controller_,
                                          .service = service_,
                                          .calls = seams_.peers,
                                          .addresses = seams_.addresses,
                                          .log = seams_.log,
                                          .disk_free_bytes = [this] { return disk_.free_bytes(); },
                                          .on_refused =
                                              [this](const absl::Status& why) {
                                                if (seams_.on_refused) seams_.on_refused(why);
                                              },
                                          .disk_full = [this] { return disk_.refusing(); },
                                          .full = &full_nodes_}) {
    controller_.AddObserver(&reconciler_);
    controller_.AddObserver(this);
  }

  void Start(Callback<absl::Status> done) override;
  void PrepareStop(Callback<Done> done) override;
  void Stop(Callback<Done> done) override;
  bool IsServing() const override { return gate_->is_open(); }
  bool IsReady() const override { return IsServing() && ready_.load(std::memory_order_relaxed); }

  std::shared_ptr<ProduceSession> NewSession() override { return std::make_shared<NodeSession>(); }
  void Produce(ProduceItem item, const std::shared_ptr<ProduceSession>& session,
               Callback<ProduceOutcome> done) override;
  size_t PlaceOf(ProduceSession& session, const std::string& topic, PartitionId partition, size_t bytes) override;
  FetchHandle Fetch(FetchSpec spec, Callback<std::vector<FetchOutcome>> done) override;
  void ListOffsets(std::vector<ListOffsetsItem> items, Callback<std::vector<ListOffsetsOutcome>> done) override;
  void DeleteRecords(std::vector<DeleteRecordsItem> items, Callback<std::vector<DeleteRecordsOutcome>> done) override;
  void CreateTopic(CreateTopicSpec spec, Callback<Result<TopicInfo>> done) override;
  void ListTopics(bool internal, Callback<Result<std::vector<TopicInfo>>> done) override;
  void DescribeTopic(std::string name, Callback<Result<TopicDescription>> done) override;
  void AlterTopic(AlterTopicSpec spec, Callback<Result<TopicInfo>> done) override;
  void AddPartitions(std::string name, int32_t partitions, Callback<Result<TopicInfo>> done) override;
  void DeleteTopic(std::string name, Callback<Result<Done>> done) override;
  void DescribeCluster(Callback<Result<ClusterInfo>> done) override;
  void ListPartitions(ListPartitionsSpec spec, Callback<Result<std::vector<PartitionStatus>>> done) override;
  void ElectLeader(ElectLeaderSpec spec, Callback<Result<ElectedLeader>> done) override;
  void Stats(Callback<BrokerStats> done) override;

 private:
  Executor& home() const { return *seams_.shards.front(); }

  static ClusterClientOptions ClientOptions(const BrokerOptions& options);
  /// A node that is its own cluster is not ready before it has registered with itself.
  void Belong(Callback<absl::Status> done);
  void Serve(Callback<absl::Status> done);
  // ControllerObserver
  void OnApplied(const ClusterDelta& delta) override;
  void OnFailure(const absl::Status& why) override;
  /// Whether the cluster counts on this node, as this node knows.
  bool IsCountedOn() const;
  /// Whether somebody leads the controller, and hears this node.
  bool IsHeard();
  void UpdateReady();
  void ArmReadyTimer();

  ClusterInfo Describe(const std::vector<PartitionStatus>& partitions, const std::map<NodeId, NodeStatus>& nodes);
  /// What the living nodes say of themselves, those that can be asked in time; and this one. As CollectPartitions.
  void CollectNodes(Callback<std::map<NodeId, NodeStatus>> done);
  void StatusOfSelf(Callback<NodeStatus> done);
  /// How the partitions stand that `spec` asks for, by what their leaders say, wherever they are: none that cannot be
  /// asked in time. Call, and it answers, on the first shard.
  void CollectPartitions(ListPartitionsSpec spec, Callback<std::vector<PartitionStatus>> done);
  struct Collection;
  void AskPeers(std::shared_ptr<Collection> all);
  // `deadline` is of the monotonic clock.
  /// `done` once all the topic's partitions have leaders, or not in time.
  void AwaitLeaders(TopicInfo topic, absl::Duration deadline, Callback<Result<TopicInfo>> done);
  void AwaitElected(ElectLeaderSpec spec, absl::Duration deadline, std::string why,
                    Callback<Result<ElectedLeader>> done);
  void HandOver(std::shared_ptr<Partition> partition, NodeId leader, NodeId to, Callback<Result<Done>> done);
  /// Of another node, on a thread of the peers' calls.
  void AnswerPeer(PeerCall call, PeerReply reply);
  void AnswerPeerAtHome(const PeerCall& call, PeerReply reply);
  void AnswerPartitionStatus(const std::vector<ReplicaId>& replicas, PeerReply reply);
  void ForwardChange(NodeId to, const TopicChange& change, Callback<Result<TopicChanged>> done);
  std::shared_ptr<Partition> FindById(const Catalog& catalog, const ReplicaId& replica) const;
  void OpenController(Callback<absl::Status> done);
  void CheckDisk(absl::AnyInvocable<void()> done);
  void ArmDiskTimer();
  void ArmRetentionTimer();
  void CloseEverything(Callback<Done> done);

  struct Found {
    std::shared_ptr<Partition> partition;
    std::optional<Error> error;
  };
  Found Find(const Catalog& catalog, const std::string& topic, PartitionId partition) const;
  static Error NotServing() { return MakeError(Reason::kNotAvailable, "the node is starting or shutting down"); }
  static Error TooManyItems(size_t count) {
    return MakeError(Reason::kInvalidArgument, Cat(count, " items in one request; ", kItemsMax, " are allowed"));
  }

  void Count(const Error& error) {
    const auto index = static_cast<size_t>(error.reason);
    errors_[std::min(index, errors_.size() - 1)].fetch_add(1, std::memory_order_relaxed);
  }
  template <class T>
  void CountIn(const Result<T>& result) {
    if (!result.ok()) Count(result.error());
  }
  template <class Outcome>
  void CountIn(const std::vector<Outcome>& outcomes) {
    for (const auto& outcome : outcomes) {
      if (outcome.error.has_value()) Count(*outcome.error);
    }
  }
  /// `done` with the call's pass held until it has run, and its errors counted.
  template <class T>
  Callback<T> Guard(CallGate::Pass pass, Callback<T> done) {
    return [this, pass = std::move(pass), done = std::move(done)](T answer) mutable {
      CountIn(answer);
      done(std::move(answer));
    };
  }
  /// Runs `work(guarded done)` on the first shard, or answers that the node does not serve.
  template <class T, class Work>
  void AtHome(Callback<Result<T>> done, Work work) {
    CallGate::Pass pass = gate_->Enter();
    home().Post([this, pass = std::move(pass), done = std::move(done), work = std::move(work)]() mutable {
      if (!pass) return done(NotServing());
      work(Guard<Result<T>>(std::move(pass), std::move(done)));
    });
  }
  /// Asks another node, and gives `done` on the first shard what `decode` makes of the answer. That may come when
  /// nobody waits for it any more and the broker is gone: `done` must not use it then.
  template <class Decode, class OnAnswer>
  void AskNode(NodeId node, uint32_t kind, std::string request, absl::Duration deadline, Decode decode, OnAnswer done) {
    seams_.peers->Call(
        node, kind, std::move(request), deadline,
        [&home = home(), decode, done = std::move(done)](absl::StatusOr<std::string> bytes) mutable {
          using Answer = decltype(decode(*bytes));
          Answer answer = bytes.ok() ? decode(*bytes) : Answer(bytes.status());
          home.Post([answer = std::move(answer), done = std::move(done)]() mutable { done(std::move(answer)); });
        });
  }
  /// Each item to its partition's shard by `ask(partition, item, answer)`; answers in the items' order.
  template <class Item, class Outcome, class Ask>
  void AskEach(std::vector<Item> items, Callback<std::vector<Outcome>> done, Ask ask);

  const BrokerOptions options_;
  const BrokerSeams seams_;
  std::shared_ptr<CallGate> gate_ = std::make_shared<CallGate>();
  std::shared_ptr<MemoryQuota> memory_;
  std::shared_ptr<ReadQuota> reads_;
  DiskWatermarks disk_;
  FullNodes full_nodes_;
  AddressBook addresses_;
  const Partition::Node node_;
  CatalogCell catalog_;
  Controller controller_;
  Reconciler reconciler_;
  TopicManager::Forward forward_ = [this](NodeId to, const TopicChange& change, Callback<Result<TopicChanged>> done) {
    ForwardChange(to, change, std::move(done));
  };
  TopicManager topics_;
  NodeRegistry registry_;
  ClusterService service_;
  Group0Membership group0_;
  ClusterClient client_;
  std::atomic<bool> ready_ = false;
  absl::Duration heard_at_;  ///< When a leader last took a heartbeat; checked now and then.
  uint64_t heartbeats_seen_ = 0;
  std::optional<absl::Duration> good_at_;  ///< When all was last as it is to be.
  bool alone_ = false;                     ///< At the start: this node is all of its cluster.
  int64_t started_ms_ = 0;
  std::shared_ptr<std::atomic<int64_t>> waiting_fetches_ = std::make_shared<std::atomic<int64_t>>(0);
  std::array<std::atomic<int64_t>, 16> errors_{};

  // The first shard's.
  Executor::TimerId disk_timer_ = 0;
  Executor::TimerId drain_timer_ = 0;
  Executor::TimerId retention_timer_ = 0;
  ClockWatch clock_watch_{seams_.clock};
  Executor::TimerId ready_timer_ = 0;
  bool serves_ = false;
  bool stop_asked_ = false;
  bool closing_ = false;

  std::mutex fetches_mutex_;
  std::map<uint64_t, std::weak_ptr<FetchOperation>> fetches_;  // those that have not answered
  uint64_t fetches_made_ = 0;
};

}  // namespace sluice::broker
