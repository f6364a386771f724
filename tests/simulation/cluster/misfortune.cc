// What happens to the nodes of a world.
#include <algorithm>

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

Blow World::Spared(Blow blow) const {
  if (!OthersAreSpared()) return blow;
  switch (blow) {
    case Blow::kCrash:
    case Blow::kCrashMidWrite:
    case Blow::kCrashAll:
      return Blow::kKill;
    case Blow::kReadFails:
    case Blow::kWriteFails:
    case Blow::kSyncFails:
    case Blow::kSegmentSyncFails:
      return Blow::kPause;
    default:
      return blow;
  }
}

void World::Strike(Blow blow) {
  SimRandom& random = context_.random();
  Node& node = AnyNode();
  if (node.gone()) return;
  switch (Spared(blow)) {
    case Blow::kKill:
      return node.KillProcess();
    case Blow::kCrash:
      return node.PowerOff();
    case Blow::kCrashMidWrite:
      return node.PowerOffAtOperation(1 + random.Below(20));
    case Blow::kCrashAll:
      context_.hits.Add(Hit::kCrashAll);
      for (const auto& [id, each] : nodes_) each->PowerOff();
      return;
    case Blow::kLoseDisk:
      return LoseDisk(node);
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
      return CutPeers(node.id());
    case Blow::kCutPeersOneWay:
      return CutPeersOneWay(node.id(), site_.AnyNode());
    case Blow::kSwizzlePeers:
      return Swizzle();
    case Blow::kSlowPeers:
      return SlowPeers();
    case Blow::kLossyPeers: {
      const uint64_t per_mille = 1 + random.Below(300);
      peers_.messages.SetLoss(per_mille);
      return peers_.calls.SetLoss(per_mille);
    }
    case Blow::kMend:
      node.Mend();
      return MendNetwork();
    case Blow::kDeafen:
      return Deafen(node.id());
    case Blow::kStrand:
      return Strand();
    case Blow::kMove:
      return MoveNodes(node);
    case Blow::kUpgrade:
      node.Upgrade();
      return Restart(node);
    case Blow::kBridge:
      return BridgePeers(node.id());
    case Blow::kDamage:
      return Damage(node);
    case Blow::kCount:
      return;
  }
}

// ---- Addresses

// Somebody must be where everybody knows it to be: nodes that all move while they are apart do not find each other
// again without an operator who tells them.
void World::MoveNodes(Node& node) {
  const bool all = nodes_.size() > 1 && context_.random().OneIn(4);
  const auto stays = [&](NodeId id) {
    return std::any_of(known_.begin(), known_.end(), [&](NodeId known) { return known != id; });
  };
  size_t moved = 0;
  for (const auto& [id, each] : nodes_) {
    if ((!all && each.get() != &node) || each->gone() || each->lost_disk()) continue;
    if (nodes_.size() > 1 && !stays(id)) continue;
    Move(*each);
    ++moved;
  }
  if (moved > 1) context_.hits.Add(Hit::kMovedAtOnce);
}

void World::Move(Node& node) {
  SimRandom& random = context_.random();
  Place place = node.place();
  const bool whole = random.OneIn(2);
  if (!whole && random.OneIn(2)) {
    place.client_port += 10;
  } else if (!whole) {
    place.peer_port += 10;
  } else {
    vacated_.insert(place.host);
    place = {.host = Cat("node", node.id(), "-", ++moves_)};
    const std::string other = FreeHost(node.place().host);
    if (!other.empty() && random.OneIn(2)) {
      context_.hits.Add(Hit::kMovedToAnothers);
      vacated_.erase(other);
      place.host = other;
    }
  }
  context_.hits.Add(Hit::kMoved);
  context_.trace.Say([&] { return Cat("node ", node.id(), " moves to ", place.peer(), ", ", place.client()); });
  known_.erase(node.id());
  node.MoveTo(std::move(place));
  Restart(node);
}

void World::Restart(Node& node) {
  SimRandom& random = context_.random();
  if (node.serving() && random.OneIn(3)) return node.StopInOrder();
  if (!OthersAreSpared() && random.OneIn(2)) return node.PowerOff();
  node.KillProcess();
}

