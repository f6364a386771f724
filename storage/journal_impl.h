// What implements Journal (journal.h): its state, and who may touch which part of it. Internal to the journal.
//
// journal.cc opens it and takes entries from any thread; journal_rounds.cc writes and syncs them on the io executor,
// and makes the next file ahead.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "storage/journal.h"
#include "storage/journal_codec.h"
#include "storage/journal_files.h"
#include "storage/journal_pins.h"
#include "storage/journal_replay.h"

namespace sluice::storage {

class JournalImpl final : public Journal, public std::enable_shared_from_this<JournalImpl> {
 public:
  JournalImpl(FileSystem& fs, Options options, BlockingExecutor& io, Clock& clock)
      : options_(std::move(options)), io_(io), clock_(clock), files_(fs, options_) {}

  // The steps of Open.
  absl::Status PrepareDir() { return files_.PrepareDir(); }
  absl::Status Begin(FileSystem& fs, const ReplayedJournal& replayed);
  absl::Status Ready(uint64_t superseded_from);
  void PrepareSoon() {
    io_.Post([self = shared_from_this()] { self->Prepare(); });
  }

  void Submit(Entry entry) override;
  absl::Status Admit() const override;
  absl::Status AdmitBeyondBound() const override;
  std::vector<ReplicaId> OldestFilePins() const override;
  std::vector<JournalFileInfo> FilesHolding(const ReplicaId& replica) const override;
  std::vector<JournalPin> PinsOf(const ReplicaId& replica) const override;
  void OnPressure(std::function<void()> callback) override { pressure_ = std::move(callback); }
  void FailOnFullDisk() override;
  void Stop(absl::AnyInvocable<void()> done) override;
  void Abandon() override;
  JournalStats stats() const override;

 private:
  struct InFlight {
    Done done;
    absl::Status status;
  };

  absl::Status AdmitBeyondBoundLocked() const;
  void PostRound();  // round_due_ is set
  void Round();
  bool HoldBack();
  bool Throttle();
  void TakeQueued();
  size_t NextGroupBytes() const;
  absl::Status Rotate();
  using FlushFrame = absl::FunctionRef<absl::Status()>;
  absl::Status EncodeOpening(const OpeningRecord& opening, FlushFrame flush);
  int64_t OpeningBytes();
  absl::Status WriteOpening(uint64_t supersedes_from, uint64_t continues_after, const ReplayedJournal* carry,
                            FileSystem* fs);
  /// What Admit goes by. Returns the bytes that are used.
  int64_t NoteUsed();
  void EncodeGroup();
  absl::Status Take(const JournalRecord& record);
  void SyncGroup();
  void Finish(std::vector<InFlight> group);
  void Fail(const absl::Status& status);
  void FailEntries(const absl::Status& status);
  void NoteFull(absl::Status* lack, const absl::Status& status);
  void StallOnFullDisk(const absl::Status& status);
  void Rest();
  void FinishStop();
  void Prepare();
  void PrepareStep(std::shared_ptr<JournalFileMaker> maker);
  void PrepareLater();
  void OnPrepared(const absl::Status& status);

  const Options options_;
  BlockingExecutor& io_;
  Clock& clock_;
  std::function<void()> pressure_;

  // Of the io executor.
  JournalState state_;
  JournalFiles files_;
  FrameBuilder frame_;
  std::deque<Entry> pending_;  // taken from queue_, not encoded yet
  std::vector<Entry> taken_;   // kept for its storage
  std::vector<InFlight> in_flight_;
  uint64_t records_applied_ = 0;
  int64_t group_bytes_last_ = 0;
  bool follows_a_group_ = false;  // this round comes right after a sync
  bool held_back_ = false;        // this round has waited already
  absl::Duration throttled_;      // how long this round has waited for what lags
  bool preparing_ = false;        // the next file is being made
  bool awaits_file_ = false;      // a round goes on once it is
  bool ends_ = false;             // nothing is left to do but what FinishStop waits for

  std::atomic<bool> prepare_fast_{false};      // read where the file is made
  std::atomic<bool> prepare_given_up_{false};  // the same

  mutable std::mutex pins_mutex_;
  JournalPins pins_;            // guarded by pins_mutex_; changed on the io executor only
  uint64_t oldest_pinned_ = 0;  // guarded by pins_mutex_

  mutable std::mutex mutex_;  // guards what follows
  std::vector<Entry> queue_;
  int64_t queued_bytes_ = 0;   // of queue_ and pending_
  int64_t waiting_bytes_ = 0;  // of queue_
  bool round_due_ = false;     // a round is posted, running, or waiting to gather
  bool gathering_ = false;     // it is waiting, and may be woken
  bool stopping_ = false;
  bool waits_for_room_ = true;
  absl::AnyInvocable<void()> stopped_;
  absl::Status failed_;
  // What a full disk has no space for; changed on the io executor only, each for itself. Without a next file appends
  // are refused while there is still room in this one, for the checkpoints and log starts that let files be used again.
  absl::Status lacks_file_;  // the next one
  absl::Status lacks_room_;  // for a frame that goes beyond the file's end
  /// Too much is used, and files can be let go. Where the current one alone is too long, it is the next group that
  /// begins another.
  bool awaits_segments_ = false;
  JournalStats stats_;
};

/// What the records of an entry take in a frame.
int64_t BytesOf(const Journal::Entry& entry);

}  // namespace sluice::storage
