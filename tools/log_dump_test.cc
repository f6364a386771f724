#include "tools/log_dump.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "common/record/control.h"
#include "common/record/record.h"
#include "runtime/posix_file_system.h"
#include "storage/journal_codec.h"

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

TEST_CASE("A line of a dump quotes what needs it, and is one JSON object") {
  const DumpLine line{"batch", {{"n", int64_t{7}}, {"word", "plain"}, {"words", "two words"}, {"bytes", "\xff"}}};
  CHECK(line.Text() == R"(batch  n=7  word=plain  words="two words"  bytes={"base64":"/w=="})");
  CHECK(line.Json() == R"({"kind":"batch","n":7,"word":"plain","words":"two words","bytes":{"base64":"/w=="}})");
}

}  // namespace sluice::tools
