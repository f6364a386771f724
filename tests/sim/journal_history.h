// Lives of a journal, drawn or small, and what comes back of them: what tests of crashes and damage speak in.
#pragma once

#include <catch2/catch.hpp>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "storage/journal_codec.h"
#include "storage/journal_replay.h"
#include "tests/simulation/journal_rig.h"

namespace sluice::storage {

using simulation::JournalRig;
using simulation::NextAppend;
using simulation::SegmentModel;
using simulation::SimFileSystem;
using simulation::SimRandom;
using simulation::TestReplica;

/// What was submitted, in order, and how much of it was answered OK.
struct History {
  std::vector<JournalRecord> records;
  size_t acknowledged = 0;
};

/// Draws records that fit, one after the other.
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

/// Submits `count` drawn records, several to an entry and several entries at a time, until all are answered or the
/// world stops.
inline void Work(JournalRig& rig, Drawer& drawer, History& history, size_t count, SimRandom& random) {
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

/// How many records `rig` came back with: the largest prefix that gives its state and its bytes. -1: it is no prefix.
inline int64_t PrefixOf(const History& history, const JournalRig& rig) {
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

/// Every file of the journal, for putting it back.
inline std::map<std::string, std::string> Files(SimFileSystem& fs) {
  std::map<std::string, std::string> files;
  const auto names = fs.List("data/journal");
  for (const std::string& name : *names) files[name] = fs.Contents("data/journal/" + name);
  return files;
}

inline void PutBack(SimFileSystem& fs, const std::map<std::string, std::string>& files) {
  REQUIRE(fs.CreateDirs("data/journal").ok());
  for (const auto& [name, contents] : files) fs.SetContents("data/journal/" + name, contents);
}

/// A journal of a few files whose last one has several frames, and how it came about: all of it was answered.
inline std::map<std::string, std::string> SmallJournal(History& history, bool stops = false) {
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

/// Of all its files the newest one that has frames.
inline std::string NewestOf(const std::map<std::string, std::string>& files) {
  std::string newest;
  for (const auto& [name, contents] : files) {
    if (name.find(".journal") != name.npos) newest = name;
  }
  return newest;
}

/// The frames of one life of one file: where they stand and which.
struct Place {
  int64_t offset;
  FrameHeader header;
};
inline std::vector<Place> FramesOf(const std::string& contents) {
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

/// Opens a tampered journal: a prefix comes back, or it refuses and names file and offset. Returns whether it refused.
inline bool PrefixOrRefusal(const std::map<std::string, std::string>& files, const History& history, int64_t* prefix) {
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

}  // namespace sluice::storage
