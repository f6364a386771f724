#include "bench/disk_bench.h"

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <iomanip>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>

#include "common/file_system.h"
#include "common/status_macros.h"
#include "runtime/posix_file_system.h"
#include "storage/aligned_buffer.h"

namespace sluice::bench {
namespace {

using Now = std::chrono::steady_clock;

constexpr int64_t kGroupBytes = 1 << 20;
constexpr int64_t kPartBytes = 256 << 10;      // a batch
constexpr int64_t kJournalBytes = 64 << 20;    // written over and over
constexpr int64_t kSegmentBytes = 256 << 20;   // then a new one
constexpr int64_t kBehindBytesMax = 12 << 20;  // the journal waits for the segment
constexpr int kUnsyncedMax = 2;

class Disk {
 public:
  explicit Disk(std::string dir) : dir_(std::move(dir)), memory_(kGroupBytes) {
    uint32_t state = 1;
    for (int64_t i = 0; i < kGroupBytes; ++i) {
      memory_.data()[i] = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
    }
    for (size_t i = 0; i < parts_.size(); ++i) {
      parts_[i] = std::string_view(memory_.data() + i * kPartBytes, kPartBytes);
    }
  }

  absl::Status Prepare() {
    SLUICE_RETURN_IF_ERROR(fs_.CreateDirs(dir_));
    SLUICE_ASSIGN_OR_RETURN(journal_,
                            fs_.Open(dir_ + "/journal", {.mode = OpenOptions::Mode::kCreateNew, .direct = true}));
    SLUICE_RETURN_IF_ERROR(journal_->Allocate(kJournalBytes));
    for (int64_t at = 0; at < kJournalBytes; at += kGroupBytes)
      SLUICE_RETURN_IF_ERROR(journal_->WritePartsAt(at, parts_));
    SLUICE_RETURN_IF_ERROR(journal_->Sync());
    return NextSegment();
  }

  absl::Status WriteJournal() {
    SLUICE_RETURN_IF_ERROR(journal_->WritePartsAt(journal_at_, parts_));
    journal_at_ = (journal_at_ + kGroupBytes) % kJournalBytes;
    return absl::OkStatus();
  }
  absl::Status SyncJournal() { return journal_->Sync(); }
  absl::Status WriteSegment() {
    if (segment_at_ == kSegmentBytes) SLUICE_RETURN_IF_ERROR(NextSegment());
    SLUICE_RETURN_IF_ERROR(segment_->WritePartsAt(segment_at_, parts_));
    segment_at_ += kGroupBytes;
    return absl::OkStatus();
  }
  absl::Status SyncSegment() { return segment_->Sync(); }

 private:
  absl::Status NextSegment() {
    const std::string path = dir_ + "/segment";
    segment_ = nullptr;
    fs_.Remove(path).IgnoreError();
    segment_at_ = 0;
    SLUICE_ASSIGN_OR_RETURN(segment_, fs_.Open(path, {.mode = OpenOptions::Mode::kCreateNew, .direct = true}));
    return absl::OkStatus();
  }

  const std::string dir_;
  runtime::PosixFileSystem fs_;
  storage::AlignedBuffer memory_;
  std::array<std::string_view, kGroupBytes / kPartBytes> parts_;
  std::unique_ptr<File> journal_;
  std::unique_ptr<File> segment_;
  int64_t journal_at_ = 0;
  int64_t segment_at_ = 0;
};

// Groups that one thread after the other takes on, each waiting for what it may not overtake.
class Stages {
 public:
  /// Runs `work` until the time is over or something fails; before group n, `may(n)` must hold.
  template <class May, class Work>
  void Run(int64_t& done, May may, Work work) {
    while (true) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        moved_.wait(lock, [&] { return over_ || may(done); });
        if (over_) return;
      }
      const absl::Status status = work();
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!status.ok()) {
        failed_ = status;
        over_ = true;
      }
      ++done;
      moved_.notify_all();
    }
  }
  void End() {
    const std::lock_guard<std::mutex> lock(mutex_);
    over_ = true;
    moved_.notify_all();
  }
  const absl::Status& failed() const { return failed_; }

  // Groups that have gone so far.
  int64_t written = 0;
  int64_t synced = 0;
  int64_t in_segment = 0;

 private:
  std::mutex mutex_;  // guards the counts too
  std::condition_variable moved_;
  bool over_ = false;
  absl::Status failed_;
};

