// The seam between the client and the network: calls and streams that carry serialized protobuf messages. gRPC stands
// behind it in a program (grpc_channel.h), the simulator's network or a test's script otherwise.
//
// Threads: every method is called on, and every callback runs on, the one Executor that the ChannelFactory was made
// with. No callback runs inside the call that caused it.
// Errors: a call's status carries the broker's ErrorDetail where it sent one (error.h). UNAVAILABLE without a detail is
// a broken or impossible connection, DEADLINE_EXCEEDED the time limit.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/bytes.h"

namespace sluice::client {

/// One bidirectional stream. Destroying it cancels the stream; no callback runs after that.
class Stream {
 public:
  struct Callbacks {
    absl::AnyInvocable<void(Bytes message)> on_message;
    /// Once, and the last one: OK when the broker ended the stream in good order. `unsent` counts the last messages of
    /// Send that certainly never left this process.
    absl::AnyInvocable<void(absl::Status status, size_t unsent)> on_close;
  };
  virtual ~Stream() = default;
  /// Queues one message, given in pieces that are sent one behind the other; messages leave in order. The caller bounds
  /// what it queues.
  virtual void Send(std::vector<Bytes> pieces) = 0;
  /// Says that no more messages come; the broker answers what it has and then ends the stream.
  virtual void CloseSend() = 0;
};

/// The way to one broker. Connects when first used and again after a break.
class Channel {
 public:
  virtual ~Channel() = default;
  virtual const std::string& address() const = 0;
  /// `done` runs once: OK when connected, UNAVAILABLE as soon as an attempt made for this call is refused, or when
  /// `timeout` has passed without an answer.
  virtual void Connect(absl::Duration timeout, absl::AnyInvocable<void(absl::Status)> done) = 0;
  /// One unary call; `method` is "/sluice.v1.Topics/Create". `done` runs once, at the latest when `timeout` has passed.
  virtual void Call(std::string_view method, Bytes request, absl::Duration timeout,
                    absl::AnyInvocable<void(absl::StatusOr<Bytes>)> done) = 0;
  /// Never fails by itself; what goes wrong comes by on_close. A stream has no deadline: its user keeps one.
  virtual std::unique_ptr<Stream> OpenStream(std::string_view method, Stream::Callbacks callbacks) = 0;
};

class ChannelFactory {
 public:
  virtual ~ChannelFactory() = default;
  /// `address` is host:port.
  virtual std::unique_ptr<Channel> Open(const std::string& address) = 0;
};

}  // namespace sluice::client
