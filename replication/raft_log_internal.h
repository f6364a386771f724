// How RaftLog answers; for its own files only.
#pragma once

#include <memory>
#include <utility>

#include "replication/raft_log.h"

namespace sluice::replication {

template <class T>
void RaftLog::AnswerLater(Callback<T> done, T result) {
  home_.Post([done = std::move(done), result = std::move(result)]() mutable { done(std::move(result)); });
}

// Keeps `done` so that the end of everything can answer it; returns what gives it the true answer.
template <class T>
Callback<absl::StatusOr<T>> RaftLog::Track(Callback<absl::StatusOr<T>> done) {
  const uint64_t id = next_pending_++;
  auto slot = std::make_shared<Callback<absl::StatusOr<T>>>(std::move(done));
  pending_.emplace(id, [slot](absl::Status end) { (*slot)(std::move(end)); });
  return [self = shared_from_this(), id, slot](absl::StatusOr<T> result) {
    if (self->pending_.erase(id) > 0) (*slot)(std::move(result));
  };
}

}  // namespace sluice::replication
