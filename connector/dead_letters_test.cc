#include "connector/dead_letters.h"

#include <catch2/catch.hpp>

#include "common/text.h"
#include "connector/source/fake_topic.h"

namespace sluice::connector {
namespace {

struct World {
  FakeTopic topic;
  bool exists = false;
  DeadLetterQueue queue{FakeDeadLetters(topic, exists)};

  static DeadLetter Letter(int number, std::string value) {
    return {.timestamp_ms = 5,
            .key = "k",
            .value = std::move(value),
            .headers = {{"theirs", "h"}},
            .reason = "because",
            .whence = {{"sluice.sink", "p/s"}, {"sluice.offset", std::to_string(number)}}};
  }
  std::map<std::string, std::string> Headers(size_t batch, size_t item) const {
    const auto& headers = topic.batches.at(batch).items.at(item).headers;
    return {headers.begin(), headers.end()};
  }
};

}  // namespace

TEST_CASE("A letter has the record as it was, behind its headers why and whence") {
  World world;
  CHECK(*world.queue.End() == Offset(0));
  CHECK_FALSE(world.exists);
  const auto end = world.queue.Append(Offset(0), {World::Letter(7, "value")});
  INFO(end.status());
  REQUIRE(end.ok());
  CHECK(*end == Offset(1));
  const auto& item = world.topic.batches.at(0).items.at(0);
  CHECK(item.key == "k");
  CHECK(item.value == "value");
  using Header = std::pair<std::string, std::string>;
  CHECK(item.headers ==
        std::vector<Header>{
            {"theirs", "h"}, {"sluice.reason", "because"}, {"sluice.sink", "p/s"}, {"sluice.offset", "7"}});
}

TEST_CASE("Letters that are in the topic already are not written again, in whatever company they come") {
  World world;
  REQUIRE(world.queue.Append(Offset(0), {World::Letter(1, "a"), World::Letter(2, "b")}).ok());
  REQUIRE(world.queue.Append(Offset(0), {World::Letter(2, "b"), World::Letter(3, "c"), World::Letter(1, "a")}).ok());
  CHECK(world.topic.Values() == std::vector<std::string>{"a", "b", "c"});
  // Before `from` they are someone else's.
  REQUIRE(world.queue.Append(Offset(3), {World::Letter(1, "a")}).ok());
  CHECK(world.topic.Values().size() == 4);
}

TEST_CASE("A letter that the topic refuses is cut, with the length and the hash of what it was") {
  World world;
  world.topic.bytes_max = 20'000;
  const std::string value = "é" + std::string(100'000, 'v');
  REQUIRE(world.queue.Append(Offset(0), {World::Letter(1, "small"), World::Letter(2, value)}).ok());
  REQUIRE(world.topic.Values().size() == 2);
  CHECK(world.topic.Values()[0] == "small");
  CHECK(world.topic.Values()[1] == value.substr(0, 4096));
  auto headers = world.Headers(1, 0);
  CHECK(headers["sluice.value.bytes"] == "100002");
  CHECK(headers["sluice.value.kept"] == "4096");
  CHECK(headers["sluice.value.sha256"] == "794e08eee936ebc7db920fd0802a06c5942d2f3f9d28d36f79a81636f05f6158");
  CHECK(headers["sluice.reason"] == "because");
  CHECK(headers["theirs"] == "h");
  CHECK(headers["sluice.offset"] == "2");
  // Found again, though it is another text than before.
  REQUIRE(world.queue.Append(Offset(0), {World::Letter(2, value)}).ok());
  CHECK(world.topic.Values().size() == 2);
}

TEST_CASE("A cut never leaves half a character, and a key or headers that are the trouble go too") {
  World world;
  world.topic.bytes_max = 600;
  DeadLetter letter = World::Letter(1, "x");
  letter.headers = {{"large", std::string(5000, 'h')}};
  letter.key = std::string(3000, 'k');
  REQUIRE(world.queue.Append(Offset(0), {letter}).ok());
  auto headers = world.Headers(0, 0);
  CHECK_FALSE(world.topic.batches.at(0).items.at(0).key.has_value());
  CHECK(headers["sluice.key.bytes"] == "3000");
  CHECK(headers["sluice.headers.bytes"] == "5021");
  World umlauts;
  umlauts.topic.bytes_max = 70'000;
  std::string text = "x";
  for (int i = 0; i < 40'000; ++i) text += "ä";
  REQUIRE(umlauts.queue.Append(Offset(0), {World::Letter(1, text)}).ok());
  CHECK(umlauts.topic.Values().at(0) == text.substr(0, (64 << 10) - 1));
}

TEST_CASE("What was read once is not read again while one chunk's letters come in pieces") {
  World world;
  for (int i = 0; i < 20; ++i) {
    REQUIRE(world.queue.Append(Offset(0), {World::Letter(i, "v")}).ok());
    REQUIRE(world.queue.Append(Offset(0), {World::Letter(i, "v")}).ok());
  }
  CHECK(world.topic.Values().size() == 20);
  CHECK(world.topic.records_read == 0);
  // Another process knows nothing and reads them once; so does this one, of what another has written.
  DeadLetterQueue other(FakeDeadLetters(world.topic, world.exists));
  for (int i = 0; i < 21; ++i) REQUIRE(other.Append(Offset(0), {World::Letter(i, "v")}).ok());
  CHECK(world.topic.records_read == 20);
  REQUIRE(world.queue.Append(Offset(0), {World::Letter(20, "v")}).ok());
  CHECK(world.topic.records_read == 21);
  CHECK(world.topic.Values().size() == 21);
}

TEST_CASE("A topic too small for even a cut letter is an error that names it") {
  World world;
  world.topic.bytes_max = 10;
  const auto end = world.queue.Append(Offset(0), {World::Letter(1, "value")});
  CHECK(Message(end.status()).find("t/0") != std::string_view::npos);
  CHECK(PartitionLog::IsTooLarge(end.status()));
}

TEST_CASE("A topic that was deleted is made again") {
  World world;
  REQUIRE(world.queue.Append(Offset(0), {World::Letter(1, "a"), World::Letter(2, "b")}).ok());
  world.topic.batches.clear();
  REQUIRE(world.queue.Append(Offset(2), {World::Letter(3, "c")}).ok());
  REQUIRE(world.queue.Append(Offset(2), {World::Letter(3, "c")}).ok());
  CHECK(world.topic.Values() == std::vector<std::string>{"c"});
}

}  // namespace sluice::connector
