// The peers' streams on real connections over loopback.
#include "broker/rpc/peer_transport.h"

#include <arpa/inet.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <random>

#include "broker/rpc/call.h"
#include "broker/rpc/peer_stream.h"
#include "broker/rpc/peer_test_batches.h"
#include "broker/rpc/peer_test_node.h"
#include "tests/mute_listener.h"
#include "tests/tcp_relay.h"

namespace sluice::broker::rpc {
namespace {

using replication::LivenessHeartbeat;
using replication::PeerState;

LivenessHeartbeat Beat(uint64_t version) {
  return {.session = 7, .base_version = version - 1, .version = version, .changes = {}};
}

raft::Heartbeat BeatOf(int64_t committed) {
  raft::Heartbeat beat;
  beat.committed = Offset(committed);
  return beat;
}

const raft::AppendRequest& AppendIn(const raft::Message& message) {
  return std::get<raft::AppendRequest>(message.body);
}

// Sends, and waits where there is no room.
void SendSurely(PeerTestNode& from, const ReplicaId& group, const raft::Message& message) {
  REQUIRE(PeerTestNode::AwaitTrue([&] { return from.net->Send(group, message); }));
}

// Threads of this process that wait for peers.
int PeerThreads() {
  int count = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream comm(task.path() / "comm");
    std::string name;
    std::getline(comm, name);
    count += name == "sluice-peers" ? 1 : 0;
  }
  return count;
}

TEST_CASE("A node without peers has no thread that waits for them, and stops; one that is spoken to has") {
  PeerTestNode alone(PeerOptions(1));
  PeerTestNode speaker(PeerOptions(2));
  alone.net->SetPeer(NodeId(1), alone.address());  // itself
  CHECK(PeerThreads() == 0);
  speaker.net->SetPeer(NodeId(1), alone.address());
  REQUIRE(PeerTestNode::AwaitTrue([] { return PeerThreads() == 2; }));
  PeerTestNode(PeerOptions(3)).Stop();
}

TEST_CASE("What is sent arrives in both directions, in the order of its group, byte for byte") {
  PeerPair pair;
  constexpr int kMessages = 300;
  for (int i = 0; i < kMessages; ++i) {
    // Small ones, large ones, and ones without batches, so that the queue has something to mix up.
    const size_t bytes = i % 50 == 0 ? 700'000 : 20 + static_cast<size_t>(i);
    SendSurely(pair.one, PeerGroup(i % 3), PeerAppendOf(Offset(i), bytes));
    SendSurely(pair.two, PeerGroup(5), PeerMessageOf(BeatOf(i), 2, 1));
  }
  for (int group = 0; group < 3; ++group) REQUIRE(pair.two.AwaitMessages(PeerGroup(group), kMessages / 3));
  REQUIRE(pair.one.AwaitMessages(PeerGroup(5), kMessages));
  for (int group = 0; group < 3; ++group) {
    const auto messages = pair.two.Messages(PeerGroup(group));
    REQUIRE(messages.size() == kMessages / 3);
    for (int i = 0; i < kMessages / 3; ++i) {
      const int sent = 3 * i + group;
      const size_t bytes = sent % 50 == 0 ? 700'000 : 20 + static_cast<size_t>(sent);
      const raft::Message expected = PeerAppendOf(Offset(sent), bytes);
      REQUIRE(messages[static_cast<size_t>(i)].from == expected.from);
      REQUIRE(AppendIn(messages[static_cast<size_t>(i)]).batches.at(0).bytes().view() ==
              AppendIn(expected).batches.at(0).bytes().view());
    }
  }
  const auto answers = pair.one.Messages(PeerGroup(5));
  for (int i = 0; i < kMessages; ++i) {
    REQUIRE(std::get<raft::Heartbeat>(answers[static_cast<size_t>(i)].body).committed == Offset(i));
  }
  const PeerTransportStats stats = pair.two.net->stats();
  CHECK(stats.messages_received == kMessages);
  CHECK(stats.messages_damaged == 0);
  CHECK(stats.peers.at(NodeId(1)).connected);
}

TEST_CASE("A batch of 24 MiB arrives whole") {
  PeerPair pair;
  const raft::Message large = PeerAppendOf(Offset(9), 24 << 20);
  SendSurely(pair.one, PeerGroup(1), large);
  REQUIRE(pair.two.AwaitMessages(PeerGroup(1), 1));
  CHECK(AppendIn(pair.two.Messages(PeerGroup(1))[0]).batches.at(0).bytes().view() ==
        AppendIn(large).batches.at(0).bytes().view());
}

TEST_CASE("What is larger than a message may be is refused, and the rest goes on") {
  PeerPair pair;
  CHECK(!pair.one.net->Send(PeerGroup(1), PeerAppendOf(Offset(0), 33 << 20)));
  CHECK(pair.one.LogHas("too large"));
  SendSurely(pair.one, PeerGroup(1), PeerAppendOf(Offset(1), 10));
  REQUIRE(pair.two.AwaitMessages(PeerGroup(1), 1));
}

TEST_CASE("Liveness does not wait behind batches") {
  PeerPair pair;
  constexpr int kBulk = 34;
  const raft::Message bulk = PeerAppendOf(Offset(0), 950'000);
  for (int i = 0; i < kBulk; ++i) REQUIRE(pair.one.net->Send(PeerGroup(1), bulk));
  REQUIRE(pair.one.net->SendLiveness(NodeId(2), Beat(1)));
  REQUIRE(pair.two.AwaitMessages(PeerGroup(1), kBulk));
  REQUIRE(pair.two.Liveness(1).size() == 1);
  CHECK(std::get<LivenessHeartbeat>(pair.two.Liveness(1)[0]) == Beat(1));
  CHECK(pair.two.HeardAtLiveness(0) < kBulk * 3 / 4);
}

TEST_CASE("What waits for a peer is bounded in bytes, and a vote still finds room") {
  PeerTransportOptions options = PeerOptions(1);
  options.queue_bytes_max = 4 << 20;
  PeerPair pair(options);
  const raft::Message bulk = PeerAppendOf(Offset(0), 500'000);
  // The receiver's thread is held up, so that nothing is taken from the connection after a while.
  std::promise<void> go_on;
  pair.two.net->Serve([held = go_on.get_future().share()](const PeerCall&, PeerReply reply) {
    held.wait();
    reply("done");
  });
  std::promise<void> answered;
  pair.one.net->Call(NodeId(2), 1, "wait", absl::Seconds(20), [&](const auto&) { answered.set_value(); });
  int sent = 0;
  bool full = false;
  int64_t largest = 0;
  for (int i = 0; i < 500 && !full; ++i) {
    full = !pair.one.net->Send(PeerGroup(1), bulk);
    if (!full) ++sent;
    largest = std::max(largest, pair.one.net->stats().peers.at(NodeId(2)).queue_bytes);
  }
  CHECK(full);
  CHECK(largest <= options.queue_bytes_max);
  CHECK(pair.one.net->Send(PeerGroup(2), PeerMessageOf(raft::VoteRequest{})));
  CHECK(pair.one.net->stats().peers.at(NodeId(2)).messages_refused >= 1);
  go_on.set_value();
  answered.get_future().wait();
  REQUIRE(pair.two.AwaitMessages(PeerGroup(1), static_cast<size_t>(sent)));
  REQUIRE(pair.two.AwaitMessages(PeerGroup(2), 1));
}

TEST_CASE("Nothing is sent to a peer that is not known, not connected, or for another sender") {
  PeerTestNode one(PeerOptions(1));
  CHECK(!one.net->Send(PeerGroup(1), PeerAppendOf(Offset(0), 10)));
  const MuteListener silent;
  one.net->SetPeer(NodeId(2), silent.address());
  CHECK(!one.net->Send(PeerGroup(1), PeerAppendOf(Offset(0), 10)));
  PeerTestNode two(PeerOptions(2));
  one.net->SetPeer(NodeId(2), two.address());  // it has moved
  REQUIRE(one.AwaitConnected(2));
  CHECK(!one.net->Send(PeerGroup(1), PeerAppendOf(Offset(0), 10, 3, 2)));
  CHECK(one.net->Send(PeerGroup(1), PeerAppendOf(Offset(0), 10)));
}

TEST_CASE("A peer that restarts is broken, then connected again, and hears what is sent from then on") {
  PeerTestNode one(PeerOptions(1));
  auto two = std::make_unique<PeerTestNode>(PeerOptions(2));
  one.net->SetPeer(NodeId(2), two->address());
  REQUIRE(one.AwaitConnected(2));
  PeerTransportOptions again = PeerOptions(2, 2);
  again.address = two->address();
  two = nullptr;
  REQUIRE(one.AwaitBroken(2));
  // One stream is enough for that; the other may stand for a moment.
  REQUIRE(PeerTestNode::AwaitTrue([&] { return !one.net->Send(PeerGroup(1), PeerAppendOf(Offset(0), 10)); }));
  two = std::make_unique<PeerTestNode>(again);
  two->net->SetPeer(NodeId(1), one.address());
  REQUIRE(one.AwaitConnected(2));
  REQUIRE(two->AwaitConnected(1));
  SendSurely(one, PeerGroup(1), PeerAppendOf(Offset(1), 10));
  SendSurely(*two, PeerGroup(1), PeerAppendOf(Offset(2), 10, 2, 1));
  REQUIRE(two->AwaitMessages(PeerGroup(1), 1));
  REQUIRE(one.AwaitMessages(PeerGroup(1), 1));
  CHECK(AppendIn(two->Messages(PeerGroup(1))[0]).previous.end == Offset(1));
  CHECK(one.States(2) == std::vector{PeerState::kConnected, PeerState::kBroken, PeerState::kConnected});
}

TEST_CASE("Peers set before the start are called at the start, and one that is removed is broken") {
  PeerTestNode one(PeerOptions(1));
  PeerTestNode two(PeerOptions(2), false);
  two.net->SetPeer(NodeId(1), one.address());
  two.net->SetPeer(NodeId(2), two.address());  // itself
  two.net->Start(two);
  REQUIRE(two.AwaitConnected(1));
  CHECK(two.net->stats().peers.size() == 1);
  two.net->RemovePeer(NodeId(1));
  REQUIRE(two.AwaitBroken(1));
  CHECK(!two.net->SendLiveness(NodeId(1), Beat(1)));
}

TEST_CASE("A node of another cluster, one that is not meant, and one of other versions are refused on both sides") {
  PeerTestNode one(PeerOptions(1));
  PeerTransportOptions options = PeerOptions(2);
  std::string said;
  SECTION("another cluster") {
    options.identity.cluster = Uuid::FromRandom(9, 9);
    said = "of cluster";
  }
  SECTION("versions") {
    options.version_min = options.version_max = 2;
    said = "speaks versions 1 to 1";
  }
  SECTION("the same number as the one it calls") {
    options = PeerOptions(1, 2);
    said = "two nodes say that they are node 1";
  }
  const bool same = options.identity.node == NodeId(1);
  PeerTestNode other(options);
  SECTION("not the node that is meant") {
    said = "wants node 5, and this is node 1";
    other.net->SetPeer(NodeId(5), one.address());
  }
  if (same) {
    other.net->SetPeer(NodeId(3), one.address());
  } else {
    other.net->SetPeer(NodeId(1), one.address());
  }
  CHECK(one.AwaitLog(said));
  CHECK(other.AwaitLog(said));
  CHECK(one.net->stats().streams_refused > 0);
  CHECK(one.States(2).empty());
  if (said.find("wants") == std::string::npos) CHECK(other.States(1).empty());
}

TEST_CASE("A second process that says it is a node that is connected is refused, until the first is gone") {
  PeerTestNode one(PeerOptions(1));
  auto two = std::make_unique<PeerTestNode>(PeerOptions(2));
  two->net->SetPeer(NodeId(1), one.address());
  REQUIRE(two->AwaitConnected(1));
  PeerTestNode impostor(PeerOptions(2, 2));
  impostor.net->SetPeer(NodeId(1), one.address());
  CHECK(impostor.AwaitLog("two nodes have one id"));
  CHECK(one.LogHas("two nodes have one id"));
  CHECK(impostor.States(1).empty());
  CHECK(two->States(1) == std::vector{PeerState::kConnected});
  CHECK(two->net->Send(PeerGroup(1), PeerAppendOf(Offset(1), 10, 2, 1)));
  REQUIRE(one.AwaitMessages(PeerGroup(1), 1));
  two = nullptr;
  CHECK(impostor.AwaitConnected(1));
}

TEST_CASE("A network that falls silent ends the stream on both sides, and frees the place of who was behind it") {
  PeerTestNode one(PeerOptions(1));
  PeerTestNode two(PeerOptions(2));
  TcpRelay network(one.address());
  two.net->SetPeer(NodeId(1), network.address());
  REQUIRE(two.AwaitConnected(1));
  PeerTestNode again(PeerOptions(2, 2));
  again.net->SetPeer(NodeId(1), one.address());
  REQUIRE(one.AwaitLog("two nodes have one id"));
  network.FallSilent();
  CHECK(two.AwaitBroken(1));
  CHECK(again.AwaitConnected(1));
}

// A caller of the peers' service that is no node of ours.
struct Stranger {
  explicit Stranger(const std::string& address)
      : stub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials())) {}
  // Sends the messages, waits for the end.
  grpc::Status Send(const std::vector<std::string>& messages) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    grpc::CompletionQueue queue;
    void* tag = nullptr;
    bool ok = false;
    auto call = stub.PrepareCall(&context, kPeerStreamMethod, &queue);
    call->StartCall(nullptr);
    queue.Next(&tag, &ok);
    for (const std::string& message : messages) {
      if (!ok) break;
      call->Write(ToByteBuffer(message), nullptr);
      queue.Next(&tag, &ok);
    }
    grpc::ByteBuffer answer;
    do {
      call->Read(&answer, nullptr);
      queue.Next(&tag, &ok);
    } while (ok);
    grpc::Status status;
    call->Finish(&status, nullptr);
    queue.Next(&tag, &ok);
    queue.Shutdown();
    while (queue.Next(&tag, &ok)) {
    }
    return status;
  }
  static std::string Hello(int32_t node, int32_t to, uint64_t connection = 1) {
    return EncodePeerHello({.cluster = TestCluster(),
                            .node = NodeId(node),
                            .to = NodeId(to),
                            .disk = Uuid::FromRandom(1, 2),
                            .session = Uuid::FromRandom(8, 8),
                            .connection = connection});
  }
  grpc::GenericStub stub;
};

