#include "tests/simulation/raft/checker.h"

#include <algorithm>
#include <array>

#include "common/record/control.h"
#include "common/text.h"

namespace sluice::raft_simulation {

namespace {

constexpr std::array<std::string_view, static_cast<size_t>(Invariant::kLiveness) + 1> kNames = {
    "one leader per term",
    "one vote per term",
    "a vote is durable before it leaves",
    "an acknowledgement is durable before it leaves",
    "a quorum's disks have what is committed",
    "a leader commits by counting only in its own term",
    "committed prefixes agree",
    "what is committed is never cut off",
    "a leader has everything committed before its term",
    "logs match",
    "batches tile",
    "term, commit and log start never go back",
    "the durable end is on the disk",
    "a success is in the log, once and in order",
    "a failure is not in the log",
    "reads are linearizable",
    "at most one uncommitted membership change",
    "membership changes only after a commit of the term",
    "the configuration in use is the log's last",
    "correct peers are understood",
    "a replica starts from its disk",
    "a Ready can be carried out",
    "a leader's appends follow a whole batch",
    "the healed group makes progress",
};

std::string Name(const VoterId& id) {
  return Cat("replica ", id.node.value(), "/", id.incarnation.bytes[15]);
}

std::string Place(const record::Batch& batch) {
  return Cat(batch.epoch(), "@", batch.base_offset(), "-", batch.last_offset());
}

}  // namespace

std::string_view InvariantName(Invariant invariant) {
  return kNames[static_cast<size_t>(invariant)];
}

void Checker::Fail(Invariant invariant, std::string what) {
  if (!violation_) violation_ = Violation{invariant, std::move(what)};
}

size_t Checker::CommittedIndex(Offset offset) const {
  const auto found = std::lower_bound(committed_.begin(), committed_.end(), offset,
                                      [](const Committed& c, Offset o) { return c.batch.last_offset() < o; });
  return static_cast<size_t>(found - committed_.begin());
}

const record::Batch* Checker::CommittedEndingAt(Offset end) const {
  const size_t i = CommittedIndex(end - 1);
  return i < committed_.size() && committed_[i].batch.next_offset() == end ? &committed_[i].batch : nullptr;
}

// ---- The life of a replica

void Checker::OnStarted(const Observed& replica) {
  Known& known = known_[replica.id];
  const LeaderEpoch term = replica.raft->term();
  const raft::HardState& durable = replica.disk->durable().hard_state;
  if (term != durable.term || replica.raft->hard_state().voted_for != durable.voted_for) {
    Fail(Invariant::kRestores, Cat(Name(replica.id), " starts in term ", term, ", its disk says ", durable.term));
  }
  if (replica.raft->log_start() != replica.disk->durable().log_start ||
      replica.raft->log_end() != replica.disk->durable().log_end) {
    Fail(Invariant::kRestores, Cat(Name(replica.id), " starts with a log from ", replica.raft->log_start(), " to ",
                                   replica.raft->log_end(), ", not as its disk has it"));
  }
  known = Known{replica.raft->role(), term, replica.raft->committed(), replica.raft->log_start(), Offset(0)};
  if (known.committed > committed()) {
    Fail(Invariant::kRestores,
         Cat(Name(replica.id), " starts with ", known.committed, " committed, the group has ", committed()));
  }
  CheckConfiguration(replica);
}

void Checker::OnDamaged(const VoterId& id, const std::vector<record::Batch>& gone) {
  for (const record::Batch& batch : gone) damaged_.emplace(id, batch.base_offset(), batch.epoch());
  std::erase_if(votes_, [&](const auto& vote) { return vote.first.first == id; });
}

void Checker::OnAppend(const Observed& replica, const record::Batch& batch) {
  const DiskImage& log = replica.disk->appended();
  const record::Batch* const here = log.At(batch.base_offset());
  if (here == nullptr) return;  // the same write cut it off again
  std::optional<LeaderEpoch> previous;
  if (here != log.batches.data()) previous = (here - 1)->epoch();
  if (batch.base_offset().value() == 0) previous = LeaderEpoch(0);
  const auto [at, is_new] = entries_.try_emplace({batch.epoch(), batch.base_offset()}, Entry{batch, previous});
  if (is_new) return;
  Entry& entry = at->second;
  if (entry.batch.bytes() != batch.bytes()) {
    Fail(Invariant::kLogsMatch, Cat(Name(replica.id), " has another batch at ", Place(batch), " than the others"));
  }
  if (!entry.previous) entry.previous = previous;
  if (previous && entry.previous != previous) {
    Fail(Invariant::kLogsMatch,
         Cat(Name(replica.id), " has epoch ", *previous, " before ", Place(batch), ", others have ", *entry.previous));
  }
}

void Checker::OnTruncate(const Observed& replica, Offset new_end, LeaderEpoch instead) {
  const Known& known = known_[replica.id];
  // One Ready may hold a cut, what is appended there, and word that it is committed: so not known.committed.
  if (new_end < known.compared) {
    Fail(Invariant::kCommittedStays,
         Cat(Name(replica.id), " cuts its log at ", new_end, ", and knew ", known.compared, " as committed"));
  }
  const DiskImage& log = replica.disk->appended();
  for (auto batch = log.batches.rbegin(); batch != log.batches.rend() && batch->base_offset() >= new_end; ++batch) {
    const size_t i = CommittedIndex(batch->base_offset());
    if (i >= committed_.size() || committed_[i].batch.bytes() != batch->bytes()) continue;
    // A leader of an older term than the one that committed it may still have it cut off: there it counts for nothing.
    // The replica itself may know of a newer term by now. A newer leader has no older batch there (kLeaderComplete).
    if (committed_[i].by_term > instead) continue;
    Fail(Invariant::kCommittedStays, Cat(Name(replica.id), " cuts off ", Place(*batch), ", which is committed"));
  }
}

void Checker::OnStep(const Observed& replica, const std::vector<Observed>& all) {
  Known& known = known_[replica.id];
  const Known before = known;
  const raft::Raft& raft = *replica.raft;
  CheckMonotone(replica, before);
  known.role = raft.role();
  known.term = raft.term();
  known.committed = raft.committed();
  known.log_start = raft.log_start();
  if (raft.role() == raft::Role::kLeader) CheckLeader(replica, before);
  if (raft.committed() > committed()) {
    if (raft.role() != raft::Role::kLeader && before.role != raft::Role::kLeader) {
      Fail(Invariant::kCommittedPrefixesAgree, Cat(Name(replica.id), " follows, and takes ", raft.committed(),
                                                   " for committed, when leaders have committed ", committed()));
      return;
    }
    ExtendCommitted(replica, all);
  }
}

void Checker::CheckMonotone(const Observed& replica, const Known& before) {
  const raft::Raft& raft = *replica.raft;
  if (raft.term() < before.term || raft.committed() < before.committed || raft.log_start() < before.log_start) {
    Fail(Invariant::kNothingGoesBack,
         Cat(Name(replica.id), " went from term ", before.term, ", committed ", before.committed, ", log start ",
             before.log_start, " to ", raft.term(), ", ", raft.committed(), ", ", raft.log_start()));
  }
  if (!replica.resetting && raft.durable_end() > replica.disk->durable().log_end &&
      raft.durable_end() > raft.log_start()) {
    Fail(Invariant::kDurableEndHonest, Cat(Name(replica.id), " says that its disk has ", raft.durable_end(),
                                           ", it has ", replica.disk->durable().log_end));
  }
}

void Checker::CheckLeader(const Observed& replica, const Known& before) {
  const raft::Raft& raft = *replica.raft;
  const auto [at, is_new] = leaders_.try_emplace(raft.term(), replica.id);
  if (at->second != replica.id) {
    Fail(Invariant::kOneLeaderPerTerm,
         Cat(Name(replica.id), " and ", Name(at->second), " both lead in term ", raft.term()));
  }
  const bool newly = before.role != raft::Role::kLeader || before.term != raft.term();
  if (newly) {
    for (auto entry = committed_.rbegin(); entry != committed_.rend(); ++entry) {
      const record::Batch& batch = entry->batch;
      if (batch.last_offset() < raft.log_start()) break;
      if (entry->by_term >= raft.term() || raft.EpochAt(batch.last_offset()) == batch.epoch()) continue;
      Fail(Invariant::kLeaderComplete, Cat(Name(replica.id), " leads in term ", raft.term(), " without ", Place(batch),
                                           ", committed in term ", entry->by_term));
      return;
    }
  } else if (raft.committed() > std::max(before.committed, committed()) &&
             raft.EpochAt(raft.committed() - 1) != raft.term()) {
    // What another one has committed before may be learned.
    Fail(Invariant::kOwnTermCommits, Cat(Name(replica.id), " leads in term ", raft.term(), " and commits up to ",
                                         raft.committed(), ", of another epoch"));
  }
  int uncommitted = 0;
  for (const raft::ConfigurationAt& at_offset : raft.configurations()) {
    if (at_offset.offset >= committed()) ++uncommitted;
  }
  if (uncommitted > 1) {
    Fail(Invariant::kOneMembershipChange,
         Cat(Name(replica.id), " leads with ", uncommitted, " membership changes that are not committed"));
  }
}

bool Checker::QuorumHas(const Observed& leader, const record::Batch& batch, const std::vector<Observed>& all) {
  const raft::Configuration& members = leader.raft->configuration();
  size_t have = 0;
  for (const VoterId& voter : members.voters) {
    const auto replica = std::find_if(all.begin(), all.end(), [&](const Observed& o) { return o.id == voter; });
    const bool has = replica != all.end() && replica->disk->durable().Holds(batch);
    // What damage took after it had been acknowledged is made up for by the others: see the fault atlas.
    if (has || damaged_.contains({voter, batch.base_offset(), batch.epoch()})) ++have;
  }
  return have >= members.Quorum();
}

void Checker::ExtendCommitted(const Observed& replica, const std::vector<Observed>& all) {
  const DiskImage& log = replica.disk->appended();
  const Offset end = replica.raft->committed();
  while (committed() < end) {
    const record::Batch* const batch = log.At(committed());
    if (batch == nullptr || batch->base_offset() != committed() || batch->next_offset() > end) {
      return Fail(Invariant::kCommittedPrefixesAgree,
                  Cat(Name(replica.id), " commits up to ", end, ", and has no batch of its own at ", committed()));
    }
    if (!QuorumHas(replica, *batch, all)) {
      return Fail(Invariant::kQuorumHasCommitted,
                  Cat(Name(replica.id), " commits ", Place(*batch), " in term ", replica.raft->term(),
                      ", which no quorum of ", replica.raft->configuration().ToString(), " has on disk"));
    }
    committed_.push_back({*batch, replica.raft->term()});
    CheckCommittedValue(*batch);
  }
}

void Checker::OnCarriedOut(const Observed& replica) {
  if (replica.resetting) return;
  CompareCommitted(replica, &known_[replica.id]);
  CheckConfiguration(replica);
}

void Checker::CompareCommitted(const Observed& replica, Known* known) {
  const DiskImage& log = replica.disk->appended();
  const Offset end = std::min(replica.raft->committed(), committed());
  Offset at = std::max(known->compared, log.log_start);
  for (size_t i = CommittedIndex(at); i < committed_.size() && committed_[i].batch.next_offset() <= end; ++i) {
    const record::Batch& batch = committed_[i].batch;
    if (!log.Holds(batch)) {
      return Fail(Invariant::kCommittedPrefixesAgree, Cat(Name(replica.id), " knows ", end, " as committed and has ",
                                                          "something else where the group has ", Place(batch)));
    }
    at = batch.next_offset();
  }
  // A commit inside a batch comes from a log start there, after a restart.
  if (at < end && !log.Holds(committed_[CommittedIndex(end - 1)].batch)) {
    return Fail(Invariant::kCommittedPrefixesAgree,
                Cat(Name(replica.id), " knows ", end, " as committed, inside a batch that is not the group's"));
  }
  known->compared = std::max(known->compared, end);
}

void Checker::CheckConfiguration(const Observed& replica) {
  const DiskImage& log = replica.disk->appended();
  for (auto batch = log.batches.rbegin(); batch != log.batches.rend(); ++batch) {
    if (!batch->is_control() || batch->last_offset() < log.log_start) continue;
    auto control = record::DecodeControlBatch(batch->view());
    const auto* const membership = control.ok() ? std::get_if<record::Membership>(&*control) : nullptr;
    if (membership == nullptr) continue;
    if (membership->configuration != replica.raft->configuration().Encode()) {
      Fail(Invariant::kConfigurationIsLogs, Cat(Name(replica.id), " uses ", replica.raft->configuration().ToString(),
                                                ", not what its log says at ", Place(*batch)));
    }
    return;
  }
  // No change in the log: then one from before its start, or the first one, counts; never one from beyond its end.
  const raft::ConfigurationAt& used = replica.raft->configurations().back();
  if (used.offset >= log.log_start && used.offset.value() >= 0) {
    Fail(Invariant::kConfigurationIsLogs, Cat(Name(replica.id), " uses the configuration of offset ", used.offset,
                                              ", which its log from ", log.log_start, " does not have"));
  }
}

// ---- Messages

void Checker::NoteVote(const Observed& replica, LeaderEpoch term, const VoterId& candidate) {
  const auto [at, is_new] = votes_.try_emplace({replica.id, term}, candidate);
  if (at->second != candidate) {
    Fail(Invariant::kOneVotePerTerm, Cat(Name(replica.id), " votes for ", Name(candidate), " in term ", term,
                                         " and has voted for ", Name(at->second)));
  }
  const raft::HardState& durable = replica.disk->durable().hard_state;
  if (durable.term < term || (durable.term == term && durable.voted_for != candidate)) {
    Fail(Invariant::kVoteDurableFirst, Cat(Name(replica.id), " votes for ", Name(candidate), " in term ", term,
                                           ", its disk knows term ", durable.term));
  }
}

void Checker::OnSend(const Observed& replica, const raft::Message& message) {
  if (message.from != replica.id) {
    Fail(Invariant::kPeersUnderstood, Cat(Name(replica.id), " sends as ", Name(message.from)));
  }
  if (const auto* request = std::get_if<raft::VoteRequest>(&message.body); request != nullptr && !request->pre_vote) {
    NoteVote(replica, message.term, replica.id);
  }
  if (const auto* vote = std::get_if<raft::VoteResponse>(&message.body);
      vote != nullptr && !vote->pre_vote && vote->granted) {
    NoteVote(replica, message.term, message.to);
  }
  if (const auto* ack = std::get_if<raft::AppendResponse>(&message.body); ack != nullptr && !ack->rejected) {
    if (ack->end > replica.disk->durable().log_end) {
      Fail(Invariant::kAckDurableFirst,
           Cat(Name(replica.id), " acknowledges ", ack->end, ", its disk has ", replica.disk->durable().log_end));
    }
  }
  if (const auto* append = std::get_if<raft::AppendRequest>(&message.body); append != nullptr) {
    const record::Batch* const batch = replica.disk->appended().At(append->previous.end);
    if (batch != nullptr && batch->base_offset() != append->previous.end) {
      Fail(Invariant::kAppendsAtBatches, Cat(Name(replica.id), " sends ", Name(message.to), " what follows ",
                                             append->previous.end, ", inside its batch ", Place(*batch)));
    }
  }
}

// ---- Clients

void Checker::OnProposed(Proposal proposal) {
  proposal.acknowledged_before = acknowledged_;
  const int64_t value = proposal.value;
  proposals_.emplace(value, std::move(proposal));
}

void Checker::CheckCommittedValue(const record::Batch& batch) {
  if (batch.is_control()) return;
  const int64_t value = batch.view().producer_id();
  const auto found = proposals_.find(value);
  if (found == proposals_.end() || batch.view().crc() != found->second.crc) {
    return Fail(Invariant::kFailureIsFinal, Cat(Place(batch), " is committed and nobody proposed it"));
  }
  const Proposal& proposal = found->second;
  if (proposal.state == Proposal::State::kFailed) {
    Fail(Invariant::kFailureIsFinal, Cat("value ", value, " was reported as failed and is committed"));
  }
  if (!committed_values_.insert(value).second) {
    Fail(Invariant::kSuccessIsFinal, Cat("value ", value, " is committed twice"));
  }
  if (batch.base_offset() < proposal.acknowledged_before) {
    Fail(Invariant::kSuccessIsFinal, Cat("value ", value, " is committed at ", batch.base_offset(), ", before what ",
                                         "had been acknowledged when it was proposed"));
  }
}

void Checker::OnOutcome(int64_t value, Proposal::State state) {
  Proposal& proposal = proposals_.at(value);
  proposal.state = state;
  if (state == Proposal::State::kFailed && committed_values_.contains(value)) {
    Fail(Invariant::kFailureIsFinal, Cat("value ", value, " is committed and reported as failed"));
  }
  if (state != Proposal::State::kDone) return;
  const size_t i = CommittedIndex(proposal.at.base_offset);
  if (i >= committed_.size() || committed_[i].batch.base_offset() != proposal.at.base_offset ||
      committed_[i].batch.epoch() != proposal.at.epoch || committed_[i].batch.view().producer_id() != value) {
    return Fail(Invariant::kSuccessIsFinal, Cat("value ", value, " was reported as done at ", proposal.at.base_offset,
                                                ", and something else is committed there"));
  }
  acknowledged_ = std::max(acknowledged_, proposal.at.last_offset + 1);
}

void Checker::OnMembershipProposed(const Observed& leader) {
  const LeaderEpoch term = leader.raft->term();
  const bool committed_own =
      std::any_of(committed_.rbegin(), committed_.rend(), [&](const Committed& c) { return c.batch.epoch() == term; });
  if (!committed_own) {
    Fail(Invariant::kMembershipAfterOwnCommit,
         Cat(Name(leader.id), " takes a membership change in term ", term, ", of which nothing is committed"));
  }
}

void Checker::OnReadIndex(Offset asked_at_committed, Offset index) {
  if (index < asked_at_committed || index > committed()) {
    Fail(Invariant::kReadsLinearizable, Cat("a read index of ", index, " where ", asked_at_committed,
                                            " was committed when it was asked for, and ", committed(), " is now"));
  }
}

uint64_t Checker::Hash() const {
  uint64_t hash = 0xcbf29ce484222325;
  const auto mix = [&](uint64_t part) { hash = (hash ^ part) * 0x100000001b3; };
  for (const Committed& entry : committed_) mix(entry.batch.whole_crc32c());
  for (const auto& [value, proposal] : proposals_) mix(static_cast<uint64_t>(proposal.state));
  for (const auto& [term, leader] : leaders_) mix(static_cast<uint64_t>(leader.node.value()));
  return hash;
}

}  // namespace sluice::raft_simulation
