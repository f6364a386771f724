// Crashes at every write and sync, and damage at every byte: what was answered OK is there, and what comes back is a
// prefix of what was submitted; or the journal refuses and says where.
#include <catch2/catch.hpp>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "storage/journal_codec.h"
#include "storage/journal_mark.h"
#include "storage/journal_replay.h"
#include "tests/simulation/journal_rig.h"

namespace sluice::storage {

namespace {

using simulation::CollectingVisitor;
using simulation::JournalRig;
using simulation::NextAppend;
using simulation::SegmentModel;
using simulation::SimFaultCounts;
using simulation::SimFileSystem;
using simulation::SimRandom;
using simulation::TestReplica;

// What was submitted, in order, and how much of it was answered OK.
struct History {
  std::vector<JournalRecord> records;
  size_t acknowledged = 0;
};

// Draws records that fit, one after the other.
class Drawer {
 public:
  explicit Drawer(uint64_t seed) : random_(seed) {}

  JournalRecord Next() {
    while (true) {
      JournalRecord record = Draw();
      if (!state_.Apply(record).ok()) continue;
      return record;
    }
  }
  const JournalState& state() const { return state_; }
  void Restart(JournalState state) { state_ = std::move(state); }

 private:
  JournalRecord Draw() {
    const ReplicaId id = TestReplica(static_cast<int32_t>(random_.Below(3)));
    const ReplicaState* replica = state_.Find(id);
    const uint64_t salt = random_.Next() >> 1;
    if (replica == nullptr) return CreateRecord{id, Uuid::FromRandom(salt, 1)};
    const SegmentState* last = replica->segments.empty() ? nullptr : &replica->segments.back();
    switch (random_.Below(20)) {
      case 0:
        return HardStateRecord{id, {replica->hard_state.term + 1, {NodeId(1), Uuid::FromRandom(salt, 2)}}};
      case 1:
        return RaftConfigRecord{id, Bytes::Copy("config " + std::to_string(salt))};
      case 2:
        return LogStartRecord{id, replica->next_offset};
      case 3:
        return random_.OneIn(3) ? JournalRecord(ResetRecord{id, replica->next_offset + 5}) : DropRecord{id};
      case 4:
        if (last == nullptr) break;
        return TruncateRecord{id,           last->id,          last->end_position,
                              last->crc32c, last->next_offset, last->max_timestamp_ms};
      case 5:
        if (last == nullptr || last->id.base < replica->log_start) break;
        return TruncateRecord{id, last->id, 0, 0, last->id.base, 0};
      case 6:
      case 7:
      case 8:
      case 9:
        if (last == nullptr) break;
        return CheckpointRecord{id, last->id, last->end_position};
      default:
        break;
    }
    const size_t size = random_.OneIn(8) ? 1 + random_.Below(9000) : 1 + random_.Below(800);
    return NextAppend(state_, id, size, random_.OneIn(6), ++epoch_, salt);
  }

