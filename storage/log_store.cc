#include "storage/log_store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "storage/checkpointer.h"
#include "storage/disk_reserve.h"
#include "storage/journal_carry.h"
#include "storage/log_store_recovery.h"

namespace sluice::storage {
namespace {

// Of the journal, for tails of replicas that cannot be opened.
constexpr int64_t kDamagedTailsShare = 4;
constexpr size_t kCarriedEntryBytes = 1 << 20;

/// Makes the folder and its parents so that their names survive a power loss.
absl::Status CreateDirsDurably(FileSystem& fs, const std::string& path) {
  std::vector<std::string> to_sync;
  for (std::string at = path; !at.empty() && at != ".";) {
    SLUICE_ASSIGN_OR_RETURN(const bool there, fs.Exists(at));
    if (there) break;
    const size_t slash = at.rfind('/');
    at = slash == at.npos ? "." : at.substr(0, std::max<size_t>(slash, 1));
    to_sync.push_back(at);
  }
  SLUICE_RETURN_IF_ERROR(fs.CreateDirs(path));
  for (auto at = to_sync.rbegin(); at != to_sync.rend(); ++at) SLUICE_RETURN_IF_ERROR(fs.SyncDir(*at));
  return absl::OkStatus();
}

/// Runs `done` with the first error once it was called `count` times. One executor.
LogStore::Done Gather(size_t count, LogStore::Done done) {
  struct State {
    size_t left;
    absl::Status first;
    LogStore::Done done;
  };
  auto state = std::make_shared<State>(State{count, absl::OkStatus(), std::move(done)});
  return [state](absl::Status status) {
    if (state->first.ok()) state->first = std::move(status);
    if (--state->left == 0) state->done(state->first);
  };
}

}  // namespace

LogStore::LogStore(FileSystem& fs, Clock& clock, LogStoreExecutors executors, LogStoreOptions options)
    : fs_(fs),
      clock_(clock),
      executors_(executors),
      options_(std::move(options)),
      shared_(std::make_shared<LogShared>(options_.cache_bytes)) {}

LogStore::~LogStore() = default;

absl::StatusOr<std::shared_ptr<LogStore>> LogStore::Open(FileSystem& fs, Clock& clock, LogStoreExecutors executors,
                                                         LogStoreOptions options) {
  const std::string topics = absl::StrCat(options.data_dir, "/topics");
  options.journal.dir = absl::StrCat(options.data_dir, "/journal");
  options.journal.prepare_io = executors.segment_io;
  SLUICE_RETURN_IF_ERROR(CreateDirsDurably(fs, topics));
  std::shared_ptr<LogStore> store(new LogStore(fs, clock, executors, std::move(options)));
  SLUICE_ASSIGN_OR_RETURN(store->lock_, fs.LockFile(absl::StrCat(store->options_.data_dir, "/LOCK")));
  store->reserve_ = std::make_shared<DiskReserve>(fs, store->options_.data_dir, store->options_.reserve_bytes);
  SLUICE_RETURN_IF_ERROR(store->reserve_->GiveUpIfFull());
  Journal::Options journal_options = store->options_.journal;
  journal_options.lags = [shared = store->shared_] { return shared->segments_lag(); };
  Recovery recovery(fs, topics, store->options_.on_removed);
  SLUICE_ASSIGN_OR_RETURN(Journal::Opened opened,
                          Journal::Open(fs, std::move(journal_options), *executors.journal_io, clock, recovery));
  store->journal_ = std::move(opened.journal);
  SLUICE_RETURN_IF_ERROR(recovery.Finish());
  for (const auto& [replica, state] : opened.state.replicas()) {
    Entry& entry = store->replicas_[replica];
    entry.state = state;
    entry.recovered = std::any_of(
        state.segments.begin(), state.segments.end(),
        [&state = state](const SegmentState& segment) { return state.SyncedBytes(segment) < segment.end_position; });
    if (const auto damaged = recovery.damaged().find(replica); damaged != recovery.damaged().end()) {
      entry.damaged = damaged->second;
    }
  }
  store->recovery_ = {.journal = opened.tail,
                      .replicas = static_cast<int64_t>(store->replicas_.size()),
                      .bytes_rewritten = recovery.bytes_rewritten(),
                      .files_removed = recovery.files_removed()};
  SLUICE_ASSIGN_OR_RETURN(const int64_t free_bytes, fs.FreeBytes(store->options_.data_dir));
  store->shared_->disk_full = free_bytes < store->options_.disk_low_watermark_bytes;
  store->checkpointer_ = std::make_shared<Checkpointer>(*store);
  store->journal_->OnPressure([weak = std::weak_ptr(store->checkpointer_)] {
    if (auto checkpointer = weak.lock()) checkpointer->Press();
  });
  store->checkpointer_->Start();
  store->scrubber_ = std::make_shared<Scrubber>(
      Scrubber::Seams{.fs = &fs,
                      .clock = &clock,
                      .home = executors.home,
                      .reads = executors.cold_reads,
                      .logs =
                          [weak = std::weak_ptr(store)] {
                            const auto open = weak.lock();
                            return open == nullptr ? std::vector<std::shared_ptr<Log>>() : open->Logs();
                          }},
      store->options_.scrub);
  store->scrubber_->Start();
  return store;
}

std::string LogStore::DirOf(const ReplicaId& replica) const {
  return absl::StrCat(options_.data_dir, "/topics/", replica.ToString());
}

void LogStore::Answer(Done done, absl::Status status) {
  executors_.home->Post([done = std::move(done), status = std::move(status)]() mutable { done(std::move(status)); });
}

void LogStore::Submit(JournalRecord record, Done durable) {
  Journal::Entry entry;
  entry.records.push_back(std::move(record));
  entry.done = [self = shared_from_this(), durable = std::move(durable)](absl::Status status) mutable {
    self->Answer(std::move(durable), std::move(status));
  };
  journal_->Submit(std::move(entry));
}

std::vector<ReplicaId> LogStore::Replicas() const {
  std::lock_guard lock(mutex_);
  std::vector<ReplicaId> all;
  for (const auto& [replica, entry] : replicas_) {
    if (!entry.dropping) all.push_back(replica);
  }
  return all;
}

bool LogStore::Has(ReplicaId replica) const {
  std::lock_guard lock(mutex_);
  auto at = replicas_.find(replica);
  return at != replicas_.end() && !at->second.dropping;
}

std::vector<std::shared_ptr<Log>> LogStore::Logs() const {
  std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Log>> logs;
  for (const auto& [replica, entry] : replicas_) {
    if (entry.log != nullptr && !entry.dropping) logs.push_back(entry.log);
  }
  return logs;
}

std::shared_ptr<Log> LogStore::Find(ReplicaId replica) const {
  std::lock_guard lock(mutex_);
  auto at = replicas_.find(replica);
  return at == replicas_.end() || at->second.dropping ? nullptr : at->second.log;
}

void LogStore::Create(ReplicaId replica, Uuid incarnation, Done done) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return Answer(std::move(done), absl::UnavailableError("the log store is stopping"));
    auto at = replicas_.find(replica);
    if (at != replicas_.end()) {
      const Uuid& known = at->second.log != nullptr ? at->second.incarnation : at->second.state.incarnation;
      if (at->second.dropping) {
        return Answer(std::move(done), absl::UnavailableError(absl::StrCat(replica.ToString(), " is being dropped")));
      }
      return Answer(std::move(done), known == incarnation
                                         ? absl::OkStatus()
                                         : absl::AlreadyExistsError(
                                               absl::StrCat(replica.ToString(), " exists with another incarnation")));
    }
  }
  // A node whose journal is full when it dies, and that has a replica to make, could not start again otherwise.
  if (absl::Status status = journal_->AdmitBeyondBound(); !status.ok()) {
    return Answer(std::move(done), std::move(status));
  }
  const CreateRecord record{replica, incarnation};
  Submit(record, [this, record, done = std::move(done)](absl::Status status) mutable {
    if (status.ok()) {
      JournalState fresh;
      status = fresh.Apply(record);
      SLUICE_CHECK(status.ok()) << std::string(status.message());
      std::lock_guard lock(mutex_);
      replicas_.try_emplace(record.replica,
                            Entry{.state = *fresh.Find(record.replica), .incarnation = {}, .log = nullptr});
    }
    done(std::move(status));
  });
}

