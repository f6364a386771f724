// Call: one rpc on a completion queue, from its arrival to its end, as raw messages in both directions. What the rpc
// means is its Handler's business.
//
// Always holds: at most one read, one write and one finish are under way at gRPC; writes leave in the order queued and
// the status behind the last of them; a message is read only when the handler asked for one. Once the client is gone,
// writes and the status are dropped silently.
// Threads: a call belongs to one completion queue, whose only thread runs its handler; Write, Finish and ReadNext may
// come from any thread.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "broker/rpc/completion.h"
#include "broker/rpc/envelope.h"
#include "broker/rpc/errors.h"

namespace sluice::broker::rpc {

class Call;
class CallQueue;

/// The meaning of one rpc. Its methods run on the call's thread, one at a time; after OnGone none runs.
class Handler {
 public:
  virtual ~Handler() = default;
  /// The call has begun.
  virtual void OnStart() = 0;
  /// A message that ReadNext asked for.
  virtual void OnMessage(grpc::ByteBuffer message) = 0;
  /// The client sends nothing more (or is gone).
  virtual void OnReadsDone() = 0;
  /// Another of the messages given to Write has left.
  virtual void OnWritten() {}
  /// The server shuts down: answer what is in flight, wait for nothing, and finish.
  virtual void OnDrain() = 0;
  /// The call is over: finished, cancelled, or past its deadline.
  virtual void OnGone() = 0;
};

/// What a call needs of its server; outlives every call.
class CallHost {
 public:
  virtual ~CallHost() = default;
  /// The handler of a method ("/sluice.v1.Log/Produce"); null when there is none.
  virtual std::shared_ptr<Handler> MakeHandler(const std::string& method, std::shared_ptr<Call> call) = 0;
  /// Why the call is refused, if it is. One that is not refused is followed by OnCallEnded.
  virtual std::optional<Error> Admit() = 0;
  virtual void OnCallEnded() = 0;
};

class Call : public std::enable_shared_from_this<Call> {
 public:
  explicit Call(CallQueue& queue) : queue_(queue), stream_(&context_) {}

  /// Asks gRPC for the next rpc of the queue.
  void Accept();

  /// Asks for one more message; its answer is OnMessage or OnReadsDone.
  void ReadNext();
  void Write(grpc::ByteBuffer message);
  /// Ends the call behind what was queued before; later writes are dropped. A second call has no effect.
  void Finish(grpc::Status status);
  /// Write and Finish with OK, in one step at gRPC.
  void Reply(grpc::ByteBuffer message);
  /// Finish with the error's code and message, and its detail in the trailing metadata.
  void Fail(const Error& error);
  /// Ends the call at once, as if the client had: what is queued is dropped.
  void Cancel() { context_.TryCancel(); }
  /// Runs the handler's OnDrain on the call's thread, unless the call is over by then.
  void Drain();

  std::string peer() const { return context_.peer(); }
  /// What its certificate says, if it has one.
  std::shared_ptr<const grpc::AuthContext> auth() const { return context_.auth_context(); }
  /// When the client stops waiting; infinite future when it set none.
  absl::Time deadline() const { return absl::FromChrono(context_.deadline()); }

 private:
  void OnAccepted(bool ok);
  void OnRead(bool ok);
  void OnWrite(bool ok);
  void OnFinished(bool ok);
  void OnDone(bool ok);
  void OnDrain(bool ok);

  /// Starts the next write or the finish, when none is under way. Leaves the lock before it calls gRPC.
  void Advance(std::unique_lock<std::mutex> lock);
  /// Keeps the queue open for a step that is started without the lock. Made under the lock, while the call is not gone.
  class Starting;
  void End();

  CallQueue& queue_;
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter stream_;
  std::shared_ptr<Handler> handler_;  // on the call's thread
  bool admitted_ = false;
  grpc::ByteBuffer incoming_;
  grpc::ByteBuffer outgoing_;

  using Step = StepOf<Call>;
  Step accept_step_{this, &Call::OnAccepted};
  Step read_step_{this, &Call::OnRead};
  Step write_step_{this, &Call::OnWrite};
  Step finish_step_{this, &Call::OnFinished};
  Step done_step_{this, &Call::OnDone};
  Step drain_step_{this, &Call::OnDrain};

  std::mutex mutex_;
  std::deque<grpc::ByteBuffer> queued_;
  std::optional<grpc::Status> status_;  // set: no more writes are taken
  std::string error_detail_;            // serialized, for the trailing metadata
  bool reading_ = false;                // a read is under way
  bool sending_ = false;                // a write or the finish is under way
  bool gone_ = false;
  std::unique_ptr<grpc::Alarm> drain_;  // brings Drain to the call's thread
};

/// The calls of one completion queue, and what a call asks gRPC for the next with.
class CallQueue {
 public:
  CallQueue(CallHost& of_host, grpc::AsyncGenericService& of_service, std::unique_ptr<grpc::ServerCompletionQueue> at)
      : host(of_host), service(of_service), queue(std::move(at)) {}

  /// Runs the queue until it is shut down; the one thread of its calls.
  void Run();
  /// Makes every call of the queue finish soon.
  void Drain();
  /// Waits until no call can start anything more at gRPC; only then may the queue be shut down, as gRPC aborts on a
  /// step that is begun behind that. The server must have shut down before.
  void AwaitEnd() const;

  CallHost& host;
  grpc::AsyncGenericService& service;
  std::unique_ptr<grpc::ServerCompletionQueue> queue;

 private:
  friend class Call;
  std::mutex mutex_;
  std::vector<std::weak_ptr<Call>> calls_;  // those under way, and some that ended
  size_t sweep_at_ = 64;
  // Calls from when they are asked for to their end, and steps just being started, by whichever thread.
  std::atomic<int64_t> open_{0};
};

/// A message of pieces that gRPC sends without copying them; each is let go once sent, and `memory` with the last.
grpc::ByteBuffer ToByteBuffer(const std::vector<Piece>& pieces, const std::shared_ptr<ReadHold>& memory = nullptr);
grpc::ByteBuffer ToByteBuffer(std::string text);

}  // namespace sluice::broker::rpc
