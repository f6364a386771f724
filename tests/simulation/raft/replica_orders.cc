// What reaches a replica from outside: messages, orders, snapshots.
#include <algorithm>

#include "common/check.h"
#include "tests/simulation/raft/replica_events.h"

namespace sluice::raft_simulation {

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
    const absl::Status reset = disk_.Write({ResetTo{base}});
    SLUICE_CHECK(reset.ok()) << reset.ToString();
    WhenDurable([this, base] {
      context_.faults.Hit(Fault::kSnapshotInstalled);
      context_.trace.Say([&] { return Cat(ShortName(id_), " has installed a snapshot at ", base); });
      install_.reset();
      applied_ = std::max(applied_, base);  // of the log that begins there, not of the one before
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
    if (const auto* alive = std::get_if<NodeAlive>(&envelope)) return HearOf(*alive);
    const auto& message = std::get<raft::Message>(envelope);
    if (const absl::Status taken = raft_->Step(message); !taken.ok()) {
      context_.checker.Fail(Invariant::kPeersUnderstood, Cat(raft::Describe(message), ": ", Message(taken)));
    }
  });
}

// What replication/liveness.h says in one message for all groups.
void Replica::HearOf(const NodeAlive& alive) {
  if (!alive.answer) {
    const bool follows = raft_->leader() == alive.from && raft_->term() == alive.term;
    if (follows) raft_->OnLeaderAlive(alive.term);
    return network_.Send(NodeAlive{id_, alive.from, alive.term, true, follows});
  }
  if (raft_->role() != raft::Role::kLeader || raft_->term() != alive.term) return;
  int& denied = denied_[{alive.from, alive.term}];
  denied = alive.follows ? 0 : denied + 1;
  if (alive.follows) return raft_->OnFollowerAlive(alive.from, alive.term);
  if (denied == 2) raft_->OnUnreachable(alive.from);  // one may cross the leader's first word
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
