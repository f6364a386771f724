// A journal on the simulated file system, with a model beside it: what tests of the journal speak in.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/crc32c.h"
#include "storage/journal.h"
#include "storage/journal_replay.h"
#include "tests/simulation/sim_executor.h"
#include "tests/simulation/sim_file_system.h"

namespace sluice::simulation {

/// What the segment files of all replicas would hold, made from records alone.
class SegmentModel {
 public:
  using Key = std::pair<ReplicaId, storage::SegmentId>;

  void Apply(const storage::JournalRecord& record, const storage::JournalState& before) {
    const auto* append = std::get_if<storage::AppendRecord>(&record);
    if (append == nullptr) return;
    std::string& file = files_[{append->replica, append->segment}];
    if (append->position == 0 && before.Find(append->replica)->Find(append->segment) == nullptr) file.clear();
    const auto end = static_cast<size_t>(append->position) + append->bytes.size();
    if (file.size() < end) file.resize(end);
    std::copy(append->bytes.view().begin(), append->bytes.view().end(), file.begin() + append->position);
  }
  std::string Range(const Key& key, int64_t begin, int64_t end) const {
    auto at = files_.find(key);
    if (at == files_.end()) return "";
    return at->second.substr(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  }

 private:
  std::map<Key, std::string> files_;
};

/// Keeps what replay passes on.
class CollectingVisitor final : public storage::ReplayVisitor {
 public:
  absl::Status OnState(const storage::JournalState& state) override {
    state_ = state;
    return absl::OkStatus();
  }
  absl::Status OnAppend(const storage::AppendRecord& append) override {
    if (Crc32c(append.bytes.view()) != append.crc32c) return absl::InternalError("visitor got a wrong checksum");
    model_.Apply(append, state_);
    reached_[{append.replica, append.segment}] = append.position + static_cast<int64_t>(append.bytes.size());
    return absl::OkStatus();
  }
  const SegmentModel& model() const { return model_; }

  /// Empty when all bytes beyond the checkpoints were passed on and equal `expected`; else what is wrong.
  std::string Compare(const SegmentModel& expected) const {
    for (const auto& [id, replica] : state_.replicas()) {
      for (const auto& segment : replica.segments) {
        int64_t from = 0;
        if (segment.id < replica.checkpoint.segment) continue;
        if (segment.id == replica.checkpoint.segment) from = replica.checkpoint.position;
        if (from >= segment.end_position) continue;
        const SegmentModel::Key key{id, segment.id};
        auto reached = reached_.find(key);
        if (reached == reached_.end() || reached->second != segment.end_position) {
          return "replay stops short in " + segment.id.ToString();
        }
        if (model_.Range(key, from, segment.end_position) != expected.Range(key, from, segment.end_position)) {
          return "replay brings other bytes in " + segment.id.ToString();
        }
      }
    }
    return "";
  }

 private:
  storage::JournalState state_;
  SegmentModel model_;
  std::map<SegmentModel::Key, int64_t> reached_;
};

/// A process with a journal. Kill() ends the process; the disk is the caller's.
class JournalRig {
 public:
  explicit JournalRig(SimFileSystem& fs, uint64_t seed = 1)
      : fs_(fs), scheduler(seed), clock(scheduler), random(seed + 1) {
    // The data folder is made by whoever starts the node.
    SLUICE_CHECK(fs.CreateDirs("data").ok() && fs.SyncDir(".").ok()) << "no data folder";
  }

  static Uuid Disk() { return Uuid::FromRandom(7, 7); }

