// Parquet files through Arrow's C++ library. Row groups are cut by rows and by bytes of the values, so that they depend
// on nothing but the records.
#include <arrow/builder.h>
#include <arrow/io/interfaces.h>
#include <arrow/record_batch.h>
#include <arrow/table.h>
#include <arrow/table_builder.h>
#include <arrow/type.h>
#include <arrow/util/utf8.h>
#include <parquet/arrow/writer.h>
#include <parquet/properties.h>

#include <utility>
#include <vector>

#include "common/status_macros.h"
#include "common/text.h"
#include "connector/sink/encoder.h"

namespace sluice::connector {

namespace {

constexpr int64_t kRowGroupRows = 131'072;
constexpr int64_t kRowGroupValueBytes = int64_t{32} << 20;

absl::Status FromArrow(const arrow::Status& status) {
  return status.ok() ? absl::OkStatus() : absl::InternalError(Cat("parquet: ", status.ToString()));
}

#define SLUICE_RETURN_IF_ARROW_ERROR(expression) SLUICE_RETURN_IF_ERROR(FromArrow(expression))

// Lets Arrow write into an OutputFile. The file is committed elsewhere.
class FileStream : public arrow::io::OutputStream {
 public:
  explicit FileStream(OutputFile* file) : file_(file) { set_mode(arrow::io::FileMode::WRITE); }
  arrow::Status Write(const void* data, int64_t size) override {
    failure_.Update(file_->Write({static_cast<const char*>(data), static_cast<size_t>(size)}));
    return failure_.ok() ? arrow::Status::OK() : arrow::Status::IOError(failure_.ToString());
  }
  arrow::Status Close() override {
    closed_ = true;
    return arrow::Status::OK();
  }
  bool closed() const override { return closed_; }
  arrow::Result<int64_t> Tell() const override { return file_->bytes_written(); }
  // The status as the file gave it, which Arrow's copy only repeats as text.
  const absl::Status& failure() const { return failure_; }

 private:
  OutputFile* const file_;
  absl::Status failure_;
  bool closed_ = false;
};

std::shared_ptr<arrow::DataType> TypeOf(ColumnType type) {
  switch (type) {
    case ColumnType::kBool:
      return arrow::boolean();
    case ColumnType::kInt32:
      return arrow::int32();
    case ColumnType::kInt64:
      return arrow::int64();
    case ColumnType::kDouble:
      return arrow::float64();
    case ColumnType::kTimestamp:
    case ColumnType::kTimestampMs:
      return arrow::timestamp(arrow::TimeUnit::MILLI, "UTC");
    case ColumnType::kDate:
      return arrow::date32();
    case ColumnType::kString:
    case ColumnType::kJson:
      break;
  }
  return arrow::utf8();
}

arrow::Status AppendCell(const Cell& cell, ColumnType type, arrow::ArrayBuilder* builder) {
  if (cell.kind == Cell::Kind::kNull) return builder->AppendNull();
  switch (type) {
    case ColumnType::kBool:
      return static_cast<arrow::BooleanBuilder*>(builder)->Append(cell.integer != 0);
    case ColumnType::kInt32:
      return static_cast<arrow::Int32Builder*>(builder)->Append(static_cast<int32_t>(cell.integer));
    case ColumnType::kInt64:
      return static_cast<arrow::Int64Builder*>(builder)->Append(cell.integer);
    case ColumnType::kDouble:
      return static_cast<arrow::DoubleBuilder*>(builder)->Append(cell.number);
    case ColumnType::kTimestamp:
    case ColumnType::kTimestampMs:
      return static_cast<arrow::TimestampBuilder*>(builder)->Append(cell.integer);
    case ColumnType::kDate:
      return static_cast<arrow::Date32Builder*>(builder)->Append(static_cast<int32_t>(cell.integer));
    case ColumnType::kString:
    case ColumnType::kJson:
      break;
  }
  return static_cast<arrow::StringBuilder*>(builder)->Append(cell.text);
}

class ParquetFormat : public Format {
 public:
  ParquetFormat(const Schema& schema, SinkCodec codec, int level) : schema_(schema), reader_(schema) {
    arrow::FieldVector fields;
    for (const ColumnConfig& column : schema) fields.push_back(arrow::field(column.name, TypeOf(column.type)));
    fields.push_back(arrow::field("_extra", arrow::utf8()));
    fields.push_back(arrow::field("_topic", arrow::utf8(), false));
    fields.push_back(arrow::field("_partition", arrow::int32(), false));
    fields.push_back(arrow::field("_offset", arrow::int64(), false));
    fields.push_back(arrow::field("_timestamp", arrow::timestamp(arrow::TimeUnit::MILLI, "UTC"), false));
    fields.push_back(arrow::field("_key", arrow::utf8()));
    arrow_schema_ = arrow::schema(std::move(fields));

    parquet::WriterProperties::Builder properties;
    if (codec == SinkCodec::kZstd) {
      properties.compression(parquet::Compression::ZSTD)->compression_level(level);
    } else {
      properties.compression(codec == SinkCodec::kSnappy ? parquet::Compression::SNAPPY
                                                         : parquet::Compression::UNCOMPRESSED);
    }
    // Offsets rise: a dictionary of them would only be thrown away.
    properties.disable_dictionary("_offset");
    properties_ = properties.build();
  }

