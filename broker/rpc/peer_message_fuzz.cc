// Bytes as a peer might send them, as messages of its stream and as calls. What is taken must come out again as it went
// in, and nothing may crash. The first byte says how the rest is cut into slices and whether its checksum is put right,
// so that what stands behind it is reached.
#include <google/protobuf/stubs/logging.h>

#include <cstdlib>

#include "broker/rpc/peer_call_message.h"
#include "broker/rpc/peer_message.h"
#include "common/crc32c.h"
#include "sluice/internal/v1/peer.pb.h"

namespace {

using namespace sluice;
using namespace sluice::broker::rpc;

void Check(bool holds) {
  if (!holds) std::abort();
}

// The checksum of the envelope, where there is one, in the place that it has in a message.
void PutRight(std::string* bytes) {
  constexpr size_t kLengthAt = 6;
  size_t at = kLengthAt;
  size_t length = 0;
  for (int shift = 0; at < bytes->size() && shift < 28; shift += 7) {
    const auto byte = static_cast<uint8_t>((*bytes)[at++]);
    length |= size_t{byte & 0x7fu} << shift;
    if (byte < 0x80) break;
  }
  if (at > bytes->size() || length > bytes->size() - at) return;
  const uint32_t checksum = Crc32c(std::string_view(*bytes).substr(at, length));
  for (size_t i = 0; i < 4; ++i) (*bytes)[1 + i] = static_cast<char>(checksum >> (8 * i) & 0xff);
}

// As it is and, where it is a call, with its checksums put right.
void TryCall(std::string bytes, bool put_right) {
  internal::v1::CallMessage message;
  internal::v1::CallHead head;
  if (put_right && message.ParseFromString(bytes) && head.ParseFromString(message.head())) {
    head.set_payload_crc32c(Crc32c(message.payload()));
    message.set_head(head.SerializeAsString());
    message.set_head_crc32c(Crc32c(message.head()));
    bytes = message.SerializeAsString();
  }
  const auto question = DecodePeerQuestion(bytes);
  if (question.ok()) {
    const auto again = DecodePeerQuestion(EncodePeerQuestion(question->caller, question->kind, question->request));
    Check(again.ok() && again->caller == question->caller && again->kind == question->kind &&
          again->request == question->request);
  }
  const auto answer = DecodePeerAnswer(bytes);
  if (answer.ok()) Check(DecodePeerAnswer(EncodePeerAnswer(*answer)).value() == *answer);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t step = size_t{data[0]} / 2 + 1;
  const bool put_right = data[0] % 2 == 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  google::protobuf::LogSilencer silence;
  TryCall(bytes, put_right);
  if (put_right) PutRight(&bytes);
  std::vector<std::string_view> slices;
  for (size_t at = 0; at < bytes.size(); at += step) slices.push_back(std::string_view(bytes).substr(at, step));

  const auto hello = DecodePeerHello(slices);
  if (hello.ok()) {
    const std::string again = EncodePeerHello(*hello);
    const std::string_view view = again;
    Check(DecodePeerHello({&view, 1}).value() == *hello);
  }
  const auto received = DecodePeerMessage(slices, NodeId(1), NodeId(2));
  if (!received.ok()) return 0;
  Check(!hello.ok());
  std::vector<PeerPart> parts;
  for (const PeerGroupMessage& message : received->messages) {
    parts.push_back(EncodePeerPart(message.group, message.message));
  }
  for (const auto& liveness : received->liveness) parts.push_back(EncodePeerPart(liveness));
  std::vector<std::string_view> again;
  const std::vector<Bytes> pieces = JoinPeerParts(parts);
  for (const Bytes& piece : pieces) again.push_back(piece.view());
  size_t envelope_bytes = 0;
  for (const PeerPart& part : parts) envelope_bytes += part.envelope.size();
  if (envelope_bytes > kPeerEnvelopeBytesMax) return 0;
  const auto twice = DecodePeerMessage(again, NodeId(1), NodeId(2));
  Check(twice.ok() && twice->damaged == 0);
  Check(twice->messages.size() == received->messages.size() && twice->liveness == received->liveness);
  return 0;
}
