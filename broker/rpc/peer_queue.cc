#include "broker/rpc/peer_queue.h"

#include <utility>

namespace sluice::broker::rpc {
namespace {

constexpr size_t kPartOverheadBytes = 200;
// By how much parts without batches may pass the bound.
constexpr size_t kLightReserveBytes = size_t{1} << 20;

size_t CostOf(const PeerPart& part) {
  return part.size_bytes() + kPartOverheadBytes;
}

}  // namespace

bool PeerQueue::Push(const ReplicaId& group, PeerPart part) {
  const bool light = part.batches.empty();
  const size_t cost = CostOf(part);
  if (bytes_ + cost > bytes_max_ + (light ? kLightReserveBytes : 0)) return false;
  bytes_ += cost;
  if (light && !in_heavy_.contains(group)) {
    light_.push_back({group, std::move(part)});
  } else {
    ++in_heavy_[group];
    heavy_.push_back({group, std::move(part)});
  }
  return true;
}

// False once the next part does not fit any more.
bool PeerQueue::TakeFrom(std::deque<Waiting>& lane, size_t bytes_max, size_t envelope_max, size_t* bytes,
                         size_t* envelope, std::vector<PeerPart>* parts) {
  while (!lane.empty()) {
    Waiting& next = lane.front();
    const bool fits =
        *bytes + next.part.size_bytes() <= bytes_max && *envelope + next.part.envelope.size() <= envelope_max;
    if (!fits && !parts->empty()) return false;
    *bytes += next.part.size_bytes();
    *envelope += next.part.envelope.size();
    bytes_ -= CostOf(next.part);
    if (&lane == &heavy_) {
      const auto count = in_heavy_.find(next.group);
      if (--count->second == 0) in_heavy_.erase(count);
    }
    parts->push_back(std::move(next.part));
    lane.pop_front();
  }
  return true;
}

std::vector<PeerPart> PeerQueue::Take() {
  std::vector<PeerPart> parts;
  size_t bytes = 0;
  size_t envelope = 0;
  const size_t share = heavy_.empty() ? 1 : 2;
  TakeFrom(light_, kPeerJoinBytes / share, kPeerEnvelopeBytesMax / share, &bytes, &envelope, &parts);
  // A first part with batches goes with whatever is light, also when it is large: the bound is only for joining.
  if (!heavy_.empty() && envelope + heavy_.front().part.envelope.size() <= kPeerEnvelopeBytesMax) {
    const size_t first = heavy_.front().part.size_bytes();
    TakeFrom(heavy_, std::max(kPeerJoinBytes, bytes + first), kPeerEnvelopeBytesMax, &bytes, &envelope, &parts);
  }
  return parts;
}

void PeerQueue::Clear() {
  light_.clear();
  heavy_.clear();
  in_heavy_.clear();
  bytes_ = 0;
}

}  // namespace sluice::broker::rpc
