// How a leader brings each follower to its own log: probe where they agree, then send ahead, within bounds
// (dissertation section 10.2.1 for what may overlap).
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/planted_bug.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "replication/core/leader_state.h"
#include "replication/core/raft.h"

namespace sluice::raft {

// ---- Answers

void Raft::OnAnswer(Progress& peer, uint64_t doubt, bool cannot_lead) {
  peer.silent_ticks = 0;
  peer.cannot_lead = cannot_lead;
  if (cannot_lead && lead_->transfer_to == peer.id) lead_->transfer_to = VoterId{};
  if (doubt == peer.doubt) return;
  // Its doubt has ended as this leader let it end. Where it did not, this is said of a time before the doubt, and what
  // it acknowledged in doubt counts as little as before.
  const bool resolved = doubt == kNoDoubt && peer.confirmed_end.has_value();
  peer.doubt = doubt;
  peer.confirmed_end.reset();
  if (resolved) return;
  // It has restarted and may have lost its tail: what it acknowledged before is not to be built on. Where its log ended
  // then is no place to ask about: in ours a batch may go on there, and an answer that comes late speaks of a log that
  // is another by now.
  peer.match = Offset(0);
  peer.acked_committed = Offset(0);
  peer.read_acked = 0;
  peer.BecomeProbe(peer.next);
  if (doubt == kNoDoubt) return;
  peer.doubt_since = log_.end();
  if (lead_->transfer_to == peer.id) lead_->transfer_to = VoterId{};
  if (Planted(PlantedBug::kEndDoubtAtOnce)) MaybeEndDoubts();
}

absl::Status Raft::StepAppendResponse(const Message& message, const AppendResponse& response) {
  if (role_ != Role::kLeader) return absl::OkStatus();
  Progress* peer = lead_->Find(message.from);
  if (peer == nullptr) return absl::OkStatus();
  if (response.end.value() < 0 || response.log_end.value() < 0 || response.hint.end.value() < 0 ||
      response.end > log_.end()) {
    return absl::InvalidArgumentError(Cat(message.from, " answers for offset ", response.end,
                                          ", beyond what it was sent, which ends at ", log_.end()));
  }
  const bool doubt_changed = peer->doubt != response.doubt;
  OnAnswer(*peer, response.doubt, response.cannot_lead);
  if (response.rejected) {
    absl::Status taken = OnRejected(*peer, response);
    if (doubt_changed) MaybeCommit();
    return taken;
  }
  peer->acked_committed = std::max(peer->acked_committed, std::min(response.committed, committed_));
  const bool moved = response.end > peer->match;
  peer->match = std::max(peer->match, response.end);
  switch (peer->state) {
    case Progress::State::kProbe:
      peer->BecomeReplicate();
      break;
    case Progress::State::kReplicate:
      peer->next = std::max(peer->next, peer->match);
      peer->Acked(peer->match);
      break;
    case Progress::State::kSnapshot:
      // It has begun anew, or had the log all along.
      if (peer->match >= log_.start() || (peer->snapshot && peer->match >= peer->snapshot->base.end)) {
        peer->BecomeReplicate();
      }
      break;
  }
  if (moved || doubt_changed) {
    TrimWindow();
    MaybeCommit();
    if (role_ == Role::kLeader) ContinueTransfer();
  }
  return absl::OkStatus();
}

absl::Status Raft::OnRejected(Progress& peer, const AppendResponse& response) {
  // Answers to what has been asked differently since, or is known to agree.
  if (peer.state == Progress::State::kSnapshot) return absl::OkStatus();
  // Asked where it is known to agree, it has not got so far: its disk went back to what it was, as when a copy is put
  // in its place. It is not counted for what it has no more, and gets it again.
  // What it has instead need not be the leader's: nothing is known of it, as at the beginning of a term.
  if (peer.state == Progress::State::kProbe && response.end == peer.next && response.end == peer.match &&
      log_.EpochBefore(response.end)) {
    peer.match = Offset(0);
  }
  if (response.end <= peer.match) {
    // It agreed there once, has restarted and does not know that this is committed, and we do not know the epoch to
    // show it any more.
    const bool unproven = response.end == peer.next && !log_.EpochBefore(response.end);
    if (unproven) WantSnapshot(peer);
    return absl::OkStatus();
  }
  if (peer.state == Progress::State::kProbe && response.end != peer.next) return absl::OkStatus();
  Offset next = response.hint.end;
  bool known = true;
  if (response.hint.epoch.value() != 0) {
    // Of an epoch that both logs have, both have the same beginning: they agree where the shorter one's part ends. One
    // that only the follower has is skipped whole, and so is every epoch of ours that it does not name.
    const std::optional<LogPlace> ours = log_.EndOf(response.hint.epoch);
    known = ours.has_value();
    if (known) next = ours->epoch == response.hint.epoch ? std::min(ours->end, next) : ours->end;
  }
  if (known && next >= response.end) {
    return absl::InvalidArgumentError(Cat(peer.id, " rejects what follows offset ", response.end,
                                          " and points to epoch ", response.hint.epoch, " at ", response.hint.end,
                                          ", which is not below it"));
  }
  peer.BecomeProbe(known ? next : Offset(0));
  if (peer.next < log_.start()) WantSnapshot(peer);
  return absl::OkStatus();
}

absl::Status Raft::StepHeartbeatResponse(const Message& message, const HeartbeatResponse& response) {
  if (role_ != Role::kLeader) return absl::OkStatus();
  Progress* peer = lead_->Find(message.from);
  if (peer == nullptr) return absl::OkStatus();
  if (response.read_seq > lead_->read_seq || response.log_end.value() < 0 || response.committed.value() < 0 ||
      response.members.end.value() < 0) {
    return absl::InvalidArgumentError(
        Cat(message.from, " confirms read ", response.read_seq, "; the last one was ", lead_->read_seq));
  }
  // Who is known to be out need not have what is to be committed (AgreedEnd), and may never answer.
  const Offset known = committed_;
  LearnCommittedMembers(response.members);
  const bool doubt_changed = peer->doubt != response.doubt;
  OnAnswer(*peer, response.doubt, response.cannot_lead);
  peer->acked_committed = std::min(response.committed, committed_);
  if (peer->state == Progress::State::kProbe) peer->paused = false;
  // A message, or its answer, may have been lost; or it restarted and does not know any more how far it agrees.
  const bool behind = peer->match < peer->next || peer->acked_committed < std::min(peer->match, peer->sent_committed);
  // Its doubt may end, but it has not been shown since it lost sight of its leader that its log is the leader's.
  const bool unproven = peer->doubt != kNoDoubt && peer->confirmed_end;
  if (peer->state == Progress::State::kReplicate && (behind || unproven)) peer->ask = true;
  peer->read_acked = std::max(peer->read_acked, response.read_seq);
  MaybeFinishReadRound();
  if (doubt_changed || committed_ > known) MaybeCommit();
  if (role_ == Role::kLeader) {
    if (transferring()) lead_->timeout_now_sent = false;  // it may have been lost
    ContinueTransfer();
  }
  return absl::OkStatus();
}

void Raft::OnUnreachable(const VoterId& voter) {
  if (role_ != Role::kLeader) return;
  Progress* peer = lead_->Find(voter);
  if (peer == nullptr) return;
  if (peer->state == Progress::State::kReplicate) peer->BecomeProbe(peer->match);
  dirty_ = true;
}

void Raft::OnRead(uint64_t token, absl::StatusOr<std::vector<record::Batch>> batches) {
  if (role_ != Role::kLeader) return;
  const auto reads = [&](const Progress& p) { return p.log_read_token == token; };
  const auto peer = std::find_if(lead_->peers.begin(), lead_->peers.end(), reads);
  if (token == 0 || peer == lead_->peers.end()) return;
  peer->log_read_token = 0;
  dirty_ = true;
  bool fits = batches.ok() && !batches->empty();
  Offset end = peer->next;
  for (size_t i = 0; fits && i < batches->size(); ++i) {
    const record::Batch& b = (*batches)[i];
    fits = b.base_offset() == end && log_.EpochAt(b.last_offset()) == b.epoch();
    end = b.next_offset();
  }
  if (fits) return SendBatches(*peer, log_.EpochBefore(peer->next).value_or(LeaderEpoch(0)), *std::move(batches));
  if (peer->next < log_.start()) return WantSnapshot(*peer);
  peer->BecomeProbe(peer->match);
  peer->paused = true;  // until it answers a heartbeat
}

// ---- What is sent

// Once for each TakeReady, so that what was proposed meanwhile shares messages.
void Raft::FlushAppends() {
  for (Progress& peer : lead_->peers) FlushTo(peer);
}

void Raft::FlushTo(Progress& peer) {
  if (peer.state == Progress::State::kProbe && !peer.paused && peer.log_read_token == 0) SendAppend(peer);
  // The new log begins with members that are known to be committed. A leader that has joined lately may have to commit
  // before it knows any.
  const bool members_known = !LastCommittedConfiguration()->configuration.voters.empty();
  if (peer.state == Progress::State::kSnapshot && !peer.snapshot_asked && members_known) {
    peer.snapshot_asked = true;
    snapshots_wanted_.push_back({peer.id});
  }
  if (peer.state != Progress::State::kReplicate) return;
  const auto full = [&] {
    return peer.in_flight.size() >= static_cast<size_t>(options_.inflight_messages_max) ||
           peer.in_flight_bytes >= options_.inflight_bytes_max;
  };
  while (peer.state == Progress::State::kReplicate && peer.log_read_token == 0 && peer.next < log_.end() && !full()) {
    if (!SendAppend(peer)) break;
    peer.ask = false;
  }
  if (peer.state != Progress::State::kReplicate) return;
  if (std::exchange(peer.ask, false)) {
    SendBatches(peer, log_.EpochBefore(peer.next).value_or(LeaderEpoch(0)), {});
  }
  // Appends carry the commit along; where none is on its way, and no answer that lets the next one go, it is told
  // alone.
  if (peer.sent_committed < committed_ && peer.in_flight.empty() && peer.next == log_.end()) SendHeartbeat(peer, false);
}

// True when something was sent.
bool Raft::SendAppend(Progress& peer) {
  const std::optional<LeaderEpoch> previous = log_.EpochBefore(peer.next);
  // Where the follower is known to agree, the epoch need not be: it has just begun anew there, maybe inside our log's
  // first batch. One that is probed there may as well have been away while our log start passed it.
  const bool agrees = peer.state == Progress::State::kReplicate && peer.match == peer.next && peer.next.value() != 0;
  if (!previous && !agrees) {
    WantSnapshot(peer);
    return false;
  }
  std::vector<record::Batch> batches = lead_->window.From(peer.next, options_.message_bytes_max);
  const bool missing = batches.empty() && peer.next < log_.end();
  if (missing && peer.state == Progress::State::kReplicate) {
    peer.log_read_token = ++next_log_read_;
    log_reads_.push_back({peer.log_read_token, peer.id, peer.next, options_.message_bytes_max});
    return false;
  }
  SendBatches(peer, previous.value_or(LeaderEpoch(0)), std::move(batches));
  return true;
}

void Raft::SendBatches(Progress& peer, LeaderEpoch previous_epoch, std::vector<record::Batch> batches) {
  AppendRequest request{{previous_epoch, peer.next}, committed_, std::move(batches)};
  peer.sent_committed = committed_;
  if (peer.state == Progress::State::kProbe) {
    peer.paused = true;
  } else if (!request.batches.empty()) {
    int64_t bytes = 0;
    for (const record::Batch& b : request.batches) bytes += static_cast<int64_t>(b.size_bytes());
    peer.Sent(request.batches.back().next_offset(), bytes);
  }
  Send(peer.id, std::move(request));
}

void Raft::SendHeartbeat(Progress& peer, bool answer) {
  Heartbeat heartbeat;
  heartbeat.committed = committed_;
  heartbeat.answer = answer;
  const bool asks = lead_->read_seq > lead_->read_confirmed;
  heartbeat.read_seq = asks ? lead_->read_seq : 0;
  if (peer.doubt != kNoDoubt && peer.confirmed_end) {
    heartbeat.doubt = peer.doubt;
    heartbeat.confirmed_end = *peer.confirmed_end;
  }
  peer.sent_committed = committed_;
  Send(peer.id, heartbeat);
}

void Raft::PokeFollower(const VoterId& id) {
  if (Progress* peer = lead_->Find(id); peer != nullptr) SendHeartbeat(*peer, true);
}

bool Raft::Settled(const Progress& peer) const {
  return peer.state == Progress::State::kReplicate && peer.match == log_.end() && peer.acked_committed == committed_ &&
         peer.doubt == kNoDoubt && lead_->read_seq == lead_->read_confirmed;
}

bool Raft::Quiet() const {
  if (options_.explicit_heartbeats || dirty_ || write_pending_ || !writes_.empty() || !held_.empty()) return false;
  if (in_doubt() || install_ || committed_ != log_.end()) return false;
  if (role_ == Role::kFollower) return !leader_.IsNone();
  return Serving() && !transferring() && lead_->reads.empty() && lead_->window.empty() &&
         std::all_of(lead_->peers.begin(), lead_->peers.end(), [this](const Progress& peer) { return Settled(peer); });
}

bool Raft::Settled(const VoterId& voter) const {
  if (role_ != Role::kLeader) return false;
  const Progress* peer = lead_->Find(voter);
  return peer != nullptr && Settled(*peer);
}

// Batches stay in memory while a follower that answers lacks them. One that is silent reads them from the log later.
void Raft::TrimWindow() {
  if (lead_->window.empty()) return;
  Offset needed = log_.end();
  for (const Progress& peer : lead_->peers) {
    if (peer.silent_ticks <= options_.election_ticks) needed = std::min(needed, peer.match);
  }
  lead_->window.DropBefore(needed);
}

}  // namespace sluice::raft
