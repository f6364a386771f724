#include "storage/log_store.h"

#include <catch2/catch.hpp>

#include "common/record/control.h"
#include "tests/sim/log_store_writer.h"

namespace sluice::storage {
namespace {

using simulation::MakeBatch;
using simulation::SimFileSystem;
using simulation::StorageNode;

TEST_CASE("a second store on the same folder is refused") {
  Writer w;
  w.Start();
  StorageNode& node = w.node;
  LogStoreOptions options = node.options;
  options.journal.random = &node.random;
  auto second = LogStore::Open(node.fs, node.clock,
                               {.home = node.home.get(),
                                .journal_io = node.journal_io.get(),
                                .segment_io = node.segment_io.get(),
                                .cold_reads = node.cold_reads.get()},
                               options);
  CHECK(absl::IsFailedPrecondition(second.status()));
}

TEST_CASE("a folder that the journal does not know is refused, named and left alone") {
  Writer w;
  w.Start();
  w.Fill(3);
  const std::string stranger = "data/topics/" + StorageNode::Replica(7).ToString();
  REQUIRE(w.node.fs.CreateDirs(stranger).ok());
  REQUIRE(w.node.fs.SyncDir(Writer::log_dir().substr(0, Writer::log_dir().rfind('/'))).ok());
  w.node.fs.SetContents(stranger + "/00000000000000000000-1.log", "bytes");
  const absl::Status refused = w.Reopen();
  CHECK(absl::IsFailedPrecondition(refused));
  CHECK(w.Holds(refused, stranger));
  CHECK(w.node.fs.Contents(stranger + "/00000000000000000000-1.log") == "bytes");
}

TEST_CASE("each file that recovery removes is told, and why") {
  Writer w;
  std::vector<std::string> told;
  w.node.options.on_removed = [&](const std::string& path, std::string_view why) {
    told.push_back(path + ": " + std::string(why));
  };
  w.Start();
  w.Fill(20, 1500);
  REQUIRE(w.Checkpoint().ok());
  const std::string extra = Writer::log_dir() + "/00000000000000000900-7.log";
  const std::string rewrite = w.SegmentFiles().front() + ".rewrite";
  const std::string dropped = "data/topics/" + StorageNode::Replica(7).ToString();
  REQUIRE(w.node.fs.CreateDirs(dropped).ok());
  REQUIRE(w.node.fs.SyncDir(Writer::log_dir().substr(0, Writer::log_dir().rfind('/'))).ok());
  const std::string of_dropped = dropped + "/00000000000000000000-1.log";
  for (const std::string& path : {extra, rewrite, of_dropped, dropped + "/DROPPING"}) {
    w.node.fs.SetContents(path, "bytes");
  }
  REQUIRE(w.Reopen().ok());
  CHECK(w.node.store->recovery().files_removed == 3);
  REQUIRE(told.size() == 3);
  const auto tells = [&](const std::string& path, const std::string& why) {
    return std::any_of(told.begin(), told.end(), [&](const std::string& line) {
      return line.starts_with(path + ": ") && line.find(why) != line.npos;
    });
  };
  CHECK(tells(extra, "lists no such segment"));
  CHECK(tells(rewrite, "written anew"));
  CHECK(tells(of_dropped, "dropped"));
  for (const std::string& path : {extra, rewrite, of_dropped}) CHECK(w.node.fs.Contents(path).empty());
}

TEST_CASE("power lost at any file operation of a drop leaves the replica whole or gone") {
  bool was_whole = false;
  bool was_gone = false;
  for (uint64_t n = 1; n < 200; ++n) {
    CAPTURE(n);
    Writer w(n);
    w.Start();
    w.Fill(20, 1500);
    REQUIRE(w.Checkpoint().ok());
    w.node.fs.CrashAt(w.node.fs.operations() + n);
    const absl::Status dropped = w.node.Do([&](auto done) { w.node.store->Drop(kReplica, std::move(done)); });
    const bool crashed = w.node.fs.crashed();
    const absl::Status opened = w.Reopen();
    INFO(opened.ToString());
    REQUIRE(opened.ok());
    if (w.node.store->Replicas().empty()) {
      was_gone = true;
      CHECK_FALSE(w.node.fs.Exists(Writer::log_dir()).value());
    } else {
      was_whole = true;
      REQUIRE_FALSE(dropped.ok());
      w.log = w.node.Attach(kReplica);
      w.RequireAllThere();
    }
    if (!crashed) break;
  }
  CHECK(was_whole);
  CHECK(was_gone);
}

TEST_CASE("a replica that was dropped can be made again, empty") {
  Writer w;
  w.Start();
  w.Fill(5);
  w.log.reset();
  REQUIRE(w.node.Do([&](auto done) { w.node.store->Drop(kReplica, std::move(done)); }).ok());
  CHECK(w.node.store->Find(kReplica) == nullptr);
  REQUIRE(w.node.Create(kReplica).ok());
  w.log = w.node.Attach(kReplica);
  CHECK(w.log->log_end() == Offset(0));
  w.written.clear();
  w.Fill(5);
  w.Restart();
  w.RequireAllThere();
}

TEST_CASE("recovery writes no more than the journal holds, however much is stored") {
  Writer w;
  w.node.log_options.segment_bytes = 128 << 10;
  w.Start();
  w.Fill(300, 8'000);
  REQUIRE(w.Checkpoint().ok());
  w.Fill(3, 1'000);
  w.Restart();
  CHECK(w.node.store->recovery().bytes_rewritten >= 3'000);
  CHECK(w.node.store->recovery().bytes_rewritten < 16'000);
  w.RequireAllThere();
}

TEST_CASE("the journal stays short although a quiet partition still has bytes in its oldest file") {
  Writer w;
  w.Start();
  REQUIRE(w.node.Create(StorageNode::Replica(1)).ok());
  auto quiet = w.node.Attach(StorageNode::Replica(1));
  record::Batch batch = MakeBatch("quiet").Assign(Offset(0), LeaderEpoch(1));
  REQUIRE(w.node.Do([&](auto done) { quiet->Append({batch}, std::move(done)); }).ok());
  for (int i = 0; i < 600; ++i) {  // 4.8 MB through a journal of at most 1 MiB
    const absl::Status status = w.Append(8'000);
    INFO(i << ": " << status.ToString());
    REQUIRE(status.ok());
    w.node.scheduler.RunFor(absl::Milliseconds(1));
  }
  CHECK(w.node.store->journal().stats().used_bytes <= w.node.options.journal.total_bytes_max);
  CHECK(w.node.store->shared().cache_bytes <= w.node.options.cache_bytes);
  w.RequireAllThere();
  quiet.reset();
  w.Restart();
  w.RequireAllThere();
  quiet = w.node.Attach(StorageNode::Replica(1));
  CHECK(w.node.ReadAll(*quiet).value().at(0).bytes() == batch.bytes());
}

TEST_CASE("a segment file shorter than its checkpoint, or missing, is refused with file, byte and what was expected") {
  Writer w;
  w.Start();
  w.Fill(4, 1000);
  REQUIRE(w.Checkpoint().ok());
  w.Fill(1, 1000);
  w.log.reset();
  w.node.Kill();
  const std::string file = w.SegmentFiles().at(0);
  const std::string whole = w.node.fs.Contents(file);
  const size_t synced = w.written[0].size_bytes() * 4;
  for (size_t cut = 0; cut < synced; cut += 97) {
    w.node.fs.SetContents(file, whole.substr(0, cut));
    REQUIRE(w.Reopen().ok());  // the other replicas have no part in it
    const absl::Status refused = w.node.store->Attach(kReplica, *w.node.shard, w.node.log_options).status();
    CAPTURE(cut, refused.ToString());
    REQUIRE(absl::IsDataLoss(refused));
    CHECK(w.Holds(refused, file + ": at byte " + std::to_string(cut)));
    CHECK(w.Holds(refused, "expected " + std::to_string(synced)));
  }
  REQUIRE(w.node.fs.Remove(file).ok());
  REQUIRE(w.node.fs.SyncDir(Writer::log_dir()).ok());
  REQUIRE(w.Reopen().ok());
  const absl::Status refused = w.node.store->Attach(kReplica, *w.node.shard, w.node.log_options).status();
  CHECK(absl::IsDataLoss(refused));
  CHECK(w.Holds(refused, file));
  // What no checkpoint vouches for comes from the journal.
  w.node.fs.SetContents(file, whole.substr(0, synced));
  w.Restart();
  w.RequireAllThere();
}

TEST_CASE("a flip of any byte of a segment is found by a read and by the scrubber, and nothing behind it is served") {
  Writer w;
  w.Start();
  w.Fill(6, 40);
  REQUIRE(w.Checkpoint().ok());
  w.Restart();
  w.log.reset();
  const std::string file = w.SegmentFiles().at(0);
  const std::string whole = w.node.fs.Contents(file);
  w.node.Kill();
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
    w.node.fs.SetContents(file, damaged);
    REQUIRE(w.Reopen().ok());
    w.log = w.node.Attach(kReplica);
    CAPTURE(at);
    size_t read = 0;
    absl::Status found;
    for (Offset offset; offset < w.log->log_end() && found.ok();) {
      using Result = absl::StatusOr<std::vector<record::Batch>>;
      auto got = w.node.Await<Result>([&](auto done) { w.log->Read(offset, w.log->log_end(), 1, std::move(done)); });
      found = got.status();
      if (!got.ok()) break;
      REQUIRE(got->size() == 1);
      REQUIRE(got->at(0).bytes() == w.written[read].bytes());
      ++read;
      offset = got->at(0).next_offset();
    }
    const size_t batch = at / w.written[0].size_bytes();
    CAPTURE(found.ToString());
    CHECK(read <= batch);
    REQUIRE(absl::IsDataLoss(found));
    CHECK(w.Holds(found, file + ": at byte "));
    const absl::Status scrubbed = w.node.Do([&](auto done) { w.log->Scrub(std::move(done)); });
    REQUIRE(absl::IsDataLoss(scrubbed));
    CHECK(w.Holds(scrubbed, file));
  }
}

TEST_CASE("an index file that is damaged, cut or lies changes nothing that is read") {
  Writer w;
  w.node.log_options.segment_bytes = 64 << 10;
  w.Start();
  w.Fill(100, 500);
  w.log->CloseActiveSegment();
  w.Fill(1);
  REQUIRE(w.Checkpoint().ok());
  w.log.reset();
  const std::string file = w.SegmentFiles(".index").at(0);
  const std::string whole = w.node.fs.Contents(file);
  w.node.Kill();
  const SegmentId id = *ParseSegmentFileName(file.substr(file.rfind('/') + 1));
  SparseIndex sound = SparseIndex::Decode(whole, id).value();
  REQUIRE(sound.entries().size() > 10);
  SparseIndex liar(1);  // a sound file of places where no batch starts
  liar.Add(Offset(0), 0, 77, 1);
  liar.Add(Offset(50), 77, 5000, 1);
  std::string flipped = whole;
  flipped[60] = static_cast<char>(flipped[60] ^ 4);
  for (const std::string& contents : {whole, flipped, whole.substr(0, 100), std::string(), liar.Encode(id)}) {
    w.node.fs.SetContents(file, contents);
    w.Restart();
    using Result = absl::StatusOr<std::vector<record::Batch>>;
    auto got = w.node.Await<Result>([&](auto done) { w.log->Read(Offset(63), w.log->log_end(), 1, std::move(done)); });
    INFO(got.status().ToString());
    REQUIRE(got.ok());
    CHECK(got->at(0).bytes() == w.written[63].bytes());
    w.RequireAllThere();
  }
}

TEST_CASE("a segment that is closed after it was synced gets its index file as well") {
  Writer w;
  w.node.log_options.segment_bytes = 64 << 10;
  w.Start();
  w.Fill(60, 500);
  REQUIRE(w.Checkpoint().ok());
  CHECK(w.SegmentFiles(".index").empty());  // it still grows
  w.log->CloseActiveSegment();
  w.Fill(1);
  REQUIRE(w.Checkpoint().ok());
  REQUIRE(w.SegmentFiles(".index").size() == 1);
  const std::string file = w.SegmentFiles(".index").at(0);
  const SegmentId id = *ParseSegmentFileName(file.substr(file.rfind('/') + 1));
  const auto index = SparseIndex::Decode(w.node.fs.Contents(file), id);
  REQUIRE(index.ok());
  CHECK(index->covered() == w.log->closed_segments().at(0).state.end_position);
}

TEST_CASE("a log tells where its data ends without a read, also after a restart; one that was truncated there reads") {
  Writer w;
  w.Start();
  using Result = absl::StatusOr<std::optional<Offset>>;
  const auto data_end = [&] { return w.node.Await<Result>([&](auto done) { w.log->FindDataEnd(std::move(done)); }); };
  const auto append_control = [&] {
    const record::Batch batch =
        record::MakeControlBatch(record::LeaderChange{NodeId(1)}, 5).Assign(w.log->log_end(), w.epoch);
    REQUIRE(w.node.Do([&](auto done) { w.log->Append({batch}, std::move(done)); }).ok());
    w.written.push_back(batch);
  };
  append_control();
  CHECK(data_end().value() == std::nullopt);
  w.Fill(8);
  append_control();
  REQUIRE(w.Checkpoint().ok());
  w.Restart();
  append_control();
  REQUIRE(w.Checkpoint().ok());
  w.node.fs.FailCall(SimFileSystem::Call::kRead, 1);
  CHECK(data_end().value() == Offset(9));
  w.node.fs.FailNoCall(SimFileSystem::Call::kRead);
  REQUIRE(w.node.Do([&](auto done) { w.log->Truncate(Offset(7), std::move(done)); }).ok());
  w.written.resize(7);
  w.node.fs.FailCall(SimFileSystem::Call::kRead, 1);
  CHECK_FALSE(data_end().ok());
  CHECK(data_end().value() == Offset(7));
  w.RequireAllThere();
  w.Fill(1);
  w.node.fs.FailCall(SimFileSystem::Call::kRead, 1);
  CHECK(data_end().value() == Offset(8));
}

TEST_CASE("a log-start advance and a truncation delete files only once they are durable") {
  Writer w;
  w.Start();
  w.Fill(40, 1000);
  REQUIRE(w.Checkpoint().ok());
  const size_t before = w.SegmentFiles().size();
  REQUIRE(before >= 5);
  REQUIRE(w.node.Do([&](auto done) { w.log->SetLogStart(Offset(20), std::move(done)); }).ok());
  w.node.scheduler.RunFor(absl::Seconds(1));
  const size_t between = w.SegmentFiles().size();
  CHECK(between < before);
  REQUIRE(w.node.Do([&](auto done) { w.log->Truncate(Offset(25), std::move(done)); }).ok());
  w.node.scheduler.RunFor(absl::Seconds(1));
  CHECK(w.SegmentFiles().size() < between);
  CHECK(w.log->log_start() == Offset(20));
  CHECK(w.log->log_end() == Offset(25));
  CHECK(absl::IsOutOfRange(w.node.Do([&](auto done) { w.log->Truncate(Offset(19), std::move(done)); })));
  CHECK(absl::IsOutOfRange(w.node.Do([&](auto done) { w.log->SetLogStart(Offset(26), std::move(done)); })));
  REQUIRE(w.node.Do([&](auto done) { w.log->Reset(Offset(100), std::move(done)); }).ok());
  w.node.scheduler.RunFor(absl::Seconds(1));
  CHECK(w.SegmentFiles().empty());
  w.Restart();
  CHECK(w.log->log_start() == Offset(100));
  CHECK(w.log->log_end() == Offset(100));
}

TEST_CASE("power lost while segments are given up never takes one that the registry still lists") {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    for (uint64_t n = 1; n <= 6; ++n) {
      CAPTURE(seed, n);
      Writer w(seed);
      w.Start();
      w.Fill(20, 2000);
      REQUIRE(w.Checkpoint().ok());
      w.node.fs.CrashAt(w.node.fs.operations() + n);
      const bool truncates = seed % 2 == 0;
      (void)w.node.Do([&](auto done) {
        if (truncates) return w.log->Truncate(Offset(8), std::move(done));
        w.log->SetLogStart(Offset(15), std::move(done));
      });
      if (!w.node.fs.crashed()) w.node.scheduler.RunFor(absl::Milliseconds(50));
      w.Restart();
      const auto found = w.node.ReadAll(*w.log);
      INFO(found.status().ToString());
      REQUIRE(found.ok());
      const Offset first = found->front().base_offset();
      CHECK(first <= w.log->log_start());
      CHECK(w.log->log_end() == found->back().next_offset());
      for (size_t i = 0; i < found->size(); ++i) {
        REQUIRE((*found)[i].bytes() == w.written[static_cast<size_t>(first.value()) + i].bytes());
      }
    }
  }
}

TEST_CASE("while a truncation looks for its place the log takes no proposals, and what is appended waits for it") {
  Writer w;
  w.Start();
  w.Fill(20, 500);
  REQUIRE(w.Checkpoint().ok());
  w.Restart();
  REQUIRE(w.log->Admit(1).ok());
  absl::Status truncated = absl::UnknownError("");
  absl::Status appended = absl::UnknownError("");
  absl::Status misplaced;
  const Offset old_end = w.log->log_end();
  w.log->Truncate(Offset(5), [&](absl::Status status) { truncated = std::move(status); });
  CHECK(w.log->log_end() == old_end);
  CHECK(absl::IsUnavailable(w.log->Admit(1)));
  w.log->Append({MakeBatch("fits").Assign(Offset(5), w.epoch)}, [&](absl::Status s) { appended = std::move(s); });
  w.log->Append({MakeBatch("does not").Assign(old_end, w.epoch)}, [&](absl::Status s) { misplaced = std::move(s); });
  w.node.scheduler.RunFor(absl::Seconds(1));
  CHECK(truncated.ok());
  CHECK(appended.ok());
  CHECK(absl::IsFailedPrecondition(misplaced));
  CHECK(w.log->log_end() == Offset(6));
  CHECK(w.log->Admit(1).ok());
}

TEST_CASE("segments roll by size, by age and by epoch, and their ids are the epoch history") {
  Writer w;
  w.node.log_options.segment_age = absl::Minutes(1);
  w.Start();
  w.Fill(2, 100);
  CHECK(w.log->segments().size() == 1);
  w.node.scheduler.RunFor(absl::Minutes(2));
  w.Fill(1, 100);
  CHECK(w.log->segments().size() == 2);
  w.epoch = LeaderEpoch(5);
  w.Fill(1, 100);
  CHECK(w.log->segments().size() == 3);
  w.Fill(3, 7'000);
  CHECK(w.log->segments().size() == 5);  // the first still fits
  CHECK(w.log->epoch_history() == std::vector<EpochStart>{{LeaderEpoch(1), Offset(0)}, {LeaderEpoch(5), Offset(3)}});
  w.epoch = LeaderEpoch(4);
  CHECK(absl::IsFailedPrecondition(w.Append()));
}

TEST_CASE("stopping a store finishes what is under way, and it opens again") {
  Writer w;
  w.Start();
  w.Fill(10, 2000);
  bool answered = false;
  w.log->Append({MakeBatch("last").Assign(w.log->log_end(), w.epoch)},
                [&](const absl::Status& s) { answered = s.ok(); });
  REQUIRE(w.node.Do([&](auto done) { w.node.store->Stop(std::move(done)); }).ok());
  CHECK(answered);
  CHECK(w.log->log_end() == Offset(11));
  w.log.reset();
  w.node.Kill();
  w.Start();
  CHECK(w.log->log_end() == Offset(11));
}

}  // namespace
}  // namespace sluice::storage
