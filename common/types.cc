#include "common/types.h"

#include <cstring>

namespace sluice {

namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

constexpr bool DashBefore(size_t byte) {
  return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

}  // namespace

Uuid Uuid::FromRandom(uint64_t high, uint64_t low) {
  Uuid u;
  std::memcpy(u.bytes.data(), &high, 8);
  std::memcpy(u.bytes.data() + 8, &low, 8);
  u.bytes[6] = static_cast<uint8_t>((u.bytes[6] & 0x0f) | 0x40);
  u.bytes[8] = static_cast<uint8_t>((u.bytes[8] & 0x3f) | 0x80);
  return u;
}

std::optional<Uuid> Uuid::Parse(std::string_view text) {
  if (text.size() != 36) return std::nullopt;
  Uuid u;
  size_t at = 0;
  for (size_t i = 0; i < u.bytes.size(); ++i) {
    if (DashBefore(i) && text[at++] != '-') return std::nullopt;
    const int high = HexDigit(text[at]);
    const int low = HexDigit(text[at + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    u.bytes[i] = static_cast<uint8_t>(high << 4 | low);
    at += 2;
  }
  return u;
}

std::optional<Uuid> Uuid::FromBytes(std::string_view raw) {
  Uuid u;
  if (raw.size() != u.bytes.size()) return std::nullopt;
  std::memcpy(u.bytes.data(), raw.data(), raw.size());
  return u;
}

std::string Uuid::ToString() const {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  out.reserve(36);
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (DashBefore(i)) out.push_back('-');
    out.push_back(kHex[bytes[i] >> 4]);
    out.push_back(kHex[bytes[i] & 0xf]);
  }
  return out;
}

std::string VoterId::ToString() const {
  return std::to_string(node.value()) + "/" + incarnation.ToString();
}

std::string ReplicaId::ToString() const {
  return topic.ToString() + "/" + std::to_string(partition.value());
}

}  // namespace sluice
