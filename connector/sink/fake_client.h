// A cluster in memory behind the client's interfaces, for the tests of what stands on the client. Every partition is a
// vector of batches; crashes can be planned between any two writes.
//
// One thread at a time.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "client/client.h"
#include "connector/state_store.h"

namespace sluice::connector {

/// Counts writes to the outside; the `crash_at`-th fails, done or not, and so does every one after it until Restart.
struct CrashPoint {
  uint64_t writes = 0;
  uint64_t crash_at = 0;     // 0: never
  bool crash_after = false;  // the write that crashes takes effect
  bool crashed = false;

  /// Whether this write takes effect and whether its caller hears of it.
  struct Fate {
    bool happens;
    bool answered;
  };
  Fate Next();
  void Restart(uint64_t at, bool after) {
    *this = {.writes = 0, .crash_at = at, .crash_after = after, .crashed = false};
  }
};

class FakeClient : public client::Client {
 public:
  struct Topic {
    client::TopicInfo info;
    std::vector<std::vector<record::Batch>> partitions;
  };

  explicit FakeClient(CrashPoint* crash) : crash_(crash) {}

  std::unique_ptr<client::Admin> NewAdmin() override;
  std::unique_ptr<client::Producer> NewProducer(client::ProducerOptions options) override;
  std::unique_ptr<client::Appender> NewAppender() override;
  std::unique_ptr<client::Consumer> NewConsumer(client::ConsumerOptions options) override;
  void Cancel() override {}

  /// Appends one batch of values (keys "k<offset>", timestamps 1000 + offset), outside the count of writes.
  void Fill(const std::string& topic, int32_t partition, const std::vector<std::string>& values);
  /// Makes the topic, or makes it anew: empty, and with another id.
  void Make(const std::string& topic, int32_t partitions);
  Offset End(const std::string& topic, int32_t partition) const;
  std::map<std::string, Topic>& topics() { return topics_; }
  CrashPoint* crash() { return crash_; }

 private:
  std::map<std::string, Topic> topics_;
  uint64_t topics_made_ = 0;
  CrashPoint* const crash_;
};

class FakeStateStore : public StateStore {
 public:
  explicit FakeStateStore(CrashPoint* crash) : crash_(crash) {}
  absl::StatusOr<StateEntry> Get(std::string_view key) override;
  absl::StatusOr<int64_t> Put(std::string_view key, std::string_view value, int64_t version) override;

 private:
  std::map<std::string, StateEntry, std::less<>> entries_;
  int64_t next_version_ = 0;
  CrashPoint* const crash_;
};

}  // namespace sluice::connector
