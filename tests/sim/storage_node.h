// A node's storage in the simulator: a LogStore on a simulated disk that can lose power in the middle of any call.
#pragma once

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/record/record.h"
#include "storage/log_store.h"
#include "tests/simulation/sim_executor.h"
#include "tests/simulation/sim_file_system.h"

namespace sluice::simulation {

class StorageNode {
 public:
  explicit StorageNode(uint64_t seed) : scheduler(seed), fs(seed), clock(scheduler), random(seed) {
    options.data_dir = "data";
    options.journal.file_bytes = 64 << 10;
    options.journal.total_bytes_max = 1 << 20;
    options.cache_bytes = 4 << 20;
    options.disk_low_watermark_bytes = 0;
    options.disk_high_watermark_bytes = 0;
    options.checkpoint_interval = absl::Hours(1);
    log_options.segment_bytes = 8 << 10;
    log_options.index_interval_bytes = 1 << 10;
    log_options.write_bytes = 2 << 10;
  }
  ~StorageNode() { Kill(); }

  absl::Status Open() {
    shard = std::make_unique<SimExecutor>(scheduler);
    home = std::make_unique<SimExecutor>(scheduler);
    journal_io = std::make_unique<SimBlockingExecutor>(scheduler);
    segment_io = std::make_unique<SimBlockingExecutor>(scheduler);
    cold_reads = std::make_unique<SimBlockingExecutor>(scheduler, SimBlockingExecutor::Order::kAny);
    storage::LogStoreOptions opened = options;
    opened.journal.random = &random;
    opened.journal.timers = home.get();
    opened.journal.on_fatal = [this](const absl::Status& status) { fatal = status; };
    auto result = storage::LogStore::Open(fs, clock,
                                          {.home = home.get(),
                                           .journal_io = journal_io.get(),
                                           .segment_io = segment_io.get(),
                                           .cold_reads = cold_reads.get()},
                                          opened);
    if (!result.ok()) return result.status();
    store = *std::move(result);
    return absl::OkStatus();
  }

  /// The process dies; the disk keeps what it has, synced or not.
  void Kill() {
    scheduler.Clear();
    if (store != nullptr) store->Abandon();
    store.reset();
    shard.reset();
    home.reset();
    journal_io.reset();
    segment_io.reset();
    cold_reads.reset();
    scheduler.Clear();
    fatal = absl::OkStatus();
  }
  /// The power goes too.
  void Crash() {
    Kill();
    fs.Crash();
  }

  /// Steps until `done()` or the disk stops; false when nothing is left to do before that.
  template <class Done>
  bool RunUntil(Done done) {
    for (int i = 0; i < 2'000'000; ++i) {
      if (done()) return true;
      if (fs.crashed() || !scheduler.Step()) return done();
    }
    return false;
  }
  /// The answer of an asynchronous call.
  template <class T, class Call>
  T Await(Call call) {
    auto answer = std::make_shared<std::optional<T>>();
    call([answer](T value) { answer->emplace(std::move(value)); });
    SLUICE_CHECK(!answer->has_value()) << "the callback ran inside the call";
    if (!RunUntil([&] { return answer->has_value(); })) return T(absl::DeadlineExceededError("no answer"));
    return **answer;
  }
  absl::Status Do(absl::AnyInvocable<void(storage::LogStore::Done)> call) {
    return Await<absl::Status>([&](auto done) { call(std::move(done)); });
  }

  absl::Status Create(ReplicaId replica) {
    return Do([&](auto done) { store->Create(replica, Incarnation(), std::move(done)); });
  }
  std::shared_ptr<storage::Log> Attach(ReplicaId replica) {
    auto log = store->Attach(replica, *shard, log_options);
    SLUICE_CHECK(log.ok()) << std::string(log.status().message());
    return *log;
  }
  /// Every batch from the log's start to its end.
  absl::StatusOr<std::vector<record::Batch>> ReadAll(storage::Log& log, int64_t bytes_max = 4 << 10) {
    using Result = absl::StatusOr<std::vector<record::Batch>>;
    std::vector<record::Batch> all;
    for (Offset at = log.log_start(); at < log.log_end();) {
      Result got = Await<Result>([&](auto done) { log.Read(at, log.log_end(), bytes_max, std::move(done)); });
      if (!got.ok()) return got.status();
      if (got->empty()) return absl::InternalError("a read below the log's end returned nothing");
      for (record::Batch& batch : *got) all.push_back(std::move(batch));
      at = all.back().next_offset();
    }
    return all;
  }

  static Uuid Incarnation() { return Uuid::FromRandom(1, 2); }
  static ReplicaId Replica(int32_t partition = 0) { return {Uuid::FromRandom(3, 4), PartitionId(partition)}; }

  SimScheduler scheduler;
  SimFileSystem fs;
  SimClock clock;
  SimRandom random;
  storage::LogStoreOptions options;
  storage::LogOptions log_options;
  std::unique_ptr<SimExecutor> shard;
  std::unique_ptr<SimExecutor> home;
  std::unique_ptr<SimBlockingExecutor> journal_io;
  std::unique_ptr<SimBlockingExecutor> segment_io;
  std::unique_ptr<SimBlockingExecutor> cold_reads;
  std::shared_ptr<storage::LogStore> store;
  absl::Status fatal;
};

/// A batch of `records` records whose values begin with `text` and are `bytes` long.
inline record::PendingBatch MakeBatch(const std::string& text, int records = 1, size_t bytes = 20,
                                      int64_t timestamp_ms = 1000) {
  record::BatchBuilder builder;
  for (int i = 0; i < records; ++i) {
    std::string value = text + ":" + std::to_string(i);
    if (value.size() < bytes) value.resize(bytes, '.');
    const absl::Status status = builder.Append(timestamp_ms + i, std::nullopt, value);
    SLUICE_CHECK(status.ok()) << std::string(status.message());
  }
  auto built = builder.Build();
  SLUICE_CHECK(built.ok()) << std::string(built.status().message());
  return *std::move(built);
}

/// The same in memory that begins where the log guesses that the batch will begin in its file, as a producer's does.
inline record::PendingBatch InPlace(record::PendingBatch batch, storage::AppendPlace& guess) {
  MutableBytes bytes(batch.size_bytes(), guess.Next(batch.size_bytes()));
  std::memcpy(bytes.data(), batch.bytes().data(), bytes.size());
  return record::PendingBatch::FromBuilder(std::move(bytes));
}

}  // namespace sluice::simulation