/// `threads` run until the time is over; millions of bytes a second of what `count` counts.
template <class Start>
absl::StatusOr<double> Timed(absl::Duration each, Stages& stages, const int64_t& count, Start start) {
  const auto begin = Now::now();
  std::vector<std::thread> threads = start();
  std::this_thread::sleep_for(absl::ToChronoNanoseconds(each));
  stages.End();
  for (std::thread& thread : threads) thread.join();
  const double seconds = std::chrono::duration<double>(Now::now() - begin).count();
  SLUICE_RETURN_IF_ERROR(stages.failed());
  return static_cast<double>(count) * static_cast<double>(kGroupBytes) / 1e6 / seconds;
}

/// Writes and syncs, on one thread or on two, and the segment behind it where asked for.
absl::StatusOr<double> ThroughTheJournal(Disk& disk, absl::Duration each, bool segment, bool overlapped) {
  Stages stages;
  const auto start = [&] {
    std::vector<std::thread> threads;
    const auto behind = [&](int64_t n) { return segment && (n - stages.in_segment) * kGroupBytes > kBehindBytesMax; };
    if (overlapped) {
      threads.emplace_back([&, behind] {
        stages.Run(
            stages.written, [&](int64_t n) { return n - stages.synced < kUnsyncedMax && !behind(n); },
            [&] { return disk.WriteJournal(); });
      });
      threads.emplace_back([&] {
        stages.Run(
            stages.synced, [&](int64_t n) { return n < stages.written; }, [&] { return disk.SyncJournal(); });
      });
    } else {
      threads.emplace_back([&, behind] {
        stages.Run(
            stages.synced, [&](int64_t n) { return !behind(n); },
            [&]() -> absl::Status {
              SLUICE_RETURN_IF_ERROR(disk.WriteJournal());
              return disk.SyncJournal();
            });
      });
    }
    if (segment) {
      threads.emplace_back([&] {
        stages.Run(
            stages.in_segment, [&](int64_t n) { return n < stages.synced; }, [&] { return disk.WriteSegment(); });
      });
    }
    return threads;
  };
  return Timed(each, stages, stages.synced, start);
}

absl::StatusOr<double> ThroughTheSegment(Disk& disk, absl::Duration each) {
  Stages stages;
  return Timed(each, stages, stages.synced, [&] {
    std::vector<std::thread> threads;
    threads.emplace_back([&] {
      stages.Run(
          stages.synced, [](int64_t) { return true; },
          [&]() -> absl::Status {
            SLUICE_RETURN_IF_ERROR(disk.WriteSegment());
            return disk.SyncSegment();
          });
    });
    return threads;
  });
}

absl::StatusOr<DiskMeasurement> Measure(const std::string& dir, absl::Duration each) {
  Disk disk(dir);
  SLUICE_RETURN_IF_ERROR(disk.Prepare());
  DiskMeasurement result;
  SLUICE_ASSIGN_OR_RETURN(result.journal_only, ThroughTheJournal(disk, each, false, false));
  SLUICE_ASSIGN_OR_RETURN(result.twice, ThroughTheJournal(disk, each, true, false));
  SLUICE_ASSIGN_OR_RETURN(result.twice_overlapped, ThroughTheJournal(disk, each, true, true));
  SLUICE_ASSIGN_OR_RETURN(result.once, ThroughTheSegment(disk, each));
  return result;
}

}  // namespace

absl::StatusOr<DiskMeasurement> MeasureDisk(const std::string& dir, absl::Duration each) {
  const std::string own = dir + "/disk-bench";
  std::error_code ignored;
  std::filesystem::remove_all(own, ignored);
  auto result = Measure(own, each);
  std::filesystem::remove_all(own, ignored);
  return result;
}

void PrintDiskBench(std::ostream& out, const std::string& dir, absl::Duration each) {
  const auto result = MeasureDisk(dir, each);
  if (!result.ok()) {
    out << "disk: " << result.status() << "\n";
    return;
  }
  out << "\nThe disk: direct writes of " << (kGroupBytes >> 20) << " MiB, MB/s of records\n" << std::fixed;
  const auto line = [&](const char* name, double rate) {
    out << "  " << std::left << std::setw(66) << name << std::right << std::setw(8) << std::setprecision(0) << rate
        << "\n";
  };
  line("prewritten journal, synced", result->journal_only);
  line("the same, and a growing segment beside it: each record twice", result->twice);
  line("the same, the next group written during a sync", result->twice_overlapped);
  line("growing segment alone, synced: each record once", result->once);
}

}  // namespace sluice::bench
