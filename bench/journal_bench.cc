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
#include <thread>
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
constexpr int64_t kRushBytes = 256 << 10;  // an append of a rush
constexpr int kRushUnanswered = 16;
constexpr int64_t kRushBehindMax = 48;  // appends that the segment may lag
constexpr int64_t kRushFileBytes = 256 << 20;

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

// One producer and the segment behind it. Answers come from the journal's threads.
class RushState {
 public:
  /// Waits until one more may be submitted; false after an error.
  bool AwaitRoom() {
    std::unique_lock<std::mutex> lock(mutex_);
    moved_.wait(lock, [this] {
      return !status_.ok() || (submitted_ - durable_ < kRushUnanswered && durable_ - written_ < kRushBehindMax);
    });
    if (status_.ok()) ++submitted_;
    return status_.ok();
  }
  void Take(const absl::Status& status) { Move(status, &durable_, 1); }
  void Written(const absl::Status& status, int64_t appends) { Move(status, &written_, appends); }
  /// How many appends may be written to the segment; 0 at the end.
  int64_t AwaitDurable() {
    std::unique_lock<std::mutex> lock(mutex_);
    moved_.wait(lock, [this] { return !status_.ok() || durable_ > written_ || (ended_ && written_ == submitted_); });
    return status_.ok() ? durable_ - written_ : 0;
  }
  /// Appends in all.
  int64_t End() {
    std::unique_lock<std::mutex> lock(mutex_);
    moved_.wait(lock, [this] { return !status_.ok() || durable_ == submitted_; });
    ended_ = true;
    moved_.notify_all();
    return submitted_;
  }
  const absl::Status& status() const { return status_; }

 private:
  void Move(const absl::Status& status, int64_t* count, int64_t by) {
    const std::lock_guard<std::mutex> lock(mutex_);
    status_.Update(status);
    *count += by;
    moved_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable moved_;
  int64_t submitted_ = 0;
  int64_t durable_ = 0;
  int64_t written_ = 0;
  bool ended_ = false;
  absl::Status status_;
};

void WriteRushSegments(const std::string& dir, std::string_view append, RushState& rush) {
  runtime::PosixFileSystem fs;
  const std::string path = dir + "/segment";
  std::unique_ptr<File> file;
  int64_t position = 0;
  const auto write = [&](int64_t appends) -> absl::Status {
    if (file == nullptr || position >= kRushFileBytes) {
      file = nullptr;
      fs.Remove(path).IgnoreError();
      SLUICE_ASSIGN_OR_RETURN(file, fs.Open(path, {.mode = OpenOptions::Mode::kCreateNew, .direct = true}));
      position = 0;
    }
    const std::vector<std::string_view> parts(static_cast<size_t>(appends), append);
    SLUICE_RETURN_IF_ERROR(file->WritePartsAt(position, parts));
    position += appends * kRushBytes;
    return absl::OkStatus();
  };
  for (int64_t appends = rush.AwaitDurable(); appends > 0; appends = rush.AwaitDurable()) {
    appends = std::min<int64_t>(appends, 4);
    rush.Written(write(appends), appends);
  }
}

absl::StatusOr<double> Rush(const std::string& dir, absl::Duration each) {
  using Now = std::chrono::steady_clock;
  runtime::PosixFileSystem fs;
  SteadyClock clock;
  SeededRandom random;
  NothingToReplay visitor;
  runtime::BlockingThreads io(1, "journal"), prepare_io(1, "prepare");
  storage::JournalOptions options;
  options.dir = dir + "/journal";
  options.group_bytes_max = 2 << 20;
  options.random = &random;
  options.prepare_io = &prepare_io;
  SLUICE_ASSIGN_OR_RETURN(auto opened, storage::Journal::Open(fs, options, io, clock, visitor));
  storage::Journal& journal = *opened.journal;
  MutableBytes memory(kRushBytes);
  for (int64_t i = 0; i < kRushBytes; ++i) memory.data()[i] = static_cast<char>(random.Next());
  const Bytes bytes = std::move(memory).Freeze();
  const uint32_t crc32c = Crc32c(bytes.view());
  const storage::SegmentId segment{Offset(0), LeaderEpoch(1)};
  RushState rush;
  const auto submit = [&](storage::JournalRecord record, bool counts) {
    storage::Journal::Entry entry;
    entry.records.push_back(std::move(record));
    if (counts) entry.done = [&rush](absl::Status status) { rush.Take(status); };
    journal.Submit(std::move(entry));
  };
  submit(storage::CreateRecord{Partition(0), Uuid::FromRandom(2, 2)}, false);
  std::thread segments([&] { WriteRushSegments(dir, bytes.view(), rush); });
  const auto begin = Now::now();
  const auto end = begin + absl::ToChronoNanoseconds(each);
  int64_t position = 0;
  for (int64_t i = 0; Now::now() < end && rush.AwaitRoom(); ++i) {
    submit(storage::AppendRecord{Partition(0), segment, position, bytes, crc32c, Offset(i + 1), 0}, true);
    position += kRushBytes;
    // Stands for the checkpointer, so that files are recycled; it would sync segments beside this.
    if (i % 32 == 31) submit(storage::CheckpointRecord{Partition(0), segment, position}, false);
  }
  const int64_t appends = rush.End();
  const double seconds = std::chrono::duration<double>(Now::now() - begin).count();
  segments.join();
  Answers answers;
  answers.Expect(1);
  journal.Stop([&answers] { answers.Take(absl::OkStatus()); });
  SLUICE_RETURN_IF_ERROR(answers.Wait());
  SLUICE_RETURN_IF_ERROR(rush.status());
  return static_cast<double>(appends * kRushBytes) / 1e6 / seconds;
}

}  // namespace

absl::StatusOr<double> MeasureJournalRush(const std::string& dir, absl::Duration each) {
  const std::string own = dir + "/journal-bench";
  std::error_code ignored;
  std::filesystem::remove_all(own, ignored);
  auto result = Rush(own, each);
  std::filesystem::remove_all(own, ignored);
  return result;
}

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
  const auto rate = MeasureJournalRush(dir, each);
  if (!rate.ok()) {
    out << "journal: " << std::string(rate.status().message()) << "\n";
    return;
  }
  std::snprintf(line, sizeof line, "%-64s %8.0f MB/s\n",
                "256 KiB appends, 16 unanswered, and a segment behind the journal", *rate);
  out << line;
}

}  // namespace sluice::bench
