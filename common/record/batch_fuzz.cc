// Anything may come from a client or a disk. Whatever it is, a batch is refused or it is consistent; nothing is read
// outside it and nothing is decompressed beyond the limit.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "common/check.h"
#include "common/crc32c.h"
#include "common/endian.h"
#include "common/record/batch.h"
#include "common/record/control.h"
#include "common/record/record.h"

namespace sluice::record {
namespace {

constexpr DecompressLimits kLimits{1 << 20};

void ReadRecords(const BatchView& batch) {
  const bool sound = batch.VerifyRecords(kLimits).ok();
  auto reader = RecordReader::Open(batch, kLimits);
  if (!reader.ok()) {
    SLUICE_CHECK(!sound);
    return;
  }
  Record record;
  int32_t count = 0;
  while (true) {
    const auto more = reader->Next(&record);
    if (!more.ok()) {
      SLUICE_CHECK(!sound) << "the walk let through what the reader refuses";
      return;
    }
    if (!*more) break;
    SLUICE_CHECK(record.offset == batch.base_offset() + count);
    ++count;
  }
  SLUICE_CHECK(count == batch.record_count());
}

void TakeFromClient(std::string_view bytes) {
  MutableBytes own(bytes.size());
  std::memcpy(own.data(), bytes.data(), bytes.size());
  auto pending = PendingBatch::FromClient(std::move(own));
  if (!pending.ok()) return;
  pending->SetLogAppendTime(12345);
  SLUICE_CHECK(pending->view().VerifyCrc().ok());
  const Batch batch = (*std::move(pending)).Assign(Offset(77), LeaderEpoch(5));
  SLUICE_CHECK(batch.whole_crc32c() == Crc32c(batch.bytes().view()));
  SLUICE_CHECK(Batch::FromStored(batch.bytes()).ok());
}

}  // namespace
}  // namespace sluice::record

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;
  using namespace sluice::record;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  (void)BatchView::ParseFirst(input);
  if (size < kBatchHeaderBytes) return 0;
  // As it is, and then with length, magic and CRC made right, so that the fuzzer gets behind them.
  std::string sealed(input);
  for (int round = 0; round < 2; ++round) {
    const auto view = BatchView::Parse(sealed);
    if (view.ok()) {
      ReadRecords(*view);
      (void)DecodeControlBatch(*view);
      TakeFromClient(sealed);
    }
    StoreBig<int32_t>(sealed.data() + kBatchLengthAt, static_cast<int32_t>(size - kLengthCountsFrom));
    StoreBig<int8_t>(sealed.data() + kMagicAt, kMagic);
    StoreBig<uint32_t>(sealed.data() + kCrcAt, Crc32c(std::string_view(sealed).substr(kCrcCoversFrom)));
  }
  return 0;
}
