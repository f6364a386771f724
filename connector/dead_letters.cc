#include "connector/dead_letters.h"

#include <openssl/sha.h>

#include <algorithm>
#include <charconv>

#include "client/admin.h"
#include "client/client.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::connector {
namespace {

constexpr size_t kBatchBytesMax = size_t{512} << 10;
constexpr int kAttemptsMax = 20;
/// What is kept of a value that is too large for the topic: the first of these that fits.
constexpr size_t kKept[] = {size_t{64} << 10, size_t{4} << 10, 0};
/// Of a batch in the topic: room for records that the source's topic refuses, within the broker's default bound of one
/// message.
constexpr int64_t kTopicBytesMax = int64_t{12} << 20;

size_t HeaderBytes(const DeadLetter& letter) {
  size_t bytes = 0;
  for (const auto& [name, value] : letter.headers) bytes += name.size() + value.value_or("").size() + 16;
  return bytes;
}

size_t SizeOf(const DeadLetter& letter) {
  return letter.reason.size() + letter.key.value_or("").size() + letter.value.value_or("").size() +
         HeaderBytes(letter) + 512;
}

std::optional<std::string_view> View(const std::optional<std::string>& text) {
  return text.has_value() ? std::optional<std::string_view>(*text) : std::nullopt;
}

std::string Sha256(std::string_view text) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  std::string hex;
  for (const unsigned char byte : digest) hex += Cat(Hex{byte, 2});
  return hex;
}

/// At most `bytes` of `text`, never half a character.
std::string Beginning(const std::string& text, size_t bytes) {
  if (text.size() <= bytes) return text;
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xc0) == 0x80) --bytes;
  return text.substr(0, bytes);
}

DeadLetter Cut(const DeadLetter& letter, size_t keep) {
  DeadLetter cut{.timestamp_ms = letter.timestamp_ms, .reason = letter.reason, .whence = letter.whence};
  if (letter.value) {
    cut.value = Beginning(*letter.value, keep);
    cut.headers.emplace_back("sluice.value.bytes", std::to_string(letter.value->size()));
    cut.headers.emplace_back("sluice.value.sha256", Sha256(*letter.value));
    cut.headers.emplace_back("sluice.value.kept", std::to_string(cut.value->size()));
  }
  const size_t key = letter.key.value_or("").size();
  if (key <= keep / 4) {
    cut.key = letter.key;
  } else {
    cut.headers.emplace_back("sluice.key.bytes", std::to_string(key));
  }
  if (const size_t headers = HeaderBytes(letter); headers <= keep / 4) {
    cut.headers.insert(cut.headers.begin(), letter.headers.begin(), letter.headers.end());
  } else {
    cut.headers.emplace_back("sluice.headers.bytes", std::to_string(headers));
  }
  return cut;
}

std::string NameOf(const DeadLetter& letter) {
  std::string name;
  for (const auto& [key, value] : letter.whence) name += Cat(value, "\n");
  return name;
}

absl::Status Make(client::Admin& admin, const std::string& name, const std::string& topic) {
  SLUICE_ASSIGN_OR_RETURN(const client::TopicDescription source, admin.DescribeTopic(topic));
  int64_t room = kTopicBytesMax;
  if (const auto set = source.topic.config.find("max.message.bytes"); set != source.topic.config.end()) {
    int64_t limit = 0;
    std::from_chars(set->second.data(), set->second.data() + set->second.size(), limit);
    room = std::max(room, limit + (1 << 16));  // headers are added to each letter
  }
  client::TopicSpec spec{
      .name = name, .partitions = 1, .replicas = source.topic.replicas, .config = {}, .internal = false};
  spec.config["max.message.bytes"] = std::to_string(room);
  absl::Status made = admin.CreateTopic(spec).status();
  if (absl::IsInvalidArgument(made)) {  // more than this broker's segments hold
    spec.config.clear();
    made = admin.CreateTopic(spec).status();
  }
  return absl::IsAlreadyExists(made) ? absl::OkStatus() : made;
}

}  // namespace

std::string_view HeaderText(const record::Record& record, std::string_view name) {
  for (auto header = record.headers.rbegin(); header != record.headers.rend(); ++header) {
    if (header->key == name) return header->value.value_or(std::string_view());
  }
  return {};
}

DeadLetterQueue::Open DeadLettersOf(client::Client& client, const std::string& topic) {
  return [&client, topic](bool make) -> absl::StatusOr<std::unique_ptr<PartitionLog>> {
    const std::string name = topic + ".dlq";
    const std::unique_ptr<client::Admin> admin = client.NewAdmin();
    absl::Status found = admin->DescribeTopic(name).status();
    if (absl::IsNotFound(found)) {
      if (!make) return nullptr;
      found = Make(*admin, name, topic);
    }
    SLUICE_RETURN_IF_ERROR(found);
    return OpenPartitionLog(client, name, PartitionId(0));
  };
}

