// Where a side of a TLS connection finds its certificate, its key, and whom it trusts. PEM files; a change of their
// content is taken up without a restart, by connections made from then on.
#pragma once

#include <string>

namespace sluice::broker {

struct TlsFiles {
  std::string cert;  ///< The own certificate, and behind it those up to the authority's, if any stand between.
  std::string key;   ///< Its private key.
  std::string ca;    ///< Certificates of the authorities that the other side's certificate comes from.
  bool operator==(const TlsFiles&) const = default;
};

}  // namespace sluice::broker
