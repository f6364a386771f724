#include "broker/log_store_factory.h"

#include <utility>

#include "replication/single_replica_log.h"

namespace sluice::broker {
namespace {

void Apply(const LogSettings& settings, storage::LogOptions* options) {
  options->segment_bytes = settings.segment_bytes;
  options->segment_age = settings.segment_age;
}

class StoredPartitionLog final : public PartitionLog {
 public:
  StoredPartitionLog(std::shared_ptr<replication::SingleReplicaLog> log, Executor& shard)
      : log_(std::move(log)), shard_(shard) {}

  replication::ReplicatedLog& log() override { return *log_; }

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
    log_->Stop();
    // Behind the answers that Stop has posted.
    shard_.Post(std::move(done));
  }

 private:
  const std::shared_ptr<replication::SingleReplicaLog> log_;
  Executor& shard_;
};

/// On the shard: the stored log begins to lead and becomes the broker's.
void Lead(std::shared_ptr<storage::Log> log, NodeId node, Clock& clock, Executor& shard,
          Callback<absl::StatusOr<std::unique_ptr<PartitionLog>>> done) {
  using Opened = absl::StatusOr<std::shared_ptr<replication::SingleReplicaLog>>;
  replication::SingleReplicaLog::Open(std::move(log), node, clock,
                                      [&shard, done = std::move(done)](Opened opened) mutable {
                                        if (!opened.ok()) return done(opened.status());
                                        done(std::make_unique<StoredPartitionLog>(*std::move(opened), shard));
                                      });
}

}  // namespace

void LogStoreFactory::Open(const ReplicaId& replica, Executor& shard, const LogSettings& settings,
                           Callback<absl::StatusOr<std::unique_ptr<PartitionLog>>> done) {
  storage::LogOptions options;
  Apply(settings, &options);
  auto attach = [store = store_, node = node_, &clock = clock_, replica, options, &shard,
                 done = std::move(done)](absl::Status there) mutable {
    shard.Post([store = std::move(store), node, &clock, replica, options, &shard, there = std::move(there),
                done = std::move(done)]() mutable {
      if (!there.ok()) return done(there);
      // Attached already where an earlier opening got that far and failed behind it.
      std::shared_ptr<storage::Log> log = store->Find(replica);
      if (log == nullptr) {
        auto attached = store->Attach(replica, shard, options);
        if (!attached.ok()) return done(attached.status());
        log = *std::move(attached);
      }
      Lead(std::move(log), node, clock, shard, std::move(done));
    });
  };
  if (store_->Has(replica)) return attach(absl::OkStatus());
  const uint64_t high = random_.Next();
  store_->Create(replica, Uuid::FromRandom(high, random_.Next()), std::move(attach));
}

void LogStoreFactory::Drop(const ReplicaId& replica, Executor& executor, Callback<absl::Status> done) {
  store_->Drop(replica, [&executor, done = std::move(done)](absl::Status dropped) mutable {
    executor.Post([dropped = std::move(dropped), done = std::move(done)]() mutable { done(std::move(dropped)); });
  });
}

}  // namespace sluice::broker
