#include "tools/log_dump.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "common/record/control.h"
#include "common/record/record.h"
#include "common/text.h"
#include "runtime/posix_file_system.h"
#include "storage/journal_codec.h"
#include "tests/sim/log_store_writer.h"

namespace sluice::tools {
namespace {

struct DumpFixture {
  DumpFixture() {
    std::string pattern = (std::filesystem::temp_directory_path() / "sluice-dump-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    dir = pattern;
  }
  ~DumpFixture() { std::filesystem::remove_all(dir); }

  // A control batch at 0, then batches of the given number of records.
  std::string Segment(std::vector<int> counts, LeaderEpoch epoch = LeaderEpoch(1)) {
    record::Batch batch = record::MakeControlBatch(record::LeaderChange{NodeId(1)}, 5).Assign(Offset(0), epoch);
    std::string bytes(batch.bytes().view());
    Offset next = batch.next_offset();
    for (const int count : counts) {
      record::BatchBuilder builder;
      for (int i = 0; i < count; ++i) REQUIRE(builder.Append(100 + i, "k", "value " + std::to_string(i)).ok());
      batch = builder.Build().value().Assign(next, epoch);
      bytes += batch.bytes().view();
      next = batch.next_offset();
    }
    return bytes;
  }
  std::string Write(const std::string& name, const std::string& bytes) {
    const std::string path = dir + "/" + name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  absl::Status Dump(const std::string& path, bool records = false) {
    lines.clear();
    return DumpLog(fs, path, {records}, [this](const DumpLine& line) { lines.push_back(line); });
  }
  int Count(const std::string& kind) const {
    return static_cast<int>(
        std::count_if(lines.begin(), lines.end(), [&](const DumpLine& line) { return line.kind == kind; }));
  }
  std::string Only(const std::string& kind) const {
    REQUIRE(Count(kind) == 1);
    return std::find_if(lines.begin(), lines.end(), [&](const DumpLine& line) { return line.kind == kind; })->Text();
  }

  runtime::PosixFileSystem fs;
  std::string dir;
  std::vector<DumpLine> lines;
  const std::string segment_name = "00000000000000000000-1.log";
};

}  // namespace

TEST_CASE_METHOD(DumpFixture, "A sound segment shows its batches and records, with or without padding at the end") {
  std::string bytes = Segment({3, 2});
  for (const size_t padded : {bytes.size(), size_t{4096}}) {
    bytes.resize(padded);
    REQUIRE(Dump(Write(segment_name, bytes), true).ok());
    CHECK(Count("batch") == 3);
    CHECK(Count("record") == 5);
    CHECK_THAT(Only("total"), Catch::Contains("batches=3") && Catch::Contains("damages=0"));
  }
}

TEST_CASE_METHOD(DumpFixture, "A flipped bit anywhere in a segment is damage") {
  const std::string bytes = Segment({2, 2});
  for (size_t at = 0; at < bytes.size(); ++at) {
    std::string flipped = bytes;
    flipped[at] = static_cast<char>(flipped[at] ^ 0x10);
    INFO("byte " << at);
    REQUIRE(absl::IsDataLoss(Dump(Write(segment_name, flipped))));
    REQUIRE(Count("damage") == 1);
  }
}

TEST_CASE_METHOD(DumpFixture, "A segment that is cut short is damage, at the batch that is not whole") {
  const std::string bytes = Segment({2, 2});
  const std::string path = Write(segment_name, bytes.substr(0, bytes.size() - 1));
  CHECK(absl::IsDataLoss(Dump(path)));
  CHECK(Count("batch") == 2);
  CHECK_THAT(Only("damage"), Catch::Contains(path));
}

TEST_CASE_METHOD(DumpFixture, "A folder of segments goes on behind a damaged one") {
  std::string damaged = Segment({1});
  damaged[70] = static_cast<char>(damaged[70] ^ 1);
  Write(segment_name, damaged);
  Write("00000000000000000000-2.log", Segment({1}, LeaderEpoch(2)));
  CHECK(absl::IsDataLoss(Dump(dir)));
  CHECK(Count("segment") == 2);
  CHECK(Count("batch") == 2);
}

TEST_CASE_METHOD(DumpFixture, "A record shows its headers, and which of its parts are null") {
  record::BatchBuilder builder;
  const std::vector<record::Header> headers = {{"h", "1"}, {"h", std::nullopt}};
  REQUIRE(builder.Append(100, std::nullopt, "v", headers).ok());
  REQUIRE(builder.Append(101, "k", std::nullopt).ok());
  const record::Batch batch = builder.Build().value().Assign(Offset(0), LeaderEpoch(1));
  REQUIRE(Dump(Write(segment_name, std::string(batch.bytes().view())), true).ok());
  std::vector<std::string> text, json;
  for (const DumpLine& line : lines) {
    if (line.kind != "record") continue;
    text.push_back(line.Text());
    json.push_back(line.Json());
  }
  CHECK(
      text ==
      std::vector<std::string>{
          R"(record  offset=0  timestamp_ms=100  value=v  headers=[{"key":"h","value":"1"},{"key":"h","value":null}])",
          "record  offset=1  timestamp_ms=101  key=k"});
  CHECK(json == std::vector<std::string>{
                    R"({"kind":"record","offset":0,"timestamp_ms":100,"key":null,"value":"v",)"
                    R"("headers":[{"key":"h","value":"1"},{"key":"h","value":null}]})",
                    R"({"kind":"record","offset":1,"timestamp_ms":101,"key":"k","value":null,"headers":[]})"});
}

TEST_CASE_METHOD(DumpFixture, "A journal file shows its frames and records up to where it ends") {
  storage::FrameBuilder builder;
  builder.Begin();
  builder.Add(storage::OpeningRecord{Uuid::FromRandom(1, 2), 0, 0, 0});
  builder.Add(
      storage::JournalRecord(storage::CreateRecord{{Uuid::FromRandom(3, 4), PartitionId(7)}, Uuid::FromRandom(5, 6)}));
  storage::FrameHeader header;
  header.flags = 3;
  header.file_sequence = 1;
  header.file_id = Uuid::FromRandom(7, 8);
  header.frame = 1;
  std::string frame;
  for (const std::string_view part : builder.Finish(header)) frame.append(part);
  REQUIRE(Dump(Write("00000000000000000001.journal", frame + std::string(8192, '\0'))).ok());
  CHECK(Count("frame") == 1);
  CHECK(Count("journal_record") == 2);
  CHECK_THAT(lines[2].Text(), Catch::Contains("type=create"));
  std::string broken = frame;
  broken[100] = static_cast<char>(broken[100] ^ 1);
  CHECK(absl::IsDataLoss(Dump(Write("00000000000000000001.journal", broken))));
}

TEST_CASE_METHOD(DumpFixture, "What is none of a node's files is refused by name") {
  CHECK(absl::IsNotFound(Dump(dir + "/nothing")));
  CHECK(absl::IsInvalidArgument(Dump(dir)));
  CHECK(absl::IsInvalidArgument(Dump(Write("a.txt", "x"))));
  CHECK(absl::IsInvalidArgument(Dump(Write("x.log", "x"))));
}

namespace {

// A node's whole folder, as a process that was killed leaves it: one topic with ten records, and group 0.
struct FolderFixture {
  FolderFixture() {
    writer.node.options.journal.disk = disk;
    writer.Start();
    REQUIRE(writer.node.Create(ReplicaId{TopicId{}, PartitionId(0)}).ok());
    writer.Fill(10, 1000);
    writer.node.scheduler.RunFor(absl::Seconds(1));
    writer.log.reset();
    writer.node.Kill();
    writer.node.fs.Kill();
    Identify(true);
  }
  void Identify(bool group0) {
    fs.SetContents("data/node.yaml", Cat("disk_id: ", disk, "\n", group0 ? "group0: true\n" : ""));
  }
  std::vector<std::string> JournalFiles() {
    std::vector<std::string> files = fs.List("data/journal").value();
    for (std::string& name : files) name = "data/journal/" + name;
    return files;
  }
  std::string NewestFile() {
    std::string newest;
    for (const std::string& path : JournalFiles()) {
      if (path.ends_with(".journal")) newest = std::max(newest, path);
    }
    return newest;
  }
  void Remove(const std::string& path) { REQUIRE(fs.Remove(path).ok()); }
  absl::Status Dump(const std::string& path = "data") {
    lines.clear();
    return DumpLog(fs, path, {}, [this](const DumpLine& line) { lines.push_back(line); });
  }
  // "FILE at POSITION: WHAT" of each damage.
  std::vector<std::string> Damages() const {
    std::vector<std::string> found;
    for (const DumpLine& line : lines) {
      if (line.kind != "damage") continue;
      found.push_back(Cat(std::get<std::string>(line.fields.at(0).second), " at ",
                          std::get<int64_t>(line.fields.at(1).second), ": ",
                          std::get<std::string>(line.fields.at(2).second)));
    }
    return found;
  }

