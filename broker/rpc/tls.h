// TLS for gRPC from files that may change while the process runs, and the name of a node in a certificate.
//
// A node's certificate names it by a URI among its alternative names: `sluice://<cluster id>/node/<id>`, or
// `sluice:///node/<id>` where one authority serves one cluster alone. Both sides of a peers' connection check that the
// other's certificate comes from their authority and names the node that it says it is.
//
// Threads: any.
#pragma once

#include <grpcpp/security/auth_context.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "broker/tls_files.h"
#include "common/types.h"

namespace grpc::experimental {
class CertificateProviderInterface;
}  // namespace grpc::experimental

namespace sluice::broker::rpc {

/// OK when the files can be read, hold what they should, and key and certificate belong together; otherwise
/// INVALID_ARGUMENT with the file and what is wrong.
absl::Status CheckTlsFiles(const TlsFiles& files);

/// Whether `uri` names `node` of `cluster`. Node 0 stands for any, a nil cluster too.
bool UriNamesNode(std::string_view uri, const Uuid& cluster, NodeId node);

/// PERMISSION_DENIED when the other side's certificate does not name `node`.
absl::Status CheckNodeCertificate(const grpc::AuthContext& other, const Uuid& cluster, NodeId node);

/// Watches the files; what it gives refers to what it has read last.
class TlsCredentials {
 public:
  /// Without files: everything in the clear.
  static absl::StatusOr<std::shared_ptr<TlsCredentials>> Load(const std::optional<TlsFiles>& files,
                                                              absl::Duration reload_every);

  bool enabled() const { return provider_ != nullptr; }
  /// With `ca` clients need a certificate that comes from it, without they need none.
  std::shared_ptr<grpc::ServerCredentials> Server() const;
  /// To a node of `cluster`: the one of that number, or any if it is 0.
  std::shared_ptr<grpc::ChannelCredentials> ToNode(const Uuid& cluster, NodeId node) const;

 private:
  std::shared_ptr<grpc::experimental::CertificateProviderInterface> provider_;
  bool has_ca_ = false;
};

}  // namespace sluice::broker::rpc
