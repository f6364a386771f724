// The clients of a simulated group: values, each given once, and reads, to whoever says that it leads.
#include <algorithm>

#include "tests/simulation/raft/group.h"

namespace sluice::raft_simulation {

void Group::ScheduleClient() {
  const absl::Duration pause = context_.plan.client_interval;
  context_.scheduler.At(Between(context_.random(), 0.2 * pause, 1.8 * pause), [this] {
    if (context_.healed) return;
    ClientActs();
    ScheduleClient();
  });
}

Replica* Group::Addressed() {
  std::vector<Replica*> leaders;
  for (Replica* replica : slots_) {
    if (replica->leads()) leaders.push_back(replica);
  }
  if (leaders.empty() || context_.random().OneIn(20)) return RandomReplica();
  return leaders[context_.random().Below(leaders.size())];
}

void Group::ClientActs() {
  Replica* const replica = Addressed();
  if (context_.random().OneIn(4)) return replica->ReadIndex();
  for (uint64_t i = context_.random().OneIn(4) ? 4 : 1; i > 0; --i) Propose(*replica);
}

void Group::Propose(Replica& replica) {
  const int64_t value = ++values_made_;
  // The producer's id names the value, so that the checker finds it in any log.
  builder_.SetProducer(value, 0, 0);
  const std::string text(context_.random().Below(static_cast<uint64_t>(context_.plan.record_bytes_max)), 'v');
  for (uint64_t i = context_.random().Below(3) + 1; i > 0; --i) {
    if (!builder_.Append(value, std::nullopt, text).ok()) return;
  }
  auto batch = builder_.Build();
  if (batch.ok()) replica.Propose(*std::move(batch), value);
}

void Group::OnLeader(Replica& replica) {
  // Clients find a new leader at once, often before it has committed anything.
  if (context_.healed || context_.random().OneIn(3)) return;
  const bool reads = context_.random().OneIn(2);
  context_.scheduler.At(Between(context_.random(), absl::ZeroDuration(), kTick), [this, &replica, reads] {
    if (!replica.leads()) return;
    reads ? replica.ReadIndex() : Propose(replica);
  });
}

}  // namespace sluice::raft_simulation
