#include "connector/source/position.h"

#include <openssl/sha.h>

#include <charconv>

#include "common/status_macros.h"
#include "common/text.h"
#include "connector/source/json_text.h"

namespace sluice::connector {
namespace {

constexpr int kVersion = 1;

std::string Hashes(const std::vector<uint64_t>& hashes) {
  std::string out = "\"";
  for (const uint64_t hash : hashes) out += Cat(Hex{hash, 16});
  return out + "\"";
}

/// Reads members of one object; the first that is missing or wrong fails all.
class Reader {
 public:
  explicit Reader(const JsonValue& object) : object_(object) {}

  std::string Text(std::string_view name) {
    const auto value = Get(name, JsonValue::Kind::kString);
    return value ? value->Text() : std::string();
  }
  int64_t Integer(std::string_view name) {
    int64_t number = 0;
    if (const auto value = Get(name, JsonValue::Kind::kNumber)) {
      const auto [end, error] = std::from_chars(value->raw.data(), value->raw.data() + value->raw.size(), number);
      if (error != std::errc() || end != value->raw.data() + value->raw.size()) Fail(name);
    }
    return number;
  }
  bool Flag(std::string_view name) {
    const auto value = Get(name, JsonValue::Kind::kBool);
    return value && value->raw == "true";
  }
  std::vector<uint64_t> HashList(std::string_view name) {
    const std::string text = Text(name);
    std::vector<uint64_t> hashes;
    if (text.size() % 16 != 0) Fail(name);
    for (size_t at = 0; at + 16 <= text.size(); at += 16) {
      uint64_t hash = 0;
      const auto [end, error] = std::from_chars(text.data() + at, text.data() + at + 16, hash, 16);
      if (error != std::errc() || end != text.data() + at + 16) Fail(name);
      hashes.push_back(hash);
    }
    return hashes;
  }
  std::optional<JsonValue> Get(std::string_view name, JsonValue::Kind kind) {
    auto value = At(object_, Cat("/", name));
    if (value && value->kind == kind) return value;
    Fail(name);
    return std::nullopt;
  }
  bool Has(std::string_view name) const { return At(object_, Cat("/", name)).has_value(); }
  absl::Status status() const { return status_; }

 private:
  void Fail(std::string_view name) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(Cat("a source position without a sound '", name, "'"));
  }
  const JsonValue object_;
  absl::Status status_;
};

absl::StatusOr<Position> FromJson(const JsonValue& object) {
  Reader reader(object);
  if (const int64_t version = reader.Integer("v"); reader.status().ok() && version != kVersion) {
    return absl::InvalidArgumentError(Cat("a source position of version ", version, "; this program knows ", kVersion));
  }
  Position position;
  position.pipeline = reader.Text("pipeline");
  position.slice = reader.Text("slice");
  position.pull = reader.Integer("pull");
  position.page = reader.Integer("page");
  position.part = static_cast<int32_t>(reader.Integer("part"));
  position.parts = static_cast<int32_t>(reader.Integer("parts"));
  position.page_offset = Offset(reader.Integer("page_offset"));
  if (reader.Has("letters_from")) position.letters_from = Offset(reader.Integer("letters_from"));
  position.token = reader.Text("token");
  position.next = reader.Text("next");
  position.last = reader.Flag("last");
  position.cursor.from = reader.Text("from");
  position.cursor.from_seen = reader.HashList("from_seen");
  position.cursor.max = reader.Text("max");
  position.cursor.max_seen = reader.HashList("max_seen");
  SLUICE_RETURN_IF_ERROR(reader.status());
  return position;
}

}  // namespace

std::string EncodePosition(const Position& p) {
  return Cat("{\"v\":", kVersion, ",\"pipeline\":", JsonQuote(p.pipeline), ",\"slice\":", JsonQuote(p.slice),
             ",\"pull\":", p.pull, ",\"page\":", p.page, ",\"part\":", p.part, ",\"parts\":", p.parts,
             ",\"page_offset\":", p.page_offset, ",\"letters_from\":", p.letters_from,
             ",\"token\":", JsonQuote(p.token), ",\"next\":", JsonQuote(p.next), ",\"last\":", p.last,
             ",\"from\":", JsonQuote(p.cursor.from), ",\"from_seen\":", Hashes(p.cursor.from_seen),
             ",\"max\":", JsonQuote(p.cursor.max), ",\"max_seen\":", Hashes(p.cursor.max_seen), "}");
}

absl::StatusOr<Position> DecodePosition(std::string_view text) {
  SLUICE_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(text));
  return FromJson(document.root());
}

std::string EncodeCheckpoint(const Checkpoint& checkpoint) {
  return Cat("{\"data_end\":", checkpoint.data_end, ",\"topic_id\":", JsonQuote(checkpoint.topic_id),
             ",\"position\":", EncodePosition(checkpoint.position), "}");
}

absl::StatusOr<Checkpoint> DecodeCheckpoint(std::string_view text) {
  SLUICE_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(text));
  Reader reader(document.root());
  Checkpoint checkpoint;
  checkpoint.data_end = Offset(reader.Integer("data_end"));
  if (reader.Has("topic_id")) checkpoint.topic_id = reader.Text("topic_id");
  const auto position = reader.Get("position", JsonValue::Kind::kObject);
  SLUICE_RETURN_IF_ERROR(reader.status());
  SLUICE_ASSIGN_OR_RETURN(checkpoint.position, FromJson(*position));
  return checkpoint;
}

uint64_t RecordHash(std::string_view value) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(value.data()), value.size(), digest);
  uint64_t hash = 0;
  for (int i = 0; i < 8; ++i) hash = hash << 8 | digest[i];
  return hash;
}

}  // namespace sluice::connector
