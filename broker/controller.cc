#include "broker/controller.h"

#include <algorithm>

#include "broker/error.h"
#include "common/check.h"
#include "common/planted_bug.h"
#include "common/record/record.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::broker {
namespace {

/// After which what could not be saved is tried again.
constexpr absl::Duration kRetryEvery = absl::Seconds(1);
constexpr absl::Duration kRefusalForgottenAfter = absl::Minutes(1);

}  // namespace

LogSettings Group0Settings(int64_t log_bytes) {
  return {.segment_bytes = std::max(log_bytes / 4, int64_t{1}), .segment_age = LogSettings().segment_age};
}

Controller::Controller(Seams seams, ControllerOptions options)
    : seams_(seams),
      options_(options),
      snapshots_({.executor = seams.executor, .calls = seams.calls, .piece_bytes = options.snapshot_piece_bytes}) {}

Controller::~Controller() {
  *alive_ = false;
  if (log_ != nullptr) log_->log().AttachStateMachine(nullptr);
}

// ---- Starting and stopping -----------------------------------------------------------------------------------------

void Controller::Start(std::unique_ptr<PartitionLog> log, Callback<absl::Status> done) {
  log_ = std::move(log);
  seams_.blocking.Post([this, alive = alive_, done = std::move(done)]() mutable {
    auto loaded = LoadClusterState(seams_.store);
    seams_.executor.Post([this, alive, loaded = std::move(loaded), done = std::move(done)]() mutable {
      if (!*alive) return;
      if (!loaded.ok()) return done(loaded.status());
      if (stopped_) return done(absl::UnavailableError("the controller is stopping"));
      static_cast<ClusterState&>(state_) = std::move(loaded->state);
      state_.dropping = std::move(loaded->dropping);
      applied_ = loaded->applied;
      saved_ = applied_;
      started_ = true;
      if (const Offset log_start = log_->log().bounds().log_start; applied_ < log_start) {
        return done(absl::DataLossError(Cat("the metadata store (meta/) has applied the controller's log up to ",
                                            applied_, ", but that log begins at ", log_start,
                                            ": meta/ is older than the journal, or has lost what it had saved")));
      }
      log_->log().AttachStateMachine(this);
      CatchUp(std::move(done));
    });
  });
}

void Controller::Stop(absl::AnyInvocable<void()> done) {
  stopped_ = true;
  seams_.executor.Cancel(std::exchange(retry_timer_, 0));
  snapshots_.Stop();
  if (log_ == nullptr) return done();
  log_->log().AttachStateMachine(nullptr);
  log_->Stop([this, done = std::move(done)]() mutable {
    log_.reset();
    leading_epoch_.reset();
    const absl::Status stopping = absl::UnavailableError("the controller is stopping");
    RefuseWaiters(stopping);
    for (auto& [id, forgotten] : std::exchange(forgets_, {})) {
      if (forgotten != nullptr) forgotten(stopping);
    }
    for (Pending& pending : std::exchange(decisions_, {})) pending.done(stopping);
    arrived_.reset();
    installing_ = nullptr;
    done();
  });
}

void Controller::Fail(const absl::Status& why) {
  if (!failure_.ok()) return;
  failure_ = why;
  const bool led = std::exchange(leading_epoch_, std::nullopt).has_value();
  for (ControllerObserver* observer : observers_) {
    if (led) observer->OnLeadership(false);
    observer->OnFailure(why);
  }
  AnswerInstall(why);
  RefuseWaiters(absl::UnavailableError(Cat("the controller has failed: ", Message(why))));
}

// ---- Applying ------------------------------------------------------------------------------------------------------

void Controller::CatchUp(Callback<absl::Status> done) {
  caught_up_.push_back(std::move(done));
  Pump();
}