absl::StatusOr<std::shared_ptr<Log>> LogStore::Attach(ReplicaId replica, Executor& home, LogOptions options) {
  std::lock_guard lock(mutex_);
  auto at = replicas_.find(replica);
  if (at == replicas_.end() || at->second.dropping) {
    return absl::NotFoundError(absl::StrCat("no replica ", replica.ToString(), " in ", options_.data_dir));
  }
  Entry& entry = at->second;
  if (!entry.damaged.ok()) return entry.damaged;
  if (entry.log != nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("replica ", replica.ToString(), " is attached already"));
  }
  entry.incarnation = entry.state.incarnation;
  entry.log = std::make_shared<Log>(LogEnvironment{.fs = &fs_,
                                                   .clock = &clock_,
                                                   .journal = journal_,
                                                   .segment_io = executors_.segment_io,
                                                   .cold_reads = executors_.cold_reads,
                                                   .shared = shared_},
                                    home, replica, DirOf(replica), std::exchange(entry.state, {}), options);
  if (entry.recovered) checkpointer_->OnRecovered(replica);
  return entry.log;
}

// ---- Upkeep

void LogStore::CheckpointAll(Done done) {
  executors_.home->Post([checkpointer = checkpointer_, done = std::move(done)]() mutable {
    checkpointer->CheckpointAll(std::move(done));
  });
}