// Whoever was there has started again elsewhere.
std::string World::FreeHost(const std::string& but) const {
  for (const std::string& host : vacated_) {
    const bool in_use = std::any_of(peers_.where.begin(), peers_.where.end(),
                                    [&](const auto& at) { return at.second.starts_with(host + ":"); });
    if (host != but && !in_use) return host;
  }
  return {};
}

// A leader, long enough for the others to elect another; then for about as long as it takes one to see that nobody
// answers.
void World::Strand() {
  const auto key = site_.AnyPartition();
  const auto at = nodes_.find(key ? context_.history.LeaderKnown(*key) : NodeId(0));
  if (stranded_ || nodes_.size() == 1 || at == nodes_.end() || !at->second->serving()) return;
  Node& node = *at->second;
  context_.hits.Add(Hit::kStranded);
  context_.trace.Say([&] { return Cat("node ", node.id(), " is stranded"); });
  stranded_ = true;
  MendNetwork();
  node.Pause();
  peers_.messages.Isolate(node.id());
  const absl::Duration still = Between(context_.random(), absl::Milliseconds(2500), absl::Seconds(5));
  context_.scheduler.At(still, [&node] { node.Resume(); });
  context_.scheduler.At(still + Between(context_.random(), absl::Milliseconds(200), absl::Seconds(2)),
                        [this, id = node.id()] {
                          stranded_ = false;
                          peers_.messages.Rejoin(id);
                        });
}

// What it sends in its time as a leader is taken and kept; it is never told so.
void World::Deafen(NodeId node) {
  if (nodes_.size() == 1) return;
  context_.hits.Add(Hit::kPeersDeafened);
  context_.trace.Say([&] { return Cat("node ", node, " hears nothing of its peers"); });
  for (const auto& [id, other] : nodes_) {
    if (id != node) peers_.messages.Block(id, node);
  }
  context_.scheduler.At(Between(context_.random(), absl::Seconds(1), absl::Seconds(3)),
                        [this, node] { peers_.messages.Rejoin(node); });
}

void World::CutPeers(NodeId node) {
  if (nodes_.size() == 1) return;
  context_.hits.Add(Hit::kPeersCut);
  context_.trace.Say([&] { return Cat("node ", node, " is cut off from its peers"); });
  peers_.messages.Isolate(node);
}

void World::CutPeersOneWay(NodeId from, NodeId to) {
  if (from == to) return;
  context_.hits.Add(Hit::kPeersCutOneWay);
  context_.trace.Say([&] { return Cat("nothing reaches node ", to, " from node ", from); });
  peers_.messages.Block(from, to);
}

void World::BridgePeers(NodeId bridge) {
  std::vector<NodeId> others;
  for (const auto& [id, node] : nodes_) {
    if (id != bridge && !node->gone()) others.push_back(id);
  }
  if (others.size() < 2) return;
  context_.hits.Add(Hit::kPeersBridged);
  context_.trace.Say([&] { return Cat("node ", bridge, " alone hears everybody"); });
  const size_t first = context_.random().Below(others.size());
  std::rotate(others.begin(), others.begin() + static_cast<int64_t>(first), others.end());
  const size_t part = 1 + context_.random().Below(others.size() - 1);
  for (size_t one = 0; one < part; ++one) {
    for (size_t other = part; other < others.size(); ++other) {
      peers_.messages.Block(others[one], others[other]);
      peers_.messages.Block(others[other], others[one]);
    }
  }
}

void World::SlowPeers() {
  if (nodes_.size() == 1) return;
  context_.hits.Add(Hit::kPeersSlow);
  const absl::Duration most = Between(context_.random(), absl::Milliseconds(5), absl::Milliseconds(400));
  peers_.messages.SetDelay(absl::Milliseconds(1), most);
  peers_.calls.SetDelay(absl::Milliseconds(1), most);
}

// Whoever holds a copy of what the lost disk had must be there, whole: with one more away for good, or with a log that
// may have lost its end, nobody could say any more what was acknowledged, and the groups would rightly wait for ever.
bool World::MayLoseDisk(const Node& victim) const {
  if (OthersAreSpared() || !victim.ready() || victim.stopping() || !OthersAreWhole(victim)) return false;
  for (const auto& [id, node] : nodes_) {
    if (node.get() != &victim && node->excused()) return false;
  }
  return known_.size() != 1 || !known_.contains(victim.id());
}

