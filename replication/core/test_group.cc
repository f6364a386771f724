#include "replication/core/test_group.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <utility>

#include "common/check.h"
#include "common/record/record.h"
#include "common/text.h"
#include "replication/core/membership.h"

namespace sluice::raft {

uint64_t FixedRandom::Next() {
  state_ += 0x9e3779b97f4a7c15ULL;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

// ---- Disk

std::vector<EpochStart> DiskImage::epochs() const {
  std::vector<EpochStart> all;
  for (const record::Batch& b : log) {
    if (all.empty() || all.back().epoch != b.epoch()) all.push_back({b.epoch(), b.base_offset()});
  }
  return all;
}

void DiskImage::Write(const Ready& ready) {
  if (ready.hard_state) hard_state = *ready.hard_state;
  if (ready.truncate_to) {
    while (!log.empty() && log.back().base_offset() >= *ready.truncate_to) log.pop_back();
    INFO("a truncation to " << *ready.truncate_to << " leaves a log that ends at " << end());
    REQUIRE(end() == *ready.truncate_to);
  }
  if (ready.raft_state) raft_state = *ready.raft_state;
  for (const record::Batch& b : ready.append) {
    REQUIRE(b.base_offset() == end());
    log.push_back(b);
  }
}

void DiskImage::Reset(Offset offset) {
  log.clear();
  base = log_start = offset;
}

// ---- Group

TestGroup::TestGroup(Options opts) : options(opts) {}

VoterId TestGroup::Id(int node, uint64_t life) {
  return {NodeId(node), Uuid::FromRandom(static_cast<uint64_t>(node), life)};
}

Configuration TestGroup::Members(std::vector<int> voters, std::vector<int> learners) {
  std::vector<VoterId> voter_ids, learner_ids;
  for (int n : voters) voter_ids.push_back(Id(n));
  for (int n : learners) learner_ids.push_back(Id(n));
  return Configuration::Make(voter_ids, learner_ids).value();
}

record::PendingBatch TestGroup::Data(const std::string& value, int records) {
  record::BatchBuilder builder;
  for (int i = 0; i < records; ++i) REQUIRE(builder.Append(0, std::nullopt, value).ok());
  return builder.Build().value();
}

void TestGroup::Start(Node& node, bool doubtful) {
  RestoredState state;
  state.self = node.id;
  state.hard_state = node.durable.hard_state;
  state.log_start = node.durable.log_start;
  state.log_end = node.durable.end();
  state.epochs = node.durable.epochs();
  state.raft_state = node.durable.raft_state;
  state.initial = node.initial;
  state.doubtful = doubtful;
  auto raft = Raft::Restore(options, *node.random, std::move(state));
  INFO(raft.status());
  REQUIRE(raft.ok());
  node.raft = *std::move(raft);
  node.renounced = false;
}

void TestGroup::Add(int number, const Configuration& initial) {
  Node& node = nodes[number];
  node.id = Id(number);
  node.initial = initial;
  node.random = std::make_unique<FixedRandom>(static_cast<uint64_t>(number));
  Start(node, false);
}

void TestGroup::Note(int node, const absl::Status& status, const std::string& what) {
  if (status.ok()) {
    Line(node, " ", what);
  } else {
    Line(node, " ", what, ": ", absl::StatusCodeToString(status.code()), ": ", sluice::Message(status));
  }
}

void TestGroup::Tick(int number, int times) {
  for (int i = 0; i < times; ++i) {
    if (nodes.at(number).raft) at(number).Tick(0);
  }
  Check();
}

absl::Status TestGroup::Campaign(int number) {
  absl::Status status = at(number).Campaign();
  Note(number, status, "campaigns");
  Check();
  return status;
}

void TestGroup::Renounce(int number) {
  at(number).Renounce();
  node(number).renounced = true;
  Line(number, " renounces");
  Check();
}

absl::StatusOr<Proposed> TestGroup::Propose(int number, const std::string& value, int records) {
  auto placed = at(number).Propose(Data(value, records));
  Note(number, placed.status(),
       placed.ok() ? Cat("proposes ", placed->base_offset, "-", placed->last_offset, " in epoch ", placed->epoch)
                   : std::string("proposes"));
  Check();
  return placed;
}

absl::StatusOr<Proposed> TestGroup::Change(int number, const Configuration& next) {
  auto placed = at(number).ProposeMembership(next);
  Note(number, placed.status(), Cat("proposes ", next.ToString(), placed.ok() ? Cat(" at ", placed->last_offset) : ""));
  Check();
  return placed;
}

absl::Status TestGroup::Step(Message message) {
  const int to = message.to.node.value();
  absl::Status status = at(to).Step(std::move(message));
  if (!status.ok()) Note(to, status, "refuses");
  Check();
  return status;
}

void TestGroup::TakeReady(int number) {
  Node& n = node(number);
  if (!n.raft || !n.raft->HasReady()) return;
  Ready ready = n.raft->TakeReady();
  if (ready.role_change) {
    const RoleChange& c = *ready.role_change;
    Line(number, " is ", RoleName(c.role), " in term ", c.term,
         c.leader.IsNone() || c.leader == n.id ? "" : Cat(", leader ", c.leader.node));
  }
  if (ready.must_persist) {
    std::string what = Cat(number, " writes ", ready.number, ":");
    if (ready.hard_state) {
      what += Cat(" term ", ready.hard_state->term);
      if (!ready.hard_state->voted_for.IsNone()) what += Cat(" vote ", ready.hard_state->voted_for.node);
    }
    if (ready.truncate_to) what += Cat(" truncate to ", *ready.truncate_to);
    if (ready.raft_state) what += " raft state";
    for (const record::Batch& b : ready.append) what += Cat(" ", b.base_offset(), "-", b.last_offset(), ":", b.epoch());
    Line(what);
    n.memory.Write(ready);
    n.unpersisted.push_back(ready);
  }
  if (ready.committed > n.committed) Line(number, " commits to ", ready.committed);
  n.committed = std::max(n.committed, ready.committed);
  for (const ReadIndexResult& read : ready.read_results) {
    Line(number, " read ", read.context, read.index ? Cat(" at ", *read.index) : std::string(" lost"));
    n.reads.push_back(read);
    if (read.index && reads_asked_.contains(read.context)) REQUIRE(*read.index >= reads_asked_.at(read.context));
  }
  for (const LogRead& read : ready.log_reads) {
    Line(number, " reads from ", read.from, " for ", read.to.node);
    n.raft->OnRead(read.token, Read(n, read));
  }
  for (const SnapshotWanted& wanted : ready.snapshots_wanted) {
    Line(number, " wants a snapshot for ", wanted.to.node);
    n.snapshots_wanted.push_back(wanted.to);
  }
  if (ready.install) {
    Line(number, " begins to install a snapshot at ", ready.install->base.end);
    n.install = ready.install;
  }
  for (Message& message : ready.messages) {
    if (traced) Line(Describe(message));
    if (const auto* append = std::get_if<AppendRequest>(&message.body); append != nullptr) {
      const Offset end = append->previous.end;
      for (const record::Batch& b : n.memory.log) REQUIRE_FALSE((b.base_offset() < end && end < b.next_offset()));
    }
    network.push_back(std::move(message));
  }
  Check();
}

std::vector<record::Batch> TestGroup::Read(const Node& n, const LogRead& read) const {
  std::vector<record::Batch> found;
  int64_t bytes = 0;
  for (const record::Batch& b : n.memory.log) {
    if (b.next_offset() <= std::max(read.from, n.memory.log_start)) continue;
    bytes += static_cast<int64_t>(b.size_bytes());
    if (!found.empty() && bytes > read.bytes_max) break;
    found.push_back(b);
  }
  return found;
}

void TestGroup::Persist(int number) {
  Node& n = node(number);
  if (!n.raft || n.unpersisted.empty()) return;
  const uint64_t last = n.unpersisted.back().number;
  for (const Ready& ready : n.unpersisted) {
    n.past.push_back(n.durable);
    if (n.past.size() > 8) n.past.erase(n.past.begin());
    n.durable.Write(ready);
  }
  n.unpersisted.clear();
  n.raft->OnDurable(last);
  Check();
}

bool TestGroup::Lost(const Message& message) const {
  const auto is = [&](const VoterId& id) {
    return std::find(isolated.begin(), isolated.end(), id.node.value()) != isolated.end();
  };
  return is(message.from) || is(message.to);
}

std::deque<Message> TestGroup::TakeUnderWay(int to, int from) {
  std::deque<Message> chosen, kept;
  for (Message& m : std::exchange(network, {})) {
    const bool is = (to == 0 || to == m.to.node.value()) && (from == 0 || from == m.from.node.value());
    (is ? chosen : kept).push_back(std::move(m));
  }
  network = std::move(kept);
  return chosen;
}

void TestGroup::Deliver(int to, int from) {
  for (Message& message : TakeUnderWay(to, from)) {
    const int receiver = message.to.node.value();
    if (!Lost(message) && nodes.contains(receiver) && nodes.at(receiver).raft) (void)Step(std::move(message));
  }
}

void TestGroup::Drop(int to, int from) {
  (void)TakeUnderWay(to, from);
}

void TestGroup::Delay(int to, int from) {
  for (Message& message : TakeUnderWay(to, from)) delayed.push_back(std::move(message));
}

void TestGroup::DeliverLate() {
  for (Message& message : std::exchange(delayed, {})) network.push_back(std::move(message));
  Deliver();
}

void TestGroup::Run() {
  for (int round = 0; round < 1000; ++round) {
    bool busy = false;
    for (auto& [number, n] : nodes) {
      if (!n.raft) continue;
      busy = busy || n.raft->HasReady() || !n.unpersisted.empty() || n.install;
      TakeReady(number);
      Persist(number);
      if (n.install) Install(number);
      for (const VoterId& to : std::exchange(n.snapshots_wanted, {})) SendSnapshot(number, to.node.value());
    }
    busy = busy || !network.empty();
    Deliver();
    if (!busy) return;
  }
  FAIL("the group never falls silent\n" << trace.substr(trace.size() - std::min<size_t>(trace.size(), 4000)));
}

void TestGroup::Crash(int number) {
  Node& n = node(number);
  n.was_in_doubt = n.torn || n.was_in_doubt || (n.raft && n.raft->in_doubt());
  // A driver writes the first Ready before it goes on; here a crash may come first, and the damage is found once more.
  const auto stored =
      n.durable.raft_state.empty() ? ReplicaRaftState() : *ReplicaRaftState::Decode(n.durable.raft_state.view());
  if (n.was_in_doubt && !stored.in_doubt) n.torn = true;
  n.raft.reset();
  n.unpersisted.clear();
  n.snapshots_wanted.clear();
  n.install.reset();
  n.memory = n.durable;
  Drop(number);
  Line(number, " crashes");
}

void TestGroup::LoseTail(int number, Offset end) {
  Node& n = node(number);
  while (!n.durable.log.empty() && n.durable.log.back().base_offset() >= end) n.durable.log.pop_back();
  Crash(number);
}

void TestGroup::TearOff(int number, size_t writes) {
  Node& n = node(number);
  for (; writes > 0 && !n.past.empty(); --writes) {
    n.durable = std::move(n.past.back());
    n.past.pop_back();
    n.torn = true;
  }
  Crash(number);
}

absl::Status TestGroup::ReadIndex(int number, uint64_t context) {
  Offset seen;
  for (const auto& [other, n] : nodes) seen = std::max(seen, n.committed);
  reads_asked_[context] = seen;
  return at(number).ReadIndex(context);
}

void TestGroup::Restart(int number, bool doubtful) {
  if (node(number).raft) Crash(number);
  doubtful = std::exchange(node(number).torn, false) || doubtful;
  Start(node(number), doubtful);
  if (std::exchange(node(number).was_in_doubt, false) && at(number).configuration().voters.size() > 1) {
    REQUIRE(at(number).in_doubt());
  }
  node(number).committed = at(number).committed();
  Line(number, " restarts", doubtful ? " in doubt" : "");
  Check();
}

void TestGroup::MoveLogStart(int number, Offset log_start) {
  Node& n = node(number);
  Persist(number);
  n.past.clear();
  for (DiskImage* image : {&n.memory, &n.durable}) {
    // Batches go whole; the one that holds the log start stays.
    if (image->log.back().next_offset() <= log_start) image->base = log_start;
    std::erase_if(image->log, [&](const record::Batch& b) { return b.next_offset() <= log_start; });
    image->log_start = log_start;
  }
  n.raft->OnLogStart(log_start);
  Check();
}

void TestGroup::SendSnapshot(int number, int to) {
  const Node& n = node(number);
  // The batch that holds the log start.
  const auto first = std::find_if(n.memory.log.begin(), n.memory.log.end(),
                                  [&](const record::Batch& b) { return b.next_offset() > n.memory.log_start; });
  const Offset base = first == n.memory.log.end() ? n.memory.log_start : first->base_offset();
  const absl::Status status = at(number).SendSnapshot(Id(to), n.state.value_or(base), Bytes());
  if (!status.ok()) Note(number, status, "sends a snapshot");
  Check();
}

void TestGroup::Install(int number) {
  Node& n = node(number);
  REQUIRE(n.install);
  Persist(number);
  const Offset base = n.install->base.end;
  n.past.clear();
  n.memory.Reset(base);
  n.durable.Reset(base);
  n.install.reset();
  Line(number, " has installed a snapshot at ", base);
  n.raft->OnSnapshotInstalled(base);
  n.committed = std::max(n.committed, base);
  Check();
}

int TestGroup::Leader() const {
  int leader = 0;
  LeaderEpoch term;
  for (const auto& [number, n] : nodes) {
    if (n.raft && n.raft->role() == Role::kLeader && n.raft->term() > term) {
      leader = number;
      term = n.raft->term();
    }
  }
  return leader;
}

int TestGroup::Elect(int ticks_max) {
  for (int i = 0; i < ticks_max; ++i) {
    Run();
    const int leader = Leader();
    if (leader != 0 && at(leader).Serving()) return leader;
    for (auto& [number, n] : nodes) Tick(number);
  }
  FAIL("nobody came to lead\n" << trace.substr(trace.size() - std::min<size_t>(trace.size(), 4000)));
  return 0;
}

void TestGroup::Must(bool holds, int node, std::string_view what) const {
  if (holds) return;
  FAIL("replica " << node << ": " << what << "\n" << trace.substr(trace.size() - std::min<size_t>(trace.size(), 3000)));
}

void TestGroup::Check() {
  for (auto& [number, n] : nodes) {
    if (!n.raft) continue;
    const Raft& r = *n.raft;
    Must(r.log_start() <= r.committed(), number, "its log starts above what is committed");
    Must(r.committed() <= r.log_end(), number, "more is committed than its log has");
    Must(r.durable_end() <= r.log_end(), number, "more is durable than its log has");
    if (r.role() == Role::kLeader) {
      const auto [at, fresh] = leaders_.emplace(r.term().value(), number);
      Must(at->second == number, number, "another one led in this term");
    }
    for (const record::Batch& b : n.memory.log) {
      if (b.next_offset() > n.committed) break;  // as it said: what it has not handed out is not written either
      const std::pair<int32_t, uint32_t> content{b.epoch().value(), b.whole_crc32c()};
      const auto [at, fresh] = committed_batches_.emplace(b.last_offset().value(), content);
      Must(at->second == content, number, "what is committed is not what another one committed there");
    }
  }
}

std::string TestGroup::Status(int number) const {
  const Node& n = nodes.at(number);
  if (!n.raft) return Cat(number, ": down");
  const Raft& r = *n.raft;
  std::string out = Cat(number, ": ", RoleName(r.role()), " t", r.term(), " log ", r.log_start(), "..", r.log_end(),
                        " durable ", r.durable_end(), " committed ", r.committed(), ", ", r.configuration().ToString(),
                        r.in_doubt() ? ", in doubt" : "", r.transferring() ? ", transferring" : "");
  for (const FollowerStatus& f : r.followers()) {
    out += Cat("\n   ", f.id.node, f.voter ? "" : " learner", " ", f.state, " match ", f.match, " next ", f.next,
               f.active ? "" : " silent", f.in_doubt ? " in doubt" : "");
  }
  return out;
}

std::string TestGroup::Log(int number) const {
  std::string out;
  for (const record::Batch& b : nodes.at(number).memory.log) {
    if (b.next_offset() <= nodes.at(number).memory.log_start) continue;
    out += Cat(out.empty() ? "" : " ", b.base_offset(), "-", b.last_offset(), ":", b.epoch());
    if (b.is_control()) out += MembershipIn(b).value() ? "m" : "c";
  }
  return out;
}

}  // namespace sluice::raft
