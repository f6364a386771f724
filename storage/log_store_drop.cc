// How a replica is removed: a marker in its folder, then the drop in the journal, then its files, the marker last. A
// crash leaves the replica whole, or a folder that explains itself.
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "storage/log_store.h"
#include "storage/log_store_recovery.h"

namespace sluice::storage {

void LogStore::Drop(ReplicaId replica, Done done) {
  std::shared_ptr<Log> log;
  Offset log_end;
  {
    std::lock_guard lock(mutex_);
    auto at = replicas_.find(replica);
    if (at == replicas_.end()) return Answer(std::move(done), absl::OkStatus());
    Entry& entry = at->second;
    if (std::exchange(entry.drop_running, true)) {
      return Answer(std::move(done), absl::UnavailableError(absl::StrCat(replica.ToString(), " is being dropped")));
    }
    entry.dropping = true;
    log = entry.log;
    log_end = entry.state.next_offset;
  }
  auto self = shared_from_this();
  if (log == nullptr) return DropStopped(replica, log_end, std::move(done));
  // The store keeps the log until the replica is gone.
  log->home().Post([self = std::move(self), stopping = log.get(), replica, done = std::move(done)]() mutable {
    stopping->Stop([self = std::move(self), stopping, replica, done = std::move(done)](const absl::Status&) mutable {
      self->DropStopped(replica, stopping->log_end(), std::move(done));
    });
  });
}

absl::Status LogStore::MarkDropping(const std::string& dir) {
  SLUICE_ASSIGN_OR_RETURN(const bool there, fs_.Exists(dir));
  if (!there) return absl::OkStatus();
  auto marker = fs_.Open(absl::StrCat(dir, "/", kDroppingMarker), {.mode = OpenOptions::Mode::kCreateNew});
  if (!marker.ok() && !absl::IsAlreadyExists(marker.status())) return marker.status();
  return fs_.SyncDir(dir);
}

void LogStore::DropStopped(ReplicaId replica, Offset log_end, Done done) {
  executors_.segment_io->Post([self = shared_from_this(), replica, log_end, done = std::move(done)]() mutable {
    absl::Status marked = self->MarkDropping(self->DirOf(replica));
    if (marked.ok()) return self->DropMarked(replica, std::move(done));
    self->EmptyThenMark(replica, log_end, std::move(marked), std::move(done));
  });
}

// A disk may have no room for the marker, and the replica itself takes it: it is emptied in the journal, which then no
// longer holds its bytes; what is not listed there may be removed without a marker.
void LogStore::EmptyThenMark(ReplicaId replica, Offset log_end, absl::Status first_error, Done done) {
  Submit(ResetRecord{replica, log_end}, [self = shared_from_this(), replica, first_error = std::move(first_error),
                                         done = std::move(done)](absl::Status status) mutable {
    if (!status.ok()) return self->EndDrop(replica, std::move(done), std::move(first_error));
    LogStore& store = *self;
    store.executors_.segment_io->Post([self = std::move(self), replica, done = std::move(done)]() mutable {
      const std::string dir = self->DirOf(replica);
      absl::Status marked = RemoveReplicaFiles(self->fs_, dir);
      if (marked.ok()) marked = self->MarkDropping(dir);
      if (!marked.ok()) return self->EndDrop(replica, std::move(done), std::move(marked));
      self->DropMarked(replica, std::move(done));
    });
  });
}

void LogStore::DropMarked(ReplicaId replica, Done done) {
  Submit(DropRecord{replica},
         [self = shared_from_this(), replica, done = std::move(done)](absl::Status status) mutable {
           if (!status.ok()) return self->EndDrop(replica, std::move(done), std::move(status));
           LogStore& store = *self;
           store.executors_.segment_io->Post([self = std::move(self), replica, done = std::move(done)]() mutable {
             // What cannot be removed now is removed when the store is opened the next time: the marker tells.
             absl::Status removed = RemoveReplicaFolder(self->fs_, self->DirOf(replica));
             {
               std::lock_guard lock(self->mutex_);
               self->replicas_.erase(replica);
             }
             self->Answer(std::move(done), std::move(removed));
           });
         });
}

void LogStore::EndDrop(ReplicaId replica, Done done, absl::Status status) {
  {
    std::lock_guard lock(mutex_);
    replicas_.at(replica).drop_running = false;
  }
  Answer(std::move(done), std::move(status));
}

}  // namespace sluice::storage