bool World::OthersAreWhole(const Node& victim) const {
  for (const auto& [id, node] : nodes_) {
    if (node.get() == &victim) continue;
    if (!node->ready() || node->stopping() || node->in_doubt()) return false;
  }
  // A vote is on its way from one to another: for that moment group 0 survives one loss less.
  return !votes_ || votes_->members.voters.size() % 2 != 0;
}

void World::LoseDisk(Node& victim) {
  if (!MayLoseDisk(victim)) return;
  known_.erase(victim.id());
  disk_lost_ = true;
  for (const auto& [id, node] : nodes_) node->Mend();
  victim.LoseDisk(PeerAddresses());
}

void World::Damage(Node& victim) {
  if (!MayLoseDisk(victim)) return;
  known_.erase(victim.id());
  damaged_ = victim.id();
  context_.plan.weights[static_cast<size_t>(Blow::kDamage)] = 0;
  for (const auto& [id, node] : nodes_) node->Mend();
  victim.Damage();
}

// What a damaged disk gives back is what was written to it, or nothing.
void World::ReadWhatIsLeft(Node& damaged) {
  for (const auto& [id, node] : nodes_) {
    const auto all = !failed() && node->serving() ? Placement(id) : std::nullopt;
    if (!all) continue;
    for (const auto& [replica, placed] : *all) {
      if (replica == broker::kControllerReplica) continue;  // partitions of a topic that came between two questions
      Offset at = damaged.ReplicaStart(replica);
      bool reads = std::count(placed.nodes.begin(), placed.nodes.end(), damaged.id()) > 0;
      // Headers are read on the way to a batch.
      if (reads && damaged.up() && context_.random().OneIn(2)) damaged.FlipBitOfRead(2 + context_.random().Below(3));
      while (reads && !failed()) {
        const auto read = Await<absl::StatusOr<replication::ReadResult>>(
            [&, &asked = replica](auto done) { damaged.ReadReplica(asked, at, std::move(done)); });
        reads = read && read->ok() && !(*read)->batches.empty();
        if (!reads) break;
        for (const record::Batch& batch : (*read)->batches) context_.history.OnSeen(placed.key, batch);
        at = (*read)->next_offset;
      }
    }
    return;
  }
}

void World::ReplaceDamaged() {
  if (!damaged_ || failed()) return;
  Node& victim = *nodes_.at(*damaged_);
  if (!RunUntil([&] { return OthersAreWhole(victim); }, absl::Seconds(100)) && !failed()) {
    return context_.history.Fail(Rule::kLiveness,
                                 Cat("beside the damaged disk of node ", victim.id(), " the others do not work"));
  }
  // The damaged one may lead, and be of no use as a leader: then others must have taken its place.
  for (const PartitionKey& key : site_.Partitions()) {
    if (!failed()) MustTakeValue(key);
  }
  ReadWhatIsLeft(victim);
  if (failed()) return;
  damaged_.reset();
  disk_lost_ = true;
  victim.LoseDisk(PeerAddresses());
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
      if (context_.storm) peers_.messages.Isolate(node_id);
    });
    context_.scheduler.At(to, [this, node_id = id] { peers_.messages.Rejoin(node_id); });
  }
}

void World::MendNetwork() {
  wire_.Heal();
  peers_.messages.HealAll();
  if (context_.storm) peers_.messages.SetDuplicates(context_.plan.duplicates_per_mille);
  peers_.messages.SetDelay(absl::Microseconds(50), absl::Milliseconds(1));
  peers_.calls.SetLoss(0);
  peers_.calls.SetDelay(absl::Microseconds(100), absl::Milliseconds(2));
}

void World::MendAll() {
  MendNetwork();
  for (const auto& [id, node] : nodes_) {
    if (node->gone()) continue;
    // What a store makes of a call that failed may last until its process is started again (docs/reliability.md).
    // Beside a damaged disk without a loss of power, as ever then: two replicas with less than they said would be a
    // majority.
    if (node->calls_failed()) damaged_ ? node->KillProcess() : node->PowerOff();
    node->Mend();
    node->Resume();
  }
}

}  // namespace sluice::cluster_simulation
