// Waits on a thread for something that happens on an executor. Internal to the client.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "common/check.h"
#include "common/executor.h"

namespace sluice::client {

/// Runs `start` on the executor and waits until it, or something it began, calls what it was given. That must happen in
/// the end: each asynchronous call of the client has a time limit of its own.
template <class T, class Start>
T Await(Executor& executor, Start start) {
  SLUICE_CHECK(!executor.IsCurrent()) << "a blocking call of the client on the client's own executor";
  struct Shared {
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<T> value;
  };
  auto shared = std::make_shared<Shared>();
  executor.Post([shared, start = std::move(start)]() mutable {
    start(absl::AnyInvocable<void(T)>([shared](T value) {
      std::lock_guard lock(shared->mutex);
      shared->value.emplace(std::move(value));
      shared->changed.notify_all();
    }));
  });
  std::unique_lock lock(shared->mutex);
  shared->changed.wait(lock, [&] { return shared->value.has_value(); });
  return *std::move(shared->value);
}

/// Runs `task` on the executor: here, when this is it, otherwise there, and waits for its end.
template <class Run>
void RunOn(Executor& executor, Run task) {
  if (executor.IsCurrent()) return task();
  Await<bool>(executor, [&task](absl::AnyInvocable<void(bool)> done) {
    task();
    done(true);
  });
}

}  // namespace sluice::client
