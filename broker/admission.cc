#include "broker/admission.h"

#include <algorithm>

#include "common/text.h"

namespace sluice::broker {

void FullNodes::Set(std::vector<NodeId> nodes) {
  const std::lock_guard lock(mutex_);
  any_.store(!nodes.empty(), std::memory_order_relaxed);
  nodes_ = std::move(nodes);
}

std::vector<NodeId> FullNodes::Among(const std::vector<NodeId>& nodes) const {
  std::vector<NodeId> found;
  const std::lock_guard lock(mutex_);
  for (const NodeId node : nodes) {
    if (std::find(nodes_.begin(), nodes_.end(), node) != nodes_.end()) found.push_back(node);
  }
  return found;
}

std::string DescribeFull(const std::vector<NodeId>& nodes) {
  std::string names;
  for (const NodeId node : nodes) names += Cat(names.empty() ? "node " : ", node ", node);
  return Cat("no space is left on the disk of ", names,
             " (storage.disk_low_watermark): delete topics or records, or make room there");
}

CallGate::Pass CallGate::Enter() {
  if ((state_.fetch_add(1, std::memory_order_acq_rel) & kOpen) != 0) return Pass(shared_from_this());
  Leave();
  return {};
}

void CallGate::Close(absl::AnyInvocable<void()> drained) {
  {
    std::lock_guard lock(mutex_);
    drained_ = std::move(drained);
  }
  state_.fetch_add(1, std::memory_order_acq_rel);  // nobody is the last before this call is
  state_.fetch_and(~kOpen, std::memory_order_acq_rel);
  Leave();
}

void CallGate::Leave() {
  if (state_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  // Closed, and the last one. Those turned away later come by here as well, and find nothing left to run.
  absl::AnyInvocable<void()> drained;
  {
    std::lock_guard lock(mutex_);
    drained = std::move(drained_);
    drained_ = nullptr;
  }
  if (drained) drained();
}

}  // namespace sluice::broker
