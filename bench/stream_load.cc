#include "bench/stream_load.h"

#include <grpcpp/alarm.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <sys/prctl.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <deque>
#include <thread>

namespace sluice::bench {
namespace {

using Steady = std::chrono::steady_clock;

enum Tag : intptr_t { kStarted = 1, kWritten, kRead, kFinished, kTick };
void* AsTag(Tag tag) {
  return reinterpret_cast<void*>(static_cast<intptr_t>(tag));
}

grpc::ByteBuffer ToBuffer(const std::string& text) {
  const grpc::Slice slice(text);
  return grpc::ByteBuffer(&slice, 1);
}

std::string ToText(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string text;
  if (!buffer.Dump(&slices).ok()) return text;
  for (const grpc::Slice& slice : slices) text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return text;
}

double Seconds(Steady::duration time) {
  return std::chrono::duration<double>(time).count();
}

constexpr auto kStillMax = std::chrono::minutes(1);

// A stream under way, and what came of the last step.
struct Stream {
  Stream(grpc::GenericStub& stub, const std::string& method) : call(stub.PrepareCall(&context, method, &queue)) {
    call->StartCall(AsTag(kStarted));
  }
  ~Stream() {
    context.TryCancel();
    grpc::Status status;
    call->Finish(&status, AsTag(kFinished));
    queue.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue.Next(&tag, &ok)) {
    }
  }
  bool Next(Tag* tag, bool* ok) {
    void* raw = nullptr;
    const auto end = std::chrono::system_clock::now() + kStillMax;
    if (queue.AsyncNext(&raw, ok, end) != grpc::CompletionQueue::GOT_EVENT) return false;
    *tag = static_cast<Tag>(reinterpret_cast<intptr_t>(raw));
    return true;
  }
  bool WaitFor(Tag wanted) {
    Tag tag{};
    bool ok = false;
    return Next(&tag, &ok) && ok && tag == wanted;
  }
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call;
  grpc::ByteBuffer answer;  // here, because a read may be under way until the queue is empty
};

// Puts kTick on a queue each `interval` from `begin` until `end`, mostly to less than 100 us, from a thread of its own:
// an alarm of gRPC set for later comes at a whole millisecond, on the average half of one too late.
class Metronome {
 public:
  Metronome(grpc::CompletionQueue& queue, Steady::time_point begin, Steady::time_point end,
            std::chrono::nanoseconds each)
      : thread_([this, &queue, begin, end, each](const std::stop_token& stop) {
          prctl(PR_SET_TIMERSLACK, 1);
          for (auto next = begin; next < end && !stop.stop_requested(); next += each) {
            std::this_thread::sleep_until(next);
            if (!under_way_.exchange(true)) alarm_.Set(&queue, gpr_inf_past(GPR_CLOCK_MONOTONIC), AsTag(kTick));
          }
        }) {}
  // Of the thread that reads the queue, before it looks what is due.
  void Delivered() { under_way_ = false; }

 private:
  grpc::Alarm alarm_;
  std::atomic<bool> under_way_ = false;
  std::jthread thread_;
};

absl::Status Broken() {
  return absl::InternalError("the stream broke, or stood still for a minute");
}

class StreamClientImpl final : public StreamClient {
 public:
  explicit StreamClientImpl(const std::shared_ptr<grpc::Channel>& channel) : stub_(channel) {}

  absl::StatusOr<std::string> Call(const std::string& method, const std::string& request,
                                   absl::Duration wait) override {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(wait));
    context.set_wait_for_ready(true);
    grpc::CompletionQueue queue;
    auto reader = stub_.PrepareUnaryCall(&context, method, ToBuffer(request), &queue);
    reader->StartCall();
    grpc::ByteBuffer response;
    grpc::Status status;
    reader->Finish(&response, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    if (!status.ok()) return absl::UnavailableError(status.error_message());
    return ToText(response);
  }

  absl::StatusOr<StreamResult> Send(const std::string& method, const std::string& message, int window,
                                    absl::Duration time, std::function<bool(const std::string&)> check) override {
    Stream stream(stub_, method);
    if (!stream.WaitFor(kStarted)) return Broken();
    const grpc::ByteBuffer buffer = ToBuffer(message);
    StreamResult result;
    grpc::ByteBuffer& answer = stream.answer;
    const auto begin = Steady::now();
    const auto end = begin + absl::ToChronoNanoseconds(time);
    int unanswered = 0;
    bool writing = false;
    const auto write = [&] {
      if (writing || unanswered >= window || Steady::now() >= end) return;
      writing = true;
      ++unanswered;
      stream.call->Write(buffer, AsTag(kWritten));
    };
    stream.call->Read(&answer, AsTag(kRead));
    write();
    while (writing || unanswered > 0) {
      Tag tag{};
      bool ok = false;
      if (!stream.Next(&tag, &ok) || !ok) return Broken();
      if (tag == kWritten) writing = false;
      if (tag == kRead) {
        if (!check(ToText(answer))) return absl::InternalError("an answer was an error");
        --unanswered;
        ++result.messages;
        result.bytes += static_cast<int64_t>(message.size());
        stream.call->Read(&answer, AsTag(kRead));
      }
      write();
    }
    result.seconds = Seconds(Steady::now() - begin);
    return result;
  }

