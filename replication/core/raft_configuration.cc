// Which configuration is in use: the last one in the log, from its append until a truncation (dissertation
// section 4.1).
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/planted_bug.h"
#include "common/record/control.h"
#include "common/text.h"
#include "replication/core/leader_state.h"
#include "replication/core/membership.h"
#include "replication/core/raft.h"

namespace sluice::raft {

absl::StatusOr<std::optional<Configuration>> MembershipIn(const record::Batch& batch) {
  if (!batch.is_control()) return std::nullopt;
  auto control = record::DecodeControlBatch(batch.view());
  if (!control.ok()) return control.status();
  const auto* membership = std::get_if<record::Membership>(&*control);
  if (membership == nullptr) return std::nullopt;
  auto configuration = Configuration::Decode(membership->configuration);
  if (!configuration.ok()) return configuration.status();
  if (configuration->voters.empty()) return absl::DataLossError("a membership without voters");
  return std::optional<Configuration>(*std::move(configuration));
}

absl::Status Raft::RestoreConfigurations(const RestoredState& state, const ReplicaRaftState& stored) {
  // The log has begun anew: it begins with the members that came with that, whatever the one before had at that place.
  const bool anew = stored.installing.start == log_.start() && stored.base.start != log_.start();
  for (const ConfigurationAt& at : stored.configurations) {
    // The blob may be ahead of the log: of a batch that never became durable, or of a reset that did not happen yet.
    const bool replaced = anew && at.offset == log_.start() - 1 && at.epoch != stored.installing.epoch.exact;
    const bool before_log = at.offset < log_.start() && !replaced;
    if (before_log || log_.EpochAt(at.offset) == at.epoch) {
      configurations_.push_back(at);
    } else {
      // Not to be found again once the log has grown past it: a reset's has no batch of its own there.
      state_pending_ = true;
    }
  }
  if (stored.configurations.empty()) {
    configurations_.push_back({Offset(-1), LeaderEpoch(0), state.initial});
    state_pending_ = true;
  } else if (configurations_.empty()) {
    return absl::DataLossError(Cat("no stored raft configuration belongs to the log, which runs from ", state.log_start,
                                   " to ", state.log_end));
  }
  ForgetOldConfigurations();
  return absl::OkStatus();
}

absl::Status Raft::TakeConfiguration(const record::Batch& batch) {
  auto membership = MembershipIn(batch);
  if (!membership.ok()) return membership.status();
  if (!*membership) return absl::OkStatus();
  configurations_.push_back({batch.last_offset(), batch.epoch(), **std::move(membership)});
  state_pending_ = true;
  if (role_ == Role::kLeader) SetPeers();
  return absl::OkStatus();
}

void Raft::RollBackConfigurations(Offset new_end) {
  if (Planted(PlantedBug::kForgetMembershipRollback)) return;
  while (configurations_.size() > 1 && configurations_.back().offset >= new_end) {
    configurations_.pop_back();
    state_pending_ = true;
  }
}

std::vector<ConfigurationAt>::const_iterator Raft::LastCommittedConfiguration() const {
  const auto beyond = std::find_if(configurations_.begin() + 1, configurations_.end(),
                                   [&](const ConfigurationAt& at) { return at.offset >= committed_; });
  return std::prev(beyond);
}

std::vector<VoterId> Raft::VotersInForce() const {
  std::vector<VoterId> voters;
  for (auto at = LastCommittedConfiguration(); at != configurations_.end(); ++at) {
    for (const VoterId& voter : at->configuration.voters) {
      if (std::find(voters.begin(), voters.end(), voter) == voters.end()) voters.push_back(voter);
    }
  }
  return voters;
}

void Raft::ForgetOldConfigurations() {
  // Those before the last committed one can never be in use again, once this disk has it: a crash may still take it
  // from the end of the log, and then the one before it is the log's last.
  while (configurations_.size() > 1 && configurations_[1].offset < std::min(committed_, durable_end_)) {
    configurations_.erase(configurations_.begin());
    state_pending_ = true;
    // However quiet the group is: who comes back in doubt asks the voters of every configuration that it remembers, and
    // those of an older one may be gone for good.
    NotePendingWrite();
  }
}

// Where a log has begun anew behind an entry whose epoch nobody knew any more, the entry that follows says as well
// which log it is.
LogPlace Raft::CommittedMembers() const {
  const auto members = LastCommittedConfiguration();
  if (members->offset.value() < 0) return {};
  if (members->epoch.value() > 0) return {members->epoch, members->offset + 1};
  const Offset begin = std::max(members->offset + 1, log_.start());
  if (const auto epoch = log_.EpochBefore(begin)) return {*epoch, begin};
  const auto epoch = log_.EpochAt(begin);
  const bool changes = std::next(members) != configurations_.end() && std::next(members)->offset <= begin;
  return epoch && !changes ? LogPlace{*epoch, begin + 1} : LogPlace{};
}

void Raft::SetPeers() {
  const Configuration& members = configuration();
  std::vector<VoterId> former;
  if (configurations_.size() > 1 && NeedsAll()) {
    for (const VoterId& voter : VotersInForce()) {
      if (voter != self_ && !members.Contains(voter)) former.push_back(voter);
    }
  }
  std::vector<Progress> peers;
  const auto take = [&](const VoterId& id, bool voter) {
    if (id == self_) return;
    Progress* known = lead_->Find(id);
    if (known != nullptr) {
      peers.push_back(std::move(*known));
    } else {
      Progress fresh;
      fresh.id = id;
      fresh.BecomeProbe(log_.end());
      peers.push_back(std::move(fresh));
    }
    peers.back().voter = voter;
  };
  for (const VoterId& id : members.voters) take(id, true);
  for (const VoterId& id : members.learners) take(id, false);
  for (const VoterId& id : former) take(id, false);
  lead_->peers = std::move(peers);
  if (!members.IsVoter(lead_->transfer_to)) lead_->transfer_to = VoterId{};
}

}  // namespace sluice::raft
