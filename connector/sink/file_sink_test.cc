// The sink's promise, each offset in exactly one committed file or one dead letter, with the connector stopped at every
// write to the state store, to the dead letters, and to the disk.
#include <zstd.h>

#include <catch2/catch.hpp>
#include <functional>
#include <map>
#include <set>

#include "common/record/record.h"
#include "common/text.h"
#include "connector/sink/fake_client.h"
#include "connector/sink/sink.h"
#include "connector/sink/sink_state.h"
#include "tests/simulation/sim_file_system.h"

namespace sluice::connector {

namespace {

std::string Unzstd(std::string_view packed) {
  std::string out(ZSTD_getFrameContentSize(packed.data(), packed.size()) == ZSTD_CONTENTSIZE_ERROR ? 0 : 1 << 20, '\0');
  const size_t size = ZSTD_decompress(out.data(), out.size(), packed.data(), packed.size());
  REQUIRE_FALSE(ZSTD_isError(size));
  out.resize(size);
  return out;
}

struct World {
  CrashPoint crash;
  simulation::SimScheduler scheduler{1};
  simulation::SimClock clock{scheduler};
  simulation::SimFileSystem files{7};
  FakeClient cluster{&crash};
  FakeStateStore state{&crash};
  SinkConfig config;
  int32_t partitions = 1;

  World() {
    config.to = "file://lake";
    config.roll.records = 4;
    config.roll.age = absl::InfiniteDuration();
    cluster.Make("t", 2);
  }