void Controller::Pump() {
  if (pumping_) return;
  pumping_ = true;
  if (stopped_) return PumpDone(absl::UnavailableError("the controller is stopping"));
  // It stays failed until it is opened anew, by the next process; what is not saved yet is read from it again then.
  if (const absl::Status& why = log_->log().failure(); !why.ok()) {
    Fail(absl::UnavailableError(Cat("the controller's log has failed: ", Message(why))));
  }
  if (!failure_.ok()) return PumpDone(failure_);
  if (unsaved_ == nullptr && !forgets_.empty()) {
    unsaved_ = std::make_shared<Write>(Write{.applied = applied_, .changes = {}, .delta = {}});
    forgetting_ = std::move(forgets_.front().second);
    AddForgetDropped(forgets_.front().first, &unsaved_->changes);
    forgets_.erase(forgets_.begin());
  }
  if (unsaved_ == nullptr && arrived_.has_value()) TakeSnapshot();
  if (unsaved_ != nullptr) return Save();
  const replication::LogBounds bounds = log_->log().bounds();
  const bool uncommitted = Planted(PlantedBug::kControllerAppliesUncommitted);
  if (applied_ < (uncommitted ? bounds.log_end : bounds.high_watermark)) return ReadSome();
  PumpDone(absl::OkStatus());
}

void Controller::PumpDone(absl::Status status) {
  pumping_ = false;
  if (absl::IsDataLoss(status)) Fail(status);
  if (!stopped_ && failure_.ok()) {
    LeaveOldGiver();
    if (status.ok()) {
      WatchLeadership();
      status = failure_;
      if (status.ok()) WaitForMore();
    } else if (retry_timer_ == 0) {
      retry_timer_ = seams_.executor.PostAfter(kRetryEvery, [this] {
        retry_timer_ = 0;
        Pump();
      });
    }
  }
  if (!status.ok()) {
    // They are carried out later all the same.
    std::vector<Callback<absl::Status>> forgotten;
    for (auto& [id, done] : forgets_) {
      if (done != nullptr) forgotten.push_back(std::exchange(done, nullptr));
    }
    for (auto& done : forgotten) done(status);
  }
  for (auto& done : std::exchange(caught_up_, {})) done(status);
}

void Controller::ReadSome() {
  if (Planted(PlantedBug::kCompactBeforeSaved)) log_->log().Compact(log_->log().bounds().high_watermark, 0);
  log_->log().ReadCommitted({.offset = applied_, .bytes_max = kGroup0ReadBytes},
                            [this, alive = alive_](absl::StatusOr<replication::ReadResult> read) {
                              if (!*alive) return;
                              absl::Status applied = read.ok() ? ApplyRead(*read) : read.status();
                              // The log begins behind what is applied here: nothing can fill that hole.
                              if (absl::IsOutOfRange(applied)) applied = absl::DataLossError(applied.message());
                              if (!applied.ok()) return PumpDone(std::move(applied));
                              pumping_ = false;
                              Pump();
                            });
}

absl::Status Controller::ApplyRead(const replication::ReadResult& read) {
  if (read.next_offset <= applied_) {
    return absl::InternalError(Cat("the controller's log gave nothing at ", applied_));
  }
  auto write = std::make_shared<Write>();
  for (const auto& batch : read.batches) {
    if (batch.is_control()) continue;
    SLUICE_RETURN_IF_ERROR(ApplyBatch(batch, &write->delta));
  }
  applied_ = read.next_offset;
  write->applied = applied_;
  AddStoreChanges(state_, write->delta, &write->changes);
  for (const auto& [id, topic] : write->delta.deleted) state_.dropping[id] = topic.partitions;
  unsaved_ = std::move(write);
  return absl::OkStatus();
}

absl::Status Controller::ApplyBatch(const record::Batch& batch, ClusterDelta* delta) {
  SLUICE_ASSIGN_OR_RETURN(auto reader, record::RecordReader::Open(batch.view()));
  record::Record record;
  for (;;) {
    SLUICE_ASSIGN_OR_RETURN(const bool more, reader.Next(&record));
    if (!more) return absl::OkStatus();
    if (record.offset < applied_) continue;
    auto change = DecodeControllerChange(record.value.value_or(std::string_view()));
    if (!change.ok()) {
      return absl::DataLossError(Cat("the controller's log at offset ", record.offset, ": ", Message(change.status())));
    }
    delta->Merge(state_.Apply(*change, record.offset));
  }
}

void Controller::Save() {
  seams_.blocking.Post([this, alive = alive_, write = unsaved_] {
    absl::Status saved = seams_.store.Apply(kControllerMachine, write->applied.value(), write->changes);
    seams_.executor.Post([this, alive, saved = std::move(saved)]() mutable {
      if (*alive) OnSaved(std::move(saved));
    });
  });
}

