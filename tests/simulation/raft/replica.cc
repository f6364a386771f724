#include "tests/simulation/raft/replica.h"

#include <algorithm>

#include "common/check.h"

namespace sluice::raft_simulation {

namespace {

constexpr int64_t kStartMs = 1'700'000'000'000;

}  // namespace

std::string ShortName(const VoterId& id) {
  std::string name = Cat(id.node);
  if (id.incarnation.bytes[15] > 0) name.push_back(static_cast<char>('a' + id.incarnation.bytes[15] % 26));
  return name;
}

Replica::Replica(Context& context, Network& network, Group& group, VoterId id, raft::Configuration initial)
    : context_(context),
      network_(network),
      group_(group),
      id_(id),
      initial_(std::move(initial)),
      random_(context.random().Next()),
      disk_(context.plan.keep_below_start) {}

// ---- Its life

template <class F>
void Replica::Event(F event) {
  if (!up()) return;
  if (paused_) {
    while_paused_.push_back([this, event = std::move(event)]() mutable { Event(std::move(event)); });
    return;
  }
  event();
  AfterEvent();
}

template <class F>
void Replica::After(absl::Duration delay, F event) {
  context_.scheduler.At(delay, [this, life = life_, event = std::move(event)]() mutable {
    if (life == life_) Event(std::move(event));
  });
}

void Replica::Start() {
  const DiskImage& image = disk_.durable();
  raft::RestoredState state;
  state.self = id_;
  state.hard_state = image.hard_state;
  state.log_start = image.log_start;
  state.log_end = image.log_end;
  state.epochs = image.Epochs();
  state.raft_state = image.raft_state;
  state.initial = initial_;
  state.committed = context_.random().OneIn(3) ? Offset(0) : std::min(applied_, image.log_end);
  // The core is to remember what it has written down; a crash before that leaves the damage to be found once more.
  state.doubtful = doubtful_ && !StoredInDoubt();
  context_.trace.Say([&] {
    return Cat(ShortName(id_), " starts, term ", state.hard_state.term, ", log ", state.log_start, " to ",
               state.log_end, ", committed ", state.committed, doubtful_ ? ", in doubt" : "");
  });
  ++life_;
  auto restored = raft::Raft::Restore(context_.plan.options, random_, std::move(state));
  if (!restored.ok()) {
    return context_.checker.Fail(Invariant::kRestores, Cat(ShortName(id_), ": ", Message(restored.status())));
  }
  raft_ = *std::move(restored);
  const bool alone = raft_->configuration().voters.size() == 1 && raft_->configuration().IsVoter(id_);
  if (alone) doubtful_ = false;
  if (doubtful_ && !raft_->in_doubt()) {
    return context_.checker.Fail(Invariant::kRestores, Cat(ShortName(id_), " has forgotten that it is in doubt"));
  }
  context_.checker.OnStarted(observed());
  StartTicking();
  AfterEvent();
}

bool Replica::StoredInDoubt() const {
  const auto state = raft::ReplicaRaftState::Decode(disk_.durable().raft_state.view());
  return state.ok() && state->in_doubt;
}

void Replica::StartTicking() {
  const absl::Duration interval = context_.healed ? kTick : context_.plan.ticks[slot()];
  After(interval, [this] {
    const int64_t now_ms = kStartMs + absl::ToInt64Milliseconds(context_.scheduler.now());
    raft_->Tick(now_ms);
    if (!context_.plan.options.explicit_heartbeats) SendNodeAlive();
    StartTicking();
  });
}

void Replica::Crash() {
  if (!up()) return;
  if (install_) context_.faults.Hit(Fault::kCrashDuringInstall);
  const ModelDisk::Lost lost = disk_.Crash(context_.random());
  if (lost.writes > 0) context_.faults.Hit(Fault::kWritesLost);
  if (lost.torn) context_.faults.Hit(Fault::kWriteTorn);
  context_.trace.Say([&] {
    return Cat(ShortName(id_), " crashes; ", lost.writes, " writes lost", lost.torn ? ", the first one partly" : "",
               "; log to ", disk_.durable().log_end);
  });
  for (const auto& [value, at] : proposals_) context_.checker.OnOutcome(value, Proposal::State::kUnknown);
  ++life_;
  raft_.reset();
  paused_ = drain_scheduled_ = false;
  while_paused_.clear();
  last_number_ = told_durable_ = 0;
  install_.reset();
  proposals_.clear();
  reads_.clear();
}

void Replica::Damage(size_t most) {
  const Offset before = disk_.durable().log_end;
  const raft::HardState state_before = disk_.durable().hard_state;
  const auto gone = disk_.Damage(context_.random(), most);
  const bool lost = !gone.empty() || state_before != disk_.durable().hard_state;
  context_.faults.Hit(lost ? Fault::kDamageLoss : Fault::kDamageAlarm);
  context_.trace.Say([&] {
    return Cat(ShortName(id_), " finds its journal damaged; log to ", before, " is cut at ", disk_.durable().log_end);
  });
  if (lost) context_.checker.OnDamaged(id_, gone);
  doubtful_ = true;
}

void Replica::Pause() {
  if (!up() || paused_) return;
  context_.trace.Say([&] { return Cat(ShortName(id_), " is paused"); });
  paused_ = true;
}

void Replica::Resume() {
  if (!paused_) return;
  context_.trace.Say([&] { return Cat(ShortName(id_), " goes on"); });
  paused_ = false;
  std::deque<Task> tasks = std::exchange(while_paused_, {});
  for (Task& task : tasks) {
    if (!up()) return;
    task();
  }
}

void Replica::AfterEvent() {
  if (!up() || context_.checker.violation()) return;
  context_.checker.OnStep(observed(), group_.Everyone());
  context_.trace.Mix(static_cast<uint64_t>(raft_->term().value()) << 32 ^
                     static_cast<uint64_t>(raft_->committed().value()) << 16 ^
                     static_cast<uint64_t>(raft_->log_end().value()) ^ static_cast<uint64_t>(raft_->role()) << 60);
  SettleProposals();
  if (!raft_->HasReady()) return;
  if (drain_scheduled_) return context_.faults.Hit(Fault::kDriverLags);
  if (context_.Chance(context_.plan.driver_lag_percent)) {
    drain_scheduled_ = true;
    After(Between(context_.random(), absl::ZeroDuration(), 0.5 * kTick), [this] {
      drain_scheduled_ = false;
      TakeReadys();
    });
    return;
  }
  TakeReadys();
}

void Replica::TakeReadys() {
  while (up() && raft_->HasReady() && !context_.checker.violation()) CarryOut(raft_->TakeReady());
  if (!up() || context_.checker.violation()) return;
  context_.checker.OnCarriedOut(observed());
  if (doubtful_ && !raft_->in_doubt() && !StoredInDoubt()) {
    context_.trace.Say([&] { return Cat(ShortName(id_), " is in doubt no more"); });
    doubtful_ = false;
  }
  if (raft_->committed() > applied_ && context_.random().OneIn(4)) {
    applied_ = std::min(raft_->committed(), disk_.durable().log_end);
  }
}

// ---- What a Ready says

void Replica::CarryOut(raft::Ready ready) {
  WriteReady(ready);
  for (raft::Message& message : ready.messages) {
    context_.checker.OnSend(observed(), message);
    if (SlotOf(message.to) < static_cast<size_t>(context_.plan.slots())) network_.Send(std::move(message));
  }
  for (const raft::LogRead& read : ready.log_reads) Read(read);
  for (const raft::SnapshotWanted& wanted : ready.snapshots_wanted) {
    After(Between(context_.random(), absl::ZeroDuration(), 3 * kTick), [this, to = wanted.to] { OfferSnapshot(to); });
  }
  AnswerReadIndexes(ready.read_results);
  if (ready.install) {
    if (install_) context_.checker.Fail(Invariant::kReadySound, Cat(ShortName(id_), " installs two snapshots at once"));
    install_ = Installation{*std::move(ready.install), ready.number};
    BeginInstall();
  }
  if (ready.role_change) {
    context_.trace.Say([&] {
      return Cat(ShortName(id_), " is ", raft::RoleName(ready.role_change->role), " in term ", ready.role_change->term);
    });
    if (ready.role_change->role == raft::Role::kLeader) group_.OnLeader(*this);
  }
}

void Replica::WriteReady(raft::Ready& ready) {
  std::vector<DiskOp> ops;
  if (ready.hard_state) ops.emplace_back(*ready.hard_state);
  if (ready.truncate_to) {
    context_.checker.OnTruncate(observed(), *ready.truncate_to);
    ops.emplace_back(TruncateTo{*ready.truncate_to});
  }
  if (ready.raft_state) ops.emplace_back(StateBlob{*ready.raft_state});
  for (const record::Batch& batch : ready.append) ops.emplace_back(batch);
  const uint64_t expected = last_number_ + (ready.must_persist ? 1 : 0);
  if (ready.number != expected || (!ready.must_persist && !ops.empty())) {
    context_.checker.Fail(Invariant::kReadySound, Cat(ShortName(id_), " hands out write ", ready.number, " after ",
                                                      last_number_, " with ", ops.size(), " parts"));
  }
  last_number_ = ready.number;
  if (!ready.must_persist) return;
  context_.trace.Say([&] {
    std::string text = Cat("  ", ShortName(id_), " writes #", ready.number);
    if (ready.hard_state) {
      text += Cat(", term ", ready.hard_state->term, " vote ", ShortName(ready.hard_state->voted_for));
    }
    if (ready.truncate_to) text += Cat(", cut at ", *ready.truncate_to);
    if (ready.raft_state) text += ", state";
    for (const auto& batch : ready.append) text += Cat(", ", batch.epoch(), "@", batch.base_offset());
    return Cat(text, " -> ", raft_->log_end());
  });
  if (const absl::Status written = disk_.Write(std::move(ops)); !written.ok()) {
    return context_.checker.Fail(Invariant::kBatchesTile, Cat(ShortName(id_), ": ", Message(written)));
  }
  for (const record::Batch& batch : ready.append) context_.checker.OnAppend(observed(), batch);
  WhenDurable([this, number = ready.number] {
    if (number <= told_durable_) return;
    told_durable_ = number;
    context_.trace.Say([&] { return Cat("  ", ShortName(id_), " has #", number, " on disk"); });
    raft_->OnDurable(number);
    BeginInstall();
  });
}

template <class F>
void Replica::WhenDurable(F done) {
  Context& c = context_;
  SimRandom& random = c.random();
  absl::Duration most = c.healed ? std::min(c.plan.sync_max, 0.2 * kTick) : c.plan.sync_max;
  if (c.Chance(c.plan.slow_sync_percent)) {
    c.faults.Hit(Fault::kSyncSlow);
    most = 25 * kTick;
  }
  const absl::Duration now = c.scheduler.now();
  disk_free_at_ = std::max(disk_free_at_, now + Between(random, absl::ZeroDuration(), most));
  if (c.healed) disk_free_at_ = std::min(disk_free_at_, now + most);
  const bool fails = !c.healed && random.Below(10000) < static_cast<uint64_t>(c.plan.sync_failure_per_10000);
  const absl::Duration told = Between(random, absl::ZeroDuration(), 0.05 * kTick);
  c.scheduler.At(disk_free_at_ - now,
                 [this, life = life_, write = disk_.last_write(), fails, told, done = std::move(done)]() mutable {
                   if (life != life_) return;
                   if (fails && !context_.healed) {
                     context_.trace.Say([&] { return Cat(ShortName(id_), ": a sync fails, the process stops"); });
                     context_.faults.Hit(Fault::kSyncFailed);
                     return Crash();
                   }
                   disk_.MakeDurable(write);  // also while the process is paused
                   After(told, std::move(done));
                 });
}

void Replica::Read(const raft::LogRead& read) {
  const absl::Duration most = context_.healed ? 0.2 * kTick : context_.plan.read_max;
  After(Between(context_.random(), absl::ZeroDuration(), most), [this, read] { AnswerRead(read); });
}

void Replica::AnswerRead(const raft::LogRead& read) {
  if (context_.Chance(context_.plan.read_failure_percent)) {
    context_.faults.Hit(Fault::kReadFailed);
    return raft_->OnRead(read.token, absl::UnavailableError("the disk does not read"));
  }
  const DiskImage& log = disk_.appended();
  const record::Batch* batch = log.At(read.from);
  if (batch == nullptr || batch->base_offset() != read.from || batch->next_offset() <= log.log_start) {
    context_.faults.Hit(Fault::kReadOutdated);
    return raft_->OnRead(read.token, absl::OutOfRangeError("no batch begins there"));
  }
  std::vector<record::Batch> batches;
  int64_t bytes = 0;
  for (const record::Batch* const end = log.batches.data() + log.batches.size(); batch != end; ++batch) {
    bytes += static_cast<int64_t>(batch->size_bytes());
    if (!batches.empty() && bytes > read.bytes_max) break;
    batches.push_back(*batch);
  }
  raft_->OnRead(read.token, std::move(batches));
}

// ---- Snapshots

void Replica::OfferSnapshot(const VoterId& to) {
  if (context_.Chance(context_.plan.snapshot_failure_percent)) {
    context_.faults.Hit(Fault::kSnapshotFailed);
    return raft_->OnSnapshotFailed(to);
  }
  const DiskImage& log = disk_.appended();
  std::vector<Offset> bases;
  if (raft_->committed() == log.log_end) bases.push_back(log.log_end);
  for (const record::Batch& batch : log.batches) {
    if (batch.next_offset() > log.log_start && batch.base_offset() <= raft_->committed()) {
      bases.push_back(batch.base_offset());
    }
  }
  if (bases.empty()) return raft_->OnSnapshotFailed(to);
  const Offset base = bases[context_.random().Below(bases.size())];
  if (!leads()) return;
  if (const absl::Status sent = raft_->SendSnapshot(to, base, Bytes::Adopt(Cat("snapshot at ", base))); !sent.ok()) {
    context_.checker.Fail(Invariant::kReadySound,
                          Cat(ShortName(id_), " cannot send a snapshot at ", base, ": ", Message(sent)));
  }
}

// Each step begins once the one before is durable; a crash may come between any two.
void Replica::BeginInstall() {
  if (!install_ || install_->begun || told_durable_ < install_->write) return;
  install_->begun = true;
  After(Between(context_.random(), absl::ZeroDuration(), 5 * kTick), [this] {
    const Offset base = install_->what.base.end;
    if (install_->what.detail.view() != Cat("snapshot at ", base)) {
      context_.checker.Fail(Invariant::kReadySound, Cat(ShortName(id_), " is given another snapshot's detail"));
    }
    if (context_.Chance(context_.plan.snapshot_failure_percent)) {
      context_.faults.Hit(Fault::kSnapshotFailed);
      install_.reset();
      return raft_->OnInstallFailed();
    }
    applied_ = std::max(applied_, base);
    const absl::Status reset = disk_.Write({ResetTo{base}});
    SLUICE_CHECK(reset.ok()) << reset.ToString();
    WhenDurable([this, base] {
      context_.faults.Hit(Fault::kSnapshotInstalled);
      context_.trace.Say([&] { return Cat(ShortName(id_), " has installed a snapshot at ", base); });
      install_.reset();
      raft_->OnSnapshotInstalled(base);
    });
  });
}

void Replica::MoveLogStart() {
  Event([this] {
    if (raft_->installing() || raft_->HasReady()) return;
    const Offset from = raft_->log_start(), most = std::min(raft_->committed(), disk_.appended().log_end);
    if (most <= from) return;
    const auto span = static_cast<uint64_t>(most - from);
    const Offset start = from + static_cast<int64_t>(context_.random().Below(span) + 1);
    context_.faults.Hit(Fault::kLogStartMoved);
    context_.trace.Say([&] { return Cat(ShortName(id_), " moves its log start to ", start); });
    raft_->OnLogStart(start);
    TakeReadys();
    if (!up() || context_.checker.violation()) return;
    const absl::Status written = disk_.Write({StartAt{start}});
    SLUICE_CHECK(written.ok()) << written.ToString();
    WhenDurable([] {});
  });
}

// ---- Messages

void Replica::Deliver(const Envelope& envelope) {
  Event([this, envelope] {
    if (const auto* alive = std::get_if<NodeAlive>(&envelope)) {
      if (alive->answer) {
        if (raft_->role() == raft::Role::kLeader) raft_->OnFollowerAlive(alive->from, alive->term);
      } else if (raft_->leader() == alive->from && raft_->term() == alive->term) {
        raft_->OnLeaderAlive(alive->term);
        network_.Send(NodeAlive{id_, alive->from, alive->term, true});
      }
      return;
    }
    const auto& message = std::get<raft::Message>(envelope);
    if (const absl::Status taken = raft_->Step(message); !taken.ok()) {
      context_.checker.Fail(Invariant::kPeersUnderstood, Cat(raft::Describe(message), ": ", Message(taken)));
    }
  });
}

void Replica::DeliverMisaddressed(const raft::Message& message) {
  Event([this, message] {
    context_.faults.Hit(Fault::kMessageMisaddressed);
    const LeaderEpoch term = raft_->term();
    if (raft_->Step(message).ok() || raft_->term() != term) {
      context_.checker.Fail(Invariant::kPeersUnderstood,
                            Cat(ShortName(id_), " takes a message for ", ShortName(message.to)));
    }
  });
}

void Replica::SendNodeAlive() {
  if (!leads()) return;
  for (const raft::FollowerStatus& follower : raft_->followers()) {
    network_.Send(NodeAlive{id_, follower.id, raft_->term(), false});
  }
}

// ---- Orders

void Replica::Propose(record::PendingBatch batch, int64_t value) {
  if (!up() || paused_) return;
  const uint32_t crc = batch.view().crc();
  auto proposed = raft_->Propose(std::move(batch));
  if (!proposed.ok()) return AfterEvent();
  context_.trace.Say([&] {
    return Cat(ShortName(id_), " is given value ", value, ": ", proposed->epoch, "@", proposed->base_offset, "-",
               proposed->last_offset);
  });
  context_.checker.OnProposed({value, *proposed, crc, Offset(0), Proposal::State::kOpen});
  proposals_.emplace_back(value, *proposed);
  AfterEvent();
}

void Replica::SettleProposals() {
  const Offset committed = raft_->committed();
  std::erase_if(proposals_, [&](const auto& proposal) {
    const raft::Proposed& at = proposal.second;
    if (committed <= at.last_offset) return false;
    const auto epoch = raft_->EpochAt(at.last_offset);
    const auto state = !epoch               ? Proposal::State::kUnknown
                       : *epoch == at.epoch ? Proposal::State::kDone
                                            : Proposal::State::kFailed;
    context_.checker.OnOutcome(proposal.first, state);
    return true;
  });
}

void Replica::ReadIndex() {
  if (!up() || paused_) return;
  const Offset committed = context_.checker.committed();
  const uint64_t number = ++reads_made_;
  if (raft_->ReadIndex(number).ok()) {
    context_.trace.Say([&] { return Cat(ShortName(id_), " is asked for a read index, ", committed, " is committed"); });
    reads_.push_back({number, committed});
  }
  AfterEvent();
}

void Replica::AnswerReadIndexes(const std::vector<raft::ReadIndexResult>& results) {
  for (const raft::ReadIndexResult& result : results) {
    const auto read =
        std::find_if(reads_.begin(), reads_.end(), [&](const PendingRead& r) { return r.context == result.context; });
    if (read == reads_.end()) {
      context_.checker.Fail(Invariant::kReadySound, Cat(ShortName(id_), " answers a read that nobody asked for"));
      return;
    }
    if (result.index) {
      context_.checker.OnReadIndex(read->committed_before, *result.index);
      ++reads_answered_;
    }
    reads_.erase(read);
  }
}

bool Replica::ProposeMembership(const raft::Configuration& next) {
  if (!up() || paused_) return false;
  auto proposed = raft_->ProposeMembership(next);
  if (proposed.ok()) {
    context_.trace.Say([&] { return Cat(ShortName(id_), " takes the change to ", next.ToString()); });
    context_.checker.OnMembershipProposed(observed());
  }
  AfterEvent();
  return proposed.ok();
}

void Replica::Transfer(const VoterId& to) {
  if (!up() || paused_) return;
  if (raft_->TransferLeadership(to).ok()) {
    context_.faults.Hit(Fault::kTransfer);
    context_.trace.Say([&] { return Cat(ShortName(id_), " is to hand over to ", ShortName(to)); });
  }
  AfterEvent();
}

void Replica::Campaign() {
  if (!up() || paused_) return;
  if (raft_->Campaign().ok()) {
    context_.faults.Hit(Fault::kCampaign);
    context_.trace.Say([&] { return Cat(ShortName(id_), " is to campaign"); });
  }
  AfterEvent();
}

void Replica::StepDown() {
  if (!leads() || paused_) return;
  context_.faults.Hit(Fault::kStepDown);
  context_.trace.Say([&] { return Cat(ShortName(id_), " is to step down"); });
  raft_->StepDown();
  AfterEvent();
}

void Replica::ReportUnreachable(const VoterId& to) {
  if (!leads() || paused_) return;
  context_.faults.Hit(Fault::kUnreachable);
  raft_->OnUnreachable(to);
  AfterEvent();
}

void Replica::ReportLeaderLost() {
  if (!up() || paused_) return;
  context_.faults.Hit(Fault::kLeaderLost);
  raft_->OnLeaderLost();
  AfterEvent();
}

}  // namespace sluice::raft_simulation
