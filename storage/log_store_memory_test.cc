// What many logs hold in memory together.
#include <catch2/catch.hpp>

#include <functional>
#include <memory>
#include <vector>

#include "storage/log_store.h"
#include "tests/sim/log_store_writer.h"

namespace sluice::storage {
namespace {

TEST_CASE("the ends of many logs do not fill the memory: appends to each in turn are taken") {
  Writer w;
  w.node.options.journal.file_bytes = 4 << 20;
  w.node.options.journal.total_bytes_max = 256 << 20;
  w.node.log_options.segment_bytes = 64 << 20;
  w.node.log_options.write_bytes = 256 << 10;
  w.node.options.tick = absl::Hours(1);
  w.Start();
  // One batch of each log is together more than the memory that there is, and none ends where a block does. No tick
  // comes to help: it is a second away, and what it could do is to sync all logs, one after the other.
  constexpr int kLogs = 100;
  constexpr size_t kBatchBytes = 100'000;
  REQUIRE(static_cast<int64_t>(kLogs * kBatchBytes) > 2 * w.node.options.cache_bytes);
  std::vector<std::shared_ptr<Log>> logs;
  for (int i = 1; i <= kLogs; ++i) {
    REQUIRE(w.node.Create(simulation::StorageNode::Replica(i)).ok());
    logs.push_back(w.node.Attach(simulation::StorageNode::Replica(i)));
  }
  int refused = 0;
  for (int round = 0; round < 4; ++round) {
    for (const std::shared_ptr<Log>& log : logs) {
      record::Batch batch =
          simulation::MakeBatch("r" + std::to_string(round), 1, kBatchBytes).Assign(log->log_end(), LeaderEpoch(1));
      const auto append = [&] { return w.node.Do([&](auto done) { log->Append({batch}, std::move(done)); }); };
      absl::Status appended = append();
      // A writer that is refused tries again, as a client does.
      for (int tries = 0; absl::IsResourceExhausted(appended) && tries < 5; ++tries) {
        ++refused;
        w.node.scheduler.RunFor(absl::Milliseconds(50));
        appended = append();
      }
      CAPTURE(round, log->replica().ToString());
      REQUIRE(appended.ok());
    }
  }
  CHECK(refused < kLogs / 10);
  for (const std::shared_ptr<Log>& log : logs) {
    auto found = w.node.ReadAll(*log);
    REQUIRE(found.ok());
    CHECK(found->size() == 4);
  }
}

}  // namespace
}  // namespace sluice::storage
