#include "tests/simulation/sim_executor.h"

#include <algorithm>

namespace sluice::simulation {

namespace {

Task TakeFront(std::deque<Task>& tasks) {
  Task task = std::move(tasks.front());
  tasks.pop_front();
  return task;
}

void Later(SimScheduler& scheduler, SimProcess* process, absl::Duration delay, Task task) {
  if (process != nullptr) return process->At(delay, std::move(task));
  scheduler.At(delay, std::move(task));
}

}  // namespace

uint64_t SimRandom::Next() {
  state_ += 0x9e3779b97f4a7c15;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

SimScheduler::EventKey SimScheduler::At(absl::Duration delay, Task task) {
  const EventKey key{now_ + std::max(delay, absl::ZeroDuration()), random_.Next(), ++made_};
  events_.emplace(key, std::move(task));
  return key;
}

bool SimScheduler::Step() {
  if (events_.empty()) return false;
  auto node = events_.extract(events_.begin());
  now_ = std::get<0>(node.key());
  ++events_run_;
  for (const uint64_t part : {static_cast<uint64_t>(absl::ToInt64Nanoseconds(now_)), std::get<2>(node.key())}) {
    trace_hash_ = (trace_hash_ ^ part) * 0x100000001b3;
  }
  node.mapped()();
  return true;
}

bool SimScheduler::RunUntilIdle(uint64_t events_max) {
  for (uint64_t i = 0; i < events_max; ++i) {
    if (!Step()) return true;
  }
  return events_.empty();
}

void SimScheduler::RunFor(absl::Duration span) {
  const absl::Duration end = now_ + span;
  while (!events_.empty() && std::get<0>(events_.begin()->first) <= end) Step();
  now_ = end;
}

void SimScheduler::Clear() {
  // A task may hold what posts when it dies; those events go as well.
  while (!events_.empty()) std::exchange(events_, {}).clear();
}

void SimProcess::At(absl::Duration delay, Task task) {
  scheduler_.At(delay, [weak = std::weak_ptr<State>(state_), task = std::move(task)]() mutable {
    const std::shared_ptr<State> state = weak.lock();
    if (state == nullptr) return;
    if (state->paused) return state->held.push_back(std::move(task));
    task();
  });
}

void SimProcess::Resume() {
  state_->paused = false;
  absl::Duration delay;
  for (Task& task : std::exchange(state_->held, {})) {
    At(delay, std::move(task));
    delay += absl::Nanoseconds(1);
  }
}

void SimExecutor::RunNext(const std::weak_ptr<Queue>& weak) {
  const std::shared_ptr<Queue> queue = weak.lock();
  if (queue == nullptr || queue->tasks.empty()) return;
  Task task = TakeFront(queue->tasks);
  queue->running = true;
  task();
  queue->running = false;
}

void SimExecutor::Post(Task task) {
  queue_->tasks.push_back(std::move(task));
  const auto delay = absl::Nanoseconds(static_cast<int64_t>(scheduler_.random().Below(5000)));
  Later(scheduler_, process_, delay, [weak = std::weak_ptr<Queue>(queue_)] { RunNext(weak); });
}

Executor::TimerId SimExecutor::PostAfter(absl::Duration delay, Task task) {
  const TimerId id = ++timers_made_;
  queue_->timers.emplace(id, std::move(task));
  Later(scheduler_, process_, delay, [weak = std::weak_ptr<Queue>(queue_), id] {
    const std::shared_ptr<Queue> queue = weak.lock();
    if (queue == nullptr) return;
    auto node = queue->timers.extract(id);
    if (node.empty()) return;  // cancelled
    queue->running = true;
    node.mapped()();
    queue->running = false;
  });
  return id;
}

void SimExecutor::Cancel(TimerId timer) {
  queue_->timers.erase(timer);
}

void SimBlockingExecutor::Post(Task task) {
  const auto spread = static_cast<uint64_t>(std::max<int64_t>(1, absl::ToInt64Nanoseconds(most_ - least_)));
  const absl::Duration takes = least_ + absl::Nanoseconds(static_cast<int64_t>(scheduler_.random().Below(spread)));
  queue_->tasks.push_back(std::move(task));
  absl::Duration delay = takes;
  if (order_ == Order::kSequenced) {
    queue_->busy_until = std::max(queue_->busy_until, scheduler_.now()) + takes;
    delay = queue_->busy_until - scheduler_.now();
  }
  Later(scheduler_, process_, delay,
        [weak = std::weak_ptr<Queue>(queue_), order = order_, &random = scheduler_.random()] {
          const std::shared_ptr<Queue> queue = weak.lock();
          if (queue == nullptr || queue->tasks.empty()) return;
          if (order == Order::kAny) std::swap(queue->tasks.front(), queue->tasks[random.Below(queue->tasks.size())]);
          Task running = TakeFront(queue->tasks);
          running();
        });
}

}  // namespace sluice::simulation
