// What a replicated group is asked for while its nodes fail: writes, log starts, retention, checkpoints, changes of
// leader, followers that fall behind for long; and what must hold of the answers whatever happened.
#pragma once

#include <catch2/catch.hpp>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/simulation/raft_cluster.h"

namespace sluice::simulation {

class RaftWorkload {
 public:
  RaftWorkload(RaftCluster& cluster, uint64_t seed) : cluster_(cluster), random_(seed) {}

  /// Makes calls, a few at a time, until `calls` were made or `stop` says so.
  template <class Condition>
  void Run(int calls, Condition stop) {
    for (int i = 0; i < calls && !stop(); ++i) {
      MakeCall();
      const size_t open_max = random_.Below(4);
      cluster_.RunUntil([&] { return stop() || pending() <= open_max; }, absl::Milliseconds(100));
    }
  }

  /// What was asked of a node that died has no answer.
  void Forget(NodeId dead) {
    for (Write& write : writes_) {
      if (write.at == dead && write.state == State::kPending) write.state = State::kUnknown;
    }
  }
  size_t pending() const {
    return static_cast<size_t>(
        std::count_if(writes_.begin(), writes_.end(), [](const Write& w) { return w.state == State::kPending; }));
  }
  size_t acknowledged() const {
    return static_cast<size_t>(
        std::count_if(writes_.begin(), writes_.end(), [](const Write& w) { return w.state == State::kCommitted; }));
  }
  /// A write is acknowledged within a minute.
  void RequireProgress() {
    const size_t before = acknowledged();
    const bool goes_on = cluster_.RunUntil([&] {
      if (pending() == 0) Propose();
      return acknowledged() > before;
    });
    INFO(cluster_.Describe());
    REQUIRE(goes_on);
  }
  /// The group is whole and quiet; then every promise is looked at on every node that is up.
  void RequirePromises() {
    INFO(cluster_.Describe());
    REQUIRE(cluster_.RunUntil([&] { return pending() == 0; }));
    cluster_.Converge();
    cluster_.RequireSame();
    for (const auto& node : cluster_.nodes) {
      if (node->up()) RequirePromises(node->id());
    }
  }

 private:
  enum class State { kPending, kCommitted, kFailed, kUnknown };
  struct Write {
    std::string text;
    NodeId at;
    State state = State::kPending;
    Offset offset;
  };

  NodeId Anyone() { return NodeId(static_cast<int32_t>(1 + random_.Below(cluster_.nodes.size()))); }

  void MakeCall() {
    const uint64_t kind = random_.Below(40);
    if (kind < 22) return Propose();
    const std::optional<NodeId> leader = cluster_.LeaderNow();
    if (kind < 28 && leader) {
      return kind < 26 ? Advance(*leader) : Retain(*leader);
    } else if (kind < 30 && leader) {
      (void)cluster_.log(*leader).TransferLeadership(cluster_.node(Anyone()).voter());
    } else if (kind < 32 && leader) {
      cluster_.network.Isolate(*leader);
      cluster_.RunFor(absl::Milliseconds(static_cast<int64_t>(random_.Below(2500))));
      cluster_.network.HealAll();
    } else if (kind < 34 && leader) {
      const NodeId away = Anyone();
      if (away != *leader) cluster_.network.Isolate(away);
    } else if (kind < 36) {
      cluster_.network.HealAll();
    } else if (kind < 39) {
      RaftClusterNode& node = cluster_.node(Anyone());
      if (node.up()) node.store->CheckpointAll([](const absl::Status&) {});
    } else {
      cluster_.RunFor(absl::Milliseconds(500));
    }
  }

  void Propose() {
    const std::optional<NodeId> leader = cluster_.LeaderNow();
    if (!leader) return cluster_.RunFor(absl::Milliseconds(50));
    const size_t bytes = random_.OneIn(8) ? 3000 + random_.Below(4000) : 20 + random_.Below(600);
    const size_t number = writes_.size();
    writes_.push_back({.text = "w" + std::to_string(number), .at = *leader, .state = State::kPending, .offset = {}});
    cluster_.log(*leader).Propose(MakeBatch(writes_.back().text, 1 + static_cast<int>(random_.Below(2)), bytes),
                                  std::nullopt, [this, number](auto result) {
                                    Write& write = writes_[number];
                                    if (write.state != State::kPending) return;
                                    if (result.ok()) write.offset = result->base_offset;
                                    write.state = result.ok()                        ? State::kCommitted
                                                  : absl::IsUnknown(result.status()) ? State::kUnknown
                                                                                     : State::kFailed;
                                  });
  }

  void Advance(NodeId leader) {
    const auto bounds = cluster_.log(leader).bounds();
    const int64_t room = bounds.high_watermark - bounds.log_start;
    const Offset to = bounds.log_start + static_cast<int64_t>(random_.Below(static_cast<uint64_t>(room) + 1));
    cluster_.log(leader).AdvanceLogStart(to, [this](auto result) {
      if (result.ok()) log_start_ = std::max(log_start_, *result);
    });
  }

  void Retain(NodeId leader) {
    cluster_.log(leader).ApplyRetention({.retention_bytes = static_cast<int64_t>(random_.Below(20'000))},
                                        [this](auto result) {
                                          if (result.ok()) log_start_ = std::max(log_start_, *result);
                                        });
  }

  void RequirePromises(NodeId id) {
    INFO("node " << id);
    const Offset log_start = cluster_.log(id).bounds().log_start;
    REQUIRE(log_start >= log_start_);
    std::map<Offset, std::string> at;
    std::map<std::string, int> times;
    for (const record::Batch& batch : cluster_.Batches(id)) {
      if (batch.is_control()) continue;
      auto reader = record::RecordReader::Open(batch.view());
      REQUIRE(reader.ok());
      record::Record first;
      REQUIRE(*reader->Next(&first));
      const std::string_view value = first.value.value_or("");
      const std::string text(value.substr(0, value.find(':')));
      at[batch.base_offset()] = text;
      ++times[text];
    }
    for (const Write& write : writes_) {
      INFO(write.text << ", proposed at node " << write.at << ", answered with offset " << write.offset);
      const int found = times[write.text];
      REQUIRE(found <= 1);
      if (write.state == State::kFailed) REQUIRE(found == 0);
      if (write.state == State::kCommitted && write.offset >= log_start) REQUIRE(at[write.offset] == write.text);
    }
  }

  RaftCluster& cluster_;
  SimRandom random_;
  std::vector<Write> writes_;
  Offset log_start_;  ///< The highest that was answered.
};

}  // namespace sluice::simulation
