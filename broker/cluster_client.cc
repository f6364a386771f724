#include "broker/cluster_client.h"

#include <algorithm>
#include <utility>

#include "common/text.h"

namespace sluice::broker {
namespace {

/// Addresses that a lost node asks at a time; it comes to all of them.
constexpr size_t kAskedAtOnce = 16;
/// A leader that misses nodes asks less often: they may be gone for good.
constexpr int kLeaderAsksEvery = 3;
/// Tries in a row without a heartbeat that a leader takes; then which disks are full is not known any more.
constexpr int kFullForgottenAfter = 10;
/// Of a cluster that was formed without one.
constexpr const char* kClusterNameUnset = "sluice";

}  // namespace

ClusterClient::ClusterClient(ClusterClientOptions options, Seams seams)
    : options_(std::move(options)),
      seams_(std::move(seams)),
      trouble_(seams_.log),
      book_(options_.node.id, options_.node.peer_address, seams_.addresses) {
  seams_.controller.AddObserver(this);
  seams_.service.SetPeerBook(&book_, options_.cluster_id);
}

ClusterClient::~ClusterClient() {
  *alive_ = false;
  seams_.service.SetPeerBook(nullptr, {});
}

void ClusterClient::Start(std::optional<Registration> joined) {
  running_ = true;
  for (const auto& [id, node] : seams_.controller.state().nodes) {
    book_.Registered(id, node.node.peer_address, node.epoch);
  }
  if (joined.has_value()) {
    epoch_ = held_ = joined->epoch;
    for (const auto& [id, where] : joined->nodes) book_.Heard(id, where);
  }
  if (!joined.has_value()) CheckSeeds();
  RunLater(absl::ZeroDuration());
}

// What the folder says is what counts, so who has another cluster's nodes for seeds would never hear of it.
void ClusterClient::CheckSeeds() {
  if (seams_.calls == nullptr || options_.cluster_id.IsNil()) return;
  RegisterRequest who;
  who.ask_only = true;
  for (const std::string& seed : options_.seeds) {
    if (seed == options_.node.peer_address) continue;
    Ask(seed, who, [this, seed](const absl::StatusOr<RegisterAnswer>& answer) {
      if (!running_) return;
      if (absl::IsAlreadyExists(answer.status())) return OnBeside(seed);
      if (!absl::IsFailedPrecondition(answer.status())) return;
      seams_.log.Error(
          "a seed refuses this node, which goes on with the cluster of its data folder: correct cluster.seeds, or "
          "name an empty node.data_dir to join the seed's cluster",
          {{"seed", seed}, {"cluster", options_.cluster_id}, {"why", Message(answer.status())}});
    });
  }
}

void ClusterClient::Stop() {
  End(absl::UnavailableError("the node is stopping"));
}

void ClusterClient::End(const absl::Status& why) {
  running_ = false;
  if (ended_.ok()) ended_ = why;
  seams_.executor.Cancel(std::exchange(timer_, 0));
  for (auto& done : std::exchange(when_registered_, {})) done(ended_);
}

void ClusterClient::RunLater(absl::Duration after) {
  seams_.executor.Cancel(timer_);
  timer_ = seams_.executor.PostAfter(after, [this] {
    timer_ = 0;
    Run();
  });
}

void ClusterClient::Run() {
  if (!running_) return;
  RunLater(epoch_.has_value() ? options_.heartbeat_every : options_.retry_every);
  // What no leader has confirmed for so long is not held against anybody.
  if (++tries_in_vain_ > kFullForgottenAfter && seams_.full != nullptr) seams_.full->Set({});
  AskWhereIfLost();
  if (busy_) return;
  if (seams_.controller.IsLeader() && seams_.controller.state().cluster_id.IsNil()) return Form();
  if (!epoch_.has_value()) return Register();
  SendHeartbeat();
}

void ClusterClient::SetDraining() {
  draining_ = true;
  if (running_ && epoch_.has_value()) SendHeartbeat();
}

void ClusterClient::Form() {
  busy_ = true;
  const std::string name = options_.cluster_name.empty() ? kClusterNameUnset : options_.cluster_name;
  seams_.controller.Decide(
      [this, name](const ControllerState& state) -> absl::StatusOr<std::optional<ControllerChange>> {
        if (!state.cluster_id.IsNil()) return std::optional<ControllerChange>();
        return std::optional<ControllerChange>(ClusterFormed{.id = options_.cluster_id, .name = name});
      },
      [this, alive = alive_, name](absl::Status formed) {
        if (!*alive) return;
        busy_ = false;
        if (!formed.ok()) return;
        seams_.log.Info("a cluster is formed", {{"cluster", options_.cluster_id}, {"name", name}});
        if (running_) RunLater(absl::ZeroDuration());
      });
}

// The leader as this node knows it, or one that somebody named; else everybody in turn.
std::string ClusterClient::NextAddress() {
  if (!leader_hint_.empty()) return std::exchange(leader_hint_, {});
  if (const auto leader = seams_.controller.leader(); leader.has_value() && *leader != options_.node.id) {
    if (std::string address = book_.AddressOf(*leader); !address.empty() && next_address_ % 2 == 0) {
      ++next_address_;
      return address;
    }
  }
  const std::vector<std::string> all = Everybody();
  if (all.empty()) return {};
  return all[(next_address_++ / 2) % all.size()];
}

std::vector<std::string> ClusterClient::Everybody() const {
  std::vector<std::string> all;
  const auto add = [&](const std::string& address) {
    if (address != options_.node.peer_address && std::find(all.begin(), all.end(), address) == all.end()) {
      all.push_back(address);
    }
  };
  for (const auto& [id, where] : book_.All()) add(where.address);
  for (const std::string& seed : options_.seeds) add(seed);
  return all;
}

void ClusterClient::AskWhereIfLost() {
  if (seams_.calls == nullptr) return;
  const absl::Duration now = seams_.controller.clock().Monotonic();
  const bool leads = seams_.controller.IsLeader();
  // A leader whose followers have moved is looked for by them, and may have moved itself.
  const auto& nodes = seams_.controller.state().nodes;
  const bool misses =
      leads && std::any_of(nodes.begin(), nodes.end(), [](const auto& node) { return node.second.fenced; });
  // One that joined while this node was away may lead by now, or one that has moved: what would tell where it is comes
  // from nobody but itself, and cannot be answered.
  const auto leader = seams_.controller.leader();
  const bool found = leader.has_value() && (leads || (!book_.AddressOf(*leader).empty() && !unheard_));
  if (found && !misses) {
    lost_since_.reset();
    return;
  }
  if (!lost_since_.has_value()) lost_since_ = now;
  if (now - *lost_since_ < (leads ? kLeaderAsksEvery : 1) * options_.ask_where_after) return;
  lost_since_ = now;
  AskWhere();
}

// Whoever leads can be found only by those who are found themselves.
void ClusterClient::AskWhere() {
  RegisterRequest here = Request();
  here.ask_only = true;
  const std::vector<std::string> all = Everybody();
  const size_t count = std::min(all.size(), kAskedAtOnce);
  for (size_t i = 0; i < count; ++i) {
    const std::string& address = all[next_asked_++ % all.size()];
    Ask(address, here, [this, address](const absl::StatusOr<RegisterAnswer>& answer) {
      if (running_ && absl::IsAlreadyExists(answer.status())) return OnBeside(address);
      OnTold(answer);
    });
  }
}

void ClusterClient::OnTold(const absl::StatusOr<RegisterAnswer>& answer) {
  if (!running_ || !answer.ok() || answer->cluster_id.IsNil()) return;
  // One that has just joined has no state, and hears here where it gets it.
  const Uuid& known = seams_.controller.state().cluster_id;
  if (answer->cluster_id != (known.IsNil() ? options_.cluster_id : known)) return;
  if (IsReplacedBy(answer->other)) return;
  for (const auto& [id, where] : answer->nodes) book_.Heard(id, where);
}

// Names what it replaces: so whatever of it arrives after another process has taken the node changes nothing.
RegisterRequest ClusterClient::Request() const {
  RegisterRequest request = RequestOf(options_);
  request.known_epoch = book_.own().epoch;
  request.replaces = held_;
  if (held_ > Offset(0)) return request;
  const RegisteredNode* self = seams_.controller.state().FindNode(options_.node.id);
  request.replaces = std::max(known_, self == nullptr ? Offset(0) : self->epoch);
  return request;
}

void ClusterClient::Ask(const std::string& address, const RegisterRequest& request,
                        Callback<absl::StatusOr<RegisterAnswer>> done) {
  AskToRegister(*seams_.calls, address, request, options_.call_deadline, seams_.executor, alive_, std::move(done));
}

void ClusterClient::Refuse(const std::string& why) {
  // Who waits is to hear the reason, not that this node stops for it.
  End(absl::FailedPreconditionError(why));
  seams_.log.Error("this node is not of the cluster any more, and stops", {{"why", ended_}});
  seams_.on_refused(ended_);
}

void ClusterClient::RefuseBeside(const std::string& address) {
  Refuse(TwoProcesses(options_.node, address, "the cluster has for the node"));
}

// Met by chance. Which of the two is the node is decided where they register; but a copy of the only voter needs nobody
// to lead, and would never ask.
void ClusterClient::OnBeside(const std::string& address) {
  const std::vector<VoterId>& voters = seams_.controller.log()->raft().configuration().voters;
  if (voters.size() == 1 && voters.front().node == options_.node.id) return RefuseBeside(address);
  if (!told_beside_.insert(address).second) return;
  seams_.log.Warn("another process runs with a copy of this node's data folder: stop it and delete that folder",
                  {{"node", options_.node.id.value()}, {"address", address}});
}

bool ClusterClient::IsReplacedBy(const std::optional<OtherProcess>& other) {
  if (!other.has_value() || held_ == Offset(0) || other->epoch <= held_) return false;
  Refuse(TwoProcesses(options_.node, other->peer_address, "has registered later"));
  return true;
}

void ClusterClient::Register() {
  RegisterRequest request = Request();
  if (seams_.controller.IsLeader()) {
    busy_ = true;
    // Who leads without being registered has begun the group: its replica is what it is.
    request.node.incarnation = seams_.controller.log()->raft().self().incarnation;
    return seams_.service.Register(std::move(request), [this, alive = alive_](absl::StatusOr<RegisterAnswer> answer) {
      if (*alive) OnRegistered({}, std::move(answer));
    });
  }
  if (seams_.calls == nullptr) return;
  const std::string address = NextAddress();
  if (address.empty()) return;
  busy_ = true;
  Ask(address, request, [this, address](absl::StatusOr<RegisterAnswer> answer) {
    if (running_ && absl::IsAlreadyExists(answer.status())) return RefuseBeside(address);
    OnRegistered(address, std::move(answer));
  });
}

void ClusterClient::OnRegistered(const std::string& asked, absl::StatusOr<RegisterAnswer> answer) {
  busy_ = false;
  if (!running_) return;
  if (!answer.ok()) return trouble_.OnFailed(asked.empty() ? options_.node.peer_address : asked, answer.status());
  std::string refused = answer->refused;
  if (refused.empty() && !asked.empty() && !options_.cluster_id.IsNil() && answer->cluster_id != options_.cluster_id) {
    refused = Cat("this data folder belongs to cluster ", options_.cluster_id, ", and a node that was asked to ",
                  answer->cluster_id);
  }
  if (!refused.empty()) return Refuse(refused);
  if (IsReplacedBy(answer->other)) return;
  if (answer->other.has_value()) known_ = answer->other->epoch;
  if (!answer->registered.has_value()) {
    leader_hint_ = answer->leader_address == options_.node.peer_address ? std::string() : answer->leader_address;
    if (!leader_hint_.empty()) RunLater(absl::Milliseconds(20));
    if (answer->leader_address.empty() && !asked.empty()) trouble_.OnFailed(asked, NoLeader());
    return;
  }
  trouble_.OnDone();
  epoch_ = held_ = answer->registered->epoch;
  for (const auto& [id, where] : answer->nodes) book_.Heard(id, where);
  AnswerRegistered();
  RunLater(absl::ZeroDuration());
}

void ClusterClient::SendHeartbeat() {
  const Heartbeat heartbeat{.node = options_.node.id,
                            .epoch = *epoch_,
                            .applied = seams_.controller.applied(),
                            .disk_free_bytes = seams_.disk_free_bytes ? seams_.disk_free_bytes() : 0,
                            .draining = draining_,
                            .cannot_write = CannotWrite()};
  if (seams_.controller.IsLeader()) {
    return OnHeartbeatAnswered(*epoch_, seams_.service.OnHeartbeat(heartbeat));
  }
  const auto leader = seams_.controller.leader();
  if (seams_.calls == nullptr || !leader.has_value() || *leader == options_.node.id) return;
  seams_.calls->Call(
      *leader, kHeartbeatCall, EncodeHeartbeat(heartbeat), options_.call_deadline,
      [this, alive = alive_, &executor = seams_.executor, epoch = *epoch_](absl::StatusOr<std::string> answer) mutable {
        executor.Post([this, alive = std::move(alive), epoch, answer = std::move(answer)] {
          if (!*alive || !running_) return;
          OnHeartbeatAnswered(epoch, answer.ok() ? DecodeHeartbeatAnswer(*answer) : answer.status());
        });
      });
}

bool ClusterClient::CannotWrite() const {
  return seams_.controller.WritesRefused() || (seams_.disk_full != nullptr && seams_.disk_full());
}

void ClusterClient::OnHeartbeatAnswered(Offset epoch, const absl::StatusOr<HeartbeatAnswer>& answer) {
  if (answer.ok()) {
    ++heartbeats_taken_;
    tries_in_vain_ = 0;
    if (seams_.full != nullptr) seams_.full->Set(answer->full);
  }
  unheard_ = !answer.ok();
  if (!absl::IsFailedPrecondition(answer.status()) || epoch_ != epoch) return;
  seams_.log.Info("registers again", {{"why", answer.status()}});
  epoch_.reset();
  RunLater(absl::ZeroDuration());
}

void ClusterClient::WhenRegistered(Callback<absl::Status> done) {
  when_registered_.push_back(std::move(done));
  seams_.executor.Post([this, alive = alive_] {
    if (!*alive) return;
    if (!ended_.ok()) return End(ended_);
    AnswerRegistered();
  });
}

void ClusterClient::AnswerRegistered() {
  if (!epoch_.has_value()) return;
  for (auto& done : std::exchange(when_registered_, {})) seams_.controller.WaitApplied(*epoch_ + 1, std::move(done));
}

void ClusterClient::OnApplied(const ClusterDelta& delta) {
  for (const NodeId id : delta.nodes) {
    if (const RegisteredNode* node = seams_.controller.state().FindNode(id)) {
      book_.Registered(id, node->node.peer_address, node->epoch);
    }
  }
  const RegisteredNode* self =
      delta.nodes.contains(options_.node.id) ? seams_.controller.state().FindNode(options_.node.id) : nullptr;
  if (running_ && self != nullptr && !self->node.process.IsNil() && !options_.node.process.IsNil()) {
    // What was sent may have arrived though its answer has not.
    if (self->node.process == options_.node.process)
      held_ = std::max(held_, self->epoch);
    else if (IsReplacedBy(OtherProcess{.epoch = self->epoch, .peer_address = self->node.peer_address}))
      return;
  }
  // Registered, and this node has applied that: to say so ends its being fenced.
  if (running_ && self != nullptr && self->fenced && !draining_ && epoch_ == self->epoch)
    RunLater(absl::ZeroDuration());
}

void ClusterClient::OnLeadership(bool leads) {
  if (leads && running_) RunLater(absl::ZeroDuration());
}

}  // namespace sluice::broker