  SimRandom random_;
  JournalState state_;
  int32_t epoch_ = 0;
};

// Submits `count` drawn records, several to an entry and several entries at a time, until all are answered or the
// world stops.
void Work(JournalRig& rig, Drawer& drawer, History& history, size_t count, SimRandom& random) {
  for (size_t i = 0; i < count && rig.fatal.ok();) {
    for (uint64_t entries = 1 + random.Below(3); entries > 0; --entries) {
      std::vector<JournalRecord> records;
      for (uint64_t n = 1 + random.Below(3); n > 0; --n, ++i) {
        records.push_back(drawer.Next());
        history.records.push_back(records.back());
      }
      rig.Submit(std::move(records), [&history, upto = history.records.size()](absl::Status status) {
        if (status.ok()) history.acknowledged = upto;
      });
    }
    rig.scheduler.RunFor(absl::Microseconds(static_cast<int64_t>(random.Below(400))));
  }
  rig.scheduler.RunUntilIdle(100'000);
}

// How many records `rig` came back with: the largest prefix that gives its state and its bytes. -1: it is no prefix.
int64_t PrefixOf(const History& history, const JournalRig& rig) {
  JournalState state;
  SegmentModel model;
  int64_t found = -1;
  for (size_t n = 0; n <= history.records.size(); ++n) {
    if (state == rig.state && rig.visitor.Compare(model).empty()) found = static_cast<int64_t>(n);
    if (n == history.records.size()) break;
    model.Apply(history.records[n], state);
    REQUIRE(state.Apply(history.records[n]).ok());
  }
  return found;
}

void Add(SimFaultCounts& sum, const SimFaultCounts& more) {
  sum.crashes += more.crashes;
  sum.writes_lost += more.writes_lost;
  sum.writes_torn += more.writes_torn;
  sum.writes_kept += more.writes_kept;
  sum.names_lost += more.names_lost;
}

// Every file of the journal, for putting it back.
std::map<std::string, std::string> Files(SimFileSystem& fs) {
  std::map<std::string, std::string> files;
  const auto names = fs.List("data/journal");
  for (const std::string& name : *names) files[name] = fs.Contents("data/journal/" + name);
  return files;
}

void PutBack(SimFileSystem& fs, const std::map<std::string, std::string>& files) {
  REQUIRE(fs.CreateDirs("data/journal").ok());
  for (const auto& [name, contents] : files) fs.SetContents("data/journal/" + name, contents);
}

// A journal of a few files whose last one has several frames, and how it came about: all of it was answered.
std::map<std::string, std::string> SmallJournal(History& history, bool stops = false) {
  SimFileSystem fs(5);
  JournalRig rig(fs, 5);
  REQUIRE(rig.Open(16384).ok());
  Drawer drawer(5);
  for (int i = 0; i < 14; ++i) {
    history.records.push_back(drawer.Next());
    REQUIRE(rig.Write(history.records.back()).ok());
  }
  history.acknowledged = history.records.size();
  stops ? rig.Stop() : rig.Kill();
  return Files(fs);
}

// Of all its files the newest one that has frames.
std::string NewestOf(const std::map<std::string, std::string>& files) {
  std::string newest;
  for (const auto& [name, contents] : files) {
    if (name.find(".journal") != name.npos) newest = name;
  }
  return newest;
}

// The frames of one life of one file: where they stand and which.
struct Place {
  int64_t offset;
  FrameHeader header;
};
std::vector<Place> FramesOf(const std::string& contents) {
  std::vector<Place> places;
  std::optional<Uuid> id;
  for (int64_t at = 0; at < static_cast<int64_t>(contents.size());) {
    auto frame = DecodeFrame(std::string_view(contents).substr(static_cast<size_t>(at)), nullptr);
    if (!frame.ok() || (id && frame->header.file_id != *id)) break;
    id = frame->header.file_id;
    places.push_back({at, frame->header});
    at += frame->PaddedBytes();
  }
  return places;
}

// Opens a tampered journal: a prefix comes back, or it refuses and names file and offset. Returns whether it refused.
bool PrefixOrRefusal(const std::map<std::string, std::string>& files, const History& history, int64_t* prefix) {
  SimFileSystem fs(1);
  PutBack(fs, files);
  JournalRig rig(fs);
  const absl::Status status = rig.Open(16384);
  if (!status.ok()) {
    const std::string message(status.message());
    CHECK((status.code() == absl::StatusCode::kDataLoss || status.code() == absl::StatusCode::kFailedPrecondition));
    CHECK(message.find("data/journal/") != std::string::npos);
    CHECK(message.find("at byte ") != std::string::npos);
    return true;
  }
  *prefix = PrefixOf(history, rig);
  CHECK(*prefix >= 0);
  rig.Kill();
  return false;
}

}  // namespace

namespace {

constexpr size_t kRecords = 300;

// What the crash runs add up to: each kind must have happened.
struct CrashSum {
  SimFaultCounts faults;
  uint64_t tails_cut = 0;
  uint64_t recoveries_crashed = 0;
};

// How many operations of the file system a workload is, when nothing happens to it.
uint64_t OperationsOf(uint64_t workload) {
  SimFileSystem fs(1);
  JournalRig rig(fs, workload);
  REQUIRE(rig.Open().ok());
  Drawer drawer(workload);
  History history;
  SimRandom random(workload);
  Work(rig, drawer, history, kRecords, random);
  REQUIRE(history.acknowledged == history.records.size());
  REQUIRE(rig.journal->stats().files_recycled > 0);
  rig.Kill();
  return fs.operations();
}

// Runs the workload up to operation `n`, loses power, recovers, loses power again, works on.
void CrashAndRecover(uint64_t workload, uint64_t n, uint64_t variant, CrashSum& sum) {
  const uint64_t seed = n * 100 + variant;
  CAPTURE(workload, n, variant);
  SimFileSystem fs(seed);
  History history;
  SimRandom random(workload);
  JournalRig rig(fs, workload);
  fs.CrashAt(n);
  if (rig.Open().ok()) {
    Drawer drawer(workload);
    Work(rig, drawer, history, kRecords, random);
  }
  rig.Kill();
  fs.Crash();
  JournalRig again(fs, seed);
  // Half of the time the machine dies once more while it recovers.
  if (variant % 2 == 1) {
    fs.CrashAt(fs.operations() + 1 + SimRandom(seed).Below(14));
    if (!again.Open().ok()) ++sum.recoveries_crashed;
    again.Kill();
    fs.Crash();
  }
  REQUIRE(again.Open() == absl::OkStatus());
  if (again.tail.bytes_cut > 0) ++sum.tails_cut;
  const int64_t prefix = PrefixOf(history, again);
  REQUIRE(prefix >= static_cast<int64_t>(history.acknowledged));
  // What was recovered once is durable: another power loss takes nothing of it.
  again.Kill();
  fs.Crash();
  JournalRig third(fs, seed);
  REQUIRE(third.Open() == absl::OkStatus());
  REQUIRE(PrefixOf(history, third) == prefix);
  // And work goes on.
  Drawer drawer(seed);
  drawer.Restart(third.state);
  history.records.resize(static_cast<size_t>(prefix));
  history.acknowledged = history.records.size();
  Work(third, drawer, history, 20, random);
  REQUIRE(history.acknowledged == history.records.size());
  third.Stop();
  REQUIRE(again.Open() == absl::OkStatus());
  REQUIRE(PrefixOf(history, again) == static_cast<int64_t>(history.records.size()));
  again.Kill();
  Add(sum.faults, fs.counts());
}

}  // namespace

TEST_CASE("a crash at any write or sync, also while recovering, loses nothing that was answered") {
  CrashSum sum;
  for (uint64_t workload = 1; workload <= 4; ++workload) {
    const uint64_t operations = OperationsOf(workload);
    REQUIRE(operations > 100);
    for (uint64_t n = 1; n <= operations + 10; ++n) {
      for (uint64_t variant = 0; variant < 4; ++variant) CrashAndRecover(workload, n, variant, sum);
    }
  }
  REQUIRE(sum.faults.writes_lost > 0);
  REQUIRE(sum.faults.writes_torn > 0);
  REQUIRE(sum.faults.writes_kept > 0);
  REQUIRE(sum.faults.names_lost > 0);
  REQUIRE(sum.tails_cut > 0);
  REQUIRE(sum.recoveries_crashed > 0);
}

TEST_CASE("power lost while a start goes on after a kill loses nothing: what was read may be on no disk yet") {
  uint64_t recoveries_crashed = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    for (uint64_t n = 1; n <= 14; ++n) {
      CAPTURE(seed, n);
      SimFileSystem fs(seed);
      History history;
      {
        JournalRig rig(fs, seed);
        REQUIRE(rig.Open(16384).ok());
        const ReplicaId id = TestReplica(0);
        JournalState state;
        const auto note = [&](JournalRecord record) {
          REQUIRE(state.Apply(record).ok());
          history.records.push_back(record);
          return record;
        };
        REQUIRE(rig.Write(note(CreateRecord{id, Uuid::FromRandom(1, 1)})).ok());
        for (int i = 0; i < 12; ++i) REQUIRE(rig.Write(note(NextAppend(state, id, 3000, false, 1, 7))).ok());
        history.acknowledged = history.records.size();
        // Written and not synced, it lets go of all files before: the next start may write over them.
        const SegmentState last = state.Find(id)->segments.back();
        rig.Submit({note(CheckpointRecord{id, last.id, last.end_position})}, [](const absl::Status&) {});
        const uint64_t before = fs.operations();
        while (fs.operations() == before) REQUIRE(rig.scheduler.Step());
        rig.Kill();  // the process alone: what it wrote can be read
      }
      JournalRig starting(fs, seed);
      fs.CrashAt(fs.operations() + n);
      if (!starting.Open(16384).ok()) ++recoveries_crashed;
      starting.Kill();
      fs.Crash();
      JournalRig again(fs, seed);
      REQUIRE(again.Open(16384) == absl::OkStatus());
      REQUIRE(PrefixOf(history, again) >= static_cast<int64_t>(history.acknowledged));
      again.Kill();
    }
  }
  REQUIRE(recoveries_crashed > 100);
}

TEST_CASE("a flipped bit at any byte gives a prefix, or a refusal when the frame is known to be synced") {
  History history;
  const auto files = SmallJournal(history);
  REQUIRE(files.size() >= 2);
  uint64_t last_synced = 0;
  for (const auto& [name, contents] : files) {
    for (const Place& place : FramesOf(contents)) last_synced = std::max(last_synced, place.header.last_synced);
  }
  SimRandom random(3);
  uint64_t refused = 0;
  uint64_t shortened = 0;
  for (const auto& [name, contents] : files) {
    const std::vector<Place> places = FramesOf(contents);
    for (size_t byte = 0; byte < contents.size(); ++byte) {
      // Of what stands between and behind frames, only a part.
      const auto place = std::find_if(places.begin(), places.end(), [&](const Place& p) {
        return static_cast<int64_t>(byte) >= p.offset && static_cast<int64_t>(byte) < p.offset + p.header.length;
      });
      if (place == places.end() && byte % 97 != 0) continue;
      CAPTURE(name, byte);
      auto damaged = files;
      damaged[name][byte] = static_cast<char>(damaged[name][byte] ^ (1 << random.Below(8)));
      int64_t prefix = -1;
      if (PrefixOrRefusal(damaged, history, &prefix)) {
        ++refused;
        REQUIRE(place != places.end());
        continue;
      }
      if (prefix < static_cast<int64_t>(history.records.size())) {
        ++shortened;
        REQUIRE(place != places.end());
        REQUIRE(place->header.frame > last_synced);
      }
    }
  }
  REQUIRE(refused > 0);
  REQUIRE(shortened > 0);
}

TEST_CASE("after a clean stop a flipped bit in any frame refuses, the last one included") {
  History history;
  const auto files = SmallJournal(history, true);
  const std::string name = NewestOf(files);
  for (const Place& place : FramesOf(files.at(name))) {
    for (const size_t byte : {0, 40, 63, 70}) {
      CAPTURE(place.offset, byte);
      auto damaged = files;
      char& at = damaged[name][static_cast<size_t>(place.offset) + byte];
      at = static_cast<char>(at ^ 1);
      int64_t prefix = -1;
      REQUIRE(PrefixOrRefusal(damaged, history, &prefix));
    }
  }
}

TEST_CASE("a journal file cut at any byte refuses, the newest too: it was whole before it was used") {
  History history;
  const auto files = SmallJournal(history);
  for (const auto& [name, contents] : files) {
    for (size_t length = 0; length < contents.size(); length += length % 4096 < 80 ? 1 : 61) {
      CAPTURE(name, length);
      auto damaged = files;
      damaged[name].resize(length);
      int64_t prefix = -1;
      const bool refused = PrefixOrRefusal(damaged, history, &prefix);
      if (name == "newest" && length >= journal_format::kMarkBytes) {
        REQUIRE(prefix == static_cast<int64_t>(history.records.size()));  // one of its blocks is enough
      } else {
        REQUIRE(refused);
      }
    }
  }
}

TEST_CASE("a newest file that is gone, or has lost its opening or all of it, refuses") {
  const bool stops = GENERATE(false, true);
  History history;
  const auto files = SmallJournal(history, stops);
  const std::string newest = NewestOf(files);
  REQUIRE(files.size() >= 3);
  const auto refuses = [&](const char* what, const std::map<std::string, std::string>& damaged) {
    CAPTURE(what);
    int64_t prefix = -1;
    REQUIRE(PrefixOrRefusal(damaged, history, &prefix));
  };
  auto gone = files;
  gone.erase(newest);
  refuses("the newest file is missing", gone);
  for (auto at = files.begin(); at != files.end(); ++at) {
    if (at->first != "newest") gone.erase(at->first);
  }
  REQUIRE(gone.size() == 1);
  refuses("all files are missing", gone);
  auto unmarked = files;
  unmarked.erase("newest");
  refuses("the mark is missing", unmarked);
  const size_t opening_end = static_cast<size_t>(FramesOf(files.at(newest)).at(1).offset);
  for (const size_t zeros : {size_t{4096}, opening_end, files.at(newest).size()}) {
    auto zeroed = files;
    zeroed[newest].replace(0, zeros, zeros, '\0');
    refuses("the newest file begins with zeros", zeroed);
  }
  // From any block to its end, the size as it was: what was synced is missed, as far as anything says what was.
  for (size_t at = opening_end; at < files.at(newest).size(); at += 4096) {
    CAPTURE(at);
    auto zeroed = files;
    const size_t count = zeroed[newest].size() - at;
    zeroed[newest].replace(at, count, count, '\0');
    int64_t prefix = -1;
    const bool refused = PrefixOrRefusal(zeroed, history, &prefix);
    const auto& frames = FramesOf(files.at(newest));
    const bool lost = at < static_cast<size_t>(frames.back().offset + frames.back().header.length);
    if (stops) REQUIRE(refused == lost);
  }
}

TEST_CASE("files that nothing needs any more are not read at a start") {
  SimFileSystem fs(5);
  JournalRig rig(fs, 5);
  REQUIRE(rig.Open(16384).ok());
  const ReplicaId id = TestReplica(0);
  History history;
  JournalState state;
  const auto write = [&](const JournalRecord& record) {
    REQUIRE(state.Apply(record).ok());
    history.records.push_back(record);
    REQUIRE(rig.Write(record).ok());
  };
  write(CreateRecord{id, Uuid::FromRandom(1, 1)});
  for (int i = 0; i < 12; ++i) write(NextAppend(state, id, 3000, false, 1, 7));
  const SegmentState& last = state.Find(id)->segments.back();
  write(CheckpointRecord{id, last.id, last.end_position - 16000});
  rig.Stop();
  const auto files = Files(fs);
  const uint64_t needed_from = (*ReadJournalMark(fs, "data/journal", JournalRig::Disk()))->needed_from;
  REQUIRE(needed_from > 2);
  const std::string needed = JournalFilePath("", needed_from).substr(1);
  int useless = 0;
  for (const auto& [name, contents] : files) {
    if (name.find(".journal") == name.npos || FramesOf(contents).empty()) continue;
    auto damaged = files;
    damaged[name].assign(contents.size(), '\x5a');
    int64_t prefix = -1;
    CAPTURE(name, needed);
    if (PrefixOrRefusal(damaged, history, &prefix)) {
      REQUIRE(name >= needed);
      continue;
    }
    REQUIRE(prefix == static_cast<int64_t>(history.records.size()));
    ++useless;
  }
  REQUIRE(useless >= 2);
  // A mark that says too much is noticed: what is needed is missed.
  SimFileSystem lying(1);
  PutBack(lying, files);
  JournalMark mark = **ReadJournalMark(lying, "data/journal", JournalRig::Disk());
  REQUIRE(mark.needed_from < mark.file);
  JournalMarkWriter writer(lying, "data/journal", JournalRig::Disk());
  REQUIRE(writer.Open(mark).ok());
  REQUIRE(writer.Write(mark.file, mark.frame, mark.file).ok());
  JournalRig misled(lying);
  REQUIRE(misled.Open(16384).code() == absl::StatusCode::kDataLoss);
}

TEST_CASE("a torn or lost write of the mark costs nothing") {
  History history;
  const auto files = SmallJournal(history);
  for (size_t block = 0; block < 2; ++block) {
    auto damaged = files;
    damaged["newest"].replace(block * 4096, 4096, 4096, '\x5a');
    int64_t prefix = -1;
    REQUIRE_FALSE(PrefixOrRefusal(damaged, history, &prefix));
    REQUIRE(prefix == static_cast<int64_t>(history.records.size()));
  }
}

TEST_CASE("a read that goes wrong once does not cost what is on the disk") {
  History history;
  const auto files = SmallJournal(history);
  for (uint64_t read = 1; read <= 2 * (files.size() - 1); ++read) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      SimFileSystem fs(seed);
      PutBack(fs, files);
      fs.FlipBitOfRead(read);
      JournalRig rig(fs);
      if (!rig.Open(16384).ok()) continue;  // seen, and refused
      REQUIRE(PrefixOf(history, rig) == static_cast<int64_t>(history.records.size()));
      rig.Kill();
    }
    SimFileSystem fs(read);
    PutBack(fs, files);
    fs.FailCall(SimFileSystem::Call::kRead, read);
    JournalRig rig(fs);
    REQUIRE_FALSE(rig.Open(16384).ok());
  }
}

}  // namespace sluice::storage
