#include "broker/partition_survey.h"

#include <algorithm>

namespace sluice::broker {

void PartitionSurvey::AskOthers(size_t place, const ReplicaId& replica, bool has_replica) {
  PartitionStatus& status = statuses_[place];
  places_[replica] = place;
  status.leader_node = NodeId(0);
  status.leader.clear();
  status.sound = has_replica && !status.error.has_value() ? 1 : 0;
}

void PartitionSurvey::Take(NodeId from, const std::string& address, const std::vector<ReplicaReport>& reports) {
  for (const ReplicaReport& report : reports) {
    const auto at = places_.find(report.replica);
    if (at == places_.end()) continue;
    PartitionStatus& status = statuses_[at->second];
    if (!report.leads) {
      if (!report.status.error.has_value()) ++status.sound;
      if (IsLeaderless(status) && !status.error.has_value()) status.error = report.status.error;
      continue;
    }
    // Of two who believe that they lead, the one of the later epoch does.
    if (!IsLeaderless(status) && status.leader_epoch >= report.status.leader_epoch) continue;
    status.leader_node = from;
    status.leader = address;
    status.leader_epoch = std::max(status.leader_epoch, report.status.leader_epoch);
    status.log_start = report.status.log_start;
    status.high_watermark = report.status.high_watermark;
    status.size_bytes = report.status.size_bytes;
    status.replicas = report.status.replicas;
    status.error = report.status.error;
  }
}

bool PartitionSurvey::all_led() const {
  return std::none_of(statuses_.begin(), statuses_.end(), IsLeaderless);
}

}  // namespace sluice::broker
