// Who takes part in the cluster, and as what: the votes of nodes that are gone, and nodes of two versions.
#include <algorithm>
#include <utility>

#include "common/text.h"
#include "tests/simulation/cluster/world.h"

namespace sluice::cluster_simulation {

using broker::ClusterInfo;
using broker::Result;
using broker::TopicInfo;

namespace {

/// Votes change in steps of a commit each; few of them are made within one look.
constexpr absl::Duration kLookEvery = absl::Milliseconds(10);
/// How long a world without faults may take for one of these things.
constexpr absl::Duration kSoon = absl::Seconds(100);

}  // namespace

// ---- Votes

void World::WatchVotes() {
  if (context_.scheduler.now() < votes_seen_at_ + kLookEvery) return;
  votes_seen_at_ = context_.scheduler.now();
  std::optional<ControllerTerm> now;
  for (const auto& [id, node] : nodes_) {
    auto leads = node->LeadsController();
    if (leads && (!now || leads->term > now->term)) now = std::move(leads);
  }
  if (!now) return;
  const auto before = std::exchange(votes_, now);
  if (!before) return;
  const std::vector<VoterId>& voters = now->members.voters;
  const std::vector<VoterId>& earlier = before->members.voters;
  const auto gone = [this](const VoterId& id) { return nodes_.at(id.node)->gone(); };
  if (std::any_of(earlier.begin(), earlier.end(), gone) && std::none_of(voters.begin(), voters.end(), gone)) {
    context_.hits.Add(Hit::kVoterReplaced);
    voter_replaced_ = true;
  }
  // Another leader may not have what an earlier one had begun.
  if (now->leader != before->leader || now->term != before->term || voters.size() >= earlier.size()) return;
  const std::vector<VoterId>& learners = now->members.learners;
  const bool another = std::any_of(learners.begin(), learners.end(), [&](const VoterId& id) {
    return !gone(id) && std::find(earlier.begin(), earlier.end(), id) == earlier.end();
  });
  if (another) return;
  context_.history.Fail(Rule::kVotesKept, Cat("group 0 had ", before->members.ToString(), ", and has ",
                                              now->members.ToString(), ": nobody is there for the vote"));
}

std::string World::WrongInMembers(NodeId asked, const ClusterInfo& cluster) const {
  for (const broker::NodeInfo& node : cluster.nodes) {
    if (!context_.plan.replaces_voter() || !node.controller_voter || !nodes_.at(node.id)->gone()) continue;
    return Cat("node ", node.id, " is gone, and has a vote in group 0, as node ", asked, " has it");
  }
  // A node that has just formed its cluster, and is alone, works before the level is raised.
  const int32_t common = site_.CommonFeatureLevel();
  if (cluster.feature_level == common || !(begun_ || context_.plan.upgrades)) return {};
  return Cat("the feature level is ", cluster.feature_level, ", as node ", asked, " has it, and all nodes support ",
             common);
}

// As many of the old voters are switched off as group 0 can be without; so many that it needs the one that came.
void World::MustSurviveLosses() {
  if (failed() || !votes_) return;
  voter_replaced_ = site_.settled = false;
  const NodeId newest = nodes_.rbegin()->first;
  const std::vector<VoterId> voters = votes_->members.voters;
  for (const VoterId& voter : voters) {
    if (held_off_.size() >= (voters.size() - 1) / 2 || voter.node == newest) continue;
    held_off_.insert(voter.node);
    nodes_.at(voter.node)->KillProcess();
  }
  context_.trace.Say([&] { return Cat(held_off_.size(), " voters are switched off for a while"); });
  const absl::Duration end = context_.scheduler.now() + kSoon;
  bool changed = false;
  while (!failed() && !changed && context_.scheduler.now() < end) {
    RunFor(absl::Milliseconds(100));
    const std::vector<PartitionKey> all = site_.Partitions();
    if (all.empty()) break;  // operators delete them meanwhile
    changed =
        AskNode<TopicInfo>(newest, [name = all.front().topic](Node& at, auto reply) {
          at.broker().AlterTopic({.name = name, .set = {{"message.timestamp.type", "LogAppendTime"}}, .unset = {}},
                                 std::move(reply));
        }).has_value();
  }
  if (!failed() && !changed && context_.scheduler.now() >= end) {
    context_.history.Fail(Rule::kLiveness, Cat("with ", held_off_.size(), " of ", voters.size(),
                                               " voters away the controller makes no change"));
  }
  for (const NodeId id : std::exchange(held_off_, {})) StartLater(*nodes_.at(id));
}

// ---- Versions

void World::UpgradeTheRest() {
  site_.settled = false;
  for (const auto& [id, each] : nodes_) {
    Node& node = *each;
    if (failed() || node.gone() || node.upgraded()) continue;
    const uint64_t life = node.life();
    node.Upgrade();
    if (node.serving()) {
      node.StopInOrder();
    } else {
      node.KillProcess();
    }
    if (RunUntil([&] { return node.life() != life && node.ready(); }, kSoon) || failed()) continue;
    context_.history.Fail(Rule::kLiveness, Cat("node ", id, " is not ready after its upgrade"));
  }
}

int32_t Site::CommonFeatureLevel() const {
  int32_t common = nodes.begin()->second->feature_max();
  for (const auto& [id, node] : nodes) common = std::min(common, node->feature_max());
  return common;
}

void Site::DescribeCluster(NodeId asked, absl::AnyInvocable<void(std::optional<ClusterInfo>)> done) {
  const std::pair process(asked, nodes.at(asked)->life());
  const int32_t least = feature_levels[process];
  wire.Call<Result<ClusterInfo>>(
      asked, nullptr, std::nullopt, [](Node& at, auto reply) { at.broker().DescribeCluster(std::move(reply)); },
      [this, process, least, done = std::move(done)](Answer<Result<ClusterInfo>> answer) mutable {
        if (answer.fate != Fate::kAnswered || !answer.value->ok()) return done(std::nullopt);
        const NodeId from = process.first;
        const int32_t level = (**answer.value).feature_level;
        if (const int32_t common = CommonFeatureLevel(); level > common) {
          context.history.Fail(Rule::kFeatureLevel, Cat("it is ", level, ", as node ", from,
                                                        " has it, and not all nodes support more than ", common));
        }
        if (nodes.at(from)->life() == process.second) {
          int32_t& last = feature_levels[process];
          if (level < least) {
            context.history.Fail(Rule::kFeatureLevel,
                                 Cat("it was ", least, ", and is ", level, ", as node ", from, " has it"));
          }
          if (last < level && level > broker::kFeatureLevelMax) context.hits.Add(Hit::kFeatureLevelRaised);
          last = std::max(last, level);
        }
        done(**answer.value);
      });
}

}  // namespace sluice::cluster_simulation