  absl::StatusOr<StreamResult> SendPaced(const std::string& method, const std::string& message, absl::Duration interval,
                                         absl::Duration time, std::function<bool(const std::string&)> check) override {
    Stream stream(stub_, method);
    if (!stream.WaitFor(kStarted)) return Broken();
    const grpc::ByteBuffer buffer = ToBuffer(message);
    StreamResult result;
    grpc::ByteBuffer& answer = stream.answer;
    std::deque<Steady::time_point> unanswered;  // when each should have left
    std::deque<Steady::time_point> due;         // should have left, and waits for the write before it
    const auto begin = Steady::now();
    const auto end = begin + absl::ToChronoNanoseconds(time);
    auto next = begin;
    bool writing = false;
    Metronome metronome(stream.queue, begin, end, absl::ToChronoNanoseconds(interval));
    stream.call->Read(&answer, AsTag(kRead));
    while (next < end || writing || !due.empty() || !unanswered.empty()) {
      Tag tag{};
      bool ok = false;
      if (!stream.Next(&tag, &ok) || (!ok && tag != kTick)) return Broken();
      if (tag == kTick) {
        metronome.Delivered();
        for (; next < end && next <= Steady::now(); next += absl::ToChronoNanoseconds(interval)) due.push_back(next);
      }
      if (tag == kWritten) writing = false;
      if (tag == kRead) {
        if (!check(ToText(answer)) || unanswered.empty()) return absl::InternalError("an answer was an error");
        result.latencies_ms.push_back(1000 * Seconds(Steady::now() - unanswered.front()));
        unanswered.pop_front();
        ++result.messages;
        stream.call->Read(&answer, AsTag(kRead));
      }
      if (!writing && !due.empty()) {
        writing = true;
        unanswered.push_back(due.front());
        result.late_ms.push_back(1000 * Seconds(Steady::now() - due.front()));
        due.pop_front();
        stream.call->Write(buffer, AsTag(kWritten));
      }
    }
    result.seconds = Seconds(Steady::now() - begin);
    return result;
  }

  absl::StatusOr<StreamResult> Receive(const std::string& method, const std::string& request, const std::string& refill,
                                       int64_t refill_bytes, int64_t bytes) override {
    Stream stream(stub_, method);
    if (!stream.WaitFor(kStarted)) return Broken();
    const grpc::ByteBuffer again = ToBuffer(refill);
    StreamResult result;
    grpc::ByteBuffer& answer = stream.answer;
    const auto begin = Steady::now();
    stream.call->Write(ToBuffer(request), AsTag(kWritten));
    stream.call->Read(&answer, AsTag(kRead));
    bool writing = true;
    int64_t since = 0;
    while (result.bytes < bytes) {
      Tag tag{};
      bool ok = false;
      if (!stream.Next(&tag, &ok) || !ok) return Broken();
      if (tag == kWritten) writing = false;
      if (tag == kRead) {
        ++result.messages;
        result.bytes += static_cast<int64_t>(answer.Length());
        since += static_cast<int64_t>(answer.Length());
        stream.call->Read(&answer, AsTag(kRead));
      }
      if (!writing && since >= refill_bytes / 2) {
        writing = true;
        since -= refill_bytes / 2;
        stream.call->Write(again, AsTag(kWritten));
      }
    }
    result.seconds = Seconds(Steady::now() - begin);
    return result;
  }

 private:
  grpc::GenericStub stub_;
};

// ---- The bare server: one thread, one completion queue, raw buffers

class BareCall {
 public:
  struct Step {
    BareCall* call;
    void (BareCall::*run)(bool);
  };
  BareCall(grpc::AsyncGenericService& service, grpc::ServerCompletionQueue& queue, const grpc::ByteBuffer& source)
      : service_(service), queue_(queue), source_(source), stream_(&context_) {
    service_.RequestCall(&context_, &stream_, &queue_, &queue_, &accepted_);
  }

 private:
  void OnAccepted(bool ok) {
    if (!ok) return delete this;
    new BareCall(service_, queue_, source_);
    endless_ = context_.method() == "/bare/Source";
    Read();
  }
  void Read() { stream_.Read(&message_, &read_); }
  void OnRead(bool ok) {
    if (!ok) return stream_.Finish(grpc::Status::OK, &finished_);
    message_.Clear();
    stream_.Write(endless_ ? source_ : answer_, &written_);
  }
  void OnWritten(bool ok) {
    if (!ok) return stream_.Finish(grpc::Status::OK, &finished_);
    if (endless_) return stream_.Write(source_, &written_);
    Read();
  }
  void OnFinished(bool) { delete this; }

  grpc::AsyncGenericService& service_;
  grpc::ServerCompletionQueue& queue_;
  const grpc::ByteBuffer& source_;
  const grpc::ByteBuffer answer_ = ToBuffer("an answer of a few bytes");
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter stream_;
  grpc::ByteBuffer message_;
  bool endless_ = false;
  Step accepted_{this, &BareCall::OnAccepted};
  Step read_{this, &BareCall::OnRead};
  Step written_{this, &BareCall::OnWritten};
  Step finished_{this, &BareCall::OnFinished};
};

}  // namespace

std::unique_ptr<StreamClient> StreamClient::Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 10);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 10);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 10);
  return std::make_unique<StreamClientImpl>(
      grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
}

int RunBareServer(int64_t source_bytes) {
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(-1);
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  grpc::AsyncGenericService service;
  builder.RegisterAsyncGenericService(&service);
  const auto queue = builder.AddCompletionQueue();
  const auto server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  std::printf("%d\n", port);
  std::fflush(stdout);
  const grpc::ByteBuffer source = ToBuffer(std::string(static_cast<size_t>(source_bytes), 's'));
  new BareCall(service, *queue, source);
  void* tag = nullptr;
  bool ok = false;
  while (queue->Next(&tag, &ok)) {
    const auto* step = static_cast<BareCall::Step*>(tag);
    (step->call->*step->run)(ok);
  }
  return 0;
}

}  // namespace sluice::bench