  absl::Status Prepare(const SinkRecord& record) override {
    if (!record.value.has_value()) return absl::InvalidArgumentError("the record has no value");
    SLUICE_RETURN_IF_ERROR(reader_.Read(*record.value));
    if (record.key.has_value() && !arrow::util::ValidateUTF8(*record.key)) {
      return absl::InvalidArgumentError("the record's key is not UTF-8, so it fits no _key");
    }
    record_ = record;
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<FileEncoder>> Open(OutputFile* file) override;
  std::string extension() const override { return "parquet"; }

  const Schema& schema() const { return schema_; }
  const RowReader& reader() const { return reader_; }
  const SinkRecord& record() const { return record_; }
  const std::shared_ptr<arrow::Schema>& arrow_schema() const { return arrow_schema_; }
  const std::shared_ptr<parquet::WriterProperties>& properties() const { return properties_; }

 private:
  const Schema schema_;
  RowReader reader_;
  SinkRecord record_;
  std::shared_ptr<arrow::Schema> arrow_schema_;
  std::shared_ptr<parquet::WriterProperties> properties_;
};

class ParquetEncoder : public FileEncoder {
 public:
  ParquetEncoder(const ParquetFormat* format, OutputFile* file)
      : format_(format), stream_(std::make_shared<FileStream>(file)) {}

  absl::Status Open() {
    arrow::util::InitializeUTF8();
    auto builder = arrow::RecordBatchBuilder::Make(format_->arrow_schema(), arrow::default_memory_pool(), 1024);
    SLUICE_RETURN_IF_ARROW_ERROR(builder.status());
    builder_ = *std::move(builder);
    auto writer = parquet::arrow::FileWriter::Open(*format_->arrow_schema(), arrow::default_memory_pool(), stream_,
                                                   format_->properties());
    SLUICE_RETURN_IF_ARROW_ERROR(writer.status());
    writer_ = *std::move(writer);
    return absl::OkStatus();
  }

  absl::Status AddPrepared() override {
    SLUICE_RETURN_IF_ARROW_ERROR(AppendRow());
    ++rows_;
    value_bytes_ += static_cast<int64_t>(format_->record().value->size());
    return rows_ < kRowGroupRows && value_bytes_ < kRowGroupValueBytes ? absl::OkStatus() : FlushRowGroup();
  }

  absl::Status Finish() override {
    if (rows_ > 0) SLUICE_RETURN_IF_ERROR(FlushRowGroup());
    const arrow::Status closed = writer_->Close();
    if (!stream_->failure().ok()) return stream_->failure();
    return FromArrow(closed);
  }

 private:
  arrow::Status AppendRow() {
    const auto cells = format_->reader().cells();
    int at = 0;
    for (const Cell& cell : cells) {
      ARROW_RETURN_NOT_OK(AppendCell(cell, format_->schema()[static_cast<size_t>(at)].type, builder_->GetField(at)));
      ++at;
    }
    const SinkRecord& record = format_->record();
    const std::string_view extra = format_->reader().extra();
    auto* extra_builder = builder_->GetFieldAs<arrow::StringBuilder>(at++);
    ARROW_RETURN_NOT_OK(extra.empty() ? extra_builder->AppendNull() : extra_builder->Append(extra));
    ARROW_RETURN_NOT_OK(builder_->GetFieldAs<arrow::StringBuilder>(at++)->Append(record.topic));
    ARROW_RETURN_NOT_OK(builder_->GetFieldAs<arrow::Int32Builder>(at++)->Append(record.partition.value()));
    ARROW_RETURN_NOT_OK(builder_->GetFieldAs<arrow::Int64Builder>(at++)->Append(record.offset.value()));
    ARROW_RETURN_NOT_OK(builder_->GetFieldAs<arrow::TimestampBuilder>(at++)->Append(record.timestamp_ms));
    auto* key_builder = builder_->GetFieldAs<arrow::StringBuilder>(at);
    return record.key.has_value() ? key_builder->Append(*record.key) : key_builder->AppendNull();
  }

  absl::Status FlushRowGroup() {
    auto batch = builder_->Flush();
    SLUICE_RETURN_IF_ARROW_ERROR(batch.status());
    auto table = arrow::Table::FromRecordBatches({*batch});
    SLUICE_RETURN_IF_ARROW_ERROR(table.status());
    const arrow::Status written = writer_->WriteTable(**table, rows_);
    if (!stream_->failure().ok()) return stream_->failure();
    rows_ = 0;
    value_bytes_ = 0;
    return FromArrow(written);
  }

  const ParquetFormat* const format_;
  const std::shared_ptr<FileStream> stream_;
  std::unique_ptr<arrow::RecordBatchBuilder> builder_;
  std::unique_ptr<parquet::arrow::FileWriter> writer_;
  int64_t rows_ = 0;
  int64_t value_bytes_ = 0;
};

absl::StatusOr<std::unique_ptr<FileEncoder>> ParquetFormat::Open(OutputFile* file) {
  auto encoder = std::make_unique<ParquetEncoder>(this, file);
  SLUICE_RETURN_IF_ERROR(encoder->Open());
  return encoder;
}

}  // namespace

std::unique_ptr<Format> MakeParquetFormat(const Schema& schema, SinkCodec codec, int level) {
  return std::make_unique<ParquetFormat>(schema, codec, level);
}

}  // namespace sluice::connector
