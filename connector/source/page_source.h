// What a source slice pulls from: pages of records, each asked for by a token that the page before it gave. The HTTP
// source stands behind it; tests put a list of pages there.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice::connector {

struct PageRecord {
  std::string value;               // JSON without white space outside strings
  std::optional<std::string> key;  // none: a null key
  std::string cursor;              // raw JSON of the incremental field; empty: the record has none
};

struct Page {
  std::vector<PageRecord> records;
  std::string next;  // the token of the page after this one
  bool last = true;  // there is none
};

struct PageAsk {
  std::string token;  // empty: the first page
  std::string from;   // raw JSON value of the incremental cursor; empty: none
};

class PageSource {
 public:
  virtual ~PageSource() = default;
  /// Blocks, with retries inside. An error is final for now; CANCELLED after a stop.
  virtual absl::StatusOr<Page> Fetch(const PageAsk& ask) = 0;
};

}  // namespace sluice::connector
