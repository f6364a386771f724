// Putting what comes from outside into messages. A server may send back what it was sent, and what it says ends in
// errors and logs: so secrets are taken out of it. What we write ourselves never has a secret in it (common/secret.h).
//
// Pure functions; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "common/secret.h"
#include "common/text.h"

namespace sluice::connector {

/// Shorter ones would be found in any text.
inline constexpr size_t kRedactedMin = 4;

/// `text` with "***" for every secret in it, as it is or percent-encoded.
inline std::string Redacted(std::string text, const std::vector<Secret>& secrets) {
  const auto take = [&text](const std::string& secret) {
    if (secret.size() < kRedactedMin) return;
    for (size_t at = 0; (at = text.find(secret, at)) != std::string::npos; at += 3)
      text.replace(at, secret.size(), "***");
  };
  for (const Secret& secret : secrets) {
    take(secret.Reveal());
    std::string encoded;
    for (const char c : secret.Reveal()) {
      const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                         std::string_view("-._~").find(c) != std::string_view::npos;
      static constexpr char kHex[] = "0123456789ABCDEF";
      if (plain) {
        encoded.push_back(c);
      } else {
        encoded += {'%', kHex[static_cast<unsigned char>(c) >> 4], kHex[c & 15]};
      }
    }
    take(encoded);
  }
  return text;
}

/// The beginning of what a server sent, in one printable line.
inline std::string Excerpt(std::string_view text, const std::vector<Secret>& secrets, size_t bytes = 200) {
  // Redacted before it is cut: half a secret is still one.
  std::string line = Redacted(std::string(text.substr(0, bytes + 4096)), secrets);
  if (line.size() > bytes) {
    while (bytes > 0 && (static_cast<unsigned char>(line[bytes]) & 0xc0) == 0x80) --bytes;
    line.resize(bytes);
  }
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return line;
}

/// `status` with `prefix` before its message; code and payloads stay.
inline absl::Status Located(std::string_view prefix, const absl::Status& status) {
  if (status.ok()) return status;
  absl::Status located(status.code(), Cat(prefix, ": ", Message(status)));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) { located.SetPayload(url, payload); });
  return located;
}

}  // namespace sluice::connector