void Controller::OnSaved(absl::Status saved) {
  auto forgotten = std::exchange(forgetting_, nullptr);
  NoteWrite(saved);
  if (!saved.ok()) {
    if (forgotten != nullptr) forgotten(saved);
    // Room may come; a store that failed takes nothing more in this process. To go on trying would keep group 0's
    // leadership where nothing can be decided.
    if (!absl::IsResourceExhausted(saved)) Fail(saved);
    return PumpDone(std::move(saved));
  }
  const auto write = std::exchange(unsaved_, nullptr);
  saved_ = write->applied;
  if (!write->delta.empty()) {
    for (ControllerObserver* observer : observers_) observer->OnApplied(write->delta);
  }
  if (forgotten != nullptr) forgotten(absl::OkStatus());
  if (install_saved_at_.has_value() && *install_saved_at_ <= saved_) AnswerInstall(absl::OkStatus());
  if (log_ != nullptr && !stopped_) log_->log().Compact(saved_, options_.log_bytes);
  AnswerApplied();
  pumping_ = false;
  Pump();
}

void Controller::WaitForMore() {
  log_->log().CancelWait(wait_);
  wait_ = log_->log().WaitForCommit(applied_, [this, alive = alive_] {
    if (!*alive || stopped_) return;
    wait_ = 0;
    Pump();
  });
}

void Controller::ForgetDropped(const TopicId& id, Callback<absl::Status> done) {
  if (!started_ || stopped_) return done(absl::UnavailableError("the controller is not running"));
  state_.dropping.erase(id);
  forgets_.emplace_back(id, std::move(done));
  Pump();
}

void Controller::WaitApplied(Offset offset, Callback<absl::Status> done) {
  if (stopped_ || gave_up_waiting_ || !failure_.ok()) {
    return seams_.executor.Post([done = std::move(done)]() mutable {
      done(absl::UnavailableError("the controller has stopped, or is about to"));
    });
  }
  applied_waiters_.emplace(offset, std::move(done));
  seams_.executor.Post([this, alive = alive_] {
    if (*alive) AnswerApplied();
  });
}

void Controller::GiveUpWaiting() {
  gave_up_waiting_ = true;
  RefuseWaiters(absl::UnavailableError("the node is stopping"));
}

void Controller::RefuseWaiters(const absl::Status& why) {
  for (auto& [offset, waiter] : std::exchange(applied_waiters_, {})) waiter(why);
}

void Controller::AnswerApplied() {
  while (!applied_waiters_.empty() && applied_waiters_.begin()->first <= saved_) {
    auto waiter = applied_waiters_.extract(applied_waiters_.begin());
    waiter.mapped()(absl::OkStatus());
  }
}

// ---- Snapshots -----------------------------------------------------------------------------------------------------

absl::StatusOr<replication::StateMachine::Offer> Controller::OfferSnapshot() {
  if (!failure_.ok()) return failure_;
  const SnapshotName name = snapshots_.Offer(state_, applied_, log_->log().bounds().log_start);
  if (name.size_bytes > kClusterSnapshotBytesMax) {
    return absl::ResourceExhaustedError(
        Cat("the state has ", name.size_bytes, " bytes, a snapshot at most ", kClusterSnapshotBytesMax));
  }
  return Offer{.base_end = name.applied, .detail = Bytes::Adopt(EncodeSnapshotName(name))};
}

void Controller::InstallSnapshot(NodeId from, Offset base_end, Bytes detail, Callback<absl::Status> done) {
  installing_ = std::move(done);
  auto name = DecodeSnapshotName(detail.view());
  if (!failure_.ok()) name = failure_;
  if (name.ok() && name->applied != base_end) name = absl::DataLossError("a snapshot of another offset is offered");
  auto fetched = [this, alive = alive_, base_end](absl::StatusOr<ClusterSnapshot> snapshot) {
    if (*alive) OnFetched(base_end, std::move(snapshot));
  };
  // A crash before the log began anew: the state is there already.
  if (name.ok() && saved_ < base_end) return snapshots_.Fetch(from, *name, std::move(fetched));
  seams_.executor.Post([this, alive = alive_, status = name.status()] {
    if (*alive) AnswerInstall(status);
  });
}

