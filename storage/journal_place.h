// Errors that name a place in the journal's files: "FILE at byte N: WHAT".
//
// Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace sluice::storage {

struct JournalPlace {
  std::string path;
  int64_t offset = 0;  ///< In that file.
  std::string what;    ///< Is wrong there, and what was expected.
};

absl::Status ErrorAt(absl::StatusCode code, const std::string& path, int64_t offset, const std::string& what);
/// DataLoss.
absl::Status DamagedAt(const std::string& path, int64_t offset, const std::string& what);

/// What ErrorAt was told; nullopt of an error that it did not make.
std::optional<JournalPlace> PlaceOf(const absl::Status& error);

}  // namespace sluice::storage
