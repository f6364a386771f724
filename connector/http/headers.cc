#include "connector/http/headers.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdint>

namespace sluice::connector::http {
namespace {

bool IsSpace(char c) {
  return c == ' ' || c == '\t';
}

/// Goes through a Link header's value once, from left to right.
class LinkReader {
 public:
  explicit LinkReader(std::string_view value) : rest_(value) {}

  /// The next link's target and whether its relation is "next"; false at the end.
  bool Next(std::string_view* target, bool* is_next) {
    for (;;) {
      while (!rest_.empty() && (IsSpace(rest_.front()) || rest_.front() == ',')) rest_.remove_prefix(1);
      if (rest_.empty()) return false;
      const size_t end = rest_.find('>');
      if (rest_.front() == '<' && end != std::string_view::npos) {
        *target = rest_.substr(1, end - 1);
        rest_.remove_prefix(end + 1);
        *is_next = Parameters();
        return true;
      }
      SkipToComma();
    }
  }

 private:
  /// Up to the comma that ends the link: whether `rel` has the word "next". Of several `rel` the first counts.
  bool Parameters() {
    bool seen = false, next = false;
    for (;;) {
      SkipSpace();
      if (rest_.empty() || rest_.front() != ';') break;
      rest_.remove_prefix(1);
      SkipSpace();
      const std::string name = Lower(Token());
      SkipSpace();
      std::string value;
      if (!rest_.empty() && rest_.front() == '=') {
        rest_.remove_prefix(1);
        SkipSpace();
        value = Value();
      }
      if (name != "rel" || seen) continue;
      seen = true;
      next = HasWord(Lower(value), "next");
    }
    SkipToComma();
    return next;
  }
  static bool HasWord(const std::string& text, std::string_view word) {
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find_first_of(" \t", at), text.size());
      if (text.compare(at, end - at, word) == 0) return true;
      at = end + 1;
    }
    return false;
  }
  void SkipSpace() {
    while (!rest_.empty() && IsSpace(rest_.front())) rest_.remove_prefix(1);
  }
  std::string_view Token() {
    const size_t end = std::min(rest_.find_first_of(" \t=;,\""), rest_.size());
    const std::string_view token = rest_.substr(0, end);
    rest_.remove_prefix(end);
    return token;
  }
  std::string Value() {
    if (rest_.empty() || rest_.front() != '"') return std::string(Token());
    std::string value;
    size_t at = 1;
    for (; at < rest_.size() && rest_[at] != '"'; ++at) {
      if (rest_[at] == '\\' && at + 1 < rest_.size()) ++at;
      value.push_back(rest_[at]);
    }
    rest_.remove_prefix(std::min(at + 1, rest_.size()));
    return value;
  }
  void SkipToComma() { rest_.remove_prefix(std::min(rest_.find(','), rest_.size())); }

  std::string_view rest_;
};

}  // namespace

std::optional<absl::Duration> ParseRetryAfter(std::string_view value, absl::Time now) {
  while (!value.empty() && value.front() == ' ') value.remove_prefix(1);
  while (!value.empty() && value.back() == ' ') value.remove_suffix(1);
  int64_t seconds = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), seconds);
  if (error == std::errc() && end == value.data() + value.size()) {
    if (seconds < 0) return std::nullopt;
    return absl::Seconds(seconds);
  }
  absl::Time date;
  if (!absl::ParseTime("%a, %d %b %Y %H:%M:%S GMT", std::string(value), &date, nullptr)) return std::nullopt;
  return std::max(date - now, absl::ZeroDuration());
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  return lower;
}

std::string NextLink(std::string_view value) {
  LinkReader links(value);
  std::string_view target;
  for (bool next = false; links.Next(&target, &next);) {
    if (next) return std::string(target);
  }
  return {};
}

}  // namespace sluice::connector::http
