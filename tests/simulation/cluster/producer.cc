// Producers: items in sessions, to whom they take for the leader.
#include <utility>

#include "common/text.h"
#include "tests/simulation/cluster/clients.h"

namespace sluice::cluster_simulation {

using broker::ProduceOutcome;
using broker::Reason;

// ---- What all clients share

NodeId Site::AnyNode() const {
  auto at = nodes.begin();
  std::advance(at, static_cast<std::ptrdiff_t>(context.random().Below(nodes.size())));
  return at->first;
}

std::vector<PartitionKey> Site::Partitions() const {
  std::vector<PartitionKey> all;
  for (const auto& [name, topic] : topics) {
    if (!topic.usable()) continue;
    for (int32_t i = 0; i < topic.partitions; ++i) all.push_back({name, i});
  }
  return all;
}

std::optional<PartitionKey> Site::AnyPartition() const {
  const auto all = Partitions();
  if (all.empty()) return std::nullopt;
  return all[context.random().Below(all.size())];
}

NodeId Site::AtAddress(const std::string& address) const {
  for (const auto& [id, node] : nodes) {
    if (node->place().client() == address) return id;
  }
  return NodeId(0);
}

std::vector<NodeId> Site::CountedOn() const {
  std::vector<NodeId> all;
  for (const auto& [id, node] : nodes) {
    if (settled && !node->gone()) all.push_back(id);
  }
  return all;
}

NodeId Beliefs::Leader(const PartitionKey& key) {
  const auto at = leaders_.find(key);
  if (at != leaders_.end() && !(site_.context.storm && site_.context.random().OneIn(20))) return at->second;
  return leaders_[key] = site_.AnyNode();
}

void Beliefs::Learn(const PartitionKey& key, const broker::Error& error) {
  if (error.reason == broker::Reason::kCorruptLog && site_.context.plan.loses_disk) {
    // A client gives up at that. Where disks are lost each partition has three replicas, and others can lead it.
    site_.context.history.Fail(Rule::kLiveness, Cat("of ", key.ToString(), " a client is told: ", error.message));
  }
  const NodeId hint = site_.AtAddress(error.leader);
  if (site_.nodes.contains(hint)) {
    leaders_[key] = hint;
  } else if (error.reason == Reason::kNotLeader || error.reason == Reason::kNotAvailable ||
             error.reason == Reason::kUnknownTopic || error.reason == Reason::kStaleLeaderEpoch) {
    leaders_.erase(key);
  }
}

// ---- Sessions

Sender::Session& Sender::SessionWith(NodeId node) {
  Session& session = sessions_[node];
  if (session.name == 0) {
    session.name = site_.context.random().Next();
    session.life = site_.nodes.at(node)->life();
  }
  return session;
}

std::optional<record::PendingBatch> Sender::BatchOf(const Attempt& attempt) {
  SimRandom& random = site_.context.random();
  for (int32_t i = 0; i < attempt.records; ++i) {
    std::string text = ValueText(attempt.value, i);
    text.append(random.Below(static_cast<uint64_t>(site_.context.plan.record_bytes_max)), 'v');
    if (!builder_.Append(1'700'000'000'000, std::nullopt, text).ok()) return std::nullopt;
  }
  auto batch = builder_.Build();
  if (!batch.ok()) return std::nullopt;
  return *std::move(batch);
}

void Sender::Send(const PartitionKey& key, absl::AnyInvocable<void(SendResult)> done) {
  Context& context = site_.context;
  const NodeId node = beliefs_.Leader(key);
  Session& session = SessionWith(node);
  Lot& lot = session.lots[key];
  Known& known = known_[key];
  const bool reset = (lot.broken && (!context.storm || Percent(context.random(), context.plan.reset_percent))) ||
                     (context.storm && context.random().OneIn(50));
  if (reset) {
    lot.broken = false;
    ++lot.resets;
  }
  Attempt attempt;
  attempt.key = key;
  attempt.session = session.name;
  attempt.sequence = ++session.sequence;
  attempt.resets = lot.resets;
  attempt.records = 1 + static_cast<int32_t>(context.random().Below(3));
  if (known.end && context.storm && Percent(context.random(), context.plan.expect_percent))
    attempt.expected = known.end;
  if (context.random().OneIn(2)) attempt.epoch = known.epoch;
  const Attempt& sent = context.history.OnSend(std::move(attempt));
  broker::ProduceItem item{.topic = key.topic,
                           .partition = PartitionId(key.partition),
                           .batch = *BatchOf(sent),
                           .expected_base_offset = sent.expected,
                           .leader_epoch = sent.epoch,
                           .reset = reset};
  context.trace.Say([&] {
    return Cat("value ", sent.value, " to ", key.ToString(), " at node ", node, ", item ", sent.sequence,
               sent.expected ? Cat(", expecting ", *sent.expected) : std::string(), reset ? ", reset" : "");
  });
  ++site_.calls_under_way;
  site_.wire.Call<ProduceOutcome>(
      node, session.lane, session.life,
      [name = session.name, item = std::move(item)](Node& at, auto reply) mutable {
        at.broker().Produce(std::move(item), at.Session(name), std::move(reply));
      },
      [this, &sent, node, done = std::move(done)](Answer<ProduceOutcome> answer) mutable {
        --site_.calls_under_way;
        done(OnAnswer(sent, node, std::move(answer)));
      });
}

SendResult Sender::OnAnswer(const Attempt& attempt, NodeId node, Answer<ProduceOutcome> answer) {
  Context& context = site_.context;
  const auto session = sessions_.find(node);
  const bool same = session != sessions_.end() && session->second.name == attempt.session;
  if (answer.fate != Fate::kAnswered) {
    context.trace.Say([&] {
      return Cat("value ", attempt.value, answer.fate == Fate::kNeverSent ? " was never sent" : " has no answer");
    });
    if (same) sessions_.erase(session);
    beliefs_.Forget(attempt.key);
    if (answer.fate == Fate::kNeverSent) {
      context.history.OnRefused(attempt.value, false);
      return {.kind = SendResult::Kind::kRefused, .reason = Reason::kNotAvailable};
    }
    context.history.OnUnknown(attempt.value);
    return {.kind = SendResult::Kind::kUnknown};
  }
  if (!answer.value->ok()) {
    if (same) session->second.lots[attempt.key].broken = true;
    return OnError(attempt, node, answer.value->error());
  }
  const broker::ProduceAck& ack = **answer.value;
  context.trace.Say([&] {
    return Cat("value ", attempt.value, " is at ", ack.base_offset, " of ", attempt.key.ToString(), ", epoch ",
               ack.leader_epoch);
  });
  Known& known = known_[attempt.key];
  known.end = ack.next_offset;
  known.epoch = std::max(known.epoch, ack.leader_epoch);
  context.history.OnAcknowledged(attempt.value, ack.base_offset, ack.next_offset, ack.leader_epoch, node);
  return {.kind = SendResult::Kind::kDone};
}

SendResult Sender::OnError(const Attempt& attempt, NodeId node, const broker::Error& error) {
  Context& context = site_.context;
  context.trace.Say([&] {
    return Cat("value ", attempt.value, " refused by node ", node, ": ", broker::ReasonName(error.reason), ": ",
               error.message);
  });
  beliefs_.Learn(attempt.key, error);
  Known& known = known_[attempt.key];
  switch (error.reason) {
    case Reason::kOutcomeUnknown:
      context.hits.Add(Hit::kOutcomeUnknown);
      context.history.OnUnknown(attempt.value);
      return {.kind = SendResult::Kind::kUnknown, .reason = error.reason};
    case Reason::kExpectedOffsetMismatch:
      context.hits.Add(Hit::kRefusedExpectation);
      if (!attempt.expected) context.history.Fail(Rule::kCompareAndAppend, "a mismatch where nothing was expected");
      known.end = error.log_end;
      break;
    case Reason::kStaleLeaderEpoch:
      context.hits.Add(Hit::kRefusedEpoch);
      known.epoch = LeaderEpoch(0);
      break;
    case Reason::kSequenceBroken:
      context.hits.Add(Hit::kRefusedSequence);
      break;
    case Reason::kDiskFull:
      context.hits.Add(Hit::kRefusedFull);
      break;
    case Reason::kNotLeader:
      context.hits.Add(Hit::kNotLeader);
      break;
    case Reason::kUnknownTopic:
      context.hits.Add(Hit::kUnknownTopic);
      break;
    default:
      break;
  }
  context.history.OnRefused(attempt.value, true);
  return {.kind = SendResult::Kind::kRefused, .reason = error.reason};
}

// ---- Producers

void Producer::Begin() {
  const absl::Duration pause = site_.context.plan.produce_interval;
  site_.context.scheduler.At(Between(site_.context.random(), 0.1 * pause, 1.9 * pause), [this] {
    if (site_.clients_act) Act();
    Begin();
  });
}

void Producer::Act() {
  const auto key = site_.AnyPartition();
  if (!key || in_flight_[*key] >= site_.context.plan.in_flight_max) return;
  ++in_flight_[*key];
  sender_.Send(*key, [this, key = *key](SendResult) { --in_flight_[key]; });
}

}  // namespace sluice::cluster_simulation
