#include "broker/group0_membership.h"

#include <catch2/catch.hpp>

namespace sluice::broker {
namespace {

VoterId Member(int node) {
  return {NodeId(node), Uuid::FromRandom(static_cast<uint64_t>(node), 1)};
}

/// Nodes 1 to `count`, alive and caught up, of which the first leads and `voters` vote.
Group0View View(int count, std::vector<int> voters, std::vector<int> learners = {}) {
  Group0View view;
  view.leader = Member(1);
  for (int i = 1; i <= count; ++i) view.nodes.push_back({.id = Member(i), .rack = "", .caught_up = true});
  for (const int i : voters) view.members.voters.push_back(Member(i));
  for (const int i : learners) view.members.learners.push_back(Member(i));
  return view;
}

std::string Next(const Group0View& view) {
  const auto next = NextMembershipStep(view);
  if (!next.has_value()) return "none";
  CHECK(view.members.CheckStep(*next).ok());
  return next->ToString();
}

TEST_CASE("every registered node becomes a learner first, whether it is fenced or not") {
  Group0View view = View(3, {1});
  view.nodes[1].fenced = true;
  CHECK(Next(view) == raft::Configuration::Make({Member(1)}, {Member(2)})->ToString());
  view.members.learners = {Member(2)};
  CHECK(Next(view) == raft::Configuration::Make({Member(1)}, {Member(2), Member(3)})->ToString());
}

TEST_CASE("two nodes have one voter, three have three, five and more have five") {
  CHECK(Next(View(2, {1}, {2})) == "none");
  CHECK(Next(View(3, {1}, {2, 3})) == "voters 1, 2; learners 3");
  CHECK(Next(View(3, {1, 2}, {3})) == raft::Configuration::Make({Member(1), Member(2), Member(3)}, {})->ToString());
  CHECK(Next(View(4, {1, 2, 3}, {4})) == "none");
  CHECK(Next(View(5, {1, 2, 3}, {4, 5})) == "voters 1, 2, 3, 4; learners 5");
  CHECK(Next(View(7, {1, 2, 3, 4, 5}, {6, 7})) == "none");
}

TEST_CASE("no second voter unless a third can follow at once") {
  Group0View view = View(3, {1}, {2, 3});
  view.nodes[2].caught_up = false;
  CHECK(Next(view) == "none");
  view.nodes[2].caught_up = true;
  view.nodes[1].fenced = true;
  CHECK(Next(view) == "none");
  view.nodes[1].fenced = false;
  CHECK(Next(view) == "voters 1, 2; learners 3");
  // But one that was begun is completed by whoever there is.
  Group0View even = View(4, {1, 2}, {3, 4});
  even.nodes[2].caught_up = false;
  CHECK(Next(even) == "voters 1, 2, 4; learners 3");
}

TEST_CASE("racks without a voter come first") {
  Group0View view = View(4, {1}, {2, 3, 4});
  view.nodes[0].rack = view.nodes[1].rack = "a";
  view.nodes[2].rack = "b";
  view.nodes[3].rack = "c";
  CHECK(Next(view) == "voters 1, 3; learners 2, 4");
  view.members = raft::Configuration{.voters = {Member(1), Member(3)}, .learners = {Member(2), Member(4)}};
  CHECK(Next(view) == "voters 1, 3, 4; learners 2");
}

TEST_CASE("a voter that was fenced for an hour gives its vote to one that lives") {
  Group0View view = View(4, {1, 2, 3}, {4});
  view.nodes[2].fenced = true;
  view.nodes[2].caught_up = false;
  view.nodes[2].fenced_for = kReplaceVoterAfter - absl::Seconds(1);
  CHECK(Next(view) == "none");
  view.nodes[2].fenced_for = kReplaceVoterAfter;
  CHECK(Next(view) == "voters 1, 2; learners 3, 4");
  view.replace_voter_after += absl::Seconds(1);
  CHECK(Next(view) == "none");
  view.members = raft::Configuration{.voters = {Member(1), Member(2)}, .learners = {Member(3), Member(4)}};
  CHECK(Next(view) == "voters 1, 2, 4; learners 3");
}

TEST_CASE("a vote is not taken where nobody could have it, or where too few would be left") {
  Group0View view = View(4, {1, 2, 3}, {4});
  view.nodes[2].fenced = true;
  view.nodes[2].caught_up = false;
  view.nodes[2].fenced_for = kReplaceVoterAfter;
  Group0View without = view;
  without.nodes[3].caught_up = false;
  CHECK(Next(without) == "none");
  view.nodes[1].caught_up = false;
  CHECK(Next(view) == "none");
  Group0View self = View(4, {1, 2, 3}, {4});
  self.nodes[0].fenced = true;
  self.nodes[0].fenced_for = kReplaceVoterAfter;
  CHECK(Next(self) == "none");
}

TEST_CASE("a leader that cannot write is followed by the voter that can and has the most room") {
  Group0View view = View(5, {1, 2, 3}, {4, 5});
  CHECK(Successor(view) == std::nullopt);  // nobody has said that it can
  for (auto& node : view.nodes) node.can_lead = true;
  view.nodes[2].disk_free_bytes = 10;
  view.nodes[4].disk_free_bytes = 100;  // no voter
  CHECK(Successor(view) == Member(3));
  view.nodes[2].caught_up = false;
  CHECK(Successor(view) == Member(2));
  view.nodes[1].fenced = true;
  CHECK(Successor(view) == std::nullopt);
}

TEST_CASE("one that cannot read its log is not to lead, and is the last to get a vote") {
  Group0View view = View(5, {1, 2, 3}, {4, 5});
  for (auto& node : view.nodes) node.can_lead = true;
  view.nodes[1].renounced = true;
  CHECK(Successor(view) == Member(3));
  view.nodes[2].renounced = true;
  CHECK(Successor(view) == std::nullopt);
  view.nodes[3].renounced = true;
  CHECK(Next(view) == "voters 1, 2, 3, 5; learners 4");
  view.nodes[4].renounced = true;
  CHECK(Next(view) == "voters 1, 2, 3, 4; learners 5");
}

}  // namespace
}  // namespace sluice::broker
