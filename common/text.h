// Putting text together from pieces, for messages. Debian's Abseil has a string_view of its own that does not take a
// std::string_view, so absl::StrCat cannot be handed one; Cat takes both, numbers, ids, and Hex.
#pragma once

#include <charconv>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace sluice {

/// A standard view of Abseil's text.
inline std::string_view View(absl::string_view text) {
  return {text.data(), text.size()};
}
/// A status's message, as a standard view; valid while the status is.
inline std::string_view Message(const absl::Status& status) {
  return View(status.message());
}

/// `value` in lower-case hexadecimal with at least `digits` digits.
struct Hex {
  uint64_t value;
  int digits = 1;
};

namespace internal {

inline void AppendPiece(std::string* out, std::string_view piece) {
  out->append(piece);
}
inline void AppendPiece(std::string* out, const std::string& piece) {
  out->append(piece);
}
inline void AppendPiece(std::string* out, const char* piece) {
  out->append(piece);
}
inline void AppendPiece(std::string* out, char piece) {
  out->push_back(piece);
}
inline void AppendPiece(std::string* out, bool piece) {
  out->append(piece ? "true" : "false");
}

template <class T>
requires(std::is_arithmetic_v<T> && !std::same_as<T, bool> && !std::same_as<T, char>) void AppendPiece(std::string* out,
                                                                                                       T piece) {
  char digits[32];
  out->append(digits, std::to_chars(digits, digits + sizeof(digits), piece).ptr);
}

inline void AppendPiece(std::string* out, Hex piece) {
  char digits[16];
  const auto end = std::to_chars(digits, digits + sizeof(digits), piece.value, 16).ptr;
  for (auto written = end - digits; written < piece.digits; ++written) out->push_back('0');
  out->append(digits, end);
}

// Abseil's view, where it is a type of its own.
template <class T>
requires(std::same_as<T, absl::string_view> && !std::same_as<T, std::string_view>) void AppendPiece(std::string* out,
                                                                                                    T piece) {
  out->append(piece.data(), piece.size());
}

// Strong integers.
template <class T>
requires requires(const T& id) {
  typename T::rep;
  id.value();
}
void AppendPiece(std::string* out, const T& piece) {
  AppendPiece(out, static_cast<int64_t>(piece.value()));
}

// What prints itself: UUIDs, replica ids.
template <class T>
requires requires(const T& id) {
  { id.ToString() } -> std::same_as<std::string>;
}
void AppendPiece(std::string* out, const T& piece) {
  out->append(piece.ToString());
}

}  // namespace internal

/// All pieces, one behind the other.
template <class... Pieces>
std::string Cat(const Pieces&... pieces) {
  std::string out;
  (internal::AppendPiece(&out, pieces), ...);
  return out;
}

}  // namespace sluice
