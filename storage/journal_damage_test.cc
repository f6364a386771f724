// Damage at every byte, files cut and files gone: what comes back is a prefix of what was submitted, or the journal
// refuses and says where.
#include "storage/journal_mark.h"
#include "tests/sim/journal_history.h"

namespace sluice::storage {

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
