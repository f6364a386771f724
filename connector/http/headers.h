// Values of the headers that a source goes by, as servers write them. Pure functions; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"

namespace sluice::connector::http {

/// How long a Retry-After asks to wait, as of `now`: seconds, or an HTTP date (RFC 9110); none when it is neither.
std::optional<absl::Duration> ParseRetryAfter(std::string_view value, absl::Time now);

/// The address of the first link with the relation "next" in a Link header (RFC 8288), as written; empty when there is
/// none. What is malformed is passed over up to the next comma.
std::string NextLink(std::string_view value);

/// ASCII letters in lower case.
std::string Lower(std::string_view text);

}  // namespace sluice::connector::http
