#include "broker/rpc/tls.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <functional>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::broker::rpc {
namespace {

namespace tls = grpc::experimental;

class NodeVerifier final : public tls::ExternalCertificateVerifier {
 public:
  NodeVerifier(const Uuid& cluster, NodeId node) : cluster_(cluster), node_(node) {}

  bool Verify(tls::TlsCustomVerificationCheckRequest* request, std::function<void(grpc::Status)>,
              grpc::Status* sync_status) override {
    for (const grpc::string_ref& uri : request->uri_names()) {
      if (UriNamesNode({uri.data(), uri.size()}, cluster_, node_)) {
        *sync_status = grpc::Status::OK;
        return true;
      }
    }
    *sync_status = {grpc::StatusCode::UNAUTHENTICATED,
                    node_ == NodeId() ? std::string("the certificate there names no node of this cluster")
                                      : Cat("the certificate there does not name node ", node_, " of this cluster")};
    return true;
  }
  void Cancel(tls::TlsCustomVerificationCheckRequest*) override {}

 private:
  const Uuid cluster_;
  const NodeId node_;
};

}  // namespace

absl::Status CheckTlsFiles(const TlsFiles& files) {
  const auto bad = [](const std::string& file, std::string_view why) {
    return absl::InvalidArgumentError(Cat(file, ": ", why));
  };
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_method()), &SSL_CTX_free);
  if (context == nullptr) return absl::ResourceExhaustedError("OpenSSL has no memory");
  if (SSL_CTX_use_certificate_chain_file(context.get(), files.cert.c_str()) != 1) {
    return bad(files.cert, "cannot be read as a certificate in PEM");
  }
  if (SSL_CTX_use_PrivateKey_file(context.get(), files.key.c_str(), SSL_FILETYPE_PEM) != 1) {
    return bad(files.key, Cat("cannot be read as a private key in PEM, or does not belong to ", files.cert));
  }
  if (!files.ca.empty() && SSL_CTX_load_verify_locations(context.get(), files.ca.c_str(), nullptr) != 1) {
    return bad(files.ca, "cannot be read as certificates in PEM");
  }
  return absl::OkStatus();
}

bool UriNamesNode(std::string_view uri, const Uuid& cluster, NodeId node) {
  constexpr std::string_view kScheme = "sluice://";
  constexpr std::string_view kPath = "/node/";
  if (!uri.starts_with(kScheme)) return false;
  uri.remove_prefix(kScheme.size());
  const size_t slash = uri.find('/');
  if (slash == std::string_view::npos || !uri.substr(slash).starts_with(kPath)) return false;
  const std::string_view named = uri.substr(0, slash);
  if (!named.empty()) {
    const std::optional<Uuid> id = Uuid::Parse(named);
    if (!id || (!cluster.IsNil() && *id != cluster)) return false;
  }
  const std::string_view digits = uri.substr(slash + kPath.size());
  int32_t number = 0;
  const bool plain = !digits.empty() && digits.find_first_not_of("0123456789") == std::string_view::npos;
  return plain && absl::SimpleAtoi(std::string(digits), &number) && number > 0 &&
         (node == NodeId() || number == node.value());
}

absl::Status CheckNodeCertificate(const grpc::AuthContext& other, const Uuid& cluster, NodeId node) {
  for (const grpc::string_ref& uri : other.FindPropertyValues(GRPC_PEER_URI_PROPERTY_NAME)) {
    if (UriNamesNode({uri.data(), uri.size()}, cluster, node)) return absl::OkStatus();
  }
  return absl::PermissionDeniedError(Cat("the caller's certificate does not name node ", node, " of this cluster"));
}

absl::StatusOr<std::shared_ptr<TlsCredentials>> TlsCredentials::Load(const std::optional<TlsFiles>& files,
                                                                     absl::Duration reload_every) {
  auto credentials = std::make_shared<TlsCredentials>();
  if (!files) return credentials;
  SLUICE_RETURN_IF_ERROR(CheckTlsFiles(*files));
  const auto seconds = std::max<int64_t>(1, absl::ToInt64Seconds(reload_every));
  credentials->provider_ = std::make_shared<tls::FileWatcherCertificateProvider>(files->key, files->cert, files->ca,
                                                                                 static_cast<unsigned int>(seconds));
  credentials->has_ca_ = !files->ca.empty();
  return credentials;
}

std::shared_ptr<grpc::ServerCredentials> TlsCredentials::Server() const {
  if (!enabled()) return grpc::InsecureServerCredentials();
  tls::TlsServerCredentialsOptions options(provider_);
  options.watch_identity_key_cert_pairs();
  if (has_ca_) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  } else {
    options.set_cert_request_type(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  }
  // Whom a client's certificate names is checked once it has said who it is.
  options.set_certificate_verifier(std::make_shared<tls::NoOpCertificateVerifier>());
  return tls::TlsServerCredentials(options);
}

std::shared_ptr<grpc::ChannelCredentials> TlsCredentials::ToNode(const Uuid& cluster, NodeId node) const {
  if (!enabled()) return grpc::InsecureChannelCredentials();
  tls::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(provider_);
  options.watch_identity_key_cert_pairs();
  options.watch_root_certs();
  options.set_verify_server_certs(true);
  options.set_check_call_host(false);  // nodes are known by their numbers, not by their hosts' names
  options.set_certificate_verifier(tls::ExternalCertificateVerifier::Create<NodeVerifier>(cluster, node));
  return tls::TlsCredentials(options);
}

}  // namespace sluice::broker::rpc
