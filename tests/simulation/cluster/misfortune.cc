// What happens to the nodes of a world.
#include "common/text.h"
#include "tests/simulation/cluster/world.h"

namespace sluice::cluster_simulation {

using Call = simulation::SimFileSystem::Call;

void World::ScheduleBlow() {
  const absl::Duration pause = context_.plan.blow_interval;
  context_.scheduler.At(Between(context_.random(), 0.1 * pause, 1.9 * pause), [this] {
    if (!context_.storm) return;
    int all = 0;
    for (const int weight : context_.plan.weights) all += weight;
    auto pick = static_cast<int>(context_.random().Below(static_cast<uint64_t>(all)));
    size_t blow = 0;
    while (pick >= context_.plan.weights[blow]) pick -= context_.plan.weights[blow++];
    Strike(static_cast<Blow>(blow));
    ScheduleBlow();
  });
}

void World::Strike(Blow blow) {
  SimRandom& random = context_.random();
  Node& node = AnyNode();
  switch (blow) {
    case Blow::kCrash:
      return node.PowerOff();
    case Blow::kCrashMidWrite:
      return node.PowerOffAtOperation(1 + random.Below(20));
    case Blow::kCrashAll:
      context_.hits.Add(Hit::kCrashAll);
      for (const auto& [id, each] : nodes_) each->PowerOff();
      return;
    case Blow::kPause:
      node.Pause();
      context_.scheduler.At(Between(random, absl::Milliseconds(5), absl::Seconds(random.OneIn(5) ? 9 : 2)),
                            [&node] { node.Resume(); });
      return;
    case Blow::kControlledStop:
      return node.StopInOrder();
    case Blow::kReadFails:
      return node.FailCall(Call::kRead);
    case Blow::kWriteFails:
      return node.FailCall(Call::kWrite);
    case Blow::kSyncFails:
      return node.FailCall(Call::kSync);
    case Blow::kSegmentSyncFails:
      return node.FailSyncsOf(".log");
    case Blow::kDiskFull:
      return node.FillDisk();
    case Blow::kDiskSlow:
      return node.SlowDisk();
    case Blow::kCutClients:
      context_.hits.Add(Hit::kClientCutOff);
      return wire_.CutOff(node.id());
    case Blow::kClockJump:
      return node.JumpClock();
    case Blow::kCutPeers:
      if (nodes_.size() == 1) return;
      context_.hits.Add(Hit::kPeersCut);
      context_.trace.Say([&] { return Cat("node ", node.id(), " is cut off from its peers"); });
      return peers_.Isolate(node.id());
    case Blow::kCutPeersOneWay: {
      const NodeId other = site_.AnyNode();
      if (other == node.id()) return;
      context_.hits.Add(Hit::kPeersCutOneWay);
      context_.trace.Say([&] { return Cat("nothing reaches node ", other, " from node ", node.id()); });
      return peers_.Block(node.id(), other);
    }
    case Blow::kSwizzlePeers:
      return Swizzle();
    case Blow::kSlowPeers:
      if (nodes_.size() == 1) return;
      context_.hits.Add(Hit::kPeersSlow);
      return peers_.SetDelay(absl::Milliseconds(1), Between(random, absl::Milliseconds(5), absl::Milliseconds(400)));
    case Blow::kLossyPeers:
      return peers_.SetLoss(1 + random.Below(300));
    case Blow::kMend:
      node.Mend();
      return MendNetwork();
    case Blow::kCount:
      return;
  }
}

// Every node is cut off at a moment of its own, and let back at another: there is always somebody whom others miss.
void World::Swizzle() {
  if (nodes_.size() == 1) return;
  context_.hits.Add(Hit::kPeersSwizzled);
  for (const auto& [id, node] : nodes_) {
    if (context_.random().OneIn(3)) continue;
    const absl::Duration from = Between(context_.random(), absl::ZeroDuration(), absl::Seconds(3));
    const absl::Duration to = from + Between(context_.random(), absl::ZeroDuration(), absl::Seconds(3));
    context_.scheduler.At(from, [this, node_id = id] {
      if (context_.storm) peers_.Isolate(node_id);
    });
    context_.scheduler.At(to, [this, node_id = id] { peers_.Rejoin(node_id); });
  }
}

void World::MendNetwork() {
  wire_.Heal();
  peers_.HealAll();
  peers_.SetDelay(absl::Microseconds(50), absl::Milliseconds(1));
}

void World::MendAll() {
  MendNetwork();
  for (const auto& [id, node] : nodes_) {
    // What a store makes of a call that failed may last until its process is started again (docs/reliability.md).
    if (node->calls_failed()) node->PowerOff();
    node->Mend();
    node->Resume();
  }
}

}  // namespace sluice::cluster_simulation
