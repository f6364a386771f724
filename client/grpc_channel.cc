#include "client/grpc_channel.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <deque>
#include <functional>
#include <list>
#include <optional>
#include <thread>
#include <utility>

#include "client/error.h"
#include "common/text.h"

namespace sluice::client {
namespace {

constexpr char kErrorTrailer[] = "sluice-error-bin";
// gRPC cannot take back a wait for a state change, so each is short; this is also how long shutting down may take.
constexpr absl::Duration kStateWait = absl::Milliseconds(100);
// To connect, greeting included; as gRPC is told.
constexpr std::chrono::milliseconds kAttemptMax(1000);

// What a completion queue hands back: runs on the executor, then is gone.
using Event = absl::AnyInvocable<void(bool ok)>;

std::chrono::system_clock::time_point DeadlineAfter(absl::Duration timeout) {
  return std::chrono::system_clock::now() +
         absl::ToChronoNanoseconds(std::clamp(timeout, absl::ZeroDuration(), absl::Hours(24)));
}

grpc::Slice ToSlice(Bytes bytes) {
  if (bytes.size() <= 512) return grpc::Slice(bytes.data(), bytes.size());  // its copy is cheaper than a reference
  auto* held = new Bytes(std::move(bytes));
  return grpc::Slice(
      const_cast<char*>(held->data()), held->size(), [](void* p) { delete static_cast<Bytes*>(p); }, held);
}

grpc::ByteBuffer ToBuffer(Bytes bytes) {
  const grpc::Slice slice = ToSlice(std::move(bytes));
  return grpc::ByteBuffer(&slice, 1);
}

grpc::ByteBuffer ToBuffer(std::vector<Bytes> pieces) {
  std::vector<grpc::Slice> slices;
  slices.reserve(pieces.size());
  for (Bytes& piece : pieces) slices.push_back(ToSlice(std::move(piece)));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

Bytes FromBuffer(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok() || slices.empty()) return Bytes();
  if (slices.size() == 1) {
    auto held = std::make_shared<grpc::Slice>(std::move(slices.front()));
    return Bytes::Wrap({reinterpret_cast<const char*>(held->begin()), held->size()}, held);
  }
  MutableBytes all(buffer.Length());
  size_t at = 0;
  for (const grpc::Slice& slice : slices) {
    std::memcpy(all.data() + at, slice.begin(), slice.size());
    at += slice.size();
  }
  return std::move(all).Freeze();
}

absl::Status ToStatus(const grpc::Status& status, const grpc::ClientContext& context, std::string_view address) {
  if (status.ok()) return absl::OkStatus();
  absl::Status plain(static_cast<absl::StatusCode>(status.error_code()),
                     Cat("broker ", address, ": ", status.error_message()));
  const auto& trailers = context.GetServerTrailingMetadata();
  auto found = trailers.find(kErrorTrailer);
  if (found == trailers.end()) return plain;
  return MakeErrorFromWire({found->second.data(), found->second.size()}, plain);
}

}  // namespace

struct GrpcChannelFactory::Queue {
  explicit Queue(Executor& e) : executor(e) {
    thread = std::thread([this] {
      void* tag = nullptr;
      bool ok = false;
      while (queue.Next(&tag, &ok)) {
        std::unique_ptr<Event> event(static_cast<Event*>(tag));
        executor.Post([event = std::move(event), ok] { (*event)(ok); });
      }
    });
  }
  ~Queue() {
    queue.Shutdown();
    thread.join();
  }
  static void* Tag(Event event) { return new Event(std::move(event)); }

  Executor& executor;
  grpc::CompletionQueue queue;
  std::thread thread;
};

namespace {

struct Unary {
  grpc::ClientContext context;
  grpc::ByteBuffer response;
  grpc::Status status;
  std::unique_ptr<grpc::ClientAsyncResponseReader<grpc::ByteBuffer>> reader;
  absl::AnyInvocable<void(absl::StatusOr<Bytes>)> done;
};

// Everything here runs on the executor. It lives until its last event has come; GrpcStream only owns the wish.
class StreamState : public std::enable_shared_from_this<StreamState> {
 public:
  StreamState(std::string address, Stream::Callbacks callbacks)
      : address_(std::move(address)), callbacks_(std::move(callbacks)) {}

  void Start(grpc::GenericStub& stub, std::string_view method, grpc::CompletionQueue* queue) {
    call_ = stub.PrepareCall(&context_, std::string(method), queue);
    call_->StartCall(Tag([this](bool ok) { OnStarted(ok); }));
  }

