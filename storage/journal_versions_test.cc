// A journal of several files that the version before wrote: what it holds comes back, and damage is found as in one's
// own.
#include <algorithm>
#include <cstdint>
#include <set>

#include "common/crc32c.h"
#include "common/endian.h"
#include "tests/sim/journal_history.h"

namespace sluice::storage {
namespace {

using JournalFilesByName = std::map<std::string, std::string>;

// What version 2 did not have, taken from the page of formats, not from the program's constants.
constexpr size_t kHeaderBytes = 64;
constexpr size_t kRecordHeader = 12;
constexpr char kAppendType = 1;
constexpr size_t kAppendHoldsBytes = 1;
constexpr char kSnapshotType = 33;
constexpr size_t kSnapshotDataEndBytes = 8;

bool IsJournalFile(const std::string& name) {
  return name.ends_with(".journal");
}

/// The same frame as version 2 wrote it, with its padding.
std::string FrameOfVersion2(std::string_view frame) {
  const auto length = LoadLittle<uint32_t>(frame.data() + 48);
  const auto count = LoadLittle<uint32_t>(frame.data() + 52);
  std::string records;
  uint32_t covered_crc32c = 0;
  size_t covered_bytes = 0;
  size_t at = kHeaderBytes;
  for (uint32_t i = 0; i < count; ++i) {
    const char type = frame[at];
    const size_t field_bytes = LoadLittle<uint16_t>(frame.data() + at + 2);
    const size_t payload_bytes = LoadLittle<uint32_t>(frame.data() + at + 4);
    size_t kept = field_bytes;
    if (type == kAppendType) kept -= kAppendHoldsBytes;
    if (type == kSnapshotType) kept -= kSnapshotDataEndBytes;
    std::string covered(frame.substr(at, kRecordHeader + kept));
    StoreLittle(covered.data() + 2, static_cast<uint16_t>(kept));
    covered_crc32c = Crc32c(covered, covered_crc32c);
    covered_bytes += covered.size();
    records += covered;
    records += frame.substr(at + kRecordHeader + field_bytes, payload_bytes);
    at += kRecordHeader + field_bytes + payload_bytes;
  }
  REQUIRE(at == length);
  std::string out(frame.substr(0, kHeaderBytes));
  StoreLittle(out.data() + 4, uint16_t{2});
  StoreLittle(out.data() + 48, static_cast<uint32_t>(kHeaderBytes + records.size()));
  StoreLittle(out.data() + 60, Crc32cCombine(Crc32c(out.substr(0, 60)), covered_crc32c, covered_bytes));
  out += records;
  out.resize((out.size() + 4095) / 4096 * 4096, '\0');
  return out;
}

std::string MarkOfVersion1(std::string mark) {
  for (size_t block = 0; block < mark.size(); block += 4096) {
    if (LoadLittle<uint32_t>(mark.data() + block + 4) != 2) continue;
    StoreLittle(mark.data() + block + 4, uint32_t{1});
    StoreLittle(mark.data() + block + 48, Crc32c(mark.substr(block, 48)));
    mark.replace(block + 52, 8, 8, '\0');
  }
  return mark;
}

JournalFilesByName AsVersion2(JournalFilesByName files, bool mark_of_version_1) {
  for (auto& [name, contents] : files) {
    if (name == "newest" && mark_of_version_1) contents = MarkOfVersion1(contents);
    if (!IsJournalFile(name)) continue;
    std::string old;
    for (const Place& place : FramesOf(contents)) {
      old += FrameOfVersion2(std::string_view(contents).substr(static_cast<size_t>(place.offset)));
    }
    REQUIRE(old.size() <= contents.size());
    old.resize(contents.size(), '\0');
    contents = std::move(old);
  }
  return files;
}

/// A life of a few files whose records are of every kind. The version before did not know what its appends hold.
struct Life {
  explicit Life(bool stops, bool mark_of_version_1) {
    SimFileSystem fs(3);
    JournalRig rig(fs, 3);
    REQUIRE(rig.Open(16384).ok());
    const auto write = [&](JournalRecord record) {
      if (auto* append = std::get_if<AppendRecord>(&record)) append->holds = AppendHolds::kData;
      REQUIRE(rig.Write(record).ok());
      if (auto* append = std::get_if<AppendRecord>(&record)) append->holds = AppendHolds::kUnknown;
      before_last = state;
      before_last_model = model;
      model.Apply(record, state);
      REQUIRE(state.Apply(record).ok());
    };
    for (int32_t i = 0; i < 3; ++i) write(CreateRecord{TestReplica(i), Uuid::FromRandom(3, 3)});
    for (uint64_t n = 0; n < 14; ++n) {
      for (int32_t i = 0; i < 2; ++i) write(NextAppend(state, TestReplica(i), 900 + 150 * n, n == 7, 1, n + 1));
      if (n == 3) write(HardStateRecord{TestReplica(0), {LeaderEpoch(4), {NodeId(2), Uuid::FromRandom(1, 1)}}});
      if (n == 5) write(RaftConfigRecord{TestReplica(1), Bytes::Copy("members")});
      if (n == 8) write(LogStartRecord{TestReplica(1), state.Find(TestReplica(1))->segments.back().id.base});
      if (n == 9) {
        const SegmentState last = state.Find(TestReplica(0))->segments.back();
        write(TruncateRecord{TestReplica(0), last.id, last.end_position, last.crc32c, last.next_offset,
                             last.max_timestamp_ms});
      }
    }
    write(NextAppend(state, TestReplica(0), 6000, false, 2, 99));
    stops ? rig.Stop() : rig.Kill();
    files = AsVersion2(Files(fs), mark_of_version_1);
    for (const auto& [name, contents] : files) {
      if (IsJournalFile(name) && !FramesOf(contents).empty()) names.push_back(name);
    }
    REQUIRE(names.size() >= 4);
  }

