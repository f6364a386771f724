#include "bench/journal_bench.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/crc32c.h"
#include "common/status_macros.h"
#include "runtime/blocking_threads.h"
#include "runtime/posix_file_system.h"
#include "storage/journal.h"

namespace sluice::bench {

namespace {

constexpr size_t kAppendBytes = 1024;

class SteadyClock final : public Clock {
 public:
  absl::Duration Monotonic() const override {
    return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
  }
  absl::Time Wall() const override { return absl::FromChrono(std::chrono::system_clock::now()); }
};

class SeededRandom final : public Random {
 public:
  uint64_t Next() override { return engine_(); }

 private:
  std::mt19937_64 engine_{std::random_device()()};
};

class NothingToReplay final : public storage::ReplayVisitor {
 public:
  absl::Status OnState(const storage::JournalState&) override { return absl::OkStatus(); }
  absl::Status OnAppend(const storage::AppendRecord&) override { return absl::OkStatus(); }
};

// Waits until a number of answers has come, and keeps the first error.
class Answers {
 public:
  void Expect(int count) {
    const std::lock_guard<std::mutex> lock(mutex_);
    left_ = count;
  }
  void Take(const absl::Status& status) {
    const std::lock_guard<std::mutex> lock(mutex_);
    status_.Update(status);
    if (--left_ == 0) all_.notify_one();
  }
  absl::Status Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    all_.wait(lock, [this] { return left_ <= 0; });
    return status_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable all_;
  int left_ = 0;
  absl::Status status_;
};

ReplicaId Partition(int n) {
  return {Uuid::FromRandom(1, 1), PartitionId(n)};
}

// One segment file a partition, opened for appending.
struct Segments {
  absl::Status Open(FileSystem& fs, const std::string& dir, int count) {
    SLUICE_RETURN_IF_ERROR(fs.CreateDirs(dir));
    for (int i = 0; i < count; ++i) {
      SLUICE_ASSIGN_OR_RETURN(auto file, fs.Open(absl::StrCat(dir, "/", i), {.mode = OpenOptions::Mode::kCreateNew}));
      files.push_back(std::move(file));
    }
    return absl::OkStatus();
  }
  absl::Status WriteToEach(std::string_view bytes, bool sync) {
    for (auto& file : files) {
      SLUICE_RETURN_IF_ERROR(file->WriteAt(position, bytes));
      if (sync) SLUICE_RETURN_IF_ERROR(file->Sync());
    }
    position += static_cast<int64_t>(bytes.size());
    return absl::OkStatus();
  }
  std::vector<std::unique_ptr<File>> files;
  int64_t position = 0;
};

absl::StatusOr<JournalMeasurement> TimeRounds(const std::string& name, int partitions, absl::Duration each,
                                              const std::function<absl::Status()>& round) {
  using Now = std::chrono::steady_clock;
  std::vector<double> milliseconds;
  const auto start = Now::now();
  const auto end = start + absl::ToChronoNanoseconds(each);
  SLUICE_RETURN_IF_ERROR(round());  // files and memory are touched once before it counts
  const auto first = Now::now();
  auto last = first;
  while (last < end || milliseconds.size() < 3) {
    SLUICE_RETURN_IF_ERROR(round());
    const auto now = Now::now();
    milliseconds.push_back(std::chrono::duration<double, std::milli>(now - last).count());
    last = now;
  }
  const double seconds = std::chrono::duration<double>(last - first).count();
  const auto rounds = static_cast<double>(milliseconds.size());
  std::sort(milliseconds.begin(), milliseconds.end());
  JournalMeasurement result;
  result.name = name;
  result.partitions = partitions;
  result.appends_per_second = rounds * partitions / seconds;
  result.round_milliseconds_p50 = milliseconds[milliseconds.size() / 2];
  result.round_milliseconds_p99 = milliseconds[milliseconds.size() * 99 / 100];
  return result;
}

absl::StatusOr<JournalMeasurement> ThroughTheJournal(const std::string& dir, int partitions, absl::Duration each) {
  runtime::PosixFileSystem fs;
  SteadyClock clock;
  SeededRandom random;
  NothingToReplay visitor;
  storage::JournalOptions options;
  options.dir = dir + "/journal";
  options.random = &random;
  runtime::BlockingThreads io(1, "journal");
  SLUICE_ASSIGN_OR_RETURN(auto opened, storage::Journal::Open(fs, options, io, clock, visitor));
  storage::Journal& journal = *opened.journal;
  Segments segments;
  SLUICE_RETURN_IF_ERROR(segments.Open(fs, dir + "/segments", partitions));
  Answers answers;
  const auto submit = [&](storage::JournalRecord record) {
    storage::Journal::Entry entry;
    entry.records.push_back(std::move(record));
    entry.done = [&answers](absl::Status status) { answers.Take(status); };
    journal.Submit(std::move(entry));
  };
  const auto in_each = [&](const std::function<storage::JournalRecord(const ReplicaId&)>& make) {
    answers.Expect(partitions);
    for (int i = 0; i < partitions; ++i) submit(make(Partition(i)));
    return answers.Wait();
  };
  SLUICE_RETURN_IF_ERROR(in_each([](const ReplicaId& id) {
    return storage::CreateRecord{id, Uuid::FromRandom(2, 2)};
  }));
  const Bytes bytes = Bytes::Adopt(std::string(kAppendBytes, 'x'));
  const uint32_t crc32c = Crc32c(bytes.view());
  const storage::SegmentId segment{Offset(0), LeaderEpoch(1)};
  int64_t rounds = 0;
  const auto round = [&]() -> absl::Status {
    SLUICE_RETURN_IF_ERROR(in_each([&](const ReplicaId& id) {
      return storage::AppendRecord{
          id, segment, segments.position, bytes, crc32c, Offset(rounds + 1), /*max_timestamp_ms=*/0};
    }));
    SLUICE_RETURN_IF_ERROR(segments.WriteToEach(bytes.view(), false));
    // Stands for the checkpointer, so that files are recycled; it would sync segments beside this.
    if (++rounds % 64 != 0) return absl::OkStatus();
    return in_each([&](const ReplicaId& id) { return storage::CheckpointRecord{id, segment, segments.position}; });
  };
  auto result = TimeRounds("one shared journal", partitions, each, round);
  const storage::JournalStats stats = journal.stats();
  if (result.ok()) result->appends_per_sync = static_cast<double>(stats.records) / static_cast<double>(stats.syncs);
  answers.Expect(1);
  journal.Stop([&answers] { answers.Take(absl::OkStatus()); });
  SLUICE_RETURN_IF_ERROR(answers.Wait());
  return result;
}

absl::StatusOr<JournalMeasurement> FileByFile(const std::string& dir, int partitions, absl::Duration each) {
  runtime::PosixFileSystem fs;
  Segments segments;
  SLUICE_RETURN_IF_ERROR(segments.Open(fs, dir + "/segments", partitions));
  const std::string bytes(kAppendBytes, 'x');
  auto result = TimeRounds("each file synced", partitions, each, [&] { return segments.WriteToEach(bytes, true); });
  if (result.ok()) result->appends_per_sync = 1;
  return result;
}

}  // namespace

absl::StatusOr<std::vector<JournalMeasurement>> MeasureJournal(const std::string& dir, absl::Duration each) {
  std::vector<JournalMeasurement> results;
  const std::string own = dir + "/journal-bench";
  for (const int partitions : {1, 100, 1000}) {
    for (const auto& measure : {ThroughTheJournal, FileByFile}) {
      std::error_code ignored;
      std::filesystem::remove_all(own, ignored);
      auto result = measure(own, partitions, each);
      std::filesystem::remove_all(own, ignored);
      if (!result.ok()) return result.status();
      results.push_back(*std::move(result));
    }
  }
  return results;
}

void PrintJournalBench(std::ostream& out, const std::string& dir, absl::Duration each) {
  const auto results = MeasureJournal(dir, each);
  if (!results.ok()) {
    out << "journal: " << std::string(results.status().message()) << "\n";
    return;
  }
  char line[128];
  std::snprintf(line, sizeof line, "%-40s %10s %12s %10s %10s %14s\n", "1 KiB synced in each partition", "partitions",
                "appends/s", "p50 ms", "p99 ms", "appends a sync");
  out << line;
  for (const JournalMeasurement& one : *results) {
    std::snprintf(line, sizeof line, "%-40s %10d %12.0f %10.2f %10.2f %14.1f\n", one.name.c_str(), one.partitions,
                  one.appends_per_second, one.round_milliseconds_p50, one.round_milliseconds_p99, one.appends_per_sync);
    out << line;
  }
}

}  // namespace sluice::bench
