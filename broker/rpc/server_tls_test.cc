// Clients that are served over TLS.
#include <catch2/catch.hpp>
#include <chrono>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "broker/rpc/test_certificates.h"
#include "broker/rpc/test_node.h"

namespace sluice::broker::rpc {
namespace {

std::string ReadAll(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// How a call ends over a connection made now. An empty `ca`: not encrypted.
grpc::StatusCode CallOver(const std::string& address, const std::string& ca, const TlsFiles& own = {}) {
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (!ca.empty()) {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = ReadAll(ca);
    if (!own.key.empty()) options.pem_private_key = ReadAll(own.key);
    if (!own.cert.empty()) options.pem_cert_chain = ReadAll(own.cert);
    credentials = grpc::SslCredentials(options);
  }
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const auto stub = v1::Cluster::NewStub(grpc::CreateCustomChannel(address, credentials, arguments));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  v1::DescribeClusterResponse response;
  return stub->Describe(&context, {}, &response).error_code();
}

ServerOptions TlsServer(const TlsFiles& files) {
  ServerOptions options;
  options.tls = files;
  options.tls_reload_every = absl::Seconds(1);
  return options;
}

TEST_CASE("A server with a certificate serves who trusts its authority, and nobody in the clear") {
  const TestCertificates certificates;
  certificates.MakeAuthority("other");
  TlsFiles files = certificates.Make("broker", "IP:127.0.0.1,DNS:localhost");
  files.ca = "";
  TestNode node(TlsServer(files));
  CHECK(CallOver(node.server().address(), certificates.Path("ca.pem")) == grpc::StatusCode::OK);
  CHECK(CallOver(node.server().address(), certificates.Path("other.pem")) == grpc::StatusCode::UNAVAILABLE);
  CHECK(CallOver(node.server().address(), "") == grpc::StatusCode::UNAVAILABLE);
}

TEST_CASE("With an authority for clients, only those with a certificate of it are served") {
  const TestCertificates certificates;
  certificates.MakeAuthority("other");
  TestNode node(TlsServer(certificates.Make("broker", "IP:127.0.0.1")));
  const std::string ca = certificates.Path("ca.pem");
  CHECK(CallOver(node.server().address(), ca, certificates.Make("client", "DNS:client")) == grpc::StatusCode::OK);
  CHECK(CallOver(node.server().address(), ca) == grpc::StatusCode::UNAVAILABLE);
  CHECK(CallOver(node.server().address(), ca, certificates.Make("stranger", "DNS:client", "other")) ==
        grpc::StatusCode::UNAVAILABLE);
}

TEST_CASE("A server's certificate that is replaced is shown to the next client") {
  const TestCertificates certificates;
  certificates.MakeAuthority("next");
  TlsFiles files = certificates.Make("broker", "IP:127.0.0.1");
  files.ca = "";
  TestNode node(TlsServer(files));
  CHECK(CallOver(node.server().address(), certificates.Path("ca.pem")) == grpc::StatusCode::OK);
  certificates.Replace(files, certificates.Make("renewed", "IP:127.0.0.1", "next"));
  bool shown = false;
  for (int i = 0; i < 100 && !shown; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    shown = CallOver(node.server().address(), certificates.Path("next.pem")) == grpc::StatusCode::OK;
  }
  CHECK(shown);
  CHECK(CallOver(node.server().address(), certificates.Path("ca.pem")) == grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace sluice::broker::rpc