bool LogStore::MayCarryDamaged(const ReplicaId& replica) const {
  std::lock_guard lock(mutex_);
  const auto at = replicas_.find(replica);
  if (at == replicas_.end() || at->second.dropping || at->second.damaged.ok()) return false;
  int64_t bytes = 0;
  for (const auto& [each, entry] : replicas_) {
    if (entry.damaged.ok() || entry.dropping) continue;
    for (const JournalPin& pin : journal_->PinsOf(each)) bytes += pin.end - pin.begin;
  }
  return bytes <= options_.journal.total_bytes_max / kDamagedTailsShare;
}

void LogStore::CarryDamaged(const ReplicaId& replica, Done done) {
  const std::vector<JournalFileInfo> files = journal_->FilesHolding(replica);
  if (files.empty()) return Answer(std::move(done), absl::OkStatus());
  executors_.cold_reads->Post([self = shared_from_this(), replica, file = files.front(),
                               pins = journal_->PinsOf(replica), done = std::move(done)]() mutable {
    auto appends = ReadPinnedAppends(self->fs_, file, replica, pins);
    if (!appends.ok()) return self->Answer(std::move(done), std::move(appends).status());
    // Nothing changes a replica that cannot be opened but its drop, and after that the journal refuses these.
    Journal::Entry entry;
    size_t bytes = 0;
    for (AppendRecord& append : *appends) {
      bytes += append.bytes.size();
      entry.records.emplace_back(std::move(append));
      if (bytes < kCarriedEntryBytes) continue;
      self->journal_->Submit(std::exchange(entry, {}));
      bytes = 0;
    }
    // The journal answers in order: this is the last.
    entry.done = [self, done = std::move(done)](absl::Status status) mutable {
      self->Answer(std::move(done), std::move(status));
    };
    self->journal_->Submit(std::move(entry));
  });
}

void LogStore::Stop(Done done) {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  executors_.home->Post([self = shared_from_this(), done = std::move(done)]() mutable {
    LogStore& store = *self;
    store.scrubber_->Stop([self = std::move(self), done = std::move(done)]() mutable {
      LogStore& next = *self;
      next.checkpointer_->Stop(
          [self = std::move(self), done = std::move(done)]() mutable { self->StopLogs(std::move(done)); });
    });
  });
}

void LogStore::Abandon() {
  journal_->Abandon();
  checkpointer_->Abandon();
  scrubber_->Abandon();
  for (auto& [replica, entry] : replicas_) {
    if (entry.log != nullptr) entry.log->Abandon();
  }
}

void LogStore::StopLogs(Done done) {
  // The logs wait for what they have given to the journal, and it would wait for room.
  journal_->FailOnFullDisk();
  const auto logs = Logs();
  Done stopped = Gather(logs.size() + 1, [self = shared_from_this(), done = std::move(done)](absl::Status) mutable {
    LogStore& store = *self;
    store.journal_->Stop([self = std::move(self), done = std::move(done)]() mutable {
      LogStore& end = *self;
      end.Answer(std::move(done), absl::OkStatus());
    });
  });
  auto each = std::make_shared<Done>(std::move(stopped));
  Executor* home = executors_.home;
  for (const auto& log : logs) {
    log->home().Post([log, each, home] {
      log->Stop([each, home](absl::Status status) { home->Post([each, status] { (*each)(status); }); });
    });
  }
  (*each)(absl::OkStatus());
}

}  // namespace sluice::storage
