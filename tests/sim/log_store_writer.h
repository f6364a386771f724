// What tests of the log store speak in: a node with one replica whose log is written batch by batch.
#pragma once

#include <catch2/catch.hpp>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/sim/storage_node.h"

namespace sluice::storage {

inline const ReplicaId kReplica = simulation::StorageNode::Replica();

/// A node with one replica whose log is written batch by batch.
struct Writer {
  explicit Writer(uint64_t seed = 1) : node(seed) {}

  void Start() {
    const absl::Status opened = node.Open();
    INFO(opened.ToString());
    REQUIRE(opened.ok());
    REQUIRE(node.Create(kReplica).ok());
    log = node.Attach(kReplica);
    epoch = log->last_epoch() + 1;
  }
  void Restart() {
    log.reset();
    node.Crash();
    Start();
  }
  absl::Status Reopen() {
    log.reset();
    node.Crash();
    return node.Open();
  }
  absl::Status Append(size_t bytes = 100) {
    record::Batch batch = simulation::MakeBatch("v" + std::to_string(made++), 1, bytes).Assign(log->log_end(), epoch);
    const absl::Status status = node.Do([&](auto done) { log->Append({batch}, std::move(done)); });
    if (status.ok()) written.push_back(std::move(batch));
    return status;
  }
  void Fill(int batches, size_t bytes = 100) {
    for (int i = 0; i < batches; ++i) REQUIRE(Append(bytes).ok());
  }
  absl::Status Checkpoint() {
    return node.Do([&](auto done) { node.store->CheckpointAll(std::move(done)); });
  }
  void RequireAllThere() {
    auto found = node.ReadAll(*log);
    INFO(found.status().ToString());
    REQUIRE(found.ok());
    REQUIRE(found->size() == written.size());
    for (size_t i = 0; i < written.size(); ++i) REQUIRE((*found)[i].bytes() == written[i].bytes());
  }
  std::vector<std::string> SegmentFiles(const std::string& ending = ".log") {
    std::vector<std::string> files;
    auto names = node.fs.List(log_dir());
    REQUIRE(names.ok());
    for (const std::string& name : *names) {
      if (name.ends_with(ending)) files.push_back(log_dir() + "/" + name);
    }
    return files;
  }
  static std::string log_dir() { return "data/topics/" + kReplica.ToString(); }
  bool Holds(const absl::Status& status, const std::string& text) {
    return std::string(status.message()).find(text) != std::string::npos;
  }

  simulation::StorageNode node;
  std::shared_ptr<Log> log;
  LeaderEpoch epoch;
  int made = 0;
  std::vector<record::Batch> written;
};

}  // namespace sluice::storage
