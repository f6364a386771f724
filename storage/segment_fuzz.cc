// Any bytes as an index file, and any bytes as a segment: decoders answer or refuse, and stay within their input.
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "storage/segment.h"

namespace {

using namespace sluice;           // NOLINT(google-build-using-namespace)
using namespace sluice::storage;  // NOLINT(google-build-using-namespace)

class BytesFile final : public File {
 public:
  explicit BytesFile(std::string_view bytes) : bytes_(bytes) {}
  const std::string& path() const override { return path_; }
  bool IsDirect() const override { return false; }
  absl::StatusOr<size_t> ReadAt(int64_t offset, absl::Span<char> out) override {
    if (offset < 0 || static_cast<size_t>(offset) >= bytes_.size()) return size_t{0};
    const std::string_view part = bytes_.substr(static_cast<size_t>(offset), out.size());
    std::memcpy(out.data(), part.data(), part.size());
    return part.size();
  }
  absl::Status WriteAt(int64_t, std::string_view) override { return absl::UnimplementedError("read only"); }
  absl::Status Sync() override { return absl::UnimplementedError("read only"); }
  absl::Status Truncate(int64_t) override { return absl::UnimplementedError("read only"); }
  absl::Status Allocate(int64_t) override { return absl::UnimplementedError("read only"); }
  absl::StatusOr<int64_t> Size() override { return static_cast<int64_t>(bytes_.size()); }

 private:
  const std::string path_ = "input";
  std::string_view bytes_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const SegmentId id{Offset(0), LeaderEpoch(1)};
  auto index = SparseIndex::Decode(bytes, id);

  BytesFile file(bytes);
  const SegmentView view{
      .path = "input", .id = id, .end_position = static_cast<int64_t>(size), .next_offset = Offset(1000)};
  SparseIndex rebuilt;
  (void)ExtendIndex(file, view, rebuilt);
  (void)ReadBatches(file, view, {Offset(0), 0, 0}, Offset(size % 7), Offset(1000), 4096);
  (void)SummarizeSegment(file, view, view.end_position);
  (void)FindLastData(file, view, index.ok() ? *index : rebuilt);
  return 0;
}
