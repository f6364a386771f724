#include "bench/record_bench.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <random>

#include "common/check.h"
#include "common/crc32c.h"
#include "common/record/record.h"
#include "common/text.h"

namespace sluice::bench {

namespace {

using record::BatchBuilder;
using record::BatchView;
using record::Codec;
using record::PendingBatch;

// Keeps the compiler from dropping what is measured.
template <class T>
void Use(const T& value) {
  asm volatile("" : : "r,m"(value) : "memory");
}

// Seconds of one call: the best third of the time given, so that a neighbour on the machine counts less.
double SecondsOfOne(absl::Duration each, const std::function<void()>& call) {
  using Now = std::chrono::steady_clock;
  const double third = absl::ToDoubleSeconds(each) / 3;
  double best = std::numeric_limits<double>::max();
  call();
  for (int round = 0; round < 3; ++round) {
    int64_t calls = 0;
    int64_t batch = 1;
    const auto start = Now::now();
    double elapsed = 0;
    do {
      for (int64_t i = 0; i < batch; ++i) call();
      calls += batch;
      batch = std::min<int64_t>(batch * 2, 1024);
      elapsed = std::chrono::duration<double>(Now::now() - start).count();
    } while (elapsed < third);
    best = std::min(best, elapsed / static_cast<double>(calls));
  }
  return best;
}

// JSON-like text: what a codec meets in practice.
std::string EventText(size_t size) {
  std::mt19937 random(5);
  std::string text;
  while (text.size() < size) {
    text += Cat("{\"id\":", random() % 1000000, ",\"place\":\"", random() % 500,
                " km SSE of somewhere\",\"mag\":", random() % 90, ",\"time\":17000", random() % 100000000, "}\n");
  }
  text.resize(size);
  return text;
}

MutableBytes CopyOf(std::string_view bytes) {
  MutableBytes copy(bytes.size());
  std::memcpy(copy.data(), bytes.data(), bytes.size());
  return copy;
}

class Bench {
 public:
  explicit Bench(absl::Duration each) : each_(each) {}

  void Bytes(std::string name, size_t bytes, const std::function<void()>& call, double ratio = 0) {
    const double seconds = SecondsOfOne(each_, call);
    found_.push_back({std::move(name), static_cast<double>(bytes) / seconds / 1e9, seconds * 1e9, ratio});
  }
  void Call(std::string name, const std::function<void()>& call) {
    found_.push_back({std::move(name), 0, SecondsOfOne(each_, call) * 1e9, 0});
  }
  std::vector<RecordMeasurement> Take() { return std::move(found_); }

 private:
  absl::Duration each_;
  std::vector<RecordMeasurement> found_;
};

void Checksums(Bench* bench) {
  const std::string text = EventText(256 << 10);
  for (const size_t size : {size_t{100}, size_t{1} << 10, size_t{256} << 10}) {
    const std::string_view part = std::string_view(text).substr(0, size);
    bench->Bytes(Cat("crc32c, ", size, " bytes"), size, [part] { Use(Crc32c(part)); });
  }
  bench->Bytes("crc32c without the instruction, 262144 bytes", text.size(),
               [&] { Use(internal::Crc32cPortable(text, 0)); });
  uint32_t crc = 1;
  bench->Call("crc32c combine, 256 KB", [&] { Use(crc = Crc32cCombine(crc, 77, 262123)); });
}

std::string BatchOf(size_t record_bytes, size_t batch_bytes) {
  const std::string value = EventText(record_bytes);
  BatchBuilder builder;
  while (builder.size_bytes() < batch_bytes) SLUICE_CHECK(builder.Append(1700000000000, std::nullopt, value).ok());
  return std::string(builder.Build()->bytes());
}

void Batches(Bench* bench, size_t record_bytes) {
  const std::string bytes = BatchOf(record_bytes, 256 << 10);
  const std::string name = Cat(" of ", record_bytes, "-byte records, 256 KB");
  const std::string value = EventText(record_bytes);
  BatchBuilder builder;
  bench->Bytes(Cat("build batch", name), bytes.size(), [&] {
    while (builder.size_bytes() < bytes.size()) SLUICE_CHECK(builder.Append(1700000000000, std::nullopt, value).ok());
    SLUICE_CHECK(builder.Build().ok());
  });
  bench->Bytes(Cat("copy, check and place batch", name), bytes.size(), [&] {
    auto pending = PendingBatch::FromClient(CopyOf(bytes));
    SLUICE_CHECK(pending.ok());
    pending->SetLogAppendTime(1700000000001);
    Use((*std::move(pending)).Assign(Offset(5), LeaderEpoch(1)).whole_crc32c());
  });
  bench->Bytes(Cat("read batch", name), bytes.size(), [&] {
    auto reader = record::RecordReader::Open(*BatchView::Parse(bytes));
    record::Record record;
    while (*reader->Next(&record)) Use(record.offset);
  });
}

void Codecs(Bench* bench) {
  const std::string text = EventText(256 << 10);
  for (const Codec codec : {Codec::kGzip, Codec::kSnappy, Codec::kLz4, Codec::kZstd}) {
    std::string packed;
    SLUICE_CHECK(Compress(codec, record::kDefaultLevel, text, &packed).ok());
    const double ratio = static_cast<double>(text.size()) / static_cast<double>(packed.size());
    std::string out;
    bench->Bytes(
        Cat(record::CodecName(codec), " compress, 256 KB"), text.size(),
        [&] {
          out.clear();
          SLUICE_CHECK(Compress(codec, record::kDefaultLevel, text, &out).ok());
        },
        ratio);
    bench->Bytes(
        Cat(record::CodecName(codec), " decompress, 256 KB"), text.size(),
        [&] { SLUICE_CHECK(Decompress(codec, packed, {}).ok()); }, ratio);
  }
}

}  // namespace

std::vector<RecordMeasurement> MeasureRecordPath(absl::Duration each) {
  Bench bench(each);
  Checksums(&bench);
  Batches(&bench, 1000);
  Batches(&bench, 100);
  Codecs(&bench);
  return bench.Take();
}

void PrintRecordBench(std::ostream& out, absl::Duration each) {
  char line[128];
  std::snprintf(line, sizeof(line), "%-56s %8s %12s %6s\n", "record path, one thread", "GB/s", "ns a call", "ratio");
  out << line;
  for (const RecordMeasurement& one : MeasureRecordPath(each)) {
    char speed[16] = "";
    char ratio[16] = "";
    if (one.gigabytes_per_second > 0) std::snprintf(speed, sizeof(speed), "%.2f", one.gigabytes_per_second);
    if (one.ratio > 0) std::snprintf(ratio, sizeof(ratio), "%.1f", one.ratio);
    std::snprintf(line, sizeof(line), "%-56s %8s %12.1f %6s\n", one.name.c_str(), speed, one.nanoseconds, ratio);
    out << line;
  }
}

}  // namespace sluice::bench
