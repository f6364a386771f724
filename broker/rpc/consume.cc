// Log.Consume: committed batches of the assigned partitions, as fast as the client's credit goes.
//
// A fetch is under way while there is credit, something assigned and fewer than two answers that have not left, so that
// a slow consumer holds a bounded amount of memory and a fast one never waits for the disk.
#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "broker/rpc/handlers.h"
#include "common/text.h"

namespace sluice::broker::rpc {
namespace {

// A fetch that waits at the end of the log is renewed this often.
constexpr absl::Duration kWait = absl::Minutes(1);
constexpr int64_t kCreditMax = int64_t{1} << 60;

class ConsumeHandler final : public Handler, public std::enable_shared_from_this<ConsumeHandler> {
 public:
  ConsumeHandler(Services& services, std::shared_ptr<Call> call) : services_(services), call_(std::move(call)) {}

  void OnStart() override { call_->ReadNext(); }
  void OnMessage(grpc::ByteBuffer message) override;
  void OnReadsDone() override {  // the client wants no more
    End(std::nullopt);
  }
  void OnWritten() override {
    {
      std::lock_guard lock(mutex_);
      --queued_;
    }
    FetchMore();
  }
  void OnDrain() override { End(MakeError(Reason::kNotAvailable, "the node is shutting down", true)); }
  void OnGone() override { End(std::nullopt); }

 private:
  using Key = std::pair<std::string, int32_t>;
  struct Position {
    FetchItem item;
    uint64_t generation;  // tells an answer to an earlier assignment apart
    bool fresh = true;    // assigned, and not told yet where it stands
  };

  bool Apply(const v1::ConsumeRequest& request);
  void FetchMore();
  void OnFetched(const std::vector<uint64_t>& generations, std::vector<FetchOutcome> outcomes);
  void End(std::optional<Error> error);

  Services& services_;
  const std::shared_ptr<Call> call_;

