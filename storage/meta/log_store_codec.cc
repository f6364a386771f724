#include "storage/meta/log_store_codec.h"

#include <algorithm>
#include <utility>

#include "common/crc32c.h"
#include "common/endian.h"
#include "common/file_system.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "storage/meta/log_store_format.h"

namespace sluice::storage::meta_log {
namespace {

template <class T>
void AppendInt(std::string* out, T value) {
  const size_t at = out->size();
  out->resize(at + sizeof(T));
  StoreLittle(out->data() + at, value);
}

void AppendText(std::string* out, std::string_view text) {
  AppendInt(out, static_cast<uint32_t>(text.size()));
  out->append(text);
}

class PayloadReader {
 public:
  explicit PayloadReader(std::string_view payload) : rest_(payload), size_(payload.size()) {}

  template <class T>
  absl::Status Int(T* value) {
    if (rest_.size() < sizeof(T)) return Cut();
    *value = LoadLittle<T>(rest_.data());
    rest_.remove_prefix(sizeof(T));
    return absl::OkStatus();
  }
  absl::Status Text(std::string* text) {
    uint32_t length = 0;
    SLUICE_RETURN_IF_ERROR(Int(&length));
    return Raw(length, text);
  }
  absl::Status Raw(uint32_t length, std::string* text) {
    if (rest_.size() < length) return Cut();
    text->assign(rest_.substr(0, length));
    rest_.remove_prefix(length);
    return absl::OkStatus();
  }
  bool AtEnd() const { return rest_.empty(); }

 private:
  absl::Status Cut() const {
    return absl::DataLossError(Cat("a field reaches beyond the payload, at byte ", size_ - rest_.size()));
  }
  std::string_view rest_;
  size_t size_;
};

uint32_t FrameCrc(std::string_view header, std::string_view payload) {
  return Crc32c(payload, Crc32c(header.substr(kLengthAt, kCrcAt - kLengthAt)));
}

}  // namespace

std::string EncodeChange(std::string_view machine, int64_t applied, const MetadataChanges& changes) {
  std::string out;
  AppendInt(&out, uint32_t{1});
  AppendText(&out, machine);
  AppendInt(&out, applied);
  AppendInt(&out, static_cast<uint32_t>(changes.changes().size()));
  for (const auto& change : changes.changes()) {
    AppendText(&out, change.key);
    if (change.value.has_value()) {
      AppendText(&out, *change.value);
    } else {
      AppendInt(&out, kNoValue);
    }
  }
  return out;
}

std::string EncodeState(const State& state) {
  std::string out;
  AppendInt(&out, static_cast<uint32_t>(state.size()));
  for (const auto& [name, machine] : state) {
    AppendText(&out, name);
    AppendInt(&out, machine.applied);
    AppendInt(&out, static_cast<uint32_t>(machine.entries.size()));
    for (const auto& [key, value] : machine.entries) {
      AppendText(&out, key);
      AppendText(&out, value);
    }
  }
  return out;
}

absl::Status ApplyPayload(std::string_view payload, State* state) {
  PayloadReader reader(payload);
  uint32_t machines = 0;
  SLUICE_RETURN_IF_ERROR(reader.Int(&machines));
  for (uint32_t m = 0; m < machines; ++m) {
    std::string name;
    SLUICE_RETURN_IF_ERROR(reader.Text(&name));
    MachineState& machine = (*state)[name];
    SLUICE_RETURN_IF_ERROR(reader.Int(&machine.applied));
    uint32_t changes = 0;
    SLUICE_RETURN_IF_ERROR(reader.Int(&changes));
    for (uint32_t c = 0; c < changes; ++c) {
      std::string key;
      SLUICE_RETURN_IF_ERROR(reader.Text(&key));
      uint32_t length = 0;
      SLUICE_RETURN_IF_ERROR(reader.Int(&length));
      if (length == kNoValue) {
        machine.entries.erase(key);
        continue;
      }
      std::string value;
      SLUICE_RETURN_IF_ERROR(reader.Raw(length, &value));
      machine.entries.insert_or_assign(std::move(key), std::move(value));
    }
  }
  if (!reader.AtEnd()) return absl::DataLossError("bytes are left over behind the last change");
  return absl::OkStatus();
}

std::string EncodeFrame(uint64_t sequence, std::string_view payload) {
  std::string frame(kFrameHeaderBytes, '\0');
  StoreLittle(frame.data() + kMagicAt, kMagic);
  StoreLittle(frame.data() + kLengthAt, static_cast<uint32_t>(payload.size()));
  StoreLittle(frame.data() + kSequenceAt, sequence);
  StoreLittle(frame.data() + kCrcAt, FrameCrc(frame, payload));
  frame.append(payload);
  frame.resize((frame.size() + kBlockBytes - 1) / kBlockBytes * kBlockBytes);
  return frame;
}

std::optional<FrameView> ParseFrame(std::string_view bytes) {
  if (bytes.size() < kFrameHeaderBytes || LoadLittle<uint32_t>(bytes.data() + kMagicAt) != kMagic) return std::nullopt;
  const auto length = LoadLittle<uint32_t>(bytes.data() + kLengthAt);
  if (length > kPayloadBytesMax || length > bytes.size() - kFrameHeaderBytes) return std::nullopt;
  FrameView frame;
  frame.sequence = LoadLittle<uint64_t>(bytes.data() + kSequenceAt);
  frame.payload = bytes.substr(kFrameHeaderBytes, length);
  if (LoadLittle<uint32_t>(bytes.data() + kCrcAt) != FrameCrc(bytes, frame.payload)) return std::nullopt;
  const size_t padded = (kFrameHeaderBytes + length + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  frame.size_bytes = std::min(padded, bytes.size());
  return frame;
}

}  // namespace sluice::storage::meta_log
