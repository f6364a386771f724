#include "tests/simulation/cluster/world.h"

#include <algorithm>

#include "common/text.h"
#include "tests/simulation/cluster/replicated_broker.h"

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
    if (node->Reap()) StartLater(*node);
  }
  return true;
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

void World::Begin() {
  const Plan& plan = context_.plan;
  context_.trace.Say([&] {
    return Cat(plan.nodes, " nodes, ", plan.producers, " producers, ", plan.consumers, " consumers, ", plan.storms,
               " storms");
  });
  for (int32_t i = 1; i <= plan.nodes; ++i) {
    nodes_[NodeId(i)] = std::make_unique<Node>(context_, NodeId(i), peers_);
  }
  for (const auto& [id, node] : nodes_) node->Start();
  if (plan.nodes > 1) {
    Topic& topic = site_.topics[kReplicatedTopic];
    topic.state = Topic::State::kThere;
    topic.partitions = topic.partitions_max = plan.partitions;
  }
  for (int i = 0; i < plan.producers; ++i) producers_.push_back(std::make_unique<Producer>(site_));
  for (int i = 0; i < plan.consumers; ++i) consumers_.push_back(std::make_unique<Consumer>(site_));
  for (const auto& producer : producers_) producer->Begin();
  for (const auto& consumer : consumers_) consumer->Begin();
  operator_.Begin();
  MustWork();
}

void World::Storm() {
  context_.trace.Say([] { return std::string("a storm begins"); });
  context_.storm = site_.clients_act = true;
  ScheduleBlow();
  RunFor(Between(context_.random(), 0.3 * context_.plan.storm_max, context_.plan.storm_max));
}

void World::Quiet() {
  if (failed()) return;
  context_.trace.Say([] { return std::string("the storm is over"); });
  context_.storm = false;
  MendAll();
  MustWork();
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
  context_.trace.Say([] { return std::string("all nodes lose power"); });
  for (const auto& [id, node] : nodes_) {
    node->PowerOff();
    if (node->Reap()) StartLater(*node);
  }
  MustWork();
  CompareEverything();
}

Outcome World::Run() {
  Begin();
  for (int i = 0; i < context_.plan.storms && !failed(); ++i) {
    Storm();
    Quiet();
  }
  Finish();
  for (const auto& [id, node] : nodes_) node->CountHits();
  context_.hits.Add(Hit::kLeaderChanged, context_.history.leader_changes());
  context_.hits.Add(Hit::kPeerMessageLost, peers_.counts().lost);
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
