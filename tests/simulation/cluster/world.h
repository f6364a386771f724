// One run: whole nodes, their clients, and everything that happens to them, drawn from one seed. Storms of faults take
// turns with quiet times; in each of those everything has to work again soon. At the end all is compared: what clients
// were told, what can be read, what replicas hold; then all nodes lose power at once, and it is compared again.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "tests/simulation/cluster/clients.h"
#include "tests/simulation/cluster/context.h"
#include "tests/simulation/cluster/node.h"
#include "tests/simulation/cluster/wire.h"

namespace sluice::cluster_simulation {

struct Outcome {
  uint64_t seed = 0;
  std::optional<Violation> violation;
  uint64_t trace_hash = 0;
  uint64_t events = 0;
  int64_t sent = 0;
  int64_t acknowledged = 0;
  int64_t unknown = 0;
  int64_t batches_seen = 0;
  absl::Duration simulated;
  HitCounts hits;
};

/// Runs one seed. `trace`: where to write what happens; null: nowhere.
Outcome RunSeed(uint64_t seed, std::ostream* trace = nullptr);

/// "seed 17 breaks "replicas are equal": ...", and how to see it again.
std::string Report(const Outcome& outcome);

struct Placed {
  PartitionKey key;
  std::vector<NodeId> nodes;
};

class World {
 public:
  World(uint64_t seed, std::ostream* trace);
  ~World();
  Outcome Run();

 private:
  bool failed() const { return context_.history.violation().has_value(); }

  // world.cc: running
  /// Runs one event, and what it ends; false when the world stands still or a rule is broken.
  bool Step();
  void RunFor(absl::Duration span);
  /// Until `condition` holds; false when it did not within `most`.
  template <class Condition>
  bool RunUntil(const Condition& condition, absl::Duration most);
  /// The answer of something asked; nothing when the world ended before.
  template <class T, class Call>
  std::optional<T> Await(const Call& call);
  void StartLater(Node& node);
  /// One more, with the next number; the cluster is there already.
  void AddNode();
  /// Where those are found that are in the cluster now.
  std::vector<std::string> PeerAddresses() const;

  void Begin();
  void Storm(size_t number);
  void Quiet(bool last);
  void Finish();

  // misfortune.cc
  void ScheduleBlow();
  void Strike(Blow blow);
  void MoveNodes(Node& node);
  void Move(Node& node);
  /// Ends its process in one way or another; the next one follows.
  void Restart(Node& node);
  /// One that another node had before; empty where there is none.
  std::string FreeHost(const std::string& but) const;
  void MendAll();
  void MendNetwork();
  void Swizzle();
  void Strand();
  void Deafen(NodeId node);
  void CutPeers(NodeId node);
  void CutPeersOneWay(NodeId from, NodeId to);
  void BridgePeers(NodeId bridge);
  void SlowPeers();
  /// Whether a disk may be lost now: all others are whole and up, so it is a minority.
  bool MayLoseDisk(const Node& victim) const;
  bool OthersAreWhole(const Node& victim) const;
  void LoseDisk(Node& victim);
  void Damage(Node& victim);
  /// As an operator does it: once the others work.
  void ReplaceDamaged();
  void ReadWhatIsLeft(Node& damaged);
  /// Once a disk is lost, the others must not be damaged too: their nodes die, but without loss of power.
  bool OthersAreSpared() const { return disk_lost_ || damaged_.has_value(); }
  Blow Spared(Blow blow) const;
  Node& AnyNode() { return *nodes_.at(site_.AnyNode()); }

  // members.cc
  /// What has become of who votes in group 0, as whoever leads it has it.
  void WatchVotes();
  std::string WrongInMembers(NodeId asked, const broker::ClusterInfo& cluster) const;
  /// With the vote of the one that came group 0 survives as many losses again as it should.
  void MustSurviveLosses();
  /// Those that are the earlier version yet, one after the other.
  void UpgradeTheRest();

  // judgement.cc
  bool AllReady() const;
  /// Waits until `wrong` has nothing to say any more; what it says last breaks `rule`.
  template <class Wrong>
  void MustBecome(Rule rule, const Wrong& wrong);
  /// The answer of a node's broker; nothing where it has none, or an error.
  template <class T, class Ask>
  std::optional<T> AskNode(NodeId node, Ask ask);
  /// Everything takes writes and changes again.
  void MustWork();
  void MustTakeValue(const PartitionKey& key);
  void MustChangeTopics();
  void CheckCluster();
  std::string WrongInCluster(NodeId asked);
  void CheckTopics();
  std::string WrongInTopics(NodeId asked);
  /// Where replicas are, by what `asked` says.
  std::optional<std::map<ReplicaId, Placed>> Placement(NodeId asked);
  void CheckPlacement();
  void CheckRacks();
  void CheckPartition(const PartitionKey& key);
  /// Nothing is under way: all that clients know is compared with all that there is.
  void CompareEverything();
  /// All replicas hold what the leader has.
  void CompareReplicas(const PartitionKey& key, const ReplicaId& replica, const std::vector<NodeId>& nodes,
                       Offset log_start, Offset log_end);
  Offset AskOffset(const PartitionKey& key, broker::ListOffsetsItem::Kind kind);

  Context context_;
  Peers peers_;
  std::map<NodeId, std::unique_ptr<Node>> nodes_;
  Wire wire_;
  Site site_;
  Sender probe_;
  Beliefs beliefs_;
  Operator operator_;
  std::vector<std::unique_ptr<Producer>> producers_;
  std::vector<std::unique_ptr<Consumer>> consumers_;
  std::map<PartitionKey, std::pair<ReplicaId, std::vector<NodeId>>> placed_;  ///< As last looked at.
  std::set<NodeId> known_;         ///< All know where these are: they have not moved since all did.
  std::set<std::string> vacated_;  ///< Hosts where nodes were.
  int moves_ = 0;
  bool disk_lost_ = false;
  std::optional<NodeId> damaged_;        ///< Until its disk is lost.
  std::optional<ControllerTerm> votes_;  ///< As last looked at; only where votes are replaced soon.
  absl::Duration votes_seen_at_;
  bool voter_replaced_ = false;
  std::set<NodeId> held_off_;  ///< They are not started again for now.
  bool begun_ = false;         ///< Everything has worked once.
  bool stranded_ = false;      ///< Some node is: the others are to go on without it.
};

template <class Condition>
bool World::RunUntil(const Condition& condition, absl::Duration most) {
  const absl::Duration end = context_.scheduler.now() + most;
  while (!condition()) {
    if (failed() || context_.scheduler.now() > end || !Step()) return condition();
  }
  return true;
}

template <class T, class Call>
std::optional<T> World::Await(const Call& call) {
  auto answer = std::make_shared<std::optional<T>>();
  call([answer](T value) { answer->emplace(std::move(value)); });
  RunUntil([&] { return answer->has_value(); }, absl::Minutes(1));
  return std::move(*answer);
}

template <class T, class Ask>
std::optional<T> World::AskNode(NodeId node, Ask ask) {
  const auto answer = Await<Answer<broker::Result<T>>>(
      [&](auto done) { wire_.Call<broker::Result<T>>(node, nullptr, std::nullopt, std::move(ask), std::move(done)); });
  if (!answer || answer->fate != Fate::kAnswered || !answer->value->ok()) return std::nullopt;
  return **answer->value;
}

}  // namespace sluice::cluster_simulation