void Controller::OnFetched(Offset base_end, absl::StatusOr<ClusterSnapshot> snapshot) {
  absl::Status fits = snapshot.ok() ? CheckSnapshot(*snapshot) : snapshot.status();
  if (!failure_.ok()) fits = failure_;
  if (!fits.ok()) return AnswerInstall(fits);
  install_saved_at_ = base_end;
  arrived_ = *std::move(snapshot);
  Pump();
}

absl::Status Controller::CheckSnapshot(const ClusterSnapshot& snapshot) const {
  const ClusterState& state = snapshot.state;
  if (!state_.cluster_id.IsNil() && state.cluster_id != state_.cluster_id) {
    return absl::DataLossError(
        Cat("a snapshot of cluster ", state.cluster_id, " is offered, this is ", state_.cluster_id));
  }
  for (const auto& [id, node] : state_.nodes) {
    if (state.FindNode(id) == nullptr) return absl::DataLossError(Cat("a snapshot that does not know node ", id));
  }
  return absl::OkStatus();
}

// All that was applied before is saved.
void Controller::TakeSnapshot() {
  const ClusterSnapshot snapshot = *std::exchange(arrived_, std::nullopt);
  if (snapshot.applied <= applied_) return AnswerInstall(absl::OkStatus());
  auto write = std::make_shared<Write>(Write{.applied = snapshot.applied, .changes = {}, .delta = {}});
  write->delta = Difference(state_, snapshot.state);
  static_cast<ClusterState&>(state_) = snapshot.state;
  applied_ = snapshot.applied;
  AddStoreChanges(state_, write->delta, &write->changes);
  for (const auto& [id, topic] : write->delta.deleted) state_.dropping[id] = topic.partitions;
  unsaved_ = std::move(write);
}

void Controller::AnswerInstall(const absl::Status& status) {
  install_saved_at_.reset();
  if (installing_ != nullptr) std::exchange(installing_, nullptr)(status);
}

// A change of leader wakes who waits for more of the log.
void Controller::LeaveOldGiver() {
  const auto from = snapshots_.fetching_from();
  const auto who = leader();
  if (!from.has_value() || !who.has_value() || *who == *from) return;
  snapshots_.GiveUp(absl::UnavailableError(Cat("node ", *from, " leads no more, node ", *who, " does")));
}

// ---- Leading -------------------------------------------------------------------------------------------------------

bool Controller::IsLeader() const {
  return log_ != nullptr && leading_epoch_.has_value() && log_->log().IsLeader() &&
         log_->log().leader_epoch() == *leading_epoch_;
}

std::optional<NodeId> Controller::leader() const {
  if (log_ == nullptr) return std::nullopt;
  return log_->log().leader();
}

bool Controller::WritesRefused() const {
  return refused_at_.has_value() && seams_.clock.Monotonic() - *refused_at_ < kRefusalForgottenAfter;
}

void Controller::NoteWrite(const absl::Status& written) {
  if (written.ok()) refused_at_.reset();
  // A full queue or cache passes, and is nobody's disk.
  const bool exhausted = absl::IsResourceExhausted(written);
  if (exhausted && ExhaustedReason(written) == Reason::kDiskFull) refused_at_ = seams_.clock.Monotonic();
}

// All that is committed is applied and saved.
void Controller::WatchLeadership() {
  replication::RaftLog& log = log_->log();
  if (leading_epoch_.has_value() && !IsLeader()) {
    leading_epoch_.reset();
    for (ControllerObserver* observer : observers_) observer->OnLeadership(false);
  }
  if (leading_epoch_.has_value()) return;
  if (log.IsLeader()) {
    // Whoever leads has all that was ever committed.
    if (const Offset end = log.bounds().high_watermark; applied_ > end) {
      return Fail(absl::DataLossError(Cat("the metadata store has applied the controller's log up to ", applied_,
                                          ", but that log ends at ", end,
                                          ": the journal and meta/ are not of one data folder")));
    }
    leading_epoch_ = log.leader_epoch();
    for (ControllerObserver* observer : observers_) observer->OnLeadership(true);
    return;
  }
  if (std::exchange(awaiting_leadership_, true)) return;
  log.WhenLeading([this, alive = alive_](absl::Status leads) {
    if (!*alive) return;
    awaiting_leadership_ = false;
    if (leads.ok() && !stopped_) Pump();
  });
}

