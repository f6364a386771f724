#include "broker/rpc/peer_message.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <random>
#include <sstream>

#include "broker/rpc/peer_call_message.h"
#include "broker/rpc/peer_test_batches.h"
#include "common/crc32c.h"
#include "sluice/internal/v1/peer.pb.h"

namespace sluice::broker::rpc {
namespace {

namespace pb = internal::v1;
using replication::LivenessAnswer;
using replication::LivenessHeartbeat;

std::string Join(std::span<const PeerPart> parts) {
  std::string text;
  for (const Bytes& piece : JoinPeerParts(parts)) text += piece.view();
  return text;
}

std::string Wire(const raft::Message& message, const ReplicaId& group = PeerGroup(3)) {
  const PeerPart part = EncodePeerPart(group, message);
  return Join({&part, 1});
}

absl::StatusOr<ReceivedPeerMessage> Decode(std::string_view text, size_t cut = 1000) {
  std::vector<std::string_view> slices;
  for (size_t at = 0; at < text.size(); at += cut) slices.push_back(text.substr(at, cut));
  return DecodePeerMessage(slices, NodeId(1), NodeId(2));
}

absl::StatusOr<PeerHello> DecodeHello(std::string_view text) {
  return DecodePeerHello({&text, 1});
}

// A message of the generated code, so that what our own encoder never writes can be written.
std::string Wire(const pb::Envelope& envelope, const std::string& batches = "") {
  pb::PeerMessage message;
  message.set_envelope(envelope.SerializeAsString());
  message.set_envelope_crc32c(Crc32c(message.envelope()));
  message.set_batches(batches);
  return message.SerializeAsString();
}

pb::Envelope EnvelopeOf(const raft::Message& message) {
  pb::PeerMessage outer;
  pb::Envelope envelope;
  REQUIRE(outer.ParseFromString(Wire(message)));
  REQUIRE(envelope.ParseFromString(outer.envelope()));
  return envelope;
}

PeerHello SomeHello() {
  return {.cluster = Uuid::FromRandom(1, 1),
          .node = NodeId(1),
          .to = NodeId(2),
          .disk = Uuid::FromRandom(2, 2),
          .session = Uuid::FromRandom(3, 3),
          .connection = 7,
          .lane = PeerLane::kLiveness};
}

std::vector<raft::MessageBody> EveryBody() {
  raft::AppendRequest append{.previous = {LeaderEpoch(4), Offset(10)}, .committed = Offset(99), .batches = {}};
  append.batches.push_back(PeerBatch(Offset(10), LeaderEpoch(5), 100));
  append.batches.push_back(PeerBatch(Offset(11), LeaderEpoch(5), 70'000));
  append.batches.push_back(PeerBatch(Offset(12), LeaderEpoch(5), 3'000));
  const VoterId voter{NodeId(2), Uuid::FromRandom(8, 8)};
  return {
      raft::VoteRequest{.pre_vote = true, .transfer = true, .last = {LeaderEpoch(4), Offset(10)}, .campaign = 13},
      raft::VoteResponse{
          .pre_vote = false, .granted = true, .doubt = 12, .campaign = 14, .members = {LeaderEpoch(3), Offset(9)}},
      std::move(append),
      raft::AppendResponse{.rejected = true,
                           .end = Offset(1),
                           .hint = {LeaderEpoch(2), Offset(3)},
                           .log_end = Offset(4),
                           .committed = Offset(5),
                           .doubt = 6,
                           .cannot_lead = true},
      raft::Heartbeat{
          .committed = Offset(1), .answer = false, .read_seq = 2, .confirmed_end = Offset(3), .doubt = UINT64_MAX},
      raft::HeartbeatResponse{.read_seq = 1,
                              .log_end = Offset(2),
                              .committed = Offset(3),
                              .doubt = 4,
                              .cannot_lead = true,
                              .members = {LeaderEpoch(5), Offset(6)}},
      raft::InstallSnapshot{.base = {LeaderEpoch(4), Offset(10)},
                            .next_epoch = LeaderEpoch(5),
                            .configuration = {Offset(-1), LeaderEpoch(0), *raft::Configuration::Make({voter}, {})},
                            .log_start = Offset(12),
                            .detail = Bytes::Copy("which file")},
      raft::SnapshotFailed{.base_end = Offset(8)},
      raft::TimeoutNow{},
  };
}

TEST_CASE("Every message of a group arrives as it was sent, however it is cut into slices") {
  std::mt19937 random(1);
  for (const raft::MessageBody& body : EveryBody()) {
    const raft::Message sent = PeerMessageOf(body);
    const std::string wire = Wire(sent);
    const auto received = Decode(wire, 1 + random() % 100);
    REQUIRE(received.ok());
    REQUIRE(received->messages.size() == 1);
    CHECK(received->damaged == 0);
    const PeerGroupMessage& one = received->messages[0];
    CHECK(one.group == PeerGroup(3));
    CHECK(one.message.from == sent.from);
    CHECK(one.message.to == sent.to);
    CHECK(one.message.term == sent.term);
    CHECK(one.message.body.index() == body.index());
    // The same bytes again: nothing of it was lost.
    CHECK(Wire(one.message) == wire);
  }
}

TEST_CASE("Liveness messages arrive as they were sent") {
  LivenessHeartbeat heartbeat{.session = 5, .base_version = 6, .version = 8, .changes = {}};
  heartbeat.changes.push_back({PeerGroup(1), LeaderEpoch(9)});
  heartbeat.changes.push_back({PeerGroup(2), LeaderEpoch(0)});
  LivenessAnswer answer{.session = 5, .version = 8, .not_following = {{PeerGroup(2), LeaderEpoch(3)}}};
  const std::vector<PeerPart> parts = {EncodePeerPart(heartbeat), EncodePeerPart(answer)};
  const auto received = Decode(Join(parts), 3);
  REQUIRE(received.ok());
  REQUIRE(received->liveness.size() == 2);
  CHECK(std::get<LivenessHeartbeat>(received->liveness[0]) == heartbeat);
  CHECK(std::get<LivenessAnswer>(received->liveness[1]) == answer);
}

TEST_CASE("A Hello arrives as it was sent") {
  const auto received = DecodeHello(EncodePeerHello(SomeHello()));
  REQUIRE(received.ok());
  CHECK(*received == SomeHello());
}

TEST_CASE("Messages of many groups are one protobuf message, and keep their order") {
  std::vector<PeerPart> parts;
  for (int32_t i = 0; i < 10; ++i) {
    parts.push_back(EncodePeerPart(PeerGroup(i), PeerAppendOf(Offset(i), static_cast<size_t>(i) * 1000)));
    parts.push_back(EncodePeerPart(PeerGroup(i), PeerMessageOf(raft::SnapshotFailed{.base_end = Offset(i)})));
  }
  const std::string wire = Join(parts);
  pb::PeerMessage generated;
  REQUIRE(generated.ParseFromString(wire));
  CHECK(generated.SerializeAsString() == wire);
  const auto received = Decode(wire);
  REQUIRE(received.ok());
  REQUIRE(received->messages.size() == 20);
  for (size_t i = 0; i < 20; ++i) {
    CHECK(received->messages[i].group == PeerGroup(static_cast<int32_t>(i) / 2));
    CHECK(std::holds_alternative<raft::AppendRequest>(received->messages[i].message.body) == (i % 2 == 0));
  }
}

TEST_CASE("A large batch leaves from where it lies, and arrives where a direct write can take it") {
  const raft::Message sent = PeerAppendOf(Offset(0), 200'000);
  const Bytes batch = std::get<raft::AppendRequest>(sent.body).batches[0].bytes();
  const PeerPart part = EncodePeerPart(PeerGroup(1), sent);
  const std::vector<Bytes> pieces = JoinPeerParts({&part, 1});
  CHECK(std::any_of(pieces.begin(), pieces.end(), [&](const Bytes& piece) { return piece.data() == batch.data(); }));
  const auto received = Decode(Join({&part, 1}));
  REQUIRE(received.ok());
  const auto& append = std::get<raft::AppendRequest>(received->messages[0].message.body);
  REQUIRE(append.batches.size() == 1);
  CHECK(append.batches[0].bytes() == batch);
  CHECK(reinterpret_cast<uintptr_t>(append.batches[0].bytes().data()) % 4096 == 0);
}

TEST_CASE("A batch that is not what was sent loses its message, and no other") {
  const std::vector<PeerPart> parts = {EncodePeerPart(PeerGroup(1), PeerAppendOf(Offset(1), 500)),
                                       EncodePeerPart(PeerGroup(2), PeerAppendOf(Offset(2), 500)),
                                       EncodePeerPart(PeerGroup(2), PeerMessageOf(raft::TimeoutNow{}))};
  const std::string wire = Join(parts);
  const size_t batches_at = wire.size() - parts[0].batch_bytes - parts[1].batch_bytes;
  std::mt19937 random(3);
  // Any bit of the first batch: those that its own checksum covers, and those that it does not.
  for (size_t at = 0; at < parts[0].batch_bytes; ++at) {
    std::string damaged = wire;
    damaged[batches_at + at] = static_cast<char>(damaged[batches_at + at] ^ (1 << random() % 8));
    const auto received = Decode(damaged);
    REQUIRE(received.ok());
    CHECK(received->damaged == 1);
    CHECK(!received->damage.ok());
    REQUIRE(received->messages.size() == 2);
    CHECK(received->messages[0].group == PeerGroup(2));
    CHECK(std::get<raft::AppendRequest>(received->messages[0].message.body).batches.size() == 1);
  }
}

TEST_CASE("A message whose envelope was changed or cut short is refused") {
  for (const raft::MessageBody& body : EveryBody()) {
    const std::string wire = Wire(PeerMessageOf(body));
    size_t batch_bytes = 0;
    if (const auto* append = std::get_if<raft::AppendRequest>(&body)) {
      for (const auto& batch : append->batches) batch_bytes += batch.size_bytes();
    }
    for (size_t length = 0; length < wire.size(); length += length < 600 ? 1 : 997) {
      CHECK(!Decode(std::string_view(wire).substr(0, length)).ok());
    }
    for (size_t at = 0; at < wire.size() - batch_bytes; ++at) {
      std::string damaged = wire;
      damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
      CHECK(!Decode(damaged).ok());
    }
  }
}

TEST_CASE("Sizes that lie are refused before memory is taken for them") {
  const std::string batch(PeerBatch(Offset(10), LeaderEpoch(5), 10).bytes().view());
  pb::Envelope envelope = EnvelopeOf(PeerAppendOf(Offset(10), 10));
  pb::AppendRequest& append = *envelope.mutable_messages(0)->mutable_append_request();
  REQUIRE(append.batch_bytes_size() == 1);
  for (const uint32_t size : {uint32_t{0}, uint32_t{60}, static_cast<uint32_t>(batch.size()) - 1,
                              static_cast<uint32_t>(batch.size()) + 1, UINT32_MAX}) {
    append.set_batch_bytes(0, size);
    CHECK(Decode(Wire(envelope, batch)).status().code() == absl::StatusCode::kInvalidArgument);
  }
  append.set_batch_bytes(0, static_cast<uint32_t>(batch.size()));
  append.add_batch_bytes(UINT32_MAX);
  CHECK(!Decode(Wire(envelope, batch)).ok());  // one checksum for two batches
  append.add_batch_crc32c(0);
  CHECK(!Decode(Wire(envelope, batch)).ok());
  // An envelope beyond the bound, and one that says that it is beyond all.
  pb::Envelope large;
  for (int i = 0; i < 60'000; ++i) *large.add_messages() = EnvelopeOf(PeerMessageOf(raft::TimeoutNow{})).messages(0);
  REQUIRE(large.ByteSizeLong() > kPeerEnvelopeBytesMax);
  CHECK(!Decode(Wire(large)).ok());
  CHECK(!Decode(std::string("\x0d\0\0\0\0\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 15)).ok());
}

TEST_CASE("Values that cannot be are refused, and so is what a later version may add") {
  const pb::Envelope good = EnvelopeOf(PeerMessageOf(raft::TimeoutNow{}));
  REQUIRE(Decode(Wire(good)).ok());
  const auto refused = [&](auto change) {
    pb::Envelope bad = good;
    change(bad.mutable_messages(0));
    return Decode(Wire(bad)).status().code() == absl::StatusCode::kInvalidArgument;
  };
  CHECK(refused([](pb::GroupMessage* m) { m->set_topic_id("short"); }));
  CHECK(refused([](pb::GroupMessage* m) { m->set_from_incarnation(std::string(17, 'x')); }));
  CHECK(refused([](pb::GroupMessage* m) { m->clear_to_incarnation(); }));
  CHECK(refused([](pb::GroupMessage* m) { m->set_partition(-1); }));
  CHECK(refused([](pb::GroupMessage* m) { m->set_term(-1); }));
  CHECK(refused([](pb::GroupMessage* m) { m->clear_timeout_now(); }));
  CHECK(refused([](pb::GroupMessage* m) { m->mutable_vote_request()->mutable_last()->set_epoch(-7); }));
  CHECK(refused([](pb::GroupMessage* m) { m->mutable_install_snapshot()->set_configuration("garbage"); }));
  pb::Envelope nothing;
  nothing.add_liveness();
  CHECK(!Decode(Wire(nothing)).ok());
  pb::Envelope hello;
  hello.mutable_hello();
  CHECK(!Decode(Wire(hello)).ok());
  CHECK(!Decode(Wire(good, "bytes of no batch")).ok());
  CHECK(!Decode(Wire(good) + "\x20\x01").ok());
}

TEST_CASE("A Hello that names nobody, no lane or no cluster is refused") {
  pb::PeerMessage outer;
  pb::Envelope good;
  REQUIRE(outer.ParseFromString(EncodePeerHello(SomeHello())));
  REQUIRE(good.ParseFromString(outer.envelope()));
  const auto refused = [&](auto change) {
    pb::Envelope bad = good;
    change(bad);
    return !DecodeHello(Wire(bad)).ok();
  };
  CHECK(!refused([](pb::Envelope&) {}));
  CHECK(refused([](pb::Envelope& e) { e.mutable_hello()->set_node_id(0); }));
  CHECK(refused([](pb::Envelope& e) { e.mutable_hello()->set_version_min(2); }));
  CHECK(refused([](pb::Envelope& e) { e.mutable_hello()->set_lane(pb::LANE_UNSPECIFIED); }));
  CHECK(refused([](pb::Envelope& e) { e.mutable_hello()->clear_cluster_id(); }));
  CHECK(refused([](pb::Envelope& e) { e.mutable_hello()->set_session_id("x"); }));
  CHECK(refused([](pb::Envelope& e) { e.add_messages(); }));
  CHECK(refused([](pb::Envelope& e) { e.clear_hello(); }));
}

TEST_CASE("A Hello is accepted from the node that is meant, of this cluster, in a version that both speak") {
  PeerHello mine = SomeHello();
  std::swap(mine.node, mine.to);
  mine.version_min = 2;
  mine.version_max = 4;
  const auto refusal = [&](auto change) {
    PeerHello theirs = SomeHello();
    theirs.version_min = 1;
    theirs.version_max = 2;
    change(theirs);
    return std::string(CheckPeerHello(mine, theirs).message());
  };
  using Catch::Contains;
  CHECK(refusal([](PeerHello&) {}).empty());
  CHECK(refusal([](PeerHello& h) { h.version_min = h.version_max = 4; }).empty());
  CHECK_THAT(refusal([](PeerHello& h) { h.version_max = 1; }), Contains("speaks versions 2 to 4"));
  CHECK_THAT(refusal([](PeerHello& h) { h.version_min = h.version_max = 5; }), Contains("node 1 speaks 5 to 5"));
  CHECK_THAT(refusal([](PeerHello& h) { h.cluster = Uuid::FromRandom(9, 9); }), Contains("of cluster"));
  CHECK_THAT(refusal([](PeerHello& h) { h.to = NodeId(3); }), Contains("wants node 3, and this is node 2"));
  CHECK_THAT(refusal([](PeerHello& h) { h.node = NodeId(2); }), Contains("two nodes say that they are node 2"));
}

// The bytes of the block of docs/formats.md that opens with "```hex NAME": on each line, pairs of digits up to '#'.
std::string Example(const std::string& name) {
  std::ifstream in(SLUICE_SOURCE_DIR "/docs/formats.md");
  std::string line;
  while (std::getline(in, line) && line != "```hex " + name) {
  }
  std::string bytes;
  while (std::getline(in, line) && line != "```") {
    std::istringstream digits(line.substr(0, line.find('#')));
    for (std::string pair; digits >> pair;) bytes.push_back(static_cast<char>(std::stoi(pair, nullptr, 16)));
  }
  return bytes;
}

TEST_CASE("The page's messages are what this program writes, and read as the page says") {
  const auto uuid = [](const char* text) { return *Uuid::Parse(text); };
  const PeerHello hello{.version_min = 1,
                        .version_max = 1,
                        .cluster = uuid("c1c1c1c1-0000-4000-8000-000000000001"),
                        .node = NodeId(1),
                        .to = NodeId(2),
                        .disk = uuid("d1d1d1d1-0000-4000-8000-000000000001"),
                        .session = uuid("5e5e5e5e-0000-4000-8000-000000000001"),
                        .connection = 3,
                        .lane = PeerLane::kGroups};
  CHECK(Example("peer-hello") == EncodePeerHello(hello));
  CHECK(DecodeHello(Example("peer-hello")).value() == hello);

  raft::AppendRequest append{.previous = {LeaderEpoch(3), Offset(256)}, .committed = Offset(256), .batches = {}};
  auto batch = record::Batch::FromStored(Bytes::Copy(Example("record-batch")));
  REQUIRE(batch.ok());
  append.batches.push_back(*batch);
  const raft::Message message{.from = {NodeId(1), uuid("01234567-89ab-4def-8123-456789abcdef")},
                              .to = {NodeId(2), uuid("11234567-89ab-4def-8123-456789abcdef")},
                              .term = LeaderEpoch(3),
                              .body = append};
  const ReplicaId group{uuid("70707070-0000-4000-8000-000000000001"), PartitionId(4)};
  CHECK(Example("peer-message") == Wire(message, group));

  const PeerCallHello caller{.version_min = 1,
                             .version_max = 1,
                             .cluster = hello.cluster,
                             .node = NodeId(1),
                             .to = NodeId(2),
                             .disk = hello.disk,
                             .session = hello.session};
  CHECK(Example("peer-question") == EncodePeerQuestion(caller, 3, "hi"));
  CHECK(Example("peer-answer") == EncodePeerAnswer(""));
}

}  // namespace
}  // namespace sluice::broker::rpc
