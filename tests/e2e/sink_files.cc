// What the sinks write, to a real S3 server and to a folder: a program that a Python test runs and whose files it reads
// with DuckDB. Usage: sink_files TARGET [ENDPOINT ACCESS SECRET [give-up]]. Prints "ok" or the error. With `give-up` it
// drops a file of which it wrote more than is sent in one request.
#include <cstdio>
#include <string>
#include <vector>

#include "common/text.h"
#include "connector/sink/encoder.h"
#include "connector/sink/sink.h"
#include "connector/sink/target.h"
#include "runtime/posix_file_system.h"

namespace sluice::connector {
namespace {

absl::Status Write(Target* target, Format* format, const std::string& name, int64_t rows) {
  auto file = target->Create("dt=2026-01-01/" + name + "." + format->extension());
  if (!file.ok()) return file.status();
  auto encoder = format->Open(file->get());
  if (!encoder.ok()) return encoder.status();
  for (int64_t i = 0; i < rows; ++i) {
    const std::string value =
        Cat(R"({"n":)", i, R"(,"half":)", i, R"(.5,"when":"2026-01-01T00:00:00.)", 100 + i % 900, R"(Z","name":"é )", i,
            R"(","big":123456789012345678901234567890,"flag":)", i % 2 == 0, "}");
    const std::string key = Cat("k", i);
    const SinkRecord record{"topic", PartitionId(3), Offset(i), 1767225600000 + i, key, value};
    if (absl::Status status = format->Prepare(record); !status.ok()) return status;
    if (absl::Status status = (*encoder)->AddPrepared(); !status.ok()) return status;
  }
  if (absl::Status status = (*encoder)->Finish(); !status.ok()) return status;
  return (*file)->Commit();
}

absl::Status GiveUp(Target* target) {
  auto file = target->Create("given-up");
  if (!file.ok()) return file.status();
  return (*file)->Write(std::string(25 << 20, 'x'));
}

absl::Status Run(const std::vector<std::string>& arguments) {
  SinkConfig config;
  config.to = arguments.at(0);
  if (arguments.size() >= 4) config.s3 = {arguments[1], "us-east-1", Secret(arguments[2]), Secret(arguments[3])};
  runtime::PosixFileSystem files;
  auto target = MakeTarget(config, &files);
  if (!target.ok()) return target.status();
  if (arguments.size() == 5 && arguments[4] == "give-up") return GiveUp(target->get());
  const Schema schema = {{"n", "/n", ColumnType::kInt64},
                         {"half", "/half", ColumnType::kDouble},
                         {"when", "/when", ColumnType::kTimestamp},
                         {"name", "/name", ColumnType::kString},
                         {"flag", "/flag", ColumnType::kBool}};
  // Larger than what is sent to S3 in one request.
  absl::Status status = Write(target->get(), MakeRawFormat(SinkCodec::kNone, 0).get(), "plain", 150'000);
  // More rows than a row group holds.
  if (status.ok()) status = Write(target->get(), MakeParquetFormat(schema, SinkCodec::kZstd, 3).get(), "rows", 150'000);
  if (status.ok()) status = Write(target->get(), MakeRawFormat(SinkCodec::kGzip, 6).get(), "gzip", 50'000);
  if (status.ok()) status = Write(target->get(), MakeRawFormat(SinkCodec::kZstd, 3).get(), "zstd", 50'000);
  return status;
}

}  // namespace
}  // namespace sluice::connector

int main(int argc, char** argv) {
  const absl::Status status = sluice::connector::Run({argv + 1, argv + argc});
  sluice::connector::ShutDownTargets();
  std::printf("%s\n", status.ok() ? "ok" : status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