  std::mutex mutex_;
  std::map<Key, Position> positions_;
  Key first_;  // where the next fetch begins, so that no partition starves the others
  uint64_t generation_ = 0;
  int64_t credit_bytes_ = 0;
  int64_t answer_bytes_max_ = kFetchBytesDefault;
  bool fetching_ = false;
  size_t queued_ = 0;  // answers that have not left
  bool ended_ = false;
  FetchHandle fetch_;     // of the fetch under way; null until the broker has handed it over
  uint64_t fetches_ = 0;  // asked for so far
};

void ConsumeHandler::OnMessage(grpc::ByteBuffer message) {
  v1::ConsumeRequest request;
  if (!ParseSmall(&message, &request)) {
    return End(MakeError(Reason::kInvalidArgument, "a message is not a ConsumeRequest of at most 1 MiB"));
  }
  FetchHandle stale;
  {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    if (Apply(request)) stale = fetch_;
  }
  if (stale != nullptr) stale->Cancel();  // what it brings for other partitions is still of use
  if (request.credit_bytes() < 0) return End(MakeError(Reason::kInvalidArgument, "credit_bytes: must not be negative"));
  FetchMore();
  {
    std::lock_guard lock(mutex_);
    if (positions_.size() <= kAssignedMax) return call_->ReadNext();
  }
  End(MakeError(Reason::kInvalidArgument, Cat("assign: more than ", kAssignedMax, " partitions")));
}

// Whether a fetch under way no longer asks for the right partitions.
bool ConsumeHandler::Apply(const v1::ConsumeRequest& request) {
  // Unassigning is a change too: a fetch that is just being asked for tells by the generation that it is out of date.
  if (request.unassign_size() > 0) ++generation_;
  for (const v1::TopicPartition& gone : request.unassign()) positions_.erase({gone.topic(), gone.partition()});
  for (const v1::FetchItem& item : request.assign()) {
    positions_[{item.topic(), item.partition()}] = Position{FromProto(item), ++generation_};
  }
  if (request.max_bytes() > 0) answer_bytes_max_ = std::min<int64_t>(request.max_bytes(), kFetchBytesMax);
  credit_bytes_ = std::min(credit_bytes_ + std::max<int64_t>(request.credit_bytes(), 0), kCreditMax);
  return request.assign_size() > 0 || request.unassign_size() > 0;
}

void ConsumeHandler::FetchMore() {
  FetchSpec spec;
  std::vector<uint64_t> generations;
  uint64_t newest = 0;
  uint64_t number = 0;
  {
    std::lock_guard lock(mutex_);
    if (ended_ || fetching_ || positions_.empty() || credit_bytes_ <= 0 || queued_ >= kAnswersQueuedMax) return;
    // In the order of the map, from where the last fetch left off, once around.
    spec.wait_max = kWait;
    auto at = positions_.lower_bound(first_);
    for (size_t i = 0; i < positions_.size(); ++i, ++at) {
      if (at == positions_.end()) at = positions_.begin();
      spec.items.push_back(at->second.item);
      generations.push_back(at->second.generation);
      if (at->second.fresh) spec.wait_max = absl::ZeroDuration();
    }
    spec.bytes_max = std::min(answer_bytes_max_, credit_bytes_);
    newest = generation_;
    number = ++fetches_;
    fetching_ = true;
  }
  FetchHandle fetch = services_.broker.Fetch(
      std::move(spec), [self = shared_from_this(), generations = std::move(generations)](
                           std::vector<FetchOutcome> outcomes) { self->OnFetched(generations, std::move(outcomes)); });
  bool cancel = false;
  {
    std::lock_guard lock(mutex_);
    // It may have been answered by now, on another thread, which may have asked for the next already: that one's handle
    // must stay, or nothing could end its wait.
    if (fetching_ && fetches_ == number) fetch_ = fetch;
    // What came in between did not find the handle; a handle whose fetch is over takes a Cancel well.
    cancel = ended_ || generation_ != newest;
  }
  if (cancel) fetch->Cancel();
}

void ConsumeHandler::OnFetched(const std::vector<uint64_t>& generations, std::vector<FetchOutcome> outcomes) {
  {
    std::lock_guard lock(mutex_);
    fetching_ = false;
    fetch_ = nullptr;
    if (ended_) return;
    std::vector<FetchOutcome> send;
    for (size_t i = 0; i < outcomes.size(); ++i) {
      FetchOutcome& outcome = outcomes[i];
      const auto found = positions_.find({outcome.topic, outcome.partition.value()});
      if (found == positions_.end() || found->second.generation != generations[i]) continue;  // moved on meanwhile
      Position& position = found->second;
      const bool moved = outcome.next_offset != position.item.offset || !outcome.batches.empty();
      for (const record::Batch& batch : outcome.batches) credit_bytes_ -= static_cast<int64_t>(batch.size_bytes());
      if (!outcome.batches.empty()) {
        const auto next = std::next(found);
        first_ = next == positions_.end() ? Key() : next->first;
      }
      const bool tell = moved || position.fresh || outcome.error;
      if (outcome.error) {
        positions_.erase(found);  // until the client assigns it again
      } else {
        position.item.offset = outcome.next_offset;
        position.fresh = false;
      }
      if (tell) send.push_back(std::move(outcome));
    }
    if (!send.empty()) {
      ++queued_;
      call_->Write(FetchAnswer(services_, call_, 0, std::move(send)));
    }
  }
  FetchMore();
}

void ConsumeHandler::End(std::optional<Error> error) {
  FetchHandle fetch;
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(ended_, true)) return;
    fetch = fetch_;
    positions_.clear();
  }
  if (fetch != nullptr) fetch->Cancel();
  if (error) return call_->Fail(*error);
  call_->Finish(grpc::Status::OK);
}

}  // namespace

std::shared_ptr<Handler> MakeConsumeHandler(Services& services, std::shared_ptr<Call> call) {
  return std::make_shared<ConsumeHandler>(services, std::move(call));
}

}  // namespace sluice::broker::rpc
