// How a replica's events run: never while it is paused or down, and never once its disk has lost what they wait for.
// For replica.cc and replica_orders.cc only.
#pragma once

#include <algorithm>
#include <utility>

#include "tests/simulation/raft/replica.h"

namespace sluice::raft_simulation {

template <class F>
void Replica::Event(F event) {
  if (!up()) return;
  if (paused_) {
    while_paused_.push_back([this, event = std::move(event)]() mutable { Event(std::move(event)); });
    return;
  }
  event();
  AfterEvent();
}

template <class F>
void Replica::After(absl::Duration delay, F event) {
  context_.scheduler.At(delay, [this, life = life_, event = std::move(event)]() mutable {
    if (life == life_) Event(std::move(event));
  });
}

template <class F>
void Replica::WhenDurable(F done) {
  Context& c = context_;
  SimRandom& random = c.random();
  absl::Duration most = c.healed ? std::min(c.plan.sync_max, 0.2 * kTick) : c.plan.sync_max;
  if (c.Chance(c.plan.slow_sync_percent)) {
    c.faults.Hit(Fault::kSyncSlow);
    most = 25 * kTick;
  }
  const absl::Duration now = c.scheduler.now();
  disk_free_at_ = std::max(disk_free_at_, now + Between(random, absl::ZeroDuration(), most));
  if (c.healed) disk_free_at_ = std::min(disk_free_at_, now + most);
  const bool fails = !c.healed && random.Below(10000) < static_cast<uint64_t>(c.plan.sync_failure_per_10000);
  const absl::Duration told = Between(random, absl::ZeroDuration(), 0.05 * kTick);
  c.scheduler.At(disk_free_at_ - now,
                 [this, life = life_, write = disk_.last_write(), fails, told, done = std::move(done)]() mutable {
                   if (life != life_) return;
                   if (fails && !context_.healed) {
                     context_.trace.Say([&] { return Cat(ShortName(id_), ": a sync fails, the process stops"); });
                     context_.faults.Hit(Fault::kSyncFailed);
                     return Crash();
                   }
                   disk_.MakeDurable(write);  // also while the process is paused
                   After(told, std::move(done));
                 });
}

}  // namespace sluice::raft_simulation