  /// Files that count, in order; the last one is the newest.
  std::vector<std::string> names;
  JournalFilesByName files;
  JournalState state;
  SegmentModel model;
  JournalState before_last;
  SegmentModel before_last_model;
};

std::set<uint16_t> VersionsIn(SimFileSystem& fs) {
  std::set<uint16_t> versions;
  for (const auto& [name, contents] : Files(fs)) {
    if (!IsJournalFile(name)) continue;
    for (const Place& place : FramesOf(contents)) versions.insert(place.header.version);
  }
  return versions;
}

}  // namespace

TEST_CASE("a journal of several files of version 2 is taken over whole, and goes on as one of version 3") {
  const bool stops = GENERATE(false, true);
  const bool mark_of_version_1 = GENERATE(false, true);
  CAPTURE(stops, mark_of_version_1);
  const Life life(stops, mark_of_version_1);
  SimFileSystem fs(1);
  PutBack(fs, life.files);
  REQUIRE(VersionsIn(fs) == std::set<uint16_t>{2});
  JournalRig rig(fs);
  REQUIRE(rig.Open(16384) == absl::OkStatus());
  CHECK(rig.state == life.state);
  CHECK(rig.visitor.Compare(life.model).empty());
  CHECK(rig.tail.bytes_cut == 0);
  CHECK(rig.state.Find(TestReplica(0))->data_end == ReplicaState::kDataEndUnknown);
  CHECK(rig.state.Find(TestReplica(2))->data_end == Offset(0));
  CHECK(VersionsIn(fs) == std::set<uint16_t>{2, 3});
  JournalState state = rig.state;
  AppendRecord append = NextAppend(state, TestReplica(0), 700, false, 2, 5);
  append.holds = AppendHolds::kData;
  SegmentModel model = life.model;
  model.Apply(append, state);
  REQUIRE(state.Apply(append).ok());
  REQUIRE(rig.Write(append).ok());
  // Two more starts, while files of both versions are there.
  for (int i = 0; i < 2; ++i) {
    rig.Kill();
    fs.Crash();
    REQUIRE(rig.Open(16384) == absl::OkStatus());
    CHECK(rig.state == state);
    CHECK(rig.visitor.Compare(model).empty());
    CHECK(rig.state.Find(TestReplica(0))->data_end == append.next_offset);
    CHECK(rig.state.Find(TestReplica(1))->data_end == ReplicaState::kDataEndUnknown);
  }
}

TEST_CASE("power lost at any file operation of the first start over a journal of version 2 loses nothing") {
  const Life life(false, true);
  int crashes = 0;
  bool ended = false;
  for (uint64_t n = 1; !ended; ++n) {
    CAPTURE(n);
    REQUIRE(n < 200);
    SimFileSystem fs(n);
    PutBack(fs, life.files);
    JournalRig rig(fs, n);
    fs.CrashAt(fs.operations() + n);
    (void)rig.Open(16384);
    ended = !fs.crashed();
    crashes += ended ? 0 : 1;
    rig.Kill();
    fs.Crash();
    REQUIRE(rig.Open(16384) == absl::OkStatus());
    REQUIRE(rig.state == life.state);
    REQUIRE(rig.visitor.Compare(life.model).empty());
  }
  CHECK(crashes > 5);
}

TEST_CASE("a torn last frame of version 2 is cut, and everything before it is there") {
  const Life life(false, false);
  const std::string& newest = life.names.back();
  const Place last = FramesOf(life.files.at(newest)).back();
  REQUIRE(last.header.length > 4096);
  for (const bool lacks_first_block : {false, true}) {
    CAPTURE(lacks_first_block);
    JournalFilesByName torn = life.files;
    torn[newest].replace(static_cast<size_t>(last.offset) + (lacks_first_block ? 0 : 4096), 4096, 4096, '\0');
    SimFileSystem fs(1);
    PutBack(fs, torn);
    JournalRig rig(fs);
    REQUIRE(rig.Open(16384) == absl::OkStatus());
    CHECK(rig.state == life.before_last);
    CHECK(rig.visitor.Compare(life.before_last_model).empty());
    CHECK(rig.tail.offset == last.offset);
    CHECK(rig.tail.file == "data/journal/" + newest);
    // Without its first block nothing says that there ever was a frame.
    CHECK((rig.tail.bytes_cut > 0) == !lacks_first_block);
    CHECK(rig.tail.vouched == lacks_first_block);
  }
}

TEST_CASE("damage anywhere in a file of version 2 that is not the newest is refused, naming file and byte") {
  const Life life(false, true);
  int frames = 0;
  for (const std::string& name : life.names) {
    if (name == life.names.back()) continue;
    for (const Place& place : FramesOf(life.files.at(name))) {
      ++frames;
      const auto length = static_cast<int64_t>(place.header.length);
      for (const int64_t byte :
           {int64_t{0}, int64_t{4}, int64_t{20}, int64_t{61}, int64_t{70}, length / 2, length - 1}) {
        CAPTURE(name, place.offset, byte);
        JournalFilesByName damaged = life.files;
        char& at = damaged[name][static_cast<size_t>(place.offset + byte)];
        at = static_cast<char>(at ^ 4);
        SimFileSystem fs(1);
        PutBack(fs, damaged);
        JournalRig rig(fs);
        const absl::Status status = rig.Open(16384);
        CAPTURE(status.ToString());
        REQUIRE(absl::IsDataLoss(status));
        const std::string expected = "data/journal/" + name + " at byte " + std::to_string(place.offset) + ": ";
        REQUIRE(std::string(status.message()).find(expected) != std::string::npos);
      }
    }
  }
  CHECK(frames > 15);
}

}  // namespace sluice::storage