TEST_CASE("Garbage in a stream ends that stream with an error, is counted and logged, and harms nobody else") {
  PeerPair pair;
  Stranger stranger(pair.one.address());
  CHECK(stranger.Send({"garbage"}).error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(stranger.Send({std::string(100'000, 'x')}).error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  std::string hello = Stranger::Hello(3, 1);
  CHECK(stranger.Send({hello, "garbage"}).error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(stranger.Send({hello, hello}).error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  hello.back() = static_cast<char>(hello.back() ^ 1);
  CHECK(stranger.Send({hello}).error_code() == grpc::StatusCode::DATA_LOSS);
  std::mt19937 random(5);
  for (int i = 0; i < 50; ++i) {
    std::string noise(random() % 300, ' ');
    for (char& byte : noise) byte = static_cast<char>(random());
    CHECK(!stranger.Send({Stranger::Hello(3, 1, static_cast<uint64_t>(i) + 2), noise}).ok());
  }
  CHECK(pair.one.net->stats().streams_refused == 55);
  CHECK(pair.one.LogHas("refused a stream at the peers' port"));
  CHECK(pair.one.States(2) == std::vector{PeerState::kConnected});
  SendSurely(pair.two, PeerGroup(1), PeerAppendOf(Offset(1), 10, 2, 1));
  REQUIRE(pair.one.AwaitMessages(PeerGroup(1), 1));
}

TEST_CASE("Bytes that are no gRPC end their connection") {
  PeerPair pair;
  for (const std::string& bytes : {std::string("GET / HTTP/1.1\r\n\r\n"), std::string(5000, '\xff'),
                                   std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") + std::string(300, '\x07')}) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(static_cast<uint16_t>(std::stoi(pair.one.address().substr(10))));
    REQUIRE(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0);
    CHECK(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) > 0);
    const timeval patience{.tv_sec = 15, .tv_usec = 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    char answer[4096];
    ssize_t got = 0;
    while ((got = recv(fd, answer, sizeof(answer), 0)) > 0) {
    }
    CHECK((got == 0 || errno == ECONNRESET));
    close(fd);
  }
  SendSurely(pair.two, PeerGroup(1), PeerAppendOf(Offset(1), 10, 2, 1));
  REQUIRE(pair.one.AwaitMessages(PeerGroup(1), 1));
  CHECK(PeerTestNode::AwaitTrue([&] { return pair.one.net->stats().connections == 2; }));
}

TEST_CASE("An attempt that a silent port swallows is given up, and another is made") {
  PeerTransportOptions options = PeerOptions(1);
  options.handshake_timeout = absl::Milliseconds(200);
  PeerTestNode one(options);
  const MuteListener silent;
  one.net->SetPeer(NodeId(2), silent.address());
  CHECK(one.AwaitLog("the stream to a peer is broken"));
  PeerTestNode two(PeerOptions(2));
  one.net->SetPeer(NodeId(2), two.address());
  CHECK(one.AwaitConnected(2));
}

TEST_CASE("A stop with messages under way and peers that are not there ends in time, and is silent afterwards") {
  PeerTransportOptions options = PeerOptions(1);
  options.backoff_max = absl::Seconds(30);
  PeerPair pair(options);
  const MuteListener silent;
  pair.one.net->SetPeer(NodeId(3), silent.address());
  pair.one.net->SetPeer(NodeId(4), "127.0.0.1:1");
  for (int i = 0; i < 20; ++i) pair.one.net->Send(PeerGroup(1), PeerAppendOf(Offset(i), 900'000));
  std::atomic<bool> sending = true;
  std::thread sender([&] {
    while (sending) pair.one.net->Send(PeerGroup(2), PeerAppendOf(Offset(0), 1000));
  });
  const auto begun = std::chrono::steady_clock::now();
  std::promise<void> stopped;
  pair.one.net->Stop([&] { stopped.set_value(); });
  stopped.get_future().wait();
  CHECK(std::chrono::steady_clock::now() - begun < std::chrono::seconds(3));
  sending = false;
  sender.join();
  const size_t states = pair.one.States(2).size();
  CHECK(!pair.one.net->Send(PeerGroup(1), PeerAppendOf(Offset(0), 10)));
  CHECK(pair.two.AwaitBroken(1));
  CHECK(pair.one.States(2).size() == states);
  pair.one.net = nullptr;
}

}  // namespace
}  // namespace sluice::broker::rpc