  /// OK, or why the journal does not open. `files` bytes each.
  absl::Status Open(int64_t file_bytes = 32768, int64_t total_bytes_max = 1 << 20) {
    io = std::make_unique<SimBlockingExecutor>(scheduler);
    prepare = std::make_unique<SimBlockingExecutor>(scheduler);
    prepare->SetLatency(prepare_latency, prepare_latency);
    shard = std::make_unique<SimExecutor>(scheduler);
    visitor = {};
    fatal = absl::OkStatus();
    storage::JournalOptions options;
    options.dir = "data/journal";
    options.file_bytes = file_bytes;
    options.total_bytes_max = total_bytes_max;
    options.disk = Disk();
    options.random = &random;
    options.timers = shard.get();
    options.lags = lags;
    if (prepares) options.prepare_io = prepare.get();
    options.on_fatal = [this](absl::Status status) {
      fatal = std::move(status);
      ++fatal_calls;
    };
    auto opened = storage::Journal::Open(fs_, options, *io, clock, visitor);
    if (!opened.ok()) return opened.status();
    journal = std::move(opened->journal);
    state = std::move(opened->state);
    tail = std::move(opened->tail);
    return absl::OkStatus();
  }

  /// Submits one entry; `result` gets its outcome.
  void Submit(std::vector<storage::JournalRecord> records, std::function<void(absl::Status)> result) {
    storage::Journal::Entry entry;
    for (auto& record : records) entry.records.push_back(std::move(record));
    entry.done = [result = std::move(result)](absl::Status status) { result(std::move(status)); };
    journal->Submit(std::move(entry));
  }

  /// Submits and waits.
  absl::Status Write(storage::JournalRecord record) {
    std::optional<absl::Status> outcome;
    Submit({std::move(record)}, [&](absl::Status status) { outcome = std::move(status); });
    scheduler.RunUntilIdle();
    return outcome.value_or(absl::UnknownError("no answer"));
  }

  void Stop() {
    bool stopped = false;
    journal->Stop([&] { stopped = true; });
    scheduler.RunUntilIdle();
    SLUICE_CHECK(stopped) << "the journal did not stop";
    Kill();
  }

  void Kill() {
    scheduler.Clear();
    journal = nullptr;
    io = nullptr;
    prepare = nullptr;
    shard = nullptr;
  }

 private:
  SimFileSystem& fs_;

 public:
  SimScheduler scheduler;
  SimClock clock;
  SimRandom random;
  std::unique_ptr<SimBlockingExecutor> io;
  std::unique_ptr<SimBlockingExecutor> prepare;
  bool prepares = false;  // files are made ahead, on `prepare`
  std::function<bool()> lags;
  absl::Duration prepare_latency = absl::Microseconds(100);
  std::unique_ptr<SimExecutor> shard;
  CollectingVisitor visitor;
  std::shared_ptr<storage::Journal> journal;
  storage::JournalState state;  // as opened
  storage::JournalTail tail;
  absl::Status fatal;
  int fatal_calls = 0;
};

inline ReplicaId TestReplica(int32_t n) {
  return {Uuid::FromRandom(1, 2), PartitionId(n)};
}

/// An append of `size` bytes, one offset each 100 of them, that fits behind what `state` holds; `roll` opens a new
/// segment.
inline storage::AppendRecord NextAppend(const storage::JournalState& state, const ReplicaId& id, size_t size, bool roll,
                                        int32_t epoch, uint64_t salt) {
  const storage::ReplicaState& replica = *state.Find(id);
  storage::AppendRecord append;
  append.replica = id;
  const bool open = !replica.segments.empty() && !replica.segments.back().closed;
  if (open && !roll) {
    append.segment = replica.segments.back().id;
    append.position = replica.segments.back().end_position;
  } else {
    append.segment = {replica.next_offset, LeaderEpoch(epoch)};
  }
  SimRandom random(salt);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random.Next());
  append.bytes = Bytes::Copy(bytes);  // not Adopt: where a string lies differs from run to run
  append.crc32c = Crc32c(append.bytes.view());
  append.next_offset = replica.next_offset + static_cast<int64_t>(1 + size / 100);
  append.max_timestamp_ms = static_cast<int64_t>(salt);
  return append;
}

}  // namespace sluice::simulation