  void Send(std::vector<Bytes> pieces) {
    waiting_.push_back(std::move(pieces));
    WriteNext();
  }

  void CloseSend() {
    close_send_ = true;
    WriteNext();
  }

  void Abandon() {
    abandoned_ = true;
    context_.TryCancel();
  }

 private:
  template <class F>
  void* Tag(F on_event) {
    return new Event([self = shared_from_this(), on_event](bool ok) { on_event(ok); });
  }

  void OnStarted(bool ok) {
    started_ = ok;
    if (abandoned_) return;
    if (!ok) return Finish();
    ReadNext();
    WriteNext();
  }

  void ReadNext() {
    call_->Read(&incoming_, Tag([this](bool ok) {
      if (abandoned_) return;
      if (!ok) return Finish();
      Bytes message = FromBuffer(incoming_);
      ReadNext();
      callbacks_.on_message(std::move(message));
    }));
  }

  void WriteNext() {
    if (!started_ || writing_ || finishing_ || abandoned_) return;
    if (waiting_.empty()) {
      if (!close_send_ || sent_close_) return;
      sent_close_ = true;
      writing_ = true;
      call_->WritesDone(Tag([this](bool) { OnWritten(); }));
      return;
    }
    writing_ = true;
    grpc::ByteBuffer message = ToBuffer(std::move(waiting_.front()));
    waiting_.pop_front();
    call_->Write(message, Tag([this](bool) { OnWritten(); }));
  }

  void OnWritten() {
    writing_ = false;
    if (finished_) return Close();
    WriteNext();
  }

  // The call is over, well or not, once reading ended.
  void Finish() {
    // A stream that nobody wants any more starts nothing new: the queue may be closing.
    if (finishing_ || abandoned_) return;
    finishing_ = true;
    call_->Finish(&status_, Tag([this](bool) {
      finished_ = true;
      if (!writing_) Close();
    }));
  }

  void Close() {
    if (abandoned_) return;
    abandoned_ = true;
    // A write that began counts as sent, whatever became of it.
    callbacks_.on_close(ToStatus(status_, context_, address_), waiting_.size());
  }

  const std::string address_;
  Stream::Callbacks callbacks_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  grpc::ByteBuffer incoming_;
  grpc::Status status_;
  std::deque<std::vector<Bytes>> waiting_;
  bool started_ = false;
  bool writing_ = false;
  bool close_send_ = false;
  bool sent_close_ = false;
  bool finishing_ = false;
  bool finished_ = false;
  bool abandoned_ = false;
};

class GrpcStream : public Stream {
 public:
  explicit GrpcStream(std::shared_ptr<StreamState> state) : state_(std::move(state)) {}
  ~GrpcStream() override { state_->Abandon(); }
  void Send(std::vector<Bytes> pieces) override { state_->Send(std::move(pieces)); }
  void CloseSend() override { state_->CloseSend(); }

 private:
  std::shared_ptr<StreamState> state_;
};

// What outlives the Channel object while calls are under way.
struct ChannelState : std::enable_shared_from_this<ChannelState> {
  using TimePoint = std::chrono::steady_clock::time_point;
  struct Attempt {
    TimePoint until;  // when the caller gives up
    TimePoint began;
    bool tried = false;
  };

  ChannelState(std::string a, bool t, grpc::CompletionQueue* q, std::function<std::shared_ptr<grpc::Channel>()> m)
      : address(std::move(a)), tls(t), queue(q), make(std::move(m)) {
    Open();
  }

  void Open() {
    channel = make();
    stub.emplace(channel);
  }

  // A channel of gRPC's that has failed says so until it is connected, while it goes on trying in its own time. What
  // failed before this call says nothing about now: it is done anew.
  void Connect(TimePoint until, absl::AnyInvocable<void(absl::Status)> done) {
    if (channel->GetState(/*try_to_connect=*/false) == GRPC_CHANNEL_TRANSIENT_FAILURE) Open();
    Watch({.until = until, .began = std::chrono::steady_clock::now()}, std::move(done));
  }

