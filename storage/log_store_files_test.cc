// The log store on real files and threads: several logs at once, direct writes, reads from the page cache behind them.
#include <catch2/catch.hpp>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <optional>
#include <utility>

#include "common/check.h"
#include "common/record/record.h"
#include "runtime/blocking_threads.h"
#include "runtime/posix_file_system.h"
#include "runtime/system.h"
#include "runtime/thread_executor.h"
#include "storage/log_store.h"

namespace sluice::storage {
namespace {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "sluice-store-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path = pattern;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  std::string path;
};

/// A store with its threads; destroying it without Stop is what kill -9 leaves, as far as a process can do that to
/// itself.
struct RealNode {
  explicit RealNode(const std::string& dir) {
    LogStoreOptions options;
    options.data_dir = dir;
    options.journal.file_bytes = 1 << 20;
    options.journal.total_bytes_max = 16 << 20;
    options.journal.random = &random;
    options.journal.timers = &home;
    options.disk_low_watermark_bytes = 0;
    options.disk_high_watermark_bytes = 0;
    auto opened = LogStore::Open(
        fs, clock, {.home = &home, .journal_io = &journal_io, .segment_io = &segment_io, .cold_reads = &cold_reads},
        options);
    INFO(opened.status().ToString());
    REQUIRE(opened.ok());
    store = *std::move(opened);
  }
  void Stop() {
    std::promise<void> stopped;
    store->Stop([&](const absl::Status&) { stopped.set_value(); });
    stopped.get_future().wait();
  }
  ~RealNode() {
    home.Stop();
    shard.Stop();
    journal_io.Stop();
    segment_io.Stop();
    cold_reads.Stop();
  }