  absl::StatusOr<std::unique_ptr<FileSink>> Make() {
    FileSink::Options options{.pipeline = "p", .name = "s", .topic = "t", .partitions = partitions, .config = config};
    return MakeFileSink(options, {.client = &cluster, .state = &state, .clock = &clock, .files = &files});
  }
  absl::Status Run() {
    auto sink = Make();
    if (!sink.ok()) return sink.status();
    if (absl::Status status = (*sink)->Open(); !status.ok()) return status;
    return (*sink)->Finish([] {});
  }
  // All visible files below the lake.
  std::map<std::string, std::string> Files(const std::string& folder = "lake") {
    std::map<std::string, std::string> out;
    const auto names = files.List(folder);
    if (!names.ok()) return out;
    for (const std::string& name : *names) {
      const std::string path = folder + "/" + name;
      if (*files.IsDir(path)) {
        for (auto& [inner, contents] : Files(path)) out[inner] = contents;
      } else if (name[0] != '.') {
        out[path] = files.Contents(path);
      }
    }
    return out;
  }
  // The lines of all raw files, counted.
  std::map<std::string, int> Lines(const std::string& folder = "lake") {
    std::map<std::string, int> lines;
    for (const auto& [path, contents] : Files(folder)) {
      const std::string text = path.ends_with(".zst") ? Unzstd(contents) : contents;
      for (size_t begin = 0; begin < text.size();) {
        const size_t end = text.find('\n', begin);
        REQUIRE(end != std::string::npos);
        ++lines[text.substr(begin, end - begin)];
        begin = end + 1;
      }
    }
    return lines;
  }
  std::map<std::string, int> DeadLetters() {
    std::map<std::string, int> values;
    for (const record::Batch& batch : cluster.topics()["t.dlq"].partitions.empty()
                                          ? std::vector<record::Batch>{}
                                          : cluster.topics()["t.dlq"].partitions[0]) {
      auto reader = *record::RecordReader::Open(batch.view());
      record::Record record;
      while (*reader.Next(&record)) ++values[std::string(*record.value)];
    }
    return values;
  }
};

// 5 batches of 3 values over both partitions' days; one value in a batch is no JSON.
std::set<std::string> FillWithDays(World* world) {
  std::set<std::string> good;
  int n = 0;
  for (int batch = 0; batch < 5; ++batch) {
    std::vector<std::string> values;
    for (int i = 0; i < 3; ++i, ++n) {
      values.push_back(Cat("{\"n\":", n, ",\"time\":\"2026-01-0", 1 + n % 2, "T00:00:00Z\"}"));
      good.insert(values.back());
    }
    values.push_back(Cat("broken ", batch));
    world->cluster.Fill("t", 0, values);
  }
  return good;
}

void RequireExactlyOnce(World* world, const std::set<std::string>& good, const std::string& folder = "lake") {
  const auto lines = world->Lines(folder);
  REQUIRE(lines.size() == good.size());
  for (const auto& [line, count] : lines) {
    INFO(line);
    REQUIRE(count == 1);
    REQUIRE(good.count(line) == 1);
  }
  const auto letters = world->DeadLetters();
  REQUIRE(letters.size() == 5);
  for (const auto& [letter, count] : letters) {
    INFO(letter);
    REQUIRE(count == 1);
  }
}

// Ends a run at each of its file operations, as `end` does, and lets the next one finish. What that committed must
// survive a power loss, whatever folders it found or made.
void InterruptAtEachOperation(const std::function<void(simulation::SimFileSystem&)>& end) {
  const std::string to = GENERATE(as<std::string>(), "lake", "far/away/lake");
  CAPTURE(to);
  const auto fill = [&](World* world) {
    world->config.to = "file://" + to;
    world->config.path = "dt={event_time:%Y-%m-%d}";
    world->config.event_time = "/time";
    return FillWithDays(world);
  };
  uint64_t operations = 0;
  {
    World world;
    fill(&world);
    REQUIRE(world.Run().ok());
    operations = world.files.operations();
  }
  for (uint64_t at = 1; at <= operations; ++at) {
    CAPTURE(at);
    World world;
    const auto good = fill(&world);
    world.files.CrashAt(at);
    REQUIRE_FALSE(world.Run().ok());
    end(world.files);
    world.files.CrashAt(0);
    REQUIRE(world.Run().ok());
    world.files.Crash();
    RequireExactlyOnce(&world, good, to);
  }
}

}  // namespace

TEST_CASE("every record is in one raw file, and what is no JSON is a dead letter") {
  World world;
  const auto good = FillWithDays(&world);
  REQUIRE(world.Run().ok());
  RequireExactlyOnce(&world, good);
  REQUIRE(world.Files().begin()->first == "lake/t-0-00000000000000000000-00000000000000000003.jsonl.zst");
  SECTION("and a second run adds nothing") {
    const auto before = world.Files();
    REQUIRE(world.Run().ok());
    REQUIRE(world.Files() == before);
    REQUIRE(world.DeadLetters().size() == 5);
  }
}

TEST_CASE("a crash at any write to state or dead letters leaves every record exactly once") {
  uint64_t writes = 0;
  {
    World world;
    FillWithDays(&world);
    world.config.path = "dt={event_time:%Y-%m-%d}";
    world.config.event_time = "/time";
    REQUIRE(world.Run().ok());
    writes = world.crash.writes;
    REQUIRE(writes > 10);
  }
  for (uint64_t at = 1; at <= writes; ++at) {
    for (const bool after : {false, true}) {
      INFO("write " << at << (after ? ", done" : ", not done"));
      World world;
      const auto good = FillWithDays(&world);
      world.config.path = "dt={event_time:%Y-%m-%d}";
      world.config.event_time = "/time";
      world.crash.Restart(at, after);
      REQUIRE_FALSE(world.Run().ok());
      world.crash.Restart(0, false);
      // Other limits than before: only the plan can say which files the crash left half made.
      world.config.roll.records = 7;
      REQUIRE(world.Run().ok());
      RequireExactlyOnce(&world, good);
    }
  }
}

TEST_CASE("a power loss at any file operation leaves every record exactly once, in whole files") {
  InterruptAtEachOperation([](simulation::SimFileSystem& files) { files.Crash(); });
}

TEST_CASE(
    "a kill at any file operation, and a power loss once the next connector is done, leave every record exactly once") {
  InterruptAtEachOperation([](simulation::SimFileSystem& files) { files.Kill(); });
}

TEST_CASE("a chunk over more days than may be open at once still makes one file a day") {
  World world;
  std::vector<std::string> values;
  std::set<std::string> good;
  for (int n = 0; n < 120; ++n) {
    values.push_back(Cat("{\"n\":", n, ",\"time\":", int64_t{1767225600000} + int64_t{86400000} * (n * 7 % 40), "}"));
    good.insert(values.back());
  }
  world.cluster.Fill("t", 0, values);
  world.config.path = "dt={event_time:%Y-%m-%d}";
  world.config.event_time = "/time";
  REQUIRE(world.Run().ok());
  REQUIRE(world.Files().size() == 40);
  for (const auto& [line, count] : world.Lines()) REQUIRE((count == 1 && good.count(line) == 1));
  REQUIRE(world.Lines().size() == good.size());
}

TEST_CASE("files do not depend on whether their batches were still in memory") {
  std::map<std::string, std::string> expected;
  for (const SinkKind kind : {SinkKind::kRaw, SinkKind::kParquet}) {
    for (const int64_t memory : {int64_t{16} << 20, int64_t{1}}) {
      World world;
      FillWithDays(&world);
      world.config.kind = kind;
      FileSink::Options options{
          .pipeline = "p", .name = "s", .topic = "t", .partitions = 1, .config = world.config, .memory_bytes = memory};
      auto sink = MakeFileSink(
          options, {.client = &world.cluster, .state = &world.state, .clock = &world.clock, .files = &world.files});
      REQUIRE(sink.ok());
      REQUIRE((*sink)->Open().ok());
      REQUIRE((*sink)->Finish([] {}).ok());
      REQUIRE((*sink)->progress().records == 15);
      REQUIRE((*sink)->progress().dead_letters == 5);
      if (memory > 1) expected = world.Files();
      REQUIRE(world.Files() == expected);
    }
  }
}

TEST_CASE("a chunk of nothing but dead letters goes out in pieces, each letter once") {
  World world;
  world.config.roll.records = 1000;
  for (int batch = 0; batch < 12; ++batch)
    world.cluster.Fill("t", 0, {Cat("broken ", batch, std::string(1 << 20, 'x'))});
  REQUIRE(world.Run().ok());
  const auto letters = world.DeadLetters();
  REQUIRE(letters.size() == 12);
  for (const auto& [letter, count] : letters) REQUIRE(count == 1);
  REQUIRE(world.Files().empty());
}

TEST_CASE("what Finish has done so far can be seen while it goes on, and how far there is to go") {
  World world;
  FillWithDays(&world);
  world.config.roll.records = 7;  // two chunks of two batches while it reads, the last batch at its end
  auto sink = world.Make();
  REQUIRE_FALSE((*sink)->progress().lag_records.has_value());
  REQUIRE((*sink)->Open().ok());
  const int64_t all = (*sink)->progress().lag_records.value();
  REQUIRE(all > 0);
  std::vector<SinkProgress> seen;
  REQUIRE((*sink)->Finish([&] { seen.push_back((*sink)->progress()); }).ok());
  REQUIRE(seen.size() > 1);
  REQUIRE(seen.at(seen.size() - 2).records == 12);
  REQUIRE(seen.back().lag_records.value() == 0);
  REQUIRE((*sink)->progress().records == 15);
}

TEST_CASE("a commit that could not be stored is not taken off the lag, nor counted") {
  uint64_t writes = 0;
  for (const bool fails : {false, true}) {
    World world;
    FillWithDays(&world);
    world.config.roll.records = 1000;
    auto sink = world.Make();
    REQUIRE((*sink)->Open().ok());
    const int64_t lag = (*sink)->progress().lag_records.value();
    if (fails) world.crash.Restart(writes, false);  // the last one
    REQUIRE((*sink)->Finish([] {}).ok() != fails);
    writes = world.crash.writes;
    REQUIRE((*sink)->progress().lag_records.value() == (fails ? lag : 0));
    REQUIRE((*sink)->progress().records == (fails ? 0 : 15));
    REQUIRE_FALSE(world.Files().empty());
  }
}

TEST_CASE("two sinks on one state: the one that was replaced stops") {
  World world;
  FillWithDays(&world);
  auto first = world.Make();
  REQUIRE((*first)->Open().ok());
  REQUIRE(world.Run().ok());
  const auto before = world.Files();
  REQUIRE((*first)->Finish([] {}).code() == absl::StatusCode::kAborted);
  REQUIRE(world.Files() == before);
}

TEST_CASE("a full disk is an error with the file's name, and the sink goes on when there is room") {
  World world;
  const auto good = FillWithDays(&world);
  world.files.SetCapacity(100);
  const absl::Status full = world.Run();
  REQUIRE(full.code() == absl::StatusCode::kResourceExhausted);
  REQUIRE(Message(full).find("lake/") != std::string::npos);
  world.files.SetCapacity(-1);
  REQUIRE(world.Run().ok());
  RequireExactlyOnce(&world, good);
}

TEST_CASE("a topic that was deleted and made anew stops the sink, and its files stay as they are") {
  World world;
  FillWithDays(&world);
  REQUIRE(world.Run().ok());
  const auto before = world.Files();
  // More than there was: by its offsets alone the new topic looks like the old one that went on.
  world.cluster.Make("t", 2);
  for (int i = 0; i < 10; ++i) FillWithDays(&world);
  SECTION("between chunks") {}
  SECTION("with a plan left open") {
    World open;
    FillWithDays(&open);
    open.crash.Restart(2, false);
    REQUIRE_FALSE(open.Run().ok());
    open.crash.Restart(0, false);
    open.cluster.Make("t", 2);
    FillWithDays(&open);
    REQUIRE(open.Run().code() == absl::StatusCode::kDataLoss);
    REQUIRE(open.DeadLetters().empty());
  }
  const absl::Status status = world.Run();
  REQUIRE(status.code() == absl::StatusCode::kDataLoss);
  REQUIRE(Message(status).find("topic t was deleted and made anew") != std::string::npos);
  REQUIRE(world.Files() == before);
}

TEST_CASE("a declared schema that is changed counts from the next chunk on, and not for one that a crash left open") {
  const auto fill = [](World* world, const std::string& value) { world->cluster.Fill("t", 0, {value, value}); };
  World world;
  world.config.kind = SinkKind::kParquet;
  world.config.roll.records = 2;
  world.config.infer_schema = false;
  world.config.columns = {{"first_column", "/a", ColumnType::kInt64}};
  const auto later = [&](World* changed) {
    changed->config.columns.push_back({"later_column", "/b", ColumnType::kInt64});
    REQUIRE(changed->Run().ok());
  };
  const std::string value = R"({"a":1,"b":2})";
  fill(&world, value);
  SECTION("between chunks") {
    REQUIRE(world.Run().ok());
    fill(&world, value);
    later(&world);
    const auto files = world.Files();
    REQUIRE(files.size() == 2);
    CHECK(files.begin()->second.find("later_column") == std::string::npos);
    CHECK(files.rbegin()->second.find("later_column") != std::string::npos);
  }
  SECTION("with a plan left open") {
    World whole;
    whole.config = world.config;
    fill(&whole, value);
    REQUIRE(whole.Run().ok());
    world.crash.Restart(1, true);
    REQUIRE_FALSE(world.Run().ok());
    world.crash.Restart(0, false);
    later(&world);
    CHECK(world.Files() == whole.Files());
  }
}

TEST_CASE("an inferred schema is one for all partitions, whatever comes first in each") {
  World world;
  world.partitions = 2;
  world.config.kind = SinkKind::kParquet;
  world.config.roll.records = 2;
  const std::string one = R"({"m":1})", two = R"({"m":2.5})";
  world.cluster.Fill("t", 0, {one, one});
  world.cluster.Fill("t", 1, {one, two});
  SECTION("in one run") {
    REQUIRE(world.Run().ok());
  }
  SECTION("in runs that end at any write") {
    for (uint64_t at = 1; at <= 12; ++at) {
      world.crash.Restart(at, at % 2 == 0);
      (void)world.Run();
    }
    world.crash.Restart(0, false);
    REQUIRE(world.Run().ok());
  }
  // The first chunk says whole numbers, for the other partition too.
  CHECK(world.DeadLetters() == std::map<std::string, int>{{two, 1}});
  CHECK(world.Files().size() == 2);
}

TEST_CASE("a sink goes on from what version 0.1.0 kept: no topic, and a schema with one partition alone") {
  World world;
  world.partitions = 2;
  world.config.kind = SinkKind::kParquet;
  const std::string value = R"({"m":1,"n":2})";
  world.cluster.Fill("t", 0, {value, value});
  world.cluster.Fill("t", 0, {value});
  world.cluster.Fill("t", 1, {value});
  SinkState kept;
  kept.committed_next = Offset(2);
  kept.schema = Schema{{"only_m", "/m", ColumnType::kInt64}};
  REQUIRE(world.state.Put("sink/p/s/t/0", EncodeSinkState(kept), -1).ok());
  REQUIRE(world.Run().ok());
  const auto files = world.Files();
  REQUIRE(files.size() == 2);
  for (const auto& [path, contents] : files) {
    INFO(path);
    CHECK(path.find("-00000000000000000000-00000000000000000001") == std::string::npos);  // that is committed
    CHECK(contents.find("only_m") != std::string::npos);
  }
  world.cluster.Make("t", 2);
  CHECK(world.Run().code() == absl::StatusCode::kDataLoss);  // now it knows the topic
}

TEST_CASE("wrong configurations are refused by field") {
  World world;
  world.config.path = "{event_time:%Y}";
  REQUIRE(Message(world.Make().status()).find("event_time") != std::string::npos);
  world.config.path = "";
  world.config.codec = SinkCodec::kSnappy;
  REQUIRE(Message(world.Make().status()).find("codec") != std::string::npos);
  world.config.codec = SinkCodec::kZstd;
  world.config.to = "ftp://x";
  REQUIRE(Message(world.Make().status()).find("ftp://x") != std::string::npos);
}

}  // namespace sluice::connector
