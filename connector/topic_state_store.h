// The state store as records of the internal topic `__connect_state`, partition 0: the newest record of a key counts.
// Each append expects the end that it has read up to, so that no change happens unseen; each carries a name of its own,
// so that an append whose answer was lost is recognised when it is read back.
//
// The log is kept short: when it holds much more than the live keys, one batch repeats these (with their versions), and
// what came before is deleted.
// Threads: any; calls block.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/executor.h"
#include "connector/partition_log.h"
#include "connector/state_store.h"
#include "connector/stop_signal.h"

namespace sluice::connector {

inline constexpr std::string_view kStateTopic = "__connect_state";

class TopicStateStore final : public StateStore {
 public:
  /// `random` names this store's writes and is used by it alone; `stop` ends its waits.
  TopicStateStore(std::unique_ptr<PartitionLog> log, Clock& clock, Random& random, StopSignal& stop);

  absl::StatusOr<StateEntry> Get(std::string_view key) override;
  absl::StatusOr<int64_t> Put(std::string_view key, std::string_view value, int64_t version) override;

 private:
  struct Entry {
    std::string value;
    int64_t version = -1;
    std::string write;  // the name of the append that made it
  };
  absl::Status CatchUp();
  void Apply(const record::Record& record);
  /// OK, or an error that left the store and the log as they were, or in doubt until the next CatchUp.
  absl::Status AppendOne(std::string_view key, std::string_view value, std::string_view write);
  void CompactIfLong();

  std::mutex mutex_;
  const std::unique_ptr<PartitionLog> log_;
  Clock& clock_;
  Random& random_;
  StopSignal& stop_;
  // Guarded by mutex_.
  std::map<std::string, Entry, std::less<>> entries_;
  Offset read_;     // what lies below is in entries_
  Offset log_end_;  // what the next append expects
  int64_t records_in_log_ = 0;
};

}  // namespace sluice::connector
