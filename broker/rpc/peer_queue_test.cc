#include "broker/rpc/peer_queue.h"

#include <catch2/catch.hpp>
#include <map>
#include <random>

#include "broker/rpc/peer_test_batches.h"

namespace sluice::broker::rpc {
namespace {

// A part whose envelope is `name`, with a batch of so many bytes, or none.
PeerPart Part(const std::string& name, size_t batch_bytes = 0) {
  PeerPart part{.envelope = name, .batches = {}, .batch_bytes = batch_bytes};
  if (batch_bytes > 0) part.batches.push_back(Bytes::Adopt(std::string(batch_bytes, 'b')));
  return part;
}

std::vector<std::string> Names(const std::vector<PeerPart>& parts) {
  std::vector<std::string> names;
  for (const PeerPart& part : parts) names.push_back(part.envelope);
  return names;
}

using Strings = std::vector<std::string>;

TEST_CASE("What has no batches goes before what has, but not before batches of its own group") {
  PeerQueue queue(8 << 20);
  REQUIRE(queue.Push(PeerGroup(1), Part("append 1", 600'000)));
  REQUIRE(queue.Push(PeerGroup(2), Part("append 2", 600'000)));
  REQUIRE(queue.Push(PeerGroup(3), Part("vote 3")));
  REQUIRE(queue.Push(PeerGroup(2), Part("vote 2")));
  CHECK(Names(queue.Take()) == Strings{"vote 3", "append 1"});
  REQUIRE(queue.Push(PeerGroup(1), Part("answer 1")));  // its append has left: nothing holds it back
  CHECK(Names(queue.Take()) == Strings{"answer 1", "append 2", "vote 2"});
  CHECK(queue.empty());
  CHECK(queue.bytes() == 0);
}

TEST_CASE("Parts are joined up to a MiB, and one that is larger goes without another batch") {
  PeerQueue queue(64 << 20);
  for (int i = 0; i < 10; ++i) REQUIRE(queue.Push(PeerGroup(1), Part("small", 300'000)));
  REQUIRE(queue.Push(PeerGroup(1), Part("large", 5 << 20)));
  REQUIRE(queue.Push(PeerGroup(1), Part("after", 10)));
  CHECK(queue.Take().size() == 3);
  CHECK(queue.Take().size() == 3);
  CHECK(queue.Take().size() == 3);
  CHECK(Names(queue.Take()) == Strings{"small"});
  CHECK(Names(queue.Take()) == Strings{"large"});
  CHECK(Names(queue.Take()) == Strings{"after"});
  CHECK(queue.Take().empty());
}

TEST_CASE("The bound refuses batches, and leaves room for a vote") {
  PeerQueue queue(1 << 20);
  REQUIRE(queue.Push(PeerGroup(1), Part("a", 900'000)));
  CHECK(!queue.Push(PeerGroup(1), Part("b", 900'000)));
  REQUIRE(queue.Push(PeerGroup(1), Part("c", 140'000)));
  CHECK(!queue.Push(PeerGroup(2), Part("d", 50'000)));
  CHECK(queue.Push(PeerGroup(3), Part("vote")));
  int votes = 1;
  while (queue.Push(PeerGroup(3), Part(std::string(1000, 'v')))) ++votes;
  CHECK(votes > 500);
  CHECK(votes < 1500);
  queue.Clear();
  CHECK(queue.bytes() == 0);
  CHECK(queue.Push(PeerGroup(1), Part("b", 900'000)));
}

TEST_CASE("A flood without batches takes half of each message, and an envelope is never beyond its bound") {
  PeerQueue queue(64 << 20);
  for (int i = 0; i < 3000; ++i) REQUIRE(queue.Push(PeerGroup(1), Part(std::string(1000, 'v'))));
  for (int i = 0; i < 10; ++i) REQUIRE(queue.Push(PeerGroup(2), Part("append", 100'000)));
  int batches = 0;
  while (!queue.empty()) {
    size_t envelope = 0;
    int here = 0;
    for (const PeerPart& part : queue.Take()) {
      envelope += part.envelope.size();
      here += part.batches.empty() ? 0 : 1;
    }
    CHECK(envelope <= kPeerEnvelopeBytesMax);
    if (batches < 10) CHECK(here > 0);
    batches += here;
  }
  CHECK(batches == 10);
}

TEST_CASE("Parts of one group never change their order, whatever is pushed and taken") {
  std::mt19937 random(4);
  PeerQueue queue(4 << 20);
  std::map<int32_t, int> pushed;
  std::map<char, int> taken;
  for (int round = 0; round < 5000; ++round) {
    const auto group = static_cast<int32_t>(random() % 5);
    const size_t batch = random() % 3 == 0 ? random() % 400'000 : 0;
    std::string name = std::to_string(pushed[group]);
    name.insert(name.begin(), static_cast<char>('a' + group));
    if (queue.Push(PeerGroup(group), Part(name, batch))) ++pushed[group];
    if (random() % 4 != 0) continue;
    for (const PeerPart& part : queue.Take()) CHECK(std::stoi(part.envelope.substr(1)) == taken[part.envelope[0]]++);
  }
}

}  // namespace
}  // namespace sluice::broker::rpc