  const Uuid disk = Uuid::FromRandom(11, 12);
  storage::Writer writer;
  simulation::SimFileSystem& fs = writer.node.fs;
  std::vector<DumpLine> lines;
};

}  // namespace

TEST_CASE_METHOD(FolderFixture, "A data folder is whole by what its journal and node.yaml say") {
  REQUIRE(Dump().ok());
  CHECK(Damages().empty());
  CHECK_THAT(lines.back().Text(), Catch::Contains("batches=10") && Catch::Contains("damages=0"));
  Remove("data/node.yaml");  // then the journal is asked which disk it is of
  CHECK(Dump().ok());
}

TEST_CASE_METHOD(FolderFixture,
                 "A data folder whose journal is empty or missing is damaged, by node.yaml or by its topics") {
  const bool known = GENERATE(true, false);
  CAPTURE(known);
  Identify(known);
  for (const std::string& path : JournalFiles()) Remove(path);
  for (const bool missing : {false, true}) {
    CAPTURE(missing);
    if (missing) REQUIRE(fs.RemoveDir("data/journal").ok());
    CHECK(absl::IsDataLoss(Dump()));
    REQUIRE_FALSE(Damages().empty());
    CHECK_THAT(Damages().front(), Catch::StartsWith("data/journal at 0: there is no journal file; expected"));
    CHECK_THAT(Damages().front(), Catch::Contains(known ? "node.yaml" : "topics/"));
    CHECK_THAT(lines.back().Text(), !Catch::Contains("damages=0"));
  }
}

TEST_CASE_METHOD(FolderFixture, "A new data folder, with no journal yet, is whole") {
  for (const std::string& path : JournalFiles()) Remove(path);
  for (const std::string& path : writer.SegmentFiles("")) Remove(path);
  Identify(false);
  CHECK(Dump().ok());
  CHECK(Damages().empty());
}

TEST_CASE_METHOD(FolderFixture,
                 "A journal that was replaced by an empty one is damage, and each replica that it lacks") {
  for (const std::string& path : JournalFiles()) Remove(path);
  storage::Writer other(2);
  other.node.options.journal.disk = disk;
  REQUIRE(other.node.Open().ok());
  other.node.Kill();
  const std::vector<std::string> names = other.node.fs.List("data/journal").value();
  for (const std::string& name : names) {
    fs.SetContents("data/journal/" + name, other.node.fs.Contents("data/journal/" + name));
  }
  for (const bool known : {true, false}) {
    CAPTURE(known);
    Identify(known);
    CHECK(absl::IsDataLoss(Dump()));
    REQUIRE(Damages().size() == 2);
    CHECK_THAT(Damages()[0],
               Catch::StartsWith(NewestFile() + " at 0: the journal ends in this file and does not know"));
    CHECK_THAT(Damages()[1],
               Catch::StartsWith(storage::Writer::log_dir() + " at 0: ") && Catch::Contains(" files of a replica"));
  }
}

TEST_CASE_METHOD(FolderFixture, "A newest journal file that is gone is named") {
  const std::string newest = NewestFile();
  Remove(newest);
  CHECK(absl::IsDataLoss(Dump()));
  REQUIRE(Damages().size() == 1);
  CHECK_THAT(Damages()[0], Catch::StartsWith(newest + " at 0: the file is missing"));
}

TEST_CASE_METHOD(FolderFixture, "Damage in the journal is told with its file and byte") {
  const std::string path = NewestFile();
  const std::string bytes = fs.Contents(path);
  size_t at = 0;
  for (int frame = 0; frame < 3; ++frame)
    at += storage::DecodeFrame(std::string_view(bytes).substr(at), nullptr)->PaddedBytes();
  std::string damaged = bytes;
  damaged[at + 70] = static_cast<char>(damaged[at + 70] ^ 1);
  fs.SetContents(path, damaged);
  for (const char* const folder : {"data", "data/journal"}) {
    CAPTURE(folder);
    CHECK(absl::IsDataLoss(Dump(folder)));
    REQUIRE(Damages().size() == 1);
    CHECK_THAT(Damages()[0], Catch::StartsWith(Cat(path, " at ", at, ": ")) && Catch::Contains("was synced"));
  }
}

TEST_CASE("A line of a dump quotes what needs it, and is one JSON object") {
  const DumpLine line{"batch", {{"n", int64_t{7}}, {"word", "plain"}, {"words", "two words"}, {"bytes", "\xff"}}};
  CHECK(line.Text() == R"(batch  n=7  word=plain  words="two words"  bytes={"base64":"/w=="})");
  CHECK(line.Json() == R"({"kind":"batch","n":7,"word":"plain","words":"two words","bytes":{"base64":"/w=="}})");
}

}  // namespace sluice::tools
