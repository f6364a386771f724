// A replica's life, and what its Readys say.
#include <algorithm>

#include "tests/simulation/raft/replica_events.h"

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
  state.committed = context_.random().OneIn(3) ? applied_ : image.log_start;
  // The core is to remember what it has written down; a crash before that leaves the damage to be found once more.
  state.doubtful = doubtful_ && !StoredInDoubt();
  context_.trace.Say([&] {
    return Cat(ShortName(id_), " starts, term ", state.hard_state.term, ", log ", state.log_start, " to ",
               state.log_end, ", committed ", state.committed, doubtful_ ? ", in doubt" : "");
  });
  ++life_;
  denied_.clear();
  auto restored = raft::Raft::Restore(context_.plan.options, random_, std::move(state));
  if (!restored.ok()) {
    return context_.checker.Fail(Invariant::kRestores, Cat(ShortName(id_), ": ", Message(restored.status())));
  }
  raft_ = *std::move(restored);
  const auto& members = raft_->configurations();
  const bool alone = std::all_of(members.begin(), members.end(), [this](const raft::ConfigurationAt& at) {
    return at.configuration.voters == std::vector<VoterId>{id_};
  });
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
  const VoterId& vote = state_before.voted_for;
  const bool vote_lost = disk_.durable().hard_state.term < state_before.term && vote != VoterId{};
  if (vote_lost) context_.faults.Hit(Fault::kVoteForgotten);
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
  // Somebody may ask it for a read before it hears of anything that happened meanwhile.
  if (leads() && !context_.healed) ReadIndex();
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
    applied_ = std::min(raft_->committed(), raft_->durable_end());
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
    group_.OnInstall(*this);
    BeginInstall();
  }
  if (ready.role_change) {
    context_.trace.Say([&] {
      return Cat(ShortName(id_), " is ", raft::RoleName(ready.role_change->role), " in term ", ready.role_change->term);
    });
    if (ready.role_change->role == raft::Role::kLeader) group_.OnLeader(*this);
    if (ready.role_change->role == raft::Role::kCandidate) group_.OnCandidate(*this);
  }
}

void Replica::WriteReady(raft::Ready& ready) {
  std::vector<DiskOp> ops;
  if (ready.hard_state) ops.emplace_back(*ready.hard_state);
  if (ready.truncate_to) {
    context_.checker.OnTruncate(observed(), *ready.truncate_to,
                                ready.append.empty() ? raft_->term() : ready.append.front().epoch());
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

}  // namespace sluice::raft_simulation
