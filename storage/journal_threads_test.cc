// The journal on real files and threads, entries coming from several of them at once.
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/crc32c.h"
#include "runtime/blocking_threads.h"
#include "runtime/posix_file_system.h"
#include "storage/journal.h"
#include "tests/simulation/journal_rig.h"

namespace sluice::storage {

namespace {

class SteadyClock final : public Clock {
 public:
  absl::Duration Monotonic() const override {
    return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
  }
  absl::Time Wall() const override { return absl::UnixEpoch(); }
};

// Opens, gives the journal to `use`, stops it; the state it opened with.
template <class Use>
JournalState WithJournal(const std::string& dir, Use use) {
  runtime::PosixFileSystem fs;
  SteadyClock clock;
  simulation::SimRandom random(static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()));
  simulation::CollectingVisitor visitor;
  runtime::BlockingThreads io(1, "journal");
  JournalOptions options;
  options.dir = dir;
  options.file_bytes = 1 << 20;
  options.random = &random;
  auto opened = Journal::Open(fs, options, io, clock, visitor);
  REQUIRE(opened.status() == absl::OkStatus());
  use(*opened->journal);
  std::mutex mutex;
  std::condition_variable wake;
  bool stopped = false;
  opened->journal->Stop([&] {
    const std::lock_guard<std::mutex> lock(mutex);
    stopped = true;
    wake.notify_one();
  });
  std::unique_lock<std::mutex> lock(mutex);
  wake.wait(lock, [&] { return stopped; });
  return opened->state;
}

}  // namespace

TEST_CASE(
    "several threads submit to one journal on disk, and all that was answered is there after it is opened again") {
  constexpr int kThreads = 4;
  constexpr int kAppends = 300;
  std::string dir = (std::filesystem::temp_directory_path() / "sluice-journal-XXXXXX").string();
  REQUIRE(::mkdtemp(dir.data()) != nullptr);
  std::atomic<int> answered{0};
  std::atomic<int> failed{0};
  std::vector<JournalState> expected(kThreads);
  WithJournal(dir + "/journal", [&](Journal& journal) {
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        const ReplicaId id = simulation::TestReplica(t);
        JournalState& state = expected[static_cast<size_t>(t)];
        for (int i = 0; i <= kAppends; ++i) {
          JournalRecord record = CreateRecord{id, Uuid::FromRandom(1, 1)};
          if (i > 0) record = simulation::NextAppend(state, id, 3000, i % 50 == 0, 1, static_cast<uint64_t>(i));
          if (!state.Apply(record).ok()) ++failed;
          Journal::Entry entry;
          entry.records.push_back(std::move(record));
          entry.done = [&](absl::Status status) { status.ok() ? ++answered : ++failed; };
          journal.Submit(std::move(entry));
          if (i % 100 == 0) (void)journal.OldestFilePins();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  });
  REQUIRE(failed == 0);
  REQUIRE(answered == kThreads * (kAppends + 1));
  const JournalState found = WithJournal(dir + "/journal", [](Journal&) {});
  for (int t = 0; t < kThreads; ++t) {
    const ReplicaId id = simulation::TestReplica(t);
    REQUIRE(found.Find(id) != nullptr);
    REQUIRE(*found.Find(id) == *expected[static_cast<size_t>(t)].Find(id));
  }
  std::filesystem::remove_all(dir);
}

}  // namespace sluice::storage
