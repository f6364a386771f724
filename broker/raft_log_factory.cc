#include "broker/raft_log_factory.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace sluice::broker {
namespace {

void Apply(const LogSettings& settings, storage::LogOptions* options) {
  options->segment_bytes = settings.segment_bytes;
  options->segment_age = settings.segment_age;
}

class RaftPartitionLog final : public PartitionLog {
 public:
  RaftPartitionLog(std::shared_ptr<replication::RaftNode> node, std::shared_ptr<replication::RaftLog> log)
      : node_(std::move(node)), log_(std::move(log)) {}

  replication::RaftLog& log() override { return *log_; }

  void Configure(const LogSettings& settings) override {
    storage::LogOptions options = log_->storage_log().options();
    Apply(settings, &options);
    log_->storage_log().set_options(options);
  }

  void ApplyRetention(const RetentionPolicy& policy, Callback<absl::StatusOr<Offset>> done) override {
    storage::RetentionPolicy stored;
    if (policy.age.has_value()) stored.retention_ms = absl::ToInt64Milliseconds(*policy.age);
    stored.retention_bytes = policy.bytes.value_or(-1);
    log_->ApplyRetention(stored, std::move(done));
  }

  void Stop(absl::AnyInvocable<void()> done) override {
    node_->Close(log_->group(), [done = std::move(done)](const absl::Status&) mutable { done(); });
  }

 private:
  const std::shared_ptr<replication::RaftNode> node_;
  const std::shared_ptr<replication::RaftLog> log_;
};

using Opened = absl::StatusOr<std::unique_ptr<PartitionLog>>;

/// A sole voter leads as soon as its disk has its vote: until then nobody could use it, and nobody else could lead.
void AnswerWhenUsable(std::shared_ptr<replication::RaftNode> node, std::shared_ptr<replication::RaftLog> log,
                      Callback<Opened> done) {
  replication::RaftLog& raft_log = *log;
  auto usable = std::make_unique<RaftPartitionLog>(node, std::move(log));
  const raft::Configuration& members = raft_log.raft().configuration();
  if (members.voters.size() != 1 || !members.IsVoter(raft_log.raft().self())) return done(std::move(usable));
  raft_log.WhenLeading([node = std::move(node), group = raft_log.group(), usable = std::move(usable),
                        done = std::move(done)](absl::Status leads) mutable {
    if (leads.ok()) return done(std::move(usable));
    node->Close(group, [leads = std::move(leads), done = std::move(done)](const absl::Status&) mutable {
      done(std::move(leads));
    });
  });
}

}  // namespace

void RaftLogFactory::Open(ReplicaSpec spec, Executor& shard, Callback<Opened> done) {
  const auto at = std::find(shards_.begin(), shards_.end(), &shard);
  SLUICE_CHECK(at != shards_.end()) << "replica " << spec.replica << " on an executor that is no shard";
  replication::GroupSpec group{.group = spec.replica,
                               .shard = static_cast<size_t>(at - shards_.begin()),
                               .log = {},
                               .incarnation = spec.incarnation,
                               .initial = std::move(spec.members),
                               .alone = spec.incarnation.IsNil(),
                               .never_before = spec.never_before,
                               .feeds_state = spec.feeds_state};
  Apply(spec.settings, &group.log);
  if (group.alone) {
    const uint64_t high = random_.Next();
    group.incarnation = Uuid::FromRandom(high, random_.Next());
  }
  node_->Open(std::move(group), [node = node_, done = std::move(done)](
                                    absl::StatusOr<std::shared_ptr<replication::RaftLog>> log) mutable {
    if (!log.ok()) return done(log.status());
    AnswerWhenUsable(std::move(node), *std::move(log), std::move(done));
  });
}

void RaftLogFactory::LeaveLeadership(absl::Duration within, Executor& executor, Callback<absl::Status> done) {
  node_->LeaveLeadership(within, [&executor, done = std::move(done)](absl::Status left) mutable {
    executor.Post([left = std::move(left), done = std::move(done)]() mutable { done(std::move(left)); });
  });
}

void RaftLogFactory::Drop(const ReplicaId& replica, Executor& executor, Callback<absl::Status> done) {
  node_->Remove(replica, [&executor, done = std::move(done)](absl::Status dropped) mutable {
    executor.Post([dropped = std::move(dropped), done = std::move(done)]() mutable { done(std::move(dropped)); });
  });
}

}  // namespace sluice::broker
