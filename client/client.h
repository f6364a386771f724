// Client: one connection to a cluster, from which admins, producers, consumers and appenders are made.
//
// It runs on one executor. Connect() makes a thread of its own for that, and gRPC behind the channel seam: what a
// program wants. Create() takes executor, clock and channels from outside: for the simulator, tests, and programs that
// have an event loop; then only what does not block may be used on that loop (Producer::Send, Consumer::OnReady and
// polls with timeout 0).
//
// Ownership: what a Client made must be destroyed before it. Destroying the Client cancels what is still under way.
// With seams from outside, all of it is destroyed on the executor, or while the executor runs on another thread.
// Threads: any.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/admin.h"
#include "client/channel.h"
#include "client/consumer.h"
#include "client/producer.h"
#include "common/executor.h"

namespace sluice::client {

struct ClientOptions {
  /// host:port of one or more brokers, tried in order; any of them may be dead. The others of their cluster are learned
  /// from them.
  std::vector<std::string> brokers = {"127.0.0.1:7400"};
  /// A PEM file of authorities, read by Connect. Set: brokers are spoken to over TLS only, and each shows a certificate
  /// of one of these for the host that it is called by. Empty: nothing is encrypted.
  std::string tls_ca_file;
  /// Of one call, from start to answer; an append, and a consumer's broker, are waited for no longer either, whatever
  /// limit of their own they have.
  absl::Duration timeout = absl::Seconds(30);
  /// Of one attempt to connect to one broker.
  absl::Duration connect_timeout = absl::Seconds(5);
  /// How old what is known of topics and nodes may grow before it is asked for again though nothing went wrong.
  absl::Duration metadata_age_max = absl::Minutes(5);
};

/// "host:port,host:port" split and checked; INVALID_ARGUMENT names the part that is wrong. A missing port is 7400.
absl::StatusOr<std::vector<std::string>> ParseBrokers(std::string_view list);

class Client {
 public:
  virtual ~Client() = default;
  virtual std::unique_ptr<Admin> NewAdmin() = 0;
  virtual std::unique_ptr<Producer> NewProducer(ProducerOptions options = {}) = 0;
  virtual std::unique_ptr<Appender> NewAppender() = 0;
  virtual std::unique_ptr<Consumer> NewConsumer(ConsumerOptions options = {}) = 0;
  /// Ends every call under way and each later one at once, for a program that has to stop now; a write under way has an
  /// unknown outcome. Thread-safe.
  virtual void Cancel() = 0;
};

/// Does not wait for a connection: that happens with the first call. INVALID_ARGUMENT for a bad broker address,
/// and for a tls_ca_file that cannot be read or holds no certificates.
absl::StatusOr<std::unique_ptr<Client>> Connect(ClientOptions options);

/// The seams must outlive the client.
struct ClientSeams {
  Executor* executor = nullptr;
  Clock* clock = nullptr;
  ChannelFactory* channels = nullptr;
};
absl::StatusOr<std::unique_ptr<Client>> Create(ClientOptions options, const ClientSeams& seams);

}  // namespace sluice::client
