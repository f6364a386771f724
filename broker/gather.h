// Gather: one answer made of several that come from different shards, in any order.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "broker/api.h"

namespace sluice::broker {

/// Runs `done` once, where the last answer was set; there is at least one. Each place is set once, from any thread.
template <class T>
class Gather {
 public:
  Gather(size_t count, Callback<std::vector<T>> done) : answers_(count), missing_(count), done_(std::move(done)) {}

  void Set(size_t index, T answer) {
    answers_[index] = std::move(answer);
    if (missing_.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
    std::vector<T> all;
    all.reserve(answers_.size());
    for (auto& one : answers_) all.push_back(*std::move(one));
    done_(std::move(all));
  }

 private:
  std::vector<std::optional<T>> answers_;
  std::atomic<size_t> missing_;
  Callback<std::vector<T>> done_;
};

}  // namespace sluice::broker
