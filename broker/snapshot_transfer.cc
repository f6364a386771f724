#include "broker/snapshot_transfer.h"

#include <algorithm>
#include <utility>

#include "common/text.h"

namespace sluice::broker {
namespace {

/// What nobody has asked for is let go of, it is offered anew; and so is a part of one that is not offered again.
constexpr absl::Duration kKeptFor = absl::Seconds(30);
constexpr absl::Duration kPieceDeadline = absl::Seconds(2);
constexpr absl::Duration kRetryAfter = absl::Milliseconds(250);
/// In a row. Then the one that leads by now is to offer one: meanwhile this replica asks for no election.
constexpr int kFailuresMax = 4;

/// Of the way, not of what was asked.
bool MayCome(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsResourceExhausted(status) ||
         absl::IsDataLoss(status);
}

}  // namespace

SnapshotTransfer::~SnapshotTransfer() {
  *alive_ = false;
}

// ---- Giving --------------------------------------------------------------------------------------------------------

SnapshotName SnapshotTransfer::Offer(const ClusterState& state, Offset applied, Offset log_start) {
  if (!given_.has_value() || given_->name.applied < log_start) {
    std::string bytes = EncodeClusterSnapshot(state, applied);
    const SnapshotName name = NameOfSnapshot(applied, bytes);
    given_ = Given{.name = name, .bytes = std::move(bytes)};
  }
  KeepGiven();
  return given_->name;
}

absl::StatusOr<std::string> SnapshotTransfer::Answer(const SnapshotPieceRequest& request) {
  if (!given_.has_value() || !(given_->name == request.name)) {
    return absl::NotFoundError(Cat("there is no such snapshot at offset ", request.name.applied, " here now"));
  }
  if (request.position >= given_->bytes.size() || request.bytes_max == 0) {
    return absl::OutOfRangeError(Cat("byte ", request.position, " of ", given_->bytes.size()));
  }
  KeepGiven();
  const size_t most = std::min<size_t>(request.bytes_max, kPeerCallBytesMax / 2);
  return given_->bytes.substr(request.position, most);
}

void SnapshotTransfer::KeepGiven() {
  seams_.executor.Cancel(std::exchange(forget_timer_, 0));
  forget_timer_ = seams_.executor.PostAfter(kKeptFor, [this, alive = alive_] {
    if (!*alive) return;
    forget_timer_ = 0;
    given_.reset();
  });
}

// ---- Taking --------------------------------------------------------------------------------------------------------

void SnapshotTransfer::Fetch(NodeId from, const SnapshotName& name, Callback<absl::StatusOr<ClusterSnapshot>> done) {
  if (!taken_.has_value() || !(taken_->name == name)) {
    taken_ = Taken{.from = from, .name = name, .bytes = {}, .done = {}};
  }
  seams_.executor.Cancel(std::exchange(drop_timer_, 0));
  taken_->from = from;
  taken_->failures = 0;
  taken_->done = std::move(done);
  seams_.executor.Post([this, alive = alive_, call = ++calls_made_] {
    if (*alive && call == calls_made_) AskNext();  // else it was given up meanwhile
  });
}

void SnapshotTransfer::AskNext() {
  if (!fetching_from().has_value()) return;
  if (seams_.calls == nullptr) return Finish(absl::UnavailableError("this node has no peers"));
  const SnapshotPieceRequest request{
      .name = taken_->name, .position = taken_->bytes.size(), .bytes_max = static_cast<uint32_t>(seams_.piece_bytes)};
  const uint64_t call = ++calls_made_;
  seams_.calls->Call(taken_->from, kSnapshotPieceCall, EncodeSnapshotPieceRequest(request), kPieceDeadline,
                     [this, alive = alive_, call, &executor = seams_.executor](absl::StatusOr<std::string> piece) {
                       executor.Post([this, alive, call, piece = std::move(piece)]() mutable {
                         if (*alive) OnPiece(call, std::move(piece));
                       });
                     });
}

void SnapshotTransfer::OnPiece(uint64_t call, absl::StatusOr<std::string> piece) {
  if (call != calls_made_ || !fetching_from().has_value()) return;
  if (!piece.ok()) {
    if (!MayCome(piece.status()) || ++taken_->failures >= kFailuresMax) return Finish(piece.status());
    retry_timer_ = seams_.executor.PostAfter(kRetryAfter, [this, alive = alive_] {
      if (!*alive) return;
      retry_timer_ = 0;
      AskNext();
    });
    return;
  }
  taken_->failures = 0;
  if (piece->empty() || piece->size() > taken_->name.size_bytes - taken_->bytes.size()) {
    return Finish(absl::DataLossError("a piece of a snapshot is larger than what is left of it, or empty"));
  }
  taken_->bytes += *piece;
  if (taken_->bytes.size() < taken_->name.size_bytes) return AskNext();
  const SnapshotName name = taken_->name;
  if (!(NameOfSnapshot(name.applied, taken_->bytes) == name)) {
    taken_->bytes.clear();
    return Finish(absl::DataLossError("what has come is not the snapshot that was offered"));
  }
  auto snapshot = DecodeClusterSnapshot(taken_->bytes);
  taken_->bytes.clear();
  if (snapshot.ok() && snapshot->applied != name.applied) {
    snapshot = absl::DataLossError("the snapshot is of another offset than was offered");
  }
  Finish(std::move(snapshot));
}

std::optional<NodeId> SnapshotTransfer::fetching_from() const {
  if (!taken_.has_value() || taken_->done == nullptr) return std::nullopt;
  return taken_->from;
}

void SnapshotTransfer::GiveUp(absl::Status why) {
  if (!fetching_from().has_value()) return;
  seams_.executor.Cancel(std::exchange(retry_timer_, 0));
  seams_.executor.Post([this, alive = alive_, call = ++calls_made_, why = std::move(why)]() mutable {
    if (*alive && call == calls_made_ && fetching_from().has_value()) Finish(std::move(why));
  });
}

void SnapshotTransfer::Finish(absl::StatusOr<ClusterSnapshot> result) {
  auto done = std::exchange(taken_->done, nullptr);
  // What has come is kept where the way was at fault.
  if (taken_->bytes.empty()) {
    taken_.reset();
  } else {
    drop_timer_ = seams_.executor.PostAfter(kKeptFor, [this, alive = alive_] {
      if (!*alive) return;
      drop_timer_ = 0;
      taken_.reset();
    });
  }
  done(std::move(result));
}

void SnapshotTransfer::Stop() {
  seams_.executor.Cancel(std::exchange(forget_timer_, 0));
  seams_.executor.Cancel(std::exchange(retry_timer_, 0));
  seams_.executor.Cancel(std::exchange(drop_timer_, 0));
  given_.reset();
  taken_.reset();
}

}  // namespace sluice::broker
