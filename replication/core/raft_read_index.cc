// Read index (dissertation section 6.4): a read is linearizable at what was committed when it came, once a quorum has
// answered a heartbeat that was sent after it came. Rounds are shared: reads that come while one is under way wait for
// the next.
//
// The same rounds are one of the two ways in which a doubt ends.
#include <algorithm>
#include <functional>
#include <utility>

#include "common/planted_bug.h"
#include "replication/core/leader_state.h"
#include "replication/core/raft.h"

namespace sluice::raft {

absl::Status Raft::ReadIndex(uint64_t context) {
  if (role_ != Role::kLeader) return absl::UnavailableError("not the leader");
  dirty_ = true;
  if (Planted(PlantedBug::kReadIndexWithoutQuorum) && Serving()) {
    read_results_.push_back({context, committed_});
    return absl::OkStatus();
  }
  lead_->reads.push_back({context, 0, Offset(0)});
  StartReadRound();
  return absl::OkStatus();
}

void Raft::StartReadRound() {
  const bool under_way = lead_->read_seq > lead_->read_confirmed;
  const bool reads_wait = Serving() && !lead_->reads.empty() && lead_->reads.back().seq == 0 && !under_way;
  const auto wants_proof = [&](const Progress& p) { return p.doubt != kNoDoubt && p.confirm_seq > lead_->read_seq; };
  if (!reads_wait && std::none_of(lead_->peers.begin(), lead_->peers.end(), wants_proof)) return;
  ++lead_->read_seq;
  if (Serving()) {
    for (LeaderState::PendingRead& read : lead_->reads) {
      if (read.seq != 0) continue;
      read.seq = lead_->read_seq;
      read.index = committed_;
    }
  }
  const uint64_t doubt_seq = lead_->DoubtSeq();
  for (Progress& peer : lead_->peers) {
    if (peer.voter || peer.read_acked < doubt_seq) SendHeartbeat(peer, true);
  }
  AskFormerVoters();
  MaybeFinishReadRound();
  MaybeConfirmDoubtful();
}

void Raft::MaybeFinishReadRound() {
  if (role_ != Role::kLeader || lead_->read_seq == lead_->read_confirmed) return;
  const Configuration& members = configuration();
  std::vector<uint64_t> acked;
  if (members.IsVoter(self_)) acked.push_back(lead_->read_seq);
  for (const Progress& peer : lead_->peers) {
    // One in doubt may have forgotten that it helped to elect another leader.
    const bool counts = peer.doubt == kNoDoubt || Planted(PlantedBug::kVoteInDoubt);
    if (peer.voter) acked.push_back(counts ? peer.read_acked : 0);
  }
  const size_t quorum = members.Quorum();
  std::sort(acked.begin(), acked.end(), std::greater<>());
  if (acked[quorum - 1] <= lead_->read_confirmed) return;
  lead_->read_confirmed = acked[quorum - 1];
  auto& reads = lead_->reads;
  const auto done = std::find_if(reads.begin(), reads.end(), [&](const LeaderState::PendingRead& read) {
    return read.seq == 0 || read.seq > lead_->read_confirmed;
  });
  for (auto read = reads.begin(); read != done; ++read) read_results_.push_back({read->context, read->index});
  reads.erase(reads.begin(), done);
  if (reads.empty()) std::vector<LeaderState::PendingRead>().swap(reads);
  dirty_ = true;
  StartReadRound();
}

size_t Raft::VotersInDoubt(const Configuration& members) const {
  const auto in_doubt = [&](const Progress& peer) { return peer.doubt != kNoDoubt && members.IsVoter(peer.id); };
  return static_cast<size_t>(std::count_if(lead_->peers.begin(), lead_->peers.end(), in_doubt));
}

// What it may have forgotten is a vote in a later term, which may yet help to elect somebody. It does not once
// something that was proposed after the restart is committed, for that counts none in doubt: whoever was given the vote
// lacks the entry, and of the others too few can vote for a log without it. Or else once every member has answered in
// this term after the restart: who asks for votes in a later one, or leads there, would not have. A learner too: it may
// have been a voter, and not know yet that this has ended. This term and our configuration must be committed then.
// Where nothing can be, without those in doubt, every voter must have answered, by each configuration that may be in
// force.
bool Raft::NobodyHoldsVoteOf(const Progress& doubtful) const {
  if (committed_ > doubtful.doubt_since || Planted(PlantedBug::kEndDoubtAtOnce)) return true;
  const auto answered = [&](const Progress& peer) { return peer.read_acked >= doubtful.confirm_seq; };
  for (const VoterId& voter : VotersInForce()) {
    if (voter == self_) continue;
    const Progress* const peer = lead_->Find(voter);
    const auto former = lead_->former_acked.find(voter);
    const bool former_answered = former != lead_->former_acked.end() && former->second >= doubtful.confirm_seq;
    if (peer != nullptr ? !answered(*peer) : !former_answered) return false;
  }
  const bool all_answered = std::all_of(lead_->peers.begin(), lead_->peers.end(), answered);
  if (all_answered && Serving() && configurations_.back().offset < committed_) return true;
  return NothingCommitsWithoutDoubtful();
}

// Without members that are known to be committed, a voter that lags may be waiting for a snapshot (FlushTo).
bool Raft::NothingCommitsWithoutDoubtful() const {
  const Configuration& members = configuration();
  return members.voters.size() - VotersInDoubt(members) < members.Quorum() ||
         LastCommittedConfiguration()->configuration.voters.empty();
}

// Those that a change takes out while it may still be taken back hear nothing else from us.
void Raft::AskFormerVoters() {
  const uint64_t doubt_seq = lead_->DoubtSeq();
  if (doubt_seq == 0) return lead_->former_acked.clear();
  if (!NothingCommitsWithoutDoubtful()) return;
  for (const VoterId& voter : VotersInForce()) {
    if (voter == self_ || lead_->Find(voter) != nullptr || lead_->former_acked[voter] >= doubt_seq) continue;
    Heartbeat heartbeat;
    heartbeat.committed = committed_;
    heartbeat.read_seq = lead_->read_seq;
    Send(voter, heartbeat);
  }
}

bool Raft::IsAskedFormerVoter(const Message& answer) const {
  if (role_ != Role::kLeader || !std::holds_alternative<HeartbeatResponse>(answer.body)) return false;
  const std::vector<VoterId> in_force = VotersInForce();
  return lead_->former_acked.contains(answer.from) &&
         std::find(in_force.begin(), in_force.end(), answer.from) != in_force.end();
}

// Then all that it ever acknowledged to anyone is in our log, or gone for good.
void Raft::MaybeConfirmDoubtful() {
  for (Progress& asking : lead_->peers) {
    if (asking.doubt == kNoDoubt || asking.confirmed_end || !NobodyHoldsVoteOf(asking)) continue;
    asking.confirmed_end = log_.end();
    SendHeartbeat(asking, true);
  }
}

void Raft::FailReads() {
  for (const LeaderState::PendingRead& read : lead_->reads) read_results_.push_back({read.context, std::nullopt});
  lead_->reads.clear();
  dirty_ = true;
}

}  // namespace sluice::raft