absl::StatusOr<std::optional<PartitionLog::End>> DeadLetterQueue::ReadEnd(bool make) {
  for (bool again = false;; again = true) {
    if (log_ == nullptr) {
      SLUICE_ASSIGN_OR_RETURN(log_, open_(make));
      if (log_ == nullptr) return std::nullopt;
    }
    absl::StatusOr<PartitionLog::End> end = log_->ReadEnd();
    if (end.ok()) return *end;
    if (again || !absl::IsNotFound(end.status())) return end.status();
    log_ = nullptr;  // someone deleted the topic meanwhile
  }
}

absl::StatusOr<Offset> DeadLetterQueue::End() {
  SLUICE_ASSIGN_OR_RETURN(const std::optional<PartitionLog::End> end, ReadEnd(false));
  return end ? end->log_end : Offset(0);
}

absl::StatusOr<Offset> DeadLetterQueue::Visit(Offset from, absl::FunctionRef<void(const record::Record&)> visit) {
  SLUICE_ASSIGN_OR_RETURN(const std::optional<PartitionLog::End> end, ReadEnd(false));
  if (!end) return Offset(0);
  if (from > end->log_end) from = Offset(0);  // another topic than the one that `from` is of
  from = std::max(from, end->log_start);
  SLUICE_RETURN_IF_ERROR(log_->Read(from, end->data_end, [&](absl::Span<const record::Record> batch, Offset) {
    for (const record::Record& record : batch) {
      if (record.offset >= from) visit(record);
    }
    return true;
  }));
  return end->log_end;
}

absl::StatusOr<Offset> DeadLetterQueue::Append(Offset from, const std::vector<DeadLetter>& letters) {
  if (letters.empty()) return End();
  SLUICE_RETURN_IF_ERROR(ReadEnd(true).status());  // so that errors have a topic to name
  absl::Status last;
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    Offset end;
    last = AppendMissing(from, letters, &end);
    if (last.ok()) return end;
    // Someone else wrote, or nobody knows: look again.
    if (!PartitionLog::IsMismatch(last) && !PartitionLog::IsUnknown(last)) break;
  }
  absl::Status told(last.code(), Cat("dead letters to ", log_->name(), ": ", Message(last)));
  last.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) { told.SetPayload(url, payload); });
  return told;
}

absl::Status DeadLetterQueue::AppendMissing(Offset from, const std::vector<DeadLetter>& letters, Offset* end) {
  SLUICE_ASSIGN_OR_RETURN(const std::optional<PartitionLog::End> now, ReadEnd(true));
  if (from != known_from_ || now->log_end < known_to_) {  // the latter: another topic of that name
    known_.clear();
    known_from_ = known_to_ = from;
  }
  SLUICE_ASSIGN_OR_RETURN(*end, Visit(known_to_, [&](const record::Record& record) {
    std::string name;
    for (const auto& [header, value] : letters.front().whence) {
      name += Cat(HeaderText(record, header), "\n");
    }
    known_.insert(std::move(name));
  }));
  known_to_ = *end;
  std::vector<const DeadLetter*> run;
  size_t bytes = 0;
  for (const DeadLetter& letter : letters) {
    if (known_.count(NameOf(letter)) > 0) continue;
    if (!run.empty() && bytes + SizeOf(letter) > kBatchBytesMax) {
      SLUICE_RETURN_IF_ERROR(AppendAll(run, end));
      run.clear();
      bytes = 0;
    }
    run.push_back(&letter);
    bytes += SizeOf(letter);
  }
  return run.empty() ? absl::OkStatus() : AppendAll(run, end);
}

absl::Status DeadLetterQueue::AppendAll(absl::Span<const DeadLetter* const> letters, Offset* end) {
  absl::Status status = AppendBatch(letters, end);
  if (!PartitionLog::IsTooLarge(status)) return status;
  if (letters.size() == 1) return AppendCut(*letters.front(), end);
  const size_t half = letters.size() / 2;
  SLUICE_RETURN_IF_ERROR(AppendAll(letters.subspan(0, half), end));
  return AppendAll(letters.subspan(half), end);
}

absl::Status DeadLetterQueue::AppendCut(const DeadLetter& letter, Offset* end) {
  absl::Status status;
  for (const size_t keep : kKept) {
    const DeadLetter cut = Cut(letter, keep);
    const DeadLetter* const one[] = {&cut};
    status = AppendBatch(one, end);
    if (!PartitionLog::IsTooLarge(status)) return status;
  }
  return status;
}

absl::Status DeadLetterQueue::AppendBatch(absl::Span<const DeadLetter* const> letters, Offset* end) {
  std::vector<record::Record> batch;
  for (const DeadLetter* letter : letters) {
    record::Record record;
    record.timestamp_ms = letter->timestamp_ms;
    record.key = View(letter->key);
    record.value = View(letter->value);
    for (const auto& [name, value] : letter->headers) record.headers.push_back({name, View(value)});
    record.headers.push_back({"sluice.reason", letter->reason});
    for (const auto& [name, value] : letter->whence) record.headers.push_back({name, value});
    batch.push_back(std::move(record));
  }
  SLUICE_ASSIGN_OR_RETURN(*end, log_->Append(*end, batch, record::Codec::kZstd));
  for (const DeadLetter* letter : letters) known_.insert(NameOf(*letter));
  known_to_ = *end;
  return absl::OkStatus();
}

}  // namespace sluice::connector
