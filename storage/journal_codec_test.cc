#include <catch2/catch.hpp>
#include <fstream>
#include <sstream>
#include <string>

#include "common/crc32c.h"
#include "common/endian.h"
#include "storage/journal_codec.h"
#include "storage/journal_mark.h"
#include "tests/simulation/sim_file_system.h"

namespace sluice::storage {

namespace {

const Uuid kTopic = *Uuid::Parse("01234567-89ab-4def-8123-456789abcdef");
const Uuid kOther = *Uuid::Parse("fedcba98-7654-4210-8edc-ba9876543210");
const ReplicaId kReplica{kTopic, PartitionId(7)};
const SegmentId kSegment{Offset(1000), LeaderEpoch(3)};

FrameHeader ExampleHeader() {
  FrameHeader header;
  header.file_sequence = 12;
  header.file_id = kOther;
  header.frame = 345;
  header.last_synced = 344;
  return header;
}

std::vector<JournalRecord> ExampleRecords() {
  const Bytes bytes = Bytes::Copy("hello");
  return {AppendRecord{kReplica, kSegment, 4000, bytes, Crc32c(bytes.view()), Offset(1042), 1'700'000'000'000,
                       AppendHolds::kData},
          CheckpointRecord{kReplica, kSegment, 4000}};
}

std::string Joined(absl::Span<const std::string_view> parts) {
  std::string all;
  for (const std::string_view part : parts) all.append(part);
  return all;
}

std::string Encode(const std::vector<JournalRecord>& records, FrameHeader header) {
  FrameBuilder builder;
  builder.Begin();
  for (const JournalRecord& record : records) builder.Add(record);
  return Joined(builder.Finish(header));
}

size_t LoadLittleLength(const std::string& frame) {
  return LoadLittle<uint32_t>(frame.data() + journal_format::kLengthAt);
}

// The bytes of the page's block of that name.
std::string ExampleOnThePage(const std::string& name) {
  std::ifstream in(SLUICE_SOURCE_DIR "/docs/formats.md");
  std::string line;
  std::string bytes;
  bool inside = false;
  while (std::getline(in, line)) {
    if (line == "```hex " + name) {
      inside = true;
    } else if (line == "```") {
      inside = false;
    } else if (inside) {
      std::istringstream words(line.substr(0, line.find('#')));
      for (std::string word; words >> word;) bytes.push_back(static_cast<char>(std::stoi(word, nullptr, 16)));
    }
  }
  return bytes;
}

const JournalRecord& Plain(const Frame& frame, size_t i) {
  return std::get<JournalRecord>(frame.records.at(i));
}

}  // namespace

TEST_CASE("the journal frame on the page of formats is what the program writes and reads") {
  const std::string on_page = ExampleOnThePage("journal-frame");
  const std::string written = Encode(ExampleRecords(), ExampleHeader());
  REQUIRE(written.size() == 4096);
  const std::string used = written.substr(0, LoadLittleLength(written));
  std::ostringstream hex;
  for (const char c : used) {
    char text[4];
    std::snprintf(text, sizeof text, "%02x ", static_cast<unsigned char>(c));
    hex << text;
  }
  INFO("written: " << hex.str());
  REQUIRE(on_page == used);

  auto frame = DecodeFrame(on_page, nullptr);
  REQUIRE(frame.ok());
  REQUIRE(frame->header.frame == 345);
  REQUIRE(frame->header.last_synced == 344);
  REQUIRE(frame->header.file_sequence == 12);
  REQUIRE(frame->header.file_id == kOther);
  const auto& append = std::get<AppendRecord>(Plain(*frame, 0));
  REQUIRE(append.replica == kReplica);
  REQUIRE(append.segment == kSegment);
  REQUIRE(append.position == 4000);
  REQUIRE(append.bytes.view() == "hello");
  REQUIRE(append.next_offset == Offset(1042));
  REQUIRE(append.max_timestamp_ms == 1'700'000'000'000);
  REQUIRE(append.holds == AppendHolds::kData);
  REQUIRE(std::get<CheckpointRecord>(Plain(*frame, 1)).position == 4000);
}

TEST_CASE("the journal's mark on the page of formats is what the program writes and reads") {
  simulation::SimFileSystem fs(1);
  REQUIRE(fs.CreateDirs("journal").ok());
  JournalMarkWriter writer(fs, "journal", kOther);
  REQUIRE(writer.Open(std::nullopt).ok());
  REQUIRE(ReadJournalMark(fs, "journal", kOther)->value() == JournalMark{});
  for (uint64_t turn = 1; turn < 9; ++turn) REQUIRE(writer.Write(2, turn, 1).ok());
  REQUIRE(writer.Write(3, 344, 2).ok());
  REQUIRE(ReadJournalMark(fs, "journal", kOther)->value() ==
          JournalMark{.turn = 9, .file = 3, .frame = 344, .needed_from = 2});
  const std::string written = fs.Contents("journal/newest").substr(4096, journal_format::kMarkBytes);
  INFO("checksum " << std::hex << LoadLittle<uint32_t>(written.data() + journal_format::kMarkChecksumAt));
  REQUIRE(ExampleOnThePage("journal-mark") == written);
  REQUIRE(ReadJournalMark(fs, "journal", kTopic).status().code() == absl::StatusCode::kFailedPrecondition);
  // Another process goes on where this one was.
  JournalMarkWriter next(fs, "journal", kOther);
  REQUIRE(next.Open(*ReadJournalMark(fs, "journal", kOther)).ok());
  REQUIRE(next.Write(4, 345, 2).ok());
  REQUIRE(ReadJournalMark(fs, "journal", kOther)->value() ==
          JournalMark{.turn = 10, .file = 4, .frame = 345, .needed_from = 2});
}

TEST_CASE("every kind of record survives being written and read") {
  const HardState hard_state{LeaderEpoch(5), {NodeId(2), kOther}};
  std::vector<JournalRecord> records = ExampleRecords();
  records.push_back(TruncateRecord{kReplica, kSegment, 17, 0x12345678, Offset(1001), 5});
  records.push_back(ResetRecord{kReplica, Offset(9)});
  records.push_back(LogStartRecord{kReplica, Offset(8)});
  records.push_back(HardStateRecord{kReplica, hard_state});
  records.push_back(RaftConfigRecord{kReplica, Bytes::Copy("config")});
  records.push_back(CreateRecord{kReplica, kOther});
  records.push_back(DropRecord{kReplica});
  ReplicaState replica;
  replica.incarnation = kOther;
  replica.hard_state = hard_state;
  replica.raft_config = Bytes::Copy("voters");
  replica.log_start = Offset(3);
  replica.next_offset = Offset(2000);
  replica.data_end = Offset(1999);
  replica.checkpoint = {kSegment, 55};
  replica.segments = {{kSegment, 100, 1, Offset(1500), 7, true},
                      {{Offset(1500), LeaderEpoch(4)}, 10, 2, Offset(2000), 8}};
  FrameBuilder builder;
  builder.Begin();
  builder.Add(OpeningRecord{kOther, 4, 5, 1});
  builder.Add(ReplicaSnapshotRecord{kReplica, replica});
  for (const JournalRecord& record : records) builder.Add(record);
  const std::string bytes = Joined(builder.Finish(ExampleHeader()));
  auto frame = DecodeFrame(bytes, nullptr);
  REQUIRE(frame.ok());
  REQUIRE(frame->records.size() == records.size() + 2);
  REQUIRE(std::get<OpeningRecord>(frame->records[0]) == OpeningRecord{kOther, 4, 5, 1});
  REQUIRE(std::get<ReplicaSnapshotRecord>(frame->records[1]).state == replica);
  // What was read gives the same bytes again.
  FrameBuilder again;
  again.Begin();
  for (const AnyJournalRecord& record : frame->records) std::visit([&](const auto& r) { again.Add(r); }, record);
  REQUIRE(Joined(again.Finish(ExampleHeader())) == bytes);
  REQUIRE(std::get<TruncateRecord>(Plain(*frame, 4)).crc32c == 0x12345678);
  REQUIRE(std::get<HardStateRecord>(Plain(*frame, 7)).hard_state == hard_state);
  for (const JournalRecord& record : records) {
    REQUIRE(Encode({record}, {}).size() - journal_format::kFrameHeaderBytes >= EncodedBytes(record) - 64);
  }
}

TEST_CASE("a flipped bit anywhere in header, fields or payload is found, and a shorter frame is none") {
  const std::string bytes = Encode(ExampleRecords(), ExampleHeader());
  const size_t used = LoadLittleLength(bytes);
  for (size_t bit = 0; bit < used * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    CAPTURE(bit);
    REQUIRE_FALSE(DecodeFrame(damaged, nullptr).ok());
  }
  for (size_t length = 0; length < used; ++length) {
    REQUIRE_FALSE(DecodeFrame(std::string_view(bytes).substr(0, length), nullptr).ok());
  }
}

TEST_CASE("a large append is written from its own memory, wherever that lies, and reads back the same") {
  const auto alignment = GENERATE(as<size_t>{}, 0, 1, 16, 2048, 4000, 4084, 4095);
  const auto size = GENERATE(as<size_t>{}, 16'384, 20'000, 20'480, 262'143);
  AlignedBuffer memory(alignment + size);
  for (size_t i = 0; i < size; ++i) memory.data()[alignment + i] = static_cast<char>(i * 7 + i / 256);
  const auto large = [&](int64_t position) {
    const Bytes bytes = Bytes::Wrap({memory.data() + alignment, size}, nullptr);
    return AppendRecord{kReplica, kSegment, position, bytes, Crc32c(bytes.view()), Offset(position + 1), 5};
  };
  FrameBuilder builder;
  builder.Begin();
  builder.Add(JournalRecord(large(1)));
  for (const JournalRecord& record : ExampleRecords()) builder.Add(record);
  builder.Add(JournalRecord(large(2)));
  builder.Add(JournalRecord(large(3)));
  const absl::Span<const std::string_view> parts = builder.Finish(ExampleHeader());
  size_t in_place = 0;
  for (const std::string_view part : parts) {
    CHECK(reinterpret_cast<uintptr_t>(part.data()) % kBlockBytes == 0);
    CHECK(part.size() % kBlockBytes == 0);
    if (part.data() >= memory.data() && part.data() < memory.data() + memory.capacity()) in_place += part.size();
  }
  CHECK(in_place > 3 * (size - 2 * kBlockBytes));
  const std::string bytes = Joined(parts);
  CHECK(bytes.size() == builder.size());
  size_t bound = journal_format::kFrameHeaderBytes + kBlockBytes;
  for (const JournalRecord& record : ExampleRecords()) bound += EncodedBytes(record);
  CHECK(bytes.size() <= bound + 3 * EncodedBytes(large(1)));

  const auto frame = DecodeFrame(bytes, nullptr);
  REQUIRE(frame.ok());
  REQUIRE(frame->records.size() == 5);  // pads are no records
  for (const size_t i : {0, 3, 4}) {
    const auto& append = std::get<AppendRecord>(Plain(*frame, i));
    const bool same = append.bytes.view() == std::string_view(memory.data() + alignment, size);
    CHECK(same);
    CHECK(append.position == std::max<int64_t>(1, static_cast<int64_t>(i) - 1));
  }
  CHECK(std::get<AppendRecord>(Plain(*frame, 1)).bytes.view() == "hello");
}

TEST_CASE("the reserved record kind is refused with the reason") {
  std::string bytes = Encode({DropRecord{kReplica}}, ExampleHeader());
  bytes[journal_format::kFrameHeaderBytes + journal_format::kTypeAt] =
      static_cast<char>(journal_format::RecordType::kSegmentRange);
  const size_t used = LoadLittleLength(bytes);
  const std::string_view view = bytes;
  const uint32_t crc = Crc32c(view.substr(journal_format::kFrameHeaderBytes, used - journal_format::kFrameHeaderBytes),
                              Crc32c(view.substr(0, journal_format::kChecksumAt)));
  StoreLittle(bytes.data() + journal_format::kChecksumAt, crc);
  const auto frame = DecodeFrame(bytes, nullptr);
  REQUIRE_FALSE(frame.ok());
  REQUIRE(std::string(frame.status().message()).find("SegmentRange") != std::string::npos);
}

}  // namespace sluice::storage