absl::Status Controller::NotLeading() const {
  if (!started_ || stopped_) return absl::UnavailableError("the controller is not running");
  if (!failure_.ok()) return absl::UnavailableError(Cat("the controller has failed: ", Message(failure_)));
  const auto who = leader();
  if (!who.has_value()) return absl::UnavailableError("the controller has no leader now");
  return absl::UnavailableError(Cat("node ", *who, " leads the controller"));
}

void Controller::Decide(Decision decide, Callback<absl::Status> done) {
  SLUICE_CHECK(seams_.executor.IsCurrent());
  decisions_.push_back({.decide = std::move(decide), .done = std::move(done)});
  seams_.executor.Post([this, alive = alive_] {
    if (*alive) DecideNext();
  });
}

void Controller::Change(ControllerChange change, Callback<absl::Status> done) {
  Decide([change = std::move(change)](const ControllerState&) mutable { return std::optional(std::move(change)); },
         std::move(done));
}

void Controller::DecideNext() {
  if (deciding_ || decisions_.empty()) return;
  deciding_ = true;
  Pending pending = std::move(decisions_.front());
  decisions_.pop_front();
  auto answer = [this, alive = alive_, done = std::move(pending.done)](absl::Status status) mutable {
    done(std::move(status));
    if (!*alive) return;
    deciding_ = false;
    // By way of the executor, so that a long queue is no deep stack.
    seams_.executor.Post([this, alive] {
      if (*alive) DecideNext();
    });
  };
  if (!IsLeader()) return answer(NotLeading());
  CatchUp([this, decide = std::move(pending.decide), answer = std::move(answer)](absl::Status ready) mutable {
    if (!ready.ok()) return answer(std::move(ready));
    DecideNow({.decide = std::move(decide), .done = std::move(answer)});
  });
}

void Controller::DecideNow(Pending pending) {
  if (!IsLeader()) return pending.done(NotLeading());
  auto change = pending.decide(state_);
  if (!change.ok() || !change->has_value()) return Confirm(change.status(), std::move(pending.done));
  if (const int32_t level = FeatureLevelOf(**change); level > state_.feature_level) {
    return pending.done(
        absl::FailedPreconditionError(Cat("the cluster's feature level is ", state_.feature_level, ", this needs ",
                                          level, ": not all of its nodes are of a version that knows it")));
  }
  Propose(**change, std::move(pending.done));
}

// What changes nothing is committed nowhere, which would show that this state is still the cluster's: another leader
// may have made since what was found missing here.
void Controller::Confirm(absl::Status decided, Callback<absl::Status> done) {
  log_->log().ReadBarrier([decided = std::move(decided), done = std::move(done)](const absl::Status& leads) mutable {
    if (!leads.ok()) return done(leads);
    done(std::move(decided));
  });
}

void Controller::Propose(const ControllerChange& change, Callback<absl::Status> done) {
  record::BatchBuilder builder;
  const std::string value = EncodeControllerChange(change);
  // Once it is committed, a node that cannot read it never gets past it.
  if (const auto read = DecodeControllerChange(value); !read.ok()) {
    return done(absl::FailedPreconditionError(Cat("the change could not be read again: ", Message(read.status()))));
  }
  absl::Status appended = builder.Append(absl::ToUnixMillis(seams_.clock.Wall()), std::nullopt, value);
  if (!appended.ok()) return done(appended);
  auto batch = builder.Build();
  if (!batch.ok()) return done(batch.status());
  // Only what operators ask for: a node that believes to have formed its cluster would do so again and again.
  const bool of_topic = change.index() <= ControllerChange(PartitionsAdded{}).index();
  if (of_topic && Planted(PlantedBug::kAnswerChangeBeforeCommit)) {
    std::exchange(done, [](absl::Status) {})(absl::OkStatus());
  }
  log_->log().Propose(
      *std::move(batch), std::nullopt,
      [this, alive = alive_, done = std::move(done)](absl::StatusOr<replication::Committed> committed) mutable {
        if (*alive) NoteWrite(committed.status());
        if (!*alive || !committed.ok()) return done(committed.status());
        CatchUp([done = std::move(done)](absl::Status applied) mutable {
          if (applied.ok()) return done(absl::OkStatus());
          done(absl::UnknownError(Cat("the change is committed, but not applied yet: ", applied.ToString())));
        });
      });
}

}  // namespace sluice::broker