  runtime::PosixFileSystem fs;
  runtime::SystemClock clock;
  runtime::SystemRandom random;
  std::shared_ptr<LogStore> store;
  runtime::ThreadExecutor home{"home"};
  runtime::ThreadExecutor shard{"shard"};
  runtime::BlockingThreads journal_io{1, "journal"};
  runtime::BlockingThreads segment_io{1, "segments"};
  runtime::BlockingThreads cold_reads{2, "cold"};
};

record::PendingBatch Numbered(int number, size_t bytes) {
  record::BatchBuilder builder;
  std::string value = std::to_string(number);
  value.resize(bytes, 'x');
  // Runs on the shard's thread, where Catch's macros may not be used.
  SLUICE_CHECK(builder.Append(1000 + number, std::nullopt, value).ok());
  return *builder.Build();
}

/// Appends to one log, a few in flight, on its shard.
struct Feeder {
  Feeder(RealNode& on, std::shared_ptr<Log> to, int count) : node(on), log(std::move(to)), left(count) {}
  void Start() {
    node.shard.Post([this] {
      for (int i = 0; i < 8; ++i) Next();
    });
  }
  void Next() {
    if (left == 0) {
      if (in_flight == 0 && !std::exchange(done, true)) finished.set_value();
      return;
    }
    const size_t bytes = 100 + static_cast<size_t>(left * 37 % 9000);
    record::Batch batch = Numbered(left, bytes).Assign(log->log_end(), LeaderEpoch(1));
    ++in_flight;
    --left;
    log->Append({std::move(batch)}, [this](const absl::Status& status) {
      --in_flight;
      if (!status.ok()) {
        ++left;  // refused for want of room: again a little later
        node.shard.PostAfter(absl::Milliseconds(2), [this] { Next(); });
        return;
      }
      Next();
    });
  }
  RealNode& node;
  std::shared_ptr<Log> log;
  int left;
  int in_flight = 0;
  bool done = false;
  std::promise<void> finished;
};

/// Reads a log whole on its shard; the number of batches, or the error.
absl::StatusOr<int64_t> CountBatches(RealNode& node, const std::shared_ptr<Log>& log) {
  auto result = std::make_shared<std::promise<absl::StatusOr<int64_t>>>();
  struct Reader : std::enable_shared_from_this<Reader> {
    std::shared_ptr<Log> log;
    std::shared_ptr<std::promise<absl::StatusOr<int64_t>>> result;
    Offset at;
    int64_t batches = 0;
    void Next() {
      if (at == log->log_end()) return result->set_value(batches);
      log->Read(at, log->log_end(), 64 << 10,
                [self = shared_from_this()](absl::StatusOr<std::vector<record::Batch>> got) {
                  if (!got.ok()) return self->result->set_value(got.status());
                  self->batches += static_cast<int64_t>(got->size());
                  self->at = got->back().next_offset();
                  self->Next();
                });
    }
  };
  auto reader = std::make_shared<Reader>();
  reader->log = log;
  reader->result = result;
  node.shard.Post([reader] { reader->Next(); });
  return result->get_future().get();
}

TEST_CASE("several logs on real files and threads keep everything, while they are written and after a restart") {
  constexpr int kLogs = 4;
  constexpr int kBatches = 1500;
  const TemporaryFolder folder;
  const auto replica = [](int i) { return ReplicaId{Uuid::FromRandom(1, 2), PartitionId(i)}; };
  LogOptions options;
  options.segment_bytes = 1 << 20;
  for (const bool clean : {true, false}) {
    RealNode node(folder.path + (clean ? "/clean" : "/killed"));
    std::vector<std::unique_ptr<Feeder>> feeders;
    for (int i = 0; i < kLogs; ++i) {
      std::promise<absl::Status> created;
      node.store->Create(replica(i), Uuid::FromRandom(5, 6), [&](absl::Status s) { created.set_value(std::move(s)); });
      REQUIRE(created.get_future().get().ok());
      auto log = node.store->Attach(replica(i), node.shard, options);
      REQUIRE(log.ok());
      feeders.push_back(std::make_unique<Feeder>(node, *log, kBatches));
    }
    for (auto& feeder : feeders) feeder->Start();
    // Reads run beside the writes.
    for (auto& feeder : feeders) REQUIRE(CountBatches(node, feeder->log).ok());
    for (auto& feeder : feeders) feeder->finished.get_future().wait();
    for (auto& feeder : feeders) {
      auto batches = CountBatches(node, feeder->log);
      INFO(batches.status().ToString());
      REQUIRE(batches.ok());
      CHECK(*batches == kBatches);
    }
    if (clean) node.Stop();
  }
  for (const char* which : {"/clean", "/killed"}) {
    RealNode node(folder.path + which);
    REQUIRE(node.store->Replicas().size() == kLogs);
    for (int i = 0; i < kLogs; ++i) {
      auto log = node.store->Attach(replica(i), node.shard, options);
      REQUIRE(log.ok());
      auto batches = CountBatches(node, *log);
      INFO(batches.status().ToString());
      REQUIRE(batches.ok());
      CHECK(*batches == kBatches);
      std::promise<absl::Status> scrubbed;
      node.shard.Post([&] { (*log)->Scrub([&](absl::Status s) { scrubbed.set_value(std::move(s)); }); });
      CHECK(scrubbed.get_future().get().ok());
    }
    node.Stop();
  }
}

// Not a check but a measurement: log_store_files_test "[measure]".
TEST_CASE("how long a store of ten thousand logs takes to make and to open", "[.][measure]") {
  constexpr int kLogs = 10'000;
  const TemporaryFolder folder;
  const auto replica = [](int i) { return ReplicaId{Uuid::FromRandom(1, 2), PartitionId(i)}; };
  const runtime::SystemClock clock;
  auto tell = [&, last = clock.Monotonic()](const char* what) mutable {
    const absl::Duration now = clock.Monotonic();
    WARN(what << ": " << absl::FormatDuration(now - last));
    last = now;
  };
  for (const bool first : {true, false}) {
    RealNode node(folder.path);
    tell("open");
    std::promise<void> written;
    std::atomic<int> left = kLogs;
    for (int i = 0; i < kLogs; ++i) {
      auto append = [&node, &left, &written, i, replica](const absl::Status& status) {
        SLUICE_CHECK(status.ok());
        SLUICE_CHECK(node.store->Has(replica(i)));
        auto log = node.store->Attach(replica(i), node.shard, {});
        node.shard.Post([&left, &written, i, log = *log] {
          log->Append({Numbered(i, 200).Assign(log->log_end(), log->last_epoch() + 1)}, [&](const absl::Status& done) {
            SLUICE_CHECK(done.ok()) << std::string(done.message());
            if (--left == 0) written.set_value();
          });
        });
      };
      if (first) {
        node.store->Create(replica(i), Uuid::FromRandom(5, 6), std::move(append));
      } else {
        append(absl::OkStatus());
      }
    }
    written.get_future().wait();
    tell(first ? "create, attach and append to each" : "attach and append to each");
    node.Stop();
    tell("stop");
  }
}

}  // namespace
}  // namespace sluice::storage
