// Proposals, and what becomes of them.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/planted_bug.h"
#include "common/record/control.h"
#include "common/status_macros.h"
#include "replication/raft_log.h"
#include "replication/raft_log_internal.h"

namespace sluice::replication {

absl::StatusOr<raft::Proposed> RaftLog::TryPropose(record::PendingBatch batch, storage::Log::Urgency urgency) {
  if (ended()) return NotServed();
  if (raft_->transferring()) return Moving();
  if (!IsLeader()) return absl::UnavailableError("this replica does not lead the partition");
  const auto bytes = static_cast<int64_t>(batch.size_bytes());
  if (absl::Status room = log_->Admit(bytes + ops_bytes_ + proposed_bytes_, urgency); !room.ok()) {
    if (absl::IsResourceExhausted(room)) log_->FlushSoon();
    return room;
  }
  SLUICE_ASSIGN_OR_RETURN(const raft::Proposed place, raft_->Propose(std::move(batch)));
  proposed_bytes_ += bytes;
  ScheduleTurn();
  return place;
}

void RaftLog::AddProposal(const raft::Proposed& place, Callback<absl::StatusOr<Committed>> done) {
  proposals_.emplace(place.last_offset, Proposal{.base = place.base_offset,
                                                 .epoch = place.epoch,
                                                 .began = Now(),
                                                 .deadline = std::nullopt,
                                                 .done = std::move(done)});
}

void RaftLog::Propose(record::PendingBatch batch, std::optional<Offset> expected_base_offset,
                      Callback<absl::StatusOr<Committed>> done) {
  using Result = absl::StatusOr<Committed>;
  if (IsLeader() && expected_base_offset && !Planted(PlantedBug::kIgnoreExpectedOffset) &&
      *expected_base_offset != raft_->log_end()) {
    return AnswerLater<Result>(std::move(done), absl::FailedPreconditionError(
                                                    absl::StrCat("expected base offset ", expected_base_offset->value(),
                                                                 ", but the log ends at ", raft_->log_end().value())));
  }
  const bool data = !batch.view().is_control();
  auto place = TryPropose(std::move(batch), storage::Log::Urgency::kNormal);
  if (!place.ok()) return AnswerLater<Result>(std::move(done), place.status());
  if (Planted(PlantedBug::kAcknowledgeBeforeCommit)) {
    return AnswerLater<Result>(std::move(done), Committed{place->base_offset, place->last_offset, place->epoch});
  }
  AddProposal(*place, [this, data, done = std::move(done)](Result result) mutable {
    if (result.ok() && data && data_end_known_)
      data_end_ = std::max(data_end_.value_or(Offset(0)), result->last_offset + 1);
    done(std::move(result));
  });
}

void RaftLog::ResolveProposals() {
  // While a snapshot is being installed, high_watermark_ is the new log's already, and the core still has the old one,
  // in which what was proposed stands as if it were committed.
  const Offset settled = std::min(high_watermark_, raft_->committed());
  while (!proposals_.empty() && proposals_.begin()->first < settled) {
    auto node = proposals_.extract(proposals_.begin());
    Proposal& proposal = node.mapped();
    const Offset last = node.key();
    const std::optional<LeaderEpoch> epoch = raft_->EpochAt(last);
    absl::StatusOr<Committed> result = Committed{proposal.base, last, proposal.epoch};
    if (!epoch) {
      ++counts_.unknown_outcomes;
      result = absl::UnknownError("the log was replaced by a newer one before the outcome was known");
    } else if (*epoch != proposal.epoch) {
      // An epoch writes an offset once, so what is committed there is not this.
      result = absl::UnavailableError("another leader took over, and nothing was written");
    } else {
      const absl::Duration took = Now() - proposal.began;
      ++counts_.commits;
      counts_.commit_total += took;
      counts_.commit_max = std::max(counts_.commit_max, took);
    }
    answers_.push_back(
        [done = std::move(proposal.done), result = std::move(result)]() mutable { done(std::move(result)); });
  }
  FailOvertaken();
}

// Epochs only grow along a log. So once anything of a later epoch is committed, what an earlier one wrote beyond it can
// be in no leader's log any more.
void RaftLog::FailOvertaken() {
  if (!proposals_orphaned_) return;
  const LeaderEpoch committed =
      raft_->history().EpochBefore(std::min(high_watermark_, raft_->committed())).value_or(LeaderEpoch(0));
  for (auto at = proposals_.begin(); at != proposals_.end();) {
    if (at->second.epoch >= committed) {
      ++at;
      continue;
    }
    answers_.push_back([done = std::move(at->second.done)]() mutable {
      done(absl::UnavailableError("another leader took over, and nothing was written"));
    });
    at = proposals_.erase(at);
  }
  proposals_orphaned_ = !proposals_.empty();
}

void RaftLog::ExpireProposals() {
  if (!proposals_orphaned_) return;
  for (auto at = proposals_.begin(); at != proposals_.end();) {
    if (!at->second.deadline || *at->second.deadline > Now()) {
      ++at;
      continue;
    }
    ++counts_.unknown_outcomes;
    answers_.push_back([done = std::move(at->second.done)]() mutable {
      done(absl::UnknownError("leadership was lost, and the outcome could not be learnt in time"));
    });
    at = proposals_.erase(at);
  }
}

}  // namespace sluice::replication
