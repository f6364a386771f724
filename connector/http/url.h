// URLs as the HTTP source needs them: taken apart, put together with more parameters, and resolved against another.
//
// Pure functions; any thread.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice::connector::http {

struct Url {
  bool tls = false;
  std::string host;    // a name or an IP address, without brackets, lower case
  std::string port;    // always set
  std::string target;  // path and query as sent, begins with '/'

  /// "https://host:port", what a connection and credentials belong to.
  std::string Origin() const;
  /// The value of the Host header.
  std::string HostHeader() const;
  /// Without the query, which may hold secrets: for messages.
  std::string ForMessages() const;
};

/// http and https only, with a host; a fragment is dropped. INVALID_ARGUMENT says what is wrong, without the query.
/// User and password in a URL are refused: they would end in messages.
absl::StatusOr<Url> ParseUrl(std::string_view text);

using Params = std::vector<std::pair<std::string, std::string>>;
/// `url` with `params` set in its query: one of the same name is replaced, the rest is kept as it stands.
absl::StatusOr<std::string> WithParams(std::string_view url, const Params& params);

/// What `reference` (absolute or relative, as in Location, Link or a next URL) means on the page at `base`.
absl::StatusOr<std::string> ResolveUrl(std::string_view base, std::string_view reference);

}  // namespace sluice::connector::http
