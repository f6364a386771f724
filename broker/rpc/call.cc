#include "broker/rpc/call.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "broker/read_quota.h"
#include "common/check.h"

namespace sluice::broker::rpc {
namespace {

// Text below this is copied into a slice of its own; larger pieces are shared.
constexpr size_t kShareFrom = 256;

struct Held {
  Bytes bytes;
  std::shared_ptr<ReadHold> memory;
};

grpc::Slice ToSlice(const Bytes& piece, const std::shared_ptr<ReadHold>& memory) {
  if (piece.size() < kShareFrom) return grpc::Slice(piece.data(), piece.size());
  auto* held = new Held{piece, memory};
  return grpc::Slice(
      const_cast<char*>(piece.data()), piece.size(), [](void* user) { delete static_cast<Held*>(user); }, held);
}

}  // namespace

grpc::ByteBuffer ToByteBuffer(const std::vector<Piece>& pieces, const std::shared_ptr<ReadHold>& memory) {
  std::vector<grpc::Slice> slices;
  slices.reserve(pieces.size());
  for (const Piece& piece : pieces) slices.push_back(ToSlice(piece, memory));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

grpc::ByteBuffer ToByteBuffer(std::string text) {
  const grpc::Slice slice = ToSlice(Bytes::Adopt(std::move(text)), nullptr);
  return grpc::ByteBuffer(&slice, 1);
}

void CallQueue::Run() {
  void* tag = nullptr;
  bool ok = false;
  while (queue->Next(&tag, &ok)) Completion::Of(tag).Complete(ok);
}

void CallQueue::Drain() {
  std::vector<std::weak_ptr<Call>> calls;
  {
    std::lock_guard lock(mutex_);
    calls = calls_;
  }
  for (const auto& weak : calls) {
    if (const auto call = weak.lock()) call->Drain();
  }
}

void CallQueue::AwaitEnd() const {
  while (open_.load() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

class Call::Starting {
 public:
  explicit Starting(CallQueue& queue) : queue_(queue) { ++queue_.open_; }
  ~Starting() { --queue_.open_; }
  Starting(const Starting&) = delete;
  Starting& operator=(const Starting&) = delete;

 private:
  CallQueue& queue_;
};

void Call::Accept() {
  ++queue_.open_;
  accept_step_.Start();
  done_step_.Start();
  context_.AsyncNotifyWhenDone(done_step_.tag());
  queue_.service.RequestCall(&context_, &stream_, queue_.queue.get(), queue_.queue.get(), accept_step_.tag());
}

void Call::OnAccepted(bool ok) {
  if (!ok) {
    done_step_.Forget();  // a call that never began has no end either
    --queue_.open_;
    return;
  }
  std::make_shared<Call>(queue_)->Accept();
  {
    std::lock_guard lock(queue_.mutex_);
    if (queue_.calls_.size() >= queue_.sweep_at_) {
      std::erase_if(queue_.calls_, [](const auto& weak) { return weak.expired(); });
      queue_.sweep_at_ = std::max<size_t>(64, 2 * queue_.calls_.size());
    }
    queue_.calls_.push_back(weak_from_this());
  }
  if (const auto refused = queue_.host.Admit()) return Fail(*refused);
  admitted_ = true;
  handler_ = queue_.host.MakeHandler(context_.method(), shared_from_this());
  if (handler_ == nullptr) {
    return Finish(grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "no such method: " + context_.method()));
  }
  handler_->OnStart();
}

void Call::ReadNext() {
  std::optional<Starting> starting;
  {
    std::lock_guard lock(mutex_);
    if (gone_ || std::exchange(reading_, true)) return;
    read_step_.Start();
    starting.emplace(queue_);
  }
  stream_.Read(&incoming_, read_step_.tag());
}

void Call::OnRead(bool ok) {
  {
    std::lock_guard lock(mutex_);
    reading_ = false;
  }
  if (handler_ == nullptr) return;
  if (!ok) return handler_->OnReadsDone();
  grpc::ByteBuffer message;
  message.Swap(&incoming_);
  handler_->OnMessage(message);
}

void Call::Write(grpc::ByteBuffer message) {
  std::unique_lock lock(mutex_);
  if (gone_ || status_) return;
  queued_.push_back(std::move(message));
  Advance(std::move(lock));
}

void Call::Finish(grpc::Status status) {
  std::unique_lock lock(mutex_);
  if (gone_ || status_) return;
  status_ = std::move(status);
  Advance(std::move(lock));
}

void Call::Reply(grpc::ByteBuffer message) {
  std::unique_lock lock(mutex_);
  if (gone_ || status_) return;
  queued_.push_back(std::move(message));
  status_ = grpc::Status::OK;
  Advance(std::move(lock));
}

void Call::Fail(const Error& error) {
  v1::ErrorDetail detail;
  ToProto(error, &detail);
  std::unique_lock lock(mutex_);
  if (gone_ || status_) return;
  status_ = grpc::Status(ToCode(error.reason), detail.message());
  error_detail_ = detail.SerializeAsString();
  Advance(std::move(lock));
}

void Call::Advance(std::unique_lock<std::mutex> lock) {
  if (sending_ || gone_ || (queued_.empty() && !status_)) return;
  sending_ = true;
  const Starting starting(queue_);
  const bool last = status_ && queued_.size() <= 1;
  if (!queued_.empty()) {
    outgoing_.Swap(&queued_.front());
    queued_.pop_front();
    grpc::WriteOptions options;
    if (!queued_.empty()) options.set_buffer_hint();
    if (!last) {
      write_step_.Start();
      lock.unlock();
      return stream_.Write(outgoing_, options, write_step_.tag());
    }
    if (!error_detail_.empty()) context_.AddTrailingMetadata(kErrorMetadata, error_detail_);
    finish_step_.Start();
    const grpc::Status status = *status_;
    lock.unlock();
    return stream_.WriteAndFinish(outgoing_, options, status, finish_step_.tag());
  }
  if (!error_detail_.empty()) context_.AddTrailingMetadata(kErrorMetadata, error_detail_);
  finish_step_.Start();
  const grpc::Status status = *status_;
  lock.unlock();
  stream_.Finish(status, finish_step_.tag());
}

void Call::OnWrite(bool ok) {
  {
    std::unique_lock lock(mutex_);
    sending_ = false;
    outgoing_.Clear();
    if (!ok) {  // the connection is gone; OnDone follows
      queued_.clear();
      return;
    }
    Advance(std::move(lock));
  }
  if (handler_ != nullptr) handler_->OnWritten();
}

void Call::OnFinished(bool) {
  outgoing_.Clear();
  End();
}

void Call::OnDone(bool) {
  End();
}

void Call::Drain() {
  std::lock_guard lock(mutex_);
  if (gone_ || drain_ != nullptr) return;
  drain_step_.Start();
  drain_ = std::make_unique<grpc::Alarm>();
  drain_->Set(queue_.queue.get(), gpr_now(GPR_CLOCK_MONOTONIC), drain_step_.tag());
}

void Call::OnDrain(bool) {
  if (handler_ != nullptr) handler_->OnDrain();
}

void Call::End() {
  bool first = false;
  {
    std::lock_guard lock(mutex_);
    first = !std::exchange(gone_, true);
    queued_.clear();
  }
  if (const auto handler = std::exchange(handler_, nullptr)) handler->OnGone();
  if (std::exchange(admitted_, false)) queue_.host.OnCallEnded();
  if (first) --queue_.open_;
}

}  // namespace sluice::broker::rpc
