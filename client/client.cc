#include "client/client.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "client/await.h"
#include "client/client_impl.h"
#include "client/core.h"
#include "client/grpc_channel.h"
#include "client/thread_executor.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::client {
namespace {

constexpr int kDefaultPort = 7400;

// Where the last colon that separates a port stands; an IPv6 address in brackets has colons of its own.
absl::StatusOr<std::string> CheckBroker(const std::string& broker) {
  const size_t bracket = broker.rfind(']');
  const size_t colon = broker.rfind(':');
  const bool has_port = colon != std::string::npos && (bracket == std::string::npos || colon > bracket);
  const std::string host = has_port ? broker.substr(0, colon) : broker;
  int port = kDefaultPort;
  const bool port_good = !has_port || (absl::SimpleAtoi(broker.substr(colon + 1), &port) && port > 0 && port < 65536);
  const bool host_good = !host.empty() && host.find_first_of(" \t/,") == std::string::npos &&
                         (host.find(':') == std::string::npos || host.front() == '[');
  if (!host_good || !port_good) {
    return absl::InvalidArgumentError(
        Cat("\"", broker, "\" is not a broker's address; write host:port, for example 127.0.0.1:7400"));
  }
  return Cat(host, ":", port);
}

class ClientImpl : public Client {
 public:
  ClientImpl(ClientOptions options, std::unique_ptr<ThreadExecutor> thread, std::unique_ptr<ChannelFactory> channels,
             const ClientSeams& seams)
      : thread_(std::move(thread)), channels_(std::move(channels)), core_(Core::Make(std::move(options), seams)) {}

  ~ClientImpl() override {
    RunOn(core_->executor(), [this] { core_->CloseChannels(); });
    channels_.reset();  // its last events reach the thread before that ends
    thread_.reset();
  }

  std::unique_ptr<Admin> NewAdmin() override { return MakeAdmin(core_); }
  std::unique_ptr<Producer> NewProducer(ProducerOptions options) override { return MakeProducer(core_, options); }
  std::unique_ptr<Appender> NewAppender() override { return MakeAppender(core_); }
  std::unique_ptr<Consumer> NewConsumer(ConsumerOptions options) override {
    options.broker_timeout = std::min(options.broker_timeout, core_->options().timeout);
    return MakeConsumer(core_, options);
  }
  void Cancel() override {
    core_->executor().Post([core = core_] { core->CloseChannels(); });
  }

 private:
  // Both null when the seams came from outside.
  std::unique_ptr<ThreadExecutor> thread_;
  std::unique_ptr<ChannelFactory> channels_;
  const std::shared_ptr<Core> core_;
};

absl::Status Normalize(ClientOptions* options) {
  if (options->brokers.empty()) return absl::InvalidArgumentError("the list of brokers is empty");
  for (std::string& broker : options->brokers) {
    SLUICE_ASSIGN_OR_RETURN(broker, CheckBroker(broker));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadAuthorities(const std::string& path) {
  std::ifstream file(path);
  std::string pem{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (pem.find("-----BEGIN CERTIFICATE-----") == std::string::npos) {
    return absl::InvalidArgumentError(
        Cat("the file of authorities, ", path, file ? ", holds no certificate in PEM" : ", cannot be read"));
  }
  return pem;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseBrokers(std::string_view list) {
  std::vector<std::string> brokers;
  for (absl::string_view part : absl::StrSplit(absl::string_view(list.data(), list.size()), ',')) {
    SLUICE_ASSIGN_OR_RETURN(std::string broker, CheckBroker(std::string(absl::StripAsciiWhitespace(part))));
    brokers.push_back(std::move(broker));
  }
  return brokers;
}

absl::StatusOr<std::unique_ptr<Client>> Connect(ClientOptions options) {
  SLUICE_RETURN_IF_ERROR(Normalize(&options));
  GrpcChannelOptions channel_options;
  if (!options.tls_ca_file.empty()) {
    SLUICE_ASSIGN_OR_RETURN(channel_options.tls_ca_pem, ReadAuthorities(options.tls_ca_file));
  }
  auto thread = std::make_unique<ThreadExecutor>();
  auto channels = std::make_unique<GrpcChannelFactory>(*thread, std::move(channel_options));
  const ClientSeams seams{thread.get(), thread.get(), channels.get()};
  return std::make_unique<ClientImpl>(std::move(options), std::move(thread), std::move(channels), seams);
}

absl::StatusOr<std::unique_ptr<Client>> Create(ClientOptions options, const ClientSeams& seams) {
  SLUICE_RETURN_IF_ERROR(Normalize(&options));
  return std::make_unique<ClientImpl>(std::move(options), nullptr, nullptr, seams);
}

}  // namespace sluice::client
