// Calls between nodes on real connections over loopback.
#include "broker/peer_calls.h"

#include <catch2/catch.hpp>
#include <future>
#include <thread>

#include "broker/rpc/peer_call_message.h"
#include "broker/rpc/peer_test_node.h"
#include "common/text.h"

namespace sluice::broker::rpc {
namespace {

absl::StatusOr<std::string> Ask(PeerTestNode& from, PeerTarget to, const std::string& request,
                                absl::Duration deadline = absl::Seconds(10)) {
  std::promise<absl::StatusOr<std::string>> answer;
  from.net->Call(std::move(to), 7, request, deadline,
                 [&](absl::StatusOr<std::string> given) { answer.set_value(std::move(given)); });
  return answer.get_future().get();
}

// Two nodes, of which the second answers, and the first knows where it is.
struct CallPair {
  explicit CallPair(const PeerTransportOptions& of_one = PeerOptions(1),
                    const PeerTransportOptions& of_two = PeerOptions(2))
      : one(of_one, false), two(of_two, false) {
    one.net->SetPeer(NodeId(2), two.address());
  }
  PeerTestNode one;
  PeerTestNode two;
};

TEST_CASE("A call is answered, to a node's number and to an address, with who asks and what") {
  CallPair pair;
  pair.two.net->Serve([](const PeerCall& call, PeerReply reply) {
    CHECK(call.time_left > absl::Seconds(5));
    CHECK(call.time_left < absl::Seconds(11));
    CHECK(call.from.session == PeerOptions(1).session);
    CHECK(call.from.disk == PeerOptions(1).identity.disk);
    CHECK(call.from.cluster == TestCluster());
    CHECK(call.from.address.find("127.0.0.1") != std::string::npos);
    reply(Cat(call.from.node, " ", call.kind, " ", call.request));
  });
  CHECK(*Ask(pair.one, NodeId(2), "hello") == "1 7 hello");
  CHECK(*Ask(pair.one, pair.two.address(), std::string("by\0address", 10)) == std::string("1 7 by\0address", 14));
  CHECK(*Ask(pair.one, NodeId(2), "") == "1 7 ");
}

TEST_CASE("A status of the handler reaches the caller with its code and its message") {
  CallPair pair;
  pair.two.net->Serve([](const PeerCall& call, PeerReply reply) {
    if (call.request == "long") return reply(absl::AbortedError(std::string(10'000, '\xe4')));
    reply(absl::AlreadyExistsError("node 1 is registered: \"grün\" 100 %"));
  });
  const auto answer = Ask(pair.one, NodeId(2), "x");
  CHECK(answer.status() == absl::AlreadyExistsError("node 1 is registered: \"grün\" 100 %"));
  const auto cut = Ask(pair.one, NodeId(2), "long");
  CHECK(cut.status() == absl::AbortedError(std::string(4096, '\xe4')));
}

TEST_CASE("The largest request and answer arrive byte for byte, and larger ones are refused") {
  CallPair pair;
  pair.two.net->Serve([](const PeerCall& call, PeerReply reply) {
    if (call.request == "too much") return reply(std::string(kPeerCallBytesMax + 1, 'a'));
    reply(call.request);
  });
  std::string large(kPeerCallBytesMax, ' ');
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 31 >> 3);
  const auto answer = Ask(pair.one, NodeId(2), large);
  REQUIRE(answer.ok());
  CHECK(*answer == large);
  CHECK(Ask(pair.one, NodeId(2), large + "1").status().code() == absl::StatusCode::kResourceExhausted);
  CHECK(Ask(pair.one, NodeId(2), "too much").status().code() == absl::StatusCode::kResourceExhausted);
}

TEST_CASE("Nobody there, nobody known, and nobody who serves are told apart") {
  CallPair pair;
  CHECK(Ask(pair.one, NodeId(9), "x").status().code() == absl::StatusCode::kNotFound);
  CHECK(Ask(pair.one, "127.0.0.1:1", "x").status().code() == absl::StatusCode::kUnavailable);
  CHECK(Ask(pair.one, "no..such.host:1", "x").status().code() == absl::StatusCode::kUnavailable);
  pair.two.net->Start(pair.two);
  const auto unserved = Ask(pair.one, NodeId(2), "x");
  CHECK(unserved.status().code() == absl::StatusCode::kUnavailable);
  CHECK(unserved.status().message().find("serves no calls") != std::string::npos);
}

TEST_CASE("A call that is not answered ends at its deadline, and a late answer has no effect") {
  CallPair pair;
  std::promise<PeerReply> kept;
  pair.two.net->Serve([&](const PeerCall& call, PeerReply reply) {
    if (call.request == "late") return kept.set_value(std::move(reply));
    reply("in time");
  });
  CHECK(*Ask(pair.one, NodeId(2), "x") == "in time");  // connected now
  const auto begun = std::chrono::steady_clock::now();
  CHECK(Ask(pair.one, NodeId(2), "late", absl::Seconds(1)).status().code() == absl::StatusCode::kDeadlineExceeded);
  CHECK(std::chrono::steady_clock::now() - begun < std::chrono::seconds(5));
  std::future<PeerReply> asked = kept.get_future();
  REQUIRE(asked.wait_for(std::chrono::seconds(20)) == std::future_status::ready);
  PeerReply late = asked.get();
  late("late");
  late("twice");
  CHECK(*Ask(pair.one, NodeId(2), "x") == "in time");
}

TEST_CASE("An answer may come from another thread, later, and a reply that is dropped is UNAVAILABLE") {
  CallPair pair;
  std::thread answering;
  pair.two.net->Serve([&](const PeerCall& call, PeerReply reply) {
    if (call.request == "drop") return;
    answering = std::thread([reply = std::move(reply)]() mutable {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      reply("later");
    });
  });
  CHECK(*Ask(pair.one, NodeId(2), "x") == "later");
  answering.join();
  CHECK(Ask(pair.one, NodeId(2), "drop").status().code() == absl::StatusCode::kUnavailable);
}

TEST_CASE("Another process with this node's number is not served, and hears that it is not alone") {
  CallPair pair(PeerOptions(2, 2));
  pair.two.net->Serve([&](const PeerCall&, PeerReply reply) { reply("served"); });
  const auto answer = Ask(pair.one, pair.two.address(), "x");
  CHECK(answer.status().code() == absl::StatusCode::kAlreadyExists);
  CHECK(answer.status().message().find("two processes say that they are node 2") != std::string::npos);
}

TEST_CASE("Another node with this one's number is not served, and hears that it needs another") {
  PeerTransportOptions caller = PeerOptions(2, 2);
  caller.identity.disk = Uuid::FromRandom(9, 9);
  CallPair pair(caller);
  pair.two.net->Serve([&](const PeerCall&, PeerReply reply) { reply("served"); });
  const auto answer = Ask(pair.one, pair.two.address(), "x");
  CHECK(answer.status().code() == absl::StatusCode::kFailedPrecondition);
  CHECK(answer.status().message().find("give one of the two another node.id") != std::string::npos);
}

TEST_CASE("Who is of another cluster, means another node, has this node's number or other versions is not served") {
  PeerTransportOptions caller = PeerOptions(1);
  std::string said;
  NodeId called(2);
  SECTION("another cluster") {
    caller.identity.cluster = Uuid::FromRandom(9, 9);
    said = "of cluster";
  }
  SECTION("versions") {
    caller.version_min = caller.version_max = 3;
    said = "speaks versions";
  }
  SECTION("the same number") {
    caller = PeerOptions(2, 2);
    called = NodeId(5);
    said = "node 5 is called, and this is node 2";
  }
  SECTION("another node") {
    called = NodeId(3);
    said = "node 3 is called, and this is node 2";
  }
  CallPair pair(caller);
  bool served = false;
  pair.two.net->Serve([&](const PeerCall&, PeerReply reply) {
    served = true;
    reply("");
  });
  pair.one.net->SetPeer(called, pair.two.address());
  const auto answer = Ask(pair.one, called, "x");
  CHECK(answer.status().code() == absl::StatusCode::kFailedPrecondition);
  CHECK(answer.status().message().find(said) != std::string::npos);
  if (caller.identity.node == NodeId(2)) {
    const auto same = Ask(pair.one, pair.two.address(), "x");
    CHECK(same.status().message().find("two processes say that they are node 2") != std::string::npos);
  }
  CHECK(!served);
  CHECK(pair.two.net->stats().calls_refused >= 1);
}

TEST_CASE("A node that joins calls without a cluster, and knows who it is by the start") {
  PeerTransportOptions joins = PeerOptions(3);
  joins.identity = {NodeId(3), Uuid(), Uuid()};
  PeerTestNode three(joins, false);
  PeerTestNode seed(PeerOptions(1));
  seed.net->Serve([&](const PeerCall& call, PeerReply reply) {
    CHECK(call.from.cluster.IsNil());
    reply(std::string(TestCluster().AsBytes()));
  });
  const auto answer = Ask(three, seed.address(), "join");
  REQUIRE(answer.ok());
  three.net->SetIdentity({NodeId(3), *Uuid::FromBytes(*answer), Uuid::FromRandom(5, 5)});
  three.net->SetPeer(NodeId(1), seed.address());
  three.net->Start(three);
  CHECK(three.AwaitConnected(1));
}

TEST_CASE("More calls than a node serves at once are refused, and those it serves are answered") {
  PeerTransportOptions busy = PeerOptions(2);
  busy.calls_max = 3;
  CallPair pair(PeerOptions(1), busy);
  std::mutex mutex;
  std::vector<PeerReply> replies;
  pair.two.net->Serve([&](const PeerCall&, PeerReply reply) {
    std::lock_guard lock(mutex);
    replies.push_back(std::move(reply));
  });
  std::atomic<int> refused = 0;
  std::atomic<int> answered = 0;
  for (int i = 0; i < 10; ++i) {
    pair.one.net->Call(NodeId(2), 1, "x", absl::Seconds(10), [&](const absl::StatusOr<std::string>& answer) {
      if (answer.ok()) ++answered;
      if (answer.status().code() == absl::StatusCode::kResourceExhausted) ++refused;
    });
  }
  CHECK(PeerTestNode::AwaitTrue([&] { return refused == 7; }));
  {
    std::lock_guard lock(mutex);
    for (PeerReply& reply : replies) reply("done");
    replies.clear();
  }
  CHECK(PeerTestNode::AwaitTrue([&] { return answered == 3; }));
  std::promise<absl::Status> next;
  pair.one.net->Call(NodeId(2), 1, "x", absl::Seconds(10),
                     [&](const auto& answer) { next.set_value(answer.status()); });
  CHECK(PeerTestNode::AwaitTrue([&] {
    std::lock_guard lock(mutex);
    return replies.size() == 1;
  }));
  replies[0]("done");
  CHECK(next.get_future().get().ok());
}

TEST_CASE("A stop of the caller cancels its calls, and one of the server makes them UNAVAILABLE") {
  CallPair pair;
  std::vector<PeerReply> replies;
  std::promise<void> arrived;
  pair.two.net->Serve([&](const PeerCall&, PeerReply reply) {
    replies.push_back(std::move(reply));
    arrived.set_value();
  });
  std::promise<absl::Status> ended;
  pair.one.net->Call(NodeId(2), 1, "x", absl::Seconds(60),
                     [&](const auto& answer) { ended.set_value(answer.status()); });
  arrived.get_future().wait();
  std::future<absl::Status> end = ended.get_future();
  SECTION("of the caller") {
    pair.one.Stop();
    REQUIRE(end.wait_for(std::chrono::seconds(0)) == std::future_status::ready);  // before the stop is done
    CHECK(end.get().code() == absl::StatusCode::kCancelled);
  }
  SECTION("of the server") {
    pair.two.Stop();
    CHECK(end.get().code() == absl::StatusCode::kUnavailable);
    replies[0]("too late, and harmless");
  }
}

TEST_CASE("A server that restarts at its address is called again") {
  PeerTestNode one(PeerOptions(1), false);
  auto two = std::make_unique<PeerTestNode>(PeerOptions(2), false);
  PeerTransportOptions again = PeerOptions(2, 2);
  again.address = two->address();
  const auto serve = [](const PeerCall&, PeerReply reply) { reply("here"); };
  two->net->Serve(serve);
  CHECK(*Ask(one, again.address, "x") == "here");
  two = nullptr;
  CHECK(Ask(one, again.address, "x").status().code() == absl::StatusCode::kUnavailable);
  two = std::make_unique<PeerTestNode>(again, false);
  two->net->Serve(serve);
  CHECK(PeerTestNode::AwaitTrue([&] { return Ask(one, again.address, "x").ok(); }));
}

TEST_CASE("Every flipped bit of a question or an answer is noticed, and so is every cut") {
  const PeerCallHello caller{.cluster = TestCluster(),
                             .node = NodeId(1),
                             .to = NodeId(2),
                             .disk = Uuid::FromRandom(1, 1),
                             .session = Uuid::FromRandom(2, 2)};
  const std::string question = EncodePeerQuestion(caller, 9, "what is it?");
  const auto decoded = DecodePeerQuestion(question);
  REQUIRE(decoded.ok());
  CHECK(decoded->caller == caller);
  CHECK(decoded->kind == 9);
  CHECK(decoded->request == "what is it?");
  const std::string answer = EncodePeerAnswer("this");
  CHECK(*DecodePeerAnswer(answer) == "this");
  for (size_t bit = 0; bit < 8 * question.size(); ++bit) {
    std::string damaged = question;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ 1 << bit % 8);
    CHECK(!DecodePeerQuestion(damaged).ok());
  }
  for (size_t bit = 0; bit < 8 * answer.size(); ++bit) {
    std::string damaged = answer;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ 1 << bit % 8);
    CHECK(!DecodePeerAnswer(damaged).ok());
  }
  for (size_t bytes = 0; bytes < question.size(); ++bytes) CHECK(!DecodePeerQuestion(question.substr(0, bytes)).ok());
  for (size_t bytes = 0; bytes < answer.size(); ++bytes) CHECK(!DecodePeerAnswer(answer.substr(0, bytes)).ok());
}

}  // namespace
}  // namespace sluice::broker::rpc
