// Batches and messages for the tests of the peers' wire. Included by tests only.
#pragma once

#include <random>
#include <string>
#include <utility>

#include "common/check.h"
#include "common/record/record.h"
#include "replication/core/message.h"

namespace sluice::broker::rpc {

inline record::Batch PeerBatch(Offset base, LeaderEpoch epoch, size_t value_bytes, uint32_t seed = 1) {
  std::minstd_rand random(seed);
  std::string value(value_bytes, ' ');
  for (char& byte : value) byte = static_cast<char>(random());
  record::BatchBuilder builder;
  SLUICE_CHECK(builder.Append(1'700'000'000'000, std::nullopt, value).ok());
  return std::move(*builder.Build()).Assign(base, epoch);
}

inline ReplicaId PeerGroup(int32_t partition) {
  return {Uuid::FromRandom(7, 7), PartitionId(partition)};
}

/// From node 1 to node 2, unless told.
inline raft::Message PeerMessageOf(raft::MessageBody body, int32_t from = 1, int32_t to = 2) {
  return {.from = {NodeId(from), Uuid::FromRandom(1, static_cast<uint64_t>(from))},
          .to = {NodeId(to), Uuid::FromRandom(1, static_cast<uint64_t>(to))},
          .term = LeaderEpoch(5),
          .body = std::move(body)};
}

/// An append of one batch at `base`.
inline raft::Message PeerAppendOf(Offset base, size_t value_bytes, int32_t from = 1, int32_t to = 2) {
  raft::AppendRequest append;
  append.previous = {LeaderEpoch(4), base};
  append.committed = base;
  append.batches.push_back(PeerBatch(base, LeaderEpoch(5), value_bytes, static_cast<uint32_t>(base.value()) + 1));
  return PeerMessageOf(std::move(append), from, to);
}

}  // namespace sluice::broker::rpc