  // An attempt has failed once the channel was connecting and then is not.
  // A refusal comes at once. Who takes a connection and then is silent fails by gRPC's limit of an attempt, which is no
  // answer: it is asked again.
  void Watch(Attempt attempt, absl::AnyInvocable<void(absl::Status)> done) {
    const grpc_connectivity_state state = channel->GetState(/*try_to_connect=*/true);
    if (state == GRPC_CHANNEL_READY) return done(absl::OkStatus());
    const TimePoint now = std::chrono::steady_clock::now();
    const bool failed = attempt.tried && state == GRPC_CHANNEL_TRANSIENT_FAILURE;
    const bool silent = failed && now - attempt.began >= kAttemptMax * 9 / 10;
    if (closed || state == GRPC_CHANNEL_SHUTDOWN || now >= attempt.until || (failed && !silent)) {
      return done(absl::UnavailableError(
          Cat("cannot connect to the broker at ", address,
              !failed || silent ? ": no answer in time"
              : tls ? ": the address cannot be reached or resolved, or the broker shows no certificate for it that the "
                      "given authorities signed"
                    : ": the connection was refused or the address cannot be reached or resolved (or speaks TLS)")));
    }
    if (silent) return Connect(attempt.until, std::move(done));
    attempt.tried = attempt.tried || state == GRPC_CHANNEL_CONNECTING || state == GRPC_CHANNEL_IDLE;
    const auto look_again = std::min(attempt.until, now + absl::ToChronoNanoseconds(kStateWait));
    channel->NotifyOnStateChange(state, std::chrono::system_clock::now() + (look_again - now), queue,
                                 new Event([self = shared_from_this(), attempt, done = std::move(done)](bool) mutable {
                                   self->Watch(attempt, std::move(done));
                                 }));
  }

  const std::string address;
  const bool tls;
  grpc::CompletionQueue* const queue;
  const std::function<std::shared_ptr<grpc::Channel>()> make;
  std::shared_ptr<grpc::Channel> channel;
  std::optional<grpc::GenericStub> stub;
  std::list<std::weak_ptr<Unary>> calls;
  bool closed = false;
};

}  // namespace

class GrpcChannel : public Channel {
 public:
  GrpcChannel(Executor& executor, std::shared_ptr<ChannelState> state)
      : executor_(executor), state_(std::move(state)) {}

  ~GrpcChannel() override {
    state_->closed = true;
    for (const auto& weak : state_->calls) {
      if (auto call = weak.lock()) call->context.TryCancel();
    }
  }

  const std::string& address() const override { return state_->address; }

  void Connect(absl::Duration timeout, absl::AnyInvocable<void(absl::Status)> done) override {
    const auto until = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(std::min(timeout, absl::Hours(24)));
    executor_.Post(
        [state = state_, until, done = std::move(done)]() mutable { state->Connect(until, std::move(done)); });
  }

  void Call(std::string_view method, Bytes request, absl::Duration timeout,
            absl::AnyInvocable<void(absl::StatusOr<Bytes>)> done) override {
    auto call = std::make_shared<Unary>();
    call->done = std::move(done);
    call->context.set_deadline(DeadlineAfter(timeout));
    call->reader = state_->stub->PrepareUnaryCall(&call->context, std::string(method), ToBuffer(std::move(request)),
                                                  state_->queue);
    call->reader->StartCall();
    auto place = state_->calls.insert(state_->calls.end(), call);
    call->reader->Finish(&call->response, &call->status, new Event([call, place, state = state_](bool) {
      state->calls.erase(place);
      absl::Status status = ToStatus(call->status, call->context, state->address);
      if (status.ok()) return call->done(FromBuffer(call->response));
      call->done(std::move(status));
    }));
  }

  std::unique_ptr<Stream> OpenStream(std::string_view method, Stream::Callbacks callbacks) override {
    auto stream = std::make_shared<StreamState>(state_->address, std::move(callbacks));
    stream->Start(*state_->stub, method, state_->queue);
    return std::make_unique<GrpcStream>(std::move(stream));
  }

 private:
  Executor& executor_;
  std::shared_ptr<ChannelState> state_;
};

GrpcChannelFactory::GrpcChannelFactory(Executor& executor, GrpcChannelOptions options)
    : queue_(std::make_unique<Queue>(executor)), options_(std::move(options)) {}

GrpcChannelFactory::~GrpcChannelFactory() = default;

std::unique_ptr<Channel> GrpcChannelFactory::Open(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(options_.receive_bytes_max);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of this client alone
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kAttemptMax.count());  // the limit of one attempt
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kAttemptMax.count());
  const bool tls = !options_.tls_ca_pem.empty();
  grpc::SslCredentialsOptions trust;
  trust.pem_root_certs = options_.tls_ca_pem;
  auto make = [address, arguments,
               credentials = tls ? grpc::SslCredentials(trust) : grpc::InsecureChannelCredentials()] {
    return grpc::CreateCustomChannel(address, credentials, arguments);
  };
  auto state = std::make_shared<ChannelState>(address, tls, &queue_->queue, std::move(make));
  return std::make_unique<GrpcChannel>(queue_->executor, std::move(state));
}

}  // namespace sluice::client
