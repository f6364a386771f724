// The scrubber finds what is damaged before somebody reads it, slowly, and touches nothing.
#include <catch2/catch.hpp>

#include <string>
#include <utility>
#include <vector>

#include "tests/sim/log_store_writer.h"

namespace sluice::storage {
namespace {

struct Scrubbed : Writer {
  explicit Scrubbed(absl::Duration period = absl::Hours(2), uint64_t seed = 1) : Writer(seed) {
    node.options.scrub.period = period;
    node.options.scrub.on_damage = [this](const ReplicaId& replica, const absl::Status& status) {
      CHECK(replica == kReplica);
      damage.push_back(status);
    };
    node.log_options.segment_bytes = 64 << 10;
    Start();
    Fill(100, 5'000);
    log->CloseActiveSegment();
    Fill(1);
    REQUIRE(Checkpoint().ok());
    before_ = node.clock.Monotonic();
  }
  void Flip(const std::string& file, size_t at) {
    std::string contents = node.fs.Contents(file);
    contents[at] = static_cast<char>(contents[at] ^ 4);
    node.fs.SetContents(file, contents);
  }
  ScrubStats stats() const { return node.store->scrub_stats(); }
  std::vector<absl::Status> damage;
  absl::Duration before_;
};

TEST_CASE("the scrubber reads all closed segments within its period, evenly, and finds nothing wrong in sound ones") {
  Scrubbed w;
  w.node.scheduler.RunFor(absl::Minutes(1) + absl::Seconds(30));
  const int64_t total = w.log->size_bytes() - static_cast<int64_t>(w.written.back().size_bytes());
  CHECK(w.stats().rounds == 0);
  w.node.scheduler.RunFor(absl::Hours(1));
  CHECK(w.stats().bytes > total / 3);
  CHECK(w.stats().bytes < total * 2 / 3);
  w.node.scheduler.RunFor(absl::Hours(1) + absl::Minutes(5));
  CHECK(w.stats().bytes >= total);
  CHECK(w.stats().rounds == 1);
  w.node.scheduler.RunFor(absl::Hours(20));
  CHECK(w.stats().rounds >= 5);
  CHECK(w.damage.empty());
  CHECK(w.stats().damaged == 0);
}

TEST_CASE("the scrubber is never faster than it may be") {
  Scrubbed w(absl::Seconds(1));
  w.node.Kill();
  w.node.options.scrub.bytes_per_second_max = 100'000;
  w.Start();
  w.node.scheduler.RunFor(absl::Minutes(1) + absl::Seconds(2));
  CHECK(w.stats().bytes > 100'000);
  CHECK(w.stats().bytes < 300'000);
}

TEST_CASE("the scrubber names file and byte of what is damaged, leaves it alone, and the rest is still served") {
  for (const size_t at : {size_t{0}, size_t{30'000}, size_t{60'000}}) {
    CAPTURE(at);
    Scrubbed w;
    const std::string file = w.SegmentFiles().at(3);
    const size_t files = w.SegmentFiles().size();
    w.Flip(file, at);
    std::string sound = w.node.fs.Contents(file);
    sound[at] = static_cast<char>(sound[at] ^ 4);
    const std::string damaged = w.node.fs.Contents(file);
    w.node.scheduler.RunFor(absl::Hours(3));
    REQUIRE(w.damage.size() >= 1);
    CHECK(absl::IsDataLoss(w.damage[0]));
    CHECK(w.Holds(w.damage[0], file + ": at byte "));
    CHECK(w.stats().damaged >= 1);
    CHECK(w.stats().damaged_now == 1);
    CHECK(w.SegmentFiles().size() == files);
    CHECK(w.node.fs.Contents(file) == damaged);
    using Result = absl::StatusOr<std::vector<record::Batch>>;
    const auto read = [&](Offset offset) {
      return w.node.Await<Result>([&](auto done) { w.log->Read(offset, offset + 1, 1, std::move(done)); });
    };
    CHECK(read(Offset(0)).ok());
    CHECK(read(Offset(90)).ok());
    w.Fill(3);
    if (at == 0) {
      REQUIRE(w.node.Do([&](auto done) { w.log->SetLogStart(Offset(80), std::move(done)); }).ok());
    } else {
      w.node.fs.SetContents(file, sound);
    }
    w.node.scheduler.RunFor(absl::Hours(5));
    CHECK(w.stats().damaged_now == 0);  // gone, or back as it was
  }
}

TEST_CASE("what retention took away while it was read is no damage, and a read that fails is none either") {
  Scrubbed w;
  w.node.scheduler.RunFor(absl::Minutes(1) + absl::Seconds(30));
  REQUIRE(w.node.Do([&](auto done) { w.log->SetLogStart(Offset(60), std::move(done)); }).ok());
  w.node.scheduler.RunFor(absl::Hours(1));
  CHECK(w.damage.empty());
  for (int i = 0; i < 5; ++i) {
    w.node.fs.FlipBitOfRead(1);
    w.node.scheduler.RunFor(absl::Hours(1));
  }
  CHECK(w.node.fs.counts().bits_flipped >= 2);
  CHECK(w.stats().damaged == 0);
  // A replica that is dropped in the middle of a round is let go of, with the memory that it takes.
  w.log.reset();
  w.node.scheduler.RunFor(absl::Minutes(70));
  REQUIRE(w.node.Do([&](auto done) { w.node.store->Drop(kReplica, std::move(done)); }).ok());
  w.node.scheduler.RunFor(absl::Seconds(1));
  CHECK(w.node.store->shared().cache_bytes == 0);
  w.node.scheduler.RunFor(absl::Hours(3));
  CHECK(w.damage.empty());
  bool stopped = false;
  w.node.store->Stop([&](const absl::Status&) { stopped = true; });
  w.node.scheduler.RunFor(absl::Seconds(1));
  CHECK(stopped);
}

}  // namespace
}  // namespace sluice::storage
