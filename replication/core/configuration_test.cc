#include "replication/core/configuration.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>

#include "common/text.h"

namespace sluice::raft {

namespace {

VoterId Voter(int32_t node, uint64_t life = 1) {
  return {NodeId(node), Uuid::FromRandom(static_cast<uint64_t>(node), life)};
}

Configuration Of(std::vector<VoterId> voters, std::vector<VoterId> learners = {}) {
  return Configuration::Make(std::move(voters), std::move(learners)).value();
}

std::string Page() {
  std::ifstream in(SLUICE_SOURCE_DIR "/docs/formats.md");
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// The bytes of the page's block that opens with "```hex NAME": on each line, pairs of digits up to '#'.
std::string Example(std::string_view name) {
  const std::string page = Page();
  const std::string opening = Cat("```hex ", name, "\n");
  size_t at = page.find(opening);
  REQUIRE(at != std::string::npos);
  at += opening.size();
  const size_t end = page.find("```", at);
  std::string bytes;
  bool comment = false;
  for (; at < end; ++at) {
    if (page[at] == '#') comment = true;
    if (page[at] == '\n') comment = false;
    if (comment || page[at] == ' ' || page[at] == '\n') continue;
    bytes.push_back(static_cast<char>(std::stoi(page.substr(at, 2), nullptr, 16)));
    ++at;
  }
  return bytes;
}

}  // namespace

TEST_CASE("a quorum is more than half of the voters, whoever learns") {
  REQUIRE(Of({Voter(1)}).Quorum() == 1);
  REQUIRE(Of({Voter(1), Voter(2)}).Quorum() == 2);
  REQUIRE(Of({Voter(1), Voter(2), Voter(3)}, {Voter(4), Voter(5)}).Quorum() == 2);
  REQUIRE(Of({Voter(1), Voter(2), Voter(3), Voter(4)}).Quorum() == 3);
}

TEST_CASE("a member named twice, or nobody, or learners without a voter make no configuration") {
  REQUIRE_FALSE(Configuration::Make({Voter(1), Voter(1)}, {}).ok());
  REQUIRE_FALSE(Configuration::Make({Voter(1)}, {Voter(1)}).ok());
  REQUIRE_FALSE(Configuration::Make({VoterId{}}, {}).ok());
  REQUIRE_FALSE(Configuration::Make({}, {Voter(1)}).ok());
  REQUIRE_FALSE(Configuration::Make(std::vector<VoterId>(65, Voter(1)), {}).ok());
  REQUIRE(Configuration::Make({Voter(1, 1), Voter(1, 2)}, {}).ok());  // a wiped disk is another voter
}

TEST_CASE("one member may change its part at a time") {
  const Configuration now = Of({Voter(1), Voter(2), Voter(3)}, {Voter(4)});
  REQUIRE(now.CheckStep(Of({Voter(1), Voter(2), Voter(3), Voter(4)})).ok());    // promoted
  REQUIRE(now.CheckStep(Of({Voter(1), Voter(2)}, {Voter(4)})).ok());            // removed
  REQUIRE(now.CheckStep(Of({Voter(1), Voter(2)}, {Voter(3), Voter(4)})).ok());  // demoted
  REQUIRE(now.CheckStep(Of({Voter(1), Voter(2), Voter(3)})).ok());              // learner removed
  REQUIRE(now.CheckStep(Of({Voter(1), Voter(2), Voter(3), Voter(5)}, {Voter(4)})).ok());
  REQUIRE_FALSE(now.CheckStep(now).ok());
  REQUIRE_FALSE(now.CheckStep(Of({Voter(1), Voter(2), Voter(4)})).ok());  // two at once
  REQUIRE_FALSE(
      now.CheckStep(Of({Voter(1), Voter(2), Voter(3, 2)}, {Voter(4)})).ok());  // another disk is another voter
  REQUIRE_FALSE(Of({Voter(1)}).CheckStep(Configuration{}).ok());
}

TEST_CASE("a configuration reads back as it was written, and its order is fixed") {
  const Configuration made = Of({Voter(3), Voter(1)}, {Voter(2)});
  REQUIRE(made.voters.front() == Voter(1));
  REQUIRE(Configuration::Decode(made.Encode()).value() == made);
  REQUIRE(made.ToString() == "voters 1, 3; learners 2");
}

TEST_CASE("bytes that are no configuration are refused, wherever they are cut or changed") {
  const std::string good = Of({Voter(1), Voter(2)}, {Voter(3)}).Encode();
  for (size_t size = 0; size < good.size(); ++size) {
    REQUIRE(Configuration::Decode(good.substr(0, size)).status().code() == absl::StatusCode::kDataLoss);
  }
  REQUIRE_FALSE(Configuration::Decode(good + "x").ok());
  std::string version = good;
  version[0] = 1;
  REQUIRE_FALSE(Configuration::Decode(version).ok());
  std::string count = good;
  count[3] = 1;  // 258 voters
  REQUIRE_FALSE(Configuration::Decode(count).ok());
}

TEST_CASE("a replica's raft state reads back as it was written, and nothing shorter does") {
  const ReplicaRaftState state{{Offset(100), {LeaderEpoch(4), LeaderEpoch(4)}},
                               {Offset(500), {LeaderEpoch(0), LeaderEpoch(6)}},
                               true,
                               {{Offset(-1), LeaderEpoch(0), Of({Voter(1)})},
                                {Offset(120), LeaderEpoch(5), Of({Voter(1), Voter(2)}, {Voter(3)})}}};
  const std::string bytes = state.Encode();
  REQUIRE(ReplicaRaftState::Decode(bytes).value() == state);
  for (size_t size = 0; size < bytes.size(); ++size) {
    REQUIRE(ReplicaRaftState::Decode(bytes.substr(0, size)).status().code() == absl::StatusCode::kDataLoss);
  }
  REQUIRE_FALSE(ReplicaRaftState::Decode(bytes + "x").ok());
}

TEST_CASE("configurations in a raft state ascend by offset") {
  ReplicaRaftState state;
  state.configurations = {{Offset(7), LeaderEpoch(1), Of({Voter(1)})}, {Offset(7), LeaderEpoch(1), Of({Voter(1)})}};
  REQUIRE_FALSE(ReplicaRaftState::Decode(state.Encode()).ok());
}

TEST_CASE("the page's raft state is what this program writes, and reads as the page says") {
  const VoterId one{NodeId(1), *Uuid::Parse("01234567-89ab-4def-8123-456789abcdef")};
  const VoterId two{NodeId(2), *Uuid::Parse("11234567-89ab-4def-8123-456789abcdef")};
  const ReplicaRaftState state{
      {Offset(256), {LeaderEpoch(3), LeaderEpoch(3)}},
      {},
      true,
      {{Offset(-1), LeaderEpoch(0), Of({one})}, {Offset(300), LeaderEpoch(4), Of({one}, {two})}}};
  REQUIRE(state.Encode() == Example("raft-state"));
  REQUIRE(ReplicaRaftState::Decode(Example("raft-state")).value() == state);
}

}  // namespace sluice::raft
