// A blocking HTTP/1.1 client for one source: TLS verified against the system's roots and the host's name, every wait
// and every size bounded, redirects limited, the connection kept for the next request.
//
// Headers and body given in a request go to the origin of its URL only: a redirect elsewhere goes without headers, is
// refused where it asks for the body, and never leads from https to http.
// Threads: one at a time, except Cancel.
// Errors: UNAVAILABLE (connection refused, lost, cut short), DEADLINE_EXCEEDED, DATA_LOSS (damaged gzip): may pass when
// tried again. FAILED_PRECONDITION (certificate), INVALID_ARGUMENT (URL), RESOURCE_EXHAUSTED (answer too large),
// ABORTED (redirects), CANCELLED: will not. Messages name the URL without its query. A status other than 2xx is an
// answer, not an error.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/secret.h"
#include "connector/http/resolver.h"

namespace sluice::connector::http {

struct Request {
  bool post = false;
  std::string url;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::vector<Secret> secrets{};  // in the above: no message about the answer shows them
};

struct Response {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;                                          // decompressed
  std::string url;                                           // where it came from, after redirects

  /// The first of that name, in lower case.
  std::optional<std::string_view> Header(std::string_view name) const;
};

struct ClientOptions {
  absl::Duration connect_timeout = absl::Seconds(10);  // name, connection and TLS together
  absl::Duration read_timeout = absl::Seconds(60);     // from sending a request to the answer's last byte
  int64_t body_bytes_max = int64_t{64} << 20;
  int redirects_max = 5;
  std::string ca_file;  // PEM; empty: the system's roots
  std::string user_agent = "sluice-connect/" SLUICE_VERSION;
  Resolver::Lookup lookup = Resolver::SystemLookup;
};

class Client {
 public:
  explicit Client(ClientOptions options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  absl::StatusOr<Response> Send(const Request& request);
  /// Ends a Send under way and refuses later ones. Thread-safe.
  void Cancel();
  /// Connections made so far.
  int64_t connections() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::connector::http
