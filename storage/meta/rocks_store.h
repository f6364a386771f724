// The metadata store on RocksDB: one database in a folder of its own.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "storage/meta/metadata_store.h"

namespace rocksdb {
class FileSystem;
}

namespace sluice::storage {

/// Opens the database in `dir`, made when missing (its parent must be there), through `files` or else the machine's
/// own. DataLoss when it is damaged, FailedPrecondition when another process has it open, otherwise Internal or
/// ResourceExhausted (a full disk or quota). Blocks.
absl::StatusOr<std::unique_ptr<MetadataStore>> OpenRocksMetadataStore(
    const std::string& dir, const std::shared_ptr<rocksdb::FileSystem>& files = nullptr);

}  // namespace sluice::storage
