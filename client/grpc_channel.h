// The channel seam over gRPC: one completion queue and one thread for all channels of a factory; messages go as raw
// buffers, so gRPC never touches protobuf.
#pragma once

#include <memory>
#include <string>

#include "client/channel.h"
#include "common/executor.h"

namespace sluice::client {

struct GrpcChannelOptions {
  /// A larger answer fails the call with RESOURCE_EXHAUSTED before its memory is taken.
  int receive_bytes_max = 80 << 20;
  /// Certificates in PEM. Set: connections are encrypted, and brokers show a certificate of one of these authorities
  /// for the host that they are called by. Empty: in the clear.
  std::string tls_ca_pem;
};

class GrpcChannelFactory : public ChannelFactory {
 public:
  /// `executor` outlives the factory.
  explicit GrpcChannelFactory(Executor& executor, GrpcChannelOptions options = {});
  /// Its channels and streams are gone by then, and the caller is not on the executor.
  ~GrpcChannelFactory() override;
  std::unique_ptr<Channel> Open(const std::string& address) override;

 private:
  struct Queue;
  std::unique_ptr<Queue> queue_;
  GrpcChannelOptions options_;

  friend class GrpcChannel;
};

}  // namespace sluice::client
