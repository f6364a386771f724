// Read index (dissertation section 6.4): a read is linearizable at what was committed when it came, once a quorum has
// answered a heartbeat that was sent after it came. Rounds are shared: reads that come while one is under way wait for
// the next.
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
  if (!reads_wait) return;
  ++lead_->read_seq;
  for (LeaderState::PendingRead& read : lead_->reads) {
    if (read.seq != 0) continue;
    read.seq = lead_->read_seq;
    read.index = committed_;
  }
  for (Progress& peer : lead_->peers) {
    if (peer.voter) SendHeartbeat(peer, true);
  }
  MaybeFinishReadRound();
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

void Raft::FailReads() {
  for (const LeaderState::PendingRead& read : lead_->reads) read_results_.push_back({read.context, std::nullopt});
  lead_->reads.clear();
  dirty_ = true;
}

}  // namespace sluice::raft
