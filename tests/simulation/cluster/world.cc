#include "tests/simulation/cluster/world.h"

#include <algorithm>

#include "common/text.h"

namespace sluice::cluster_simulation {

World::World(uint64_t seed, std::ostream* trace)
    : context_(seed, trace),
      peers_(context_.scheduler),
      wire_(context_, nodes_),
      site_{.context = context_, .wire = wire_, .nodes = nodes_, .topics = {}},
      probe_(site_),
      beliefs_(site_),
      operator_(site_) {
  context_.plan = DrawPlan(seed, context_.random());
}

World::~World() {
  // What nodes drop unanswered still tells the wire.
  nodes_.clear();
  context_.scheduler.Clear();
}

// ---- Running

bool World::Step() {
  if (failed() || !context_.scheduler.Step()) return false;
  for (const auto& [id, node] : nodes_) {
    if (!node->Reap()) continue;
    if (node->gone()) {
      const absl::Duration after = Between(context_.random(), absl::Milliseconds(5), absl::Seconds(1));
      context_.scheduler.At(after + context_.plan.substitute_after, [this] { AddNode(); });
    } else if (!held_off_.contains(id)) {
      StartLater(*node);
    }
  }
  if (context_.plan.replaces_voter()) WatchVotes();
  return !failed();
}

void World::RunFor(absl::Duration span) {
  const absl::Duration end = context_.scheduler.now() + span;
  while (context_.scheduler.next_due() <= end) {
    if (!Step()) return;
  }
}

void World::StartLater(Node& node) {
  const absl::Duration most = context_.storm ? absl::Seconds(2) : absl::Milliseconds(200);
  context_.scheduler.At(Between(context_.random(), absl::Milliseconds(5), most), [&node] {
    if (!node.up()) node.Start();
  });
}

std::vector<std::string> World::PeerAddresses() const {
  std::vector<std::string> addresses;
  for (const auto& [id, node] : nodes_) addresses.push_back(node->place().peer());
  return addresses;
}

void World::AddNode() {
  const NodeId id(static_cast<int32_t>(nodes_.size()) + 1);
  NodeSetup setup{.id = id, .seeds = PeerAddresses(), .upgraded = context_.plan.upgrades};
  nodes_[id] = std::make_unique<Node>(context_, std::move(setup), peers_);
  nodes_[id]->Start();
}

void World::Begin() {
  const Plan& plan = context_.plan;
  const int first = plan.nodes.front();
  context_.trace.Say([&] {
    return Cat(first, " nodes, in the end ", plan.nodes.back(), ", ", plan.producers, " producers, ", plan.consumers,
               " consumers, ", plan.storms, " storms");
  });
  // Where more are to come from the beginning on, everybody is given the same seeds.
  for (int32_t i = 1; i <= first; ++i) {
    NodeSetup setup{.id = NodeId(i), .founds = i == 1, .seeds = {}};
    for (int32_t seed = 1; first > 1 && seed <= first; ++seed) setup.seeds.push_back(FirstPlace(NodeId(seed)).peer());
    nodes_[NodeId(i)] = std::make_unique<Node>(context_, std::move(setup), peers_);
  }
  for (const auto& [id, node] : nodes_) StartLater(*node);
  for (int i = 0; i < plan.producers; ++i) producers_.push_back(std::make_unique<Producer>(site_));
  for (int i = 0; i < plan.consumers; ++i) consumers_.push_back(std::make_unique<Consumer>(site_));
  for (const auto& producer : producers_) producer->Begin();
  for (const auto& consumer : consumers_) consumer->Begin();
  operator_.Begin();
  MustWork();
  begun_ = true;
}

void World::Storm(size_t number) {
  context_.trace.Say([] { return std::string("a storm begins"); });
  context_.storm = site_.clients_act = true;
  site_.settled = false;
  ScheduleBlow();
  peers_.messages.SetDuplicates(context_.plan.duplicates_per_mille);
  const absl::Duration span = Between(context_.random(), 0.3 * context_.plan.storm_max, context_.plan.storm_max);
  const std::vector<int>& nodes = context_.plan.nodes;
  for (int more = number + 1 < nodes.size() ? nodes[number + 1] - nodes[number] : 0; more > 0; --more) {
    context_.hits.Add(Hit::kClusterGrew);
    context_.scheduler.At(Between(context_.random(), absl::ZeroDuration(), 0.9 * span), [this] { AddNode(); });
  }
  RunFor(span);
}

void World::Quiet(bool last) {
  if (failed()) return;
  context_.trace.Say([] { return std::string("the storm is over"); });
  context_.storm = false;
  MendAll();
  ReplaceDamaged();
  MustWork();
  if (last && context_.plan.upgrades) UpgradeTheRest();
  if (voter_replaced_) MustSurviveLosses();
}

void World::Finish() {
  if (failed()) return;
  site_.clients_act = false;
  if (!RunUntil([&] { return site_.calls_under_way == 0; }, absl::Minutes(1)) && !failed()) {
    context_.history.Fail(Rule::kAnswersOnce, Cat(site_.calls_under_way, " calls have neither answer nor time-out"));
  }
  MustWork();
  CompareEverything();
  if (failed()) return;
  context_.trace.Say([] { return std::string("all nodes die"); });
  site_.settled = false;
  for (const auto& [id, node] : nodes_) {
    if (node->gone()) continue;
    if (disk_lost_) {
      node->KillProcess();
    } else {
      node->PowerOff();
    }
    if (node->Reap()) StartLater(*node);
  }
  MustWork();
  CompareEverything();
}

Outcome World::Run() {
  Begin();
  for (int i = 0; i < context_.plan.storms && !failed(); ++i) {
    Storm(static_cast<size_t>(i));
    Quiet(i + 1 == context_.plan.storms);
  }
  Finish();
  for (const auto& [id, node] : nodes_) node->CountHits();
  context_.hits.Add(Hit::kLeaderChanged, context_.history.leader_changes());
  context_.hits.Add(Hit::kPeerMessageLost, peers_.messages.counts().lost);
  context_.hits.Add(Hit::kPeerCallLost, peers_.calls.lost());
  context_.hits.Add(Hit::kPeerMessageTwice, peers_.messages.counts().duplicated);
  Outcome outcome;
  outcome.violation = context_.history.violation();
  outcome.trace_hash = context_.trace.hash() ^ context_.scheduler.trace_hash() ^ context_.history.Hash();
  outcome.events = context_.scheduler.events_run();
  outcome.sent = context_.history.attempts();
  outcome.acknowledged = context_.history.acknowledged();
  outcome.unknown = context_.history.unknown();
  outcome.batches_seen = context_.history.batches_seen();
  outcome.simulated = context_.scheduler.now();
  outcome.hits = context_.hits;
  if (outcome.violation) {
    context_.trace.Say(
        [&] { return Cat("BROKEN: ", RuleName(outcome.violation->rule), ": ", outcome.violation->what); });
  }
  return outcome;
}

Outcome RunSeed(uint64_t seed, std::ostream* trace) {
  Outcome outcome = World(seed, trace).Run();
  outcome.seed = seed;
  return outcome;
}

std::string Report(const Outcome& outcome) {
  if (!outcome.violation) return Cat("seed ", outcome.seed, " holds");
  return Cat("seed ", outcome.seed, " breaks \"", RuleName(outcome.violation->rule), "\": ", outcome.violation->what,
             "\n  see it again: ./dev test sim --replay ", outcome.seed);
}

}  // namespace sluice::cluster_simulation
