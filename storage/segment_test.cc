#include "storage/segment.h"

#include <catch2/catch.hpp>

#include <deque>
#include <fstream>
#include <random>
#include <sstream>

#include "storage/append_place.h"
#include "storage/retention.h"
#include "tests/simulation/sim_file_system.h"

namespace sluice::storage {
namespace {

TEST_CASE("a segment's file name says its base and epoch, and other names are not taken for one") {
  const SegmentId id{Offset(1234), LeaderEpoch(7)};
  CHECK(SegmentPath("d", id) == "d/00000000000000001234-7.log");
  CHECK(ParseSegmentFileName("00000000000000001234-7.log") == id);
  CHECK(ParseSegmentFileName("00000000000000001234-7.index") == id);
  for (const char* name : {"", ".log", "1234-7.log", "00000000000000001234-07.log", "00000000000000001234-7",
                           "00000000000000001234-.log", "+0000000000000001234-7.log", "00000000000000001234-7.tmp"}) {
    CAPTURE(name);
    CHECK_FALSE(ParseSegmentFileName(name).has_value());
  }
}

TEST_CASE("a sparse index finds the entry before an offset and the first one late enough") {
  SparseIndex index(100);
  for (int i = 0; i < 50; ++i) index.Add(Offset(10 + i * 2), i * 40, 40, i == 20 ? 900 : i);
  CHECK(index.covered() == 2000);
  REQUIRE(index.entries().size() == 17);  // every third batch
  CHECK(index.Lookup(Offset(9), Offset(5)) == IndexEntry{Offset(5), 0, 0});
  CHECK(index.Lookup(Offset(10), Offset(5)).position == 0);
  CHECK(index.Lookup(Offset(15), Offset(5)).position == 0);
  CHECK(index.Lookup(Offset(16), Offset(5)).position == 120);
  CHECK(index.LookupTimestamp(5, Offset(5)).position == 120);
  CHECK(index.LookupTimestamp(900, Offset(5)).position == 18 * 40);
  CHECK(index.LookupTimestamp(901, Offset(5)).position == 48 * 40);
}

TEST_CASE("an index takes nothing across a gap, and forgets what a truncation cuts") {
  SparseIndex index(100);
  index.Add(Offset(0), 0, 100, 1);
  index.Add(Offset(2), 250, 100, 9);
  CHECK(index.covered() == 100);
  index.Add(Offset(1), 100, 100, 2);
  index.Add(Offset(2), 200, 100, 3);
  index.TrimTo(200);
  CHECK(index.covered() == 200);
  CHECK(index.entries().size() == 2);
  index.TrimTo(300);
  CHECK(index.covered() == 200);
}

TEST_CASE("an index file survives the round trip, and no flipped bit of it does") {
  const SegmentId id{Offset(7), LeaderEpoch(3)};
  SparseIndex index(64);
  for (int i = 0; i < 10; ++i) index.Add(Offset(7 + i), i * 64, 64, 1000 + i);
  const std::string file = index.Encode(id);
  auto decoded = SparseIndex::Decode(file, id);
  REQUIRE(decoded.ok());
  CHECK(decoded->entries() == index.entries());
  CHECK(decoded->covered() == index.covered());
  CHECK_FALSE(SparseIndex::Decode(file, {Offset(8), LeaderEpoch(3)}).ok());
  for (size_t bit = 0; bit < file.size() * 8; ++bit) {
    std::string damaged = file;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    CAPTURE(bit);
    CHECK_FALSE(SparseIndex::Decode(damaged, id).ok());
  }
  for (size_t cut = 0; cut < file.size(); ++cut) CHECK_FALSE(SparseIndex::Decode(file.substr(0, cut), id).ok());
}

TEST_CASE("the index on the page of formats is what the program writes and reads") {
  std::ifstream in(SLUICE_SOURCE_DIR "/docs/formats.md");
  std::string on_page;
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    if (line == "```hex segment-index" || line == "```") {
      inside = line != "```";
    } else if (inside) {
      std::istringstream words(line.substr(0, line.find('#')));
      for (std::string word; words >> word;) on_page.push_back(static_cast<char>(std::stoi(word, nullptr, 16)));
    }
  }
  const SegmentId id{Offset(1000), LeaderEpoch(3)};
  SparseIndex index;
  index.Add(Offset(1000), 0, 40'000, 1'700'000'000'000);
  index.Add(Offset(1040), 40'000, 40'000, 1'700'000'000'500);
  index.Add(Offset(1080), 80'000, 20'000, 1'700'000'000'400);
  CHECK(on_page == index.Encode(id));
  auto decoded = SparseIndex::Decode(on_page, id);
  REQUIRE(decoded.ok());
  CHECK(decoded->entries() == index.entries());
}

TEST_CASE("a segment file gets the same bytes whether they lie in place or are copied, in one piece or in many") {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    simulation::SimFileSystem fs(1);
    REQUIRE(fs.CreateDirs("d").ok());
    auto file = SegmentFile::Create(fs, "d/s.log");
    REQUIRE(file.ok());
    std::string expected;
    for (int call = 0; call < 4; ++call) {
      std::vector<Bytes> parts;
      for (size_t i = 0; i < 1 + random() % 6; ++i) {
        const size_t size = random() % 3 == 0 ? 1 + random() % 9000 : (16 << 10) + random() % (400 << 10);
        const size_t place = random() % 3 == 0 ? random() % kBlockBytes : expected.size() % kBlockBytes;
        MutableBytes part(size, size < MutableBytes::kAlignedFrom ? 0 : place);
        for (size_t at = 0; at < size; ++at)
          part.data()[at] = static_cast<char>((expected.size() + at) * 2654435761 >> 11);
        expected.append(part.view());
        parts.push_back(std::move(part).Freeze());
      }
      REQUIRE((*file)->Append(parts).ok());
      if (random() % 2 == 0) REQUIRE((*file)->FlushTail().ok());
      REQUIRE((*file)->end() == static_cast<int64_t>(expected.size()));
      const std::string there = fs.Contents("d/s.log").substr(0, static_cast<size_t>((*file)->flushed()));
      REQUIRE(there == expected.substr(0, there.size()));
      REQUIRE(expected.size() - there.size() < kBlockBytes);
    }
    REQUIRE((*file)->Finish((*file)->end()).ok());
    REQUIRE(fs.Contents("d/s.log") == expected);
  }
}

TEST_CASE("the place of the next batch is guessed right after a wrong guess, however many were under way") {
  AppendPlace guess;
  int64_t position = 0;
  struct Batch {
    size_t bytes;
    size_t place;
  };
  std::deque<Batch> under_way;
  std::mt19937 random(1);
  int wrong = 0;
  for (int i = 0; i < 20'000; ++i) {
    const size_t bytes = 16'000 + random() % 5000;
    under_way.push_back({bytes, guess.Next(bytes)});
    if (under_way.size() < 16) continue;
    if (i % 1000 == 0) position = 0;    // another segment
    if (i % 1500 == 0) position += 77;  // a batch that nobody asked about
    guess.Seen(under_way.front().place, position);
    wrong += position % kBlockBytes != static_cast<int64_t>(under_way.front().place);
    position += static_cast<int64_t>(under_way.front().bytes);
    under_way.pop_front();
  }
  CHECK(wrong > 0);
  CHECK(wrong <= 35 * 100);
}

std::vector<SegmentInfo> Segments() {
  return {{{Offset(0), LeaderEpoch(1)}, Offset(10), 100, 1000, false},
          {{Offset(10), LeaderEpoch(1)}, Offset(20), 100, 2000, false},
          {{Offset(20), LeaderEpoch(2)}, Offset(21), 50, -1, false},  // a control batch alone
          {{Offset(21), LeaderEpoch(3)}, Offset(30), 100, 3000, true}};
}

RetentionDecision Decide(RetentionPolicy policy, int64_t now, Offset high_watermark = Offset(30)) {
  return DecideRetention(Segments(), policy, now, Offset(0), high_watermark, Offset(30));
}

TEST_CASE("retention by time takes whole segments whose latest record is too old") {
  CHECK(Decide({.retention_ms = 500}, 1500).log_start == Offset(0));
  CHECK(Decide({.retention_ms = 500}, 1501).log_start == Offset(10));
  CHECK(Decide({.retention_ms = 500}, 3400).log_start == Offset(20));
  CHECK(Decide({.retention_ms = 500}, 3400).closes_active == false);
  CHECK(Decide({.retention_ms = 500}, 3501).log_start == Offset(30));
  CHECK(Decide({.retention_ms = 500}, 3501).closes_active);
  CHECK(Decide({.retention_ms = 500}, 3501, Offset(29)).log_start == Offset(20));
}

TEST_CASE("retention by bytes keeps at least that much and never takes the active segment") {
  CHECK(Decide({.retention_bytes = 350}, 0).log_start == Offset(0));
  CHECK(Decide({.retention_bytes = 250}, 0).log_start == Offset(10));
  CHECK(Decide({.retention_bytes = 150}, 0).log_start == Offset(20));
  CHECK(Decide({.retention_bytes = 0}, 0).log_start == Offset(21));
  CHECK(Decide({}, 1'000'000).log_start == Offset(0));
}

TEST_CASE("retention leaves a log alone that has no data any more") {
  const auto decided = DecideRetention(Segments(), {.retention_ms = 1}, 1'000'000, Offset(20), Offset(30), Offset(20));
  CHECK(decided.log_start == Offset(20));
}

}  // namespace
}  // namespace sluice::storage
