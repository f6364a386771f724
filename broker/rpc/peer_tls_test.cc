// Nodes that know each other by certificates.
#include <catch2/catch.hpp>
#include <fstream>

#include "broker/rpc/peer_test_batches.h"
#include "broker/rpc/peer_test_node.h"
#include "broker/rpc/test_certificates.h"
#include "broker/rpc/tls.h"
#include "common/text.h"

namespace sluice::broker::rpc {
namespace {

std::string NodeUri(int32_t node) {
  return Cat("URI:sluice://", TestCluster(), "/node/", node);
}

PeerTransportOptions TlsOptions(int32_t node, const TlsFiles& files) {
  PeerTransportOptions options = PeerOptions(node);
  options.tls = files;
  options.tls_reload_every = absl::Seconds(1);
  return options;
}

absl::StatusOr<std::string> AskOver(PeerTestNode& from, PeerTarget to) {
  std::promise<absl::StatusOr<std::string>> answer;
  from.net->Call(std::move(to), 7, "x", absl::Seconds(10),
                 [&](absl::StatusOr<std::string> given) { answer.set_value(std::move(given)); });
  return answer.get_future().get();
}

void ServeOk(PeerTestNode& node) {
  node.net->Serve([](const PeerCall& call, PeerReply reply) { reply(Cat("to node ", call.from.node)); });
}

TEST_CASE("Nodes with certificates of one authority that name them are connected, and call each other") {
  const TestCertificates certificates;
  PeerPair pair(TlsOptions(1, certificates.Make("one", NodeUri(1))),
                TlsOptions(2, certificates.Make("two", "DNS:elsewhere,URI:sluice:///node/2")));
  REQUIRE(pair.one.net->Send(PeerGroup(1), PeerAppendOf(Offset(0), 2 << 20)));
  REQUIRE(pair.two.AwaitMessages(PeerGroup(1), 1));
  ServeOk(pair.two);
  CHECK(*AskOver(pair.one, NodeId(2)) == "to node 1");
  CHECK(*AskOver(pair.one, pair.two.address()) == "to node 1");
}

TEST_CASE("A certificate of another authority, or none at all, is refused by both sides") {
  const TestCertificates certificates;
  certificates.MakeAuthority("other");
  PeerTestNode one(TlsOptions(1, certificates.Make("one", NodeUri(1))));
  ServeOk(one);
  PeerTransportOptions options = PeerOptions(2);
  SECTION("another authority") {
    options = TlsOptions(2, certificates.Make("two", NodeUri(2), "other"));
  }
  SECTION("another authority, which is also the one that it trusts") {
    TlsFiles files = certificates.Make("two", NodeUri(2), "other");
    files.ca = certificates.Path("other.pem");
    options = TlsOptions(2, files);
  }
  SECTION("none") {}
  PeerTestNode two(options);
  ServeOk(two);
  two.net->SetPeer(NodeId(1), one.address());
  one.net->SetPeer(NodeId(2), two.address());
  CHECK(two.AwaitLog("the stream to a peer is broken"));
  CHECK(one.AwaitLog("the stream to a peer is broken"));
  CHECK(!AskOver(two, one.address()).ok());
  CHECK(!AskOver(one, two.address()).ok());
  CHECK(one.States(2).empty());
  CHECK(two.States(1).empty());
  CHECK(one.net->stats().calls_served == 0);
  CHECK(two.net->stats().calls_served == 0);
}

TEST_CASE("A node that shows the certificate of another node is refused, whoever calls") {
  const TestCertificates certificates;
  PeerTestNode one(TlsOptions(1, certificates.Make("one", NodeUri(1))));
  ServeOk(one);
  std::string names;
  SECTION("of another node") {
    names = NodeUri(3);
  }
  SECTION("of this node in another cluster") {
    names = Cat("URI:sluice://", Uuid::FromRandom(9, 9), "/node/2");
  }
  SECTION("of no node") {
    names = "DNS:localhost,IP:127.0.0.1";
  }
  PeerTestNode two(TlsOptions(2, certificates.Make("two", names)));
  ServeOk(two);
  two.net->SetPeer(NodeId(1), one.address());
  CHECK(one.AwaitLog("the caller's certificate does not name node 2"));
  CHECK(AskOver(two, one.address()).status().code() == absl::StatusCode::kPermissionDenied);
  CHECK(one.net->stats().calls_served == 0);
  one.net->SetPeer(NodeId(2), two.address());
  CHECK(one.AwaitLog("the stream to a peer is broken"));
  CHECK(AskOver(one, NodeId(2)).status().code() == absl::StatusCode::kUnavailable);
  CHECK(two.net->stats().calls_served == 0);
  CHECK(one.States(2).empty());
  CHECK(two.States(1).empty());
}

TEST_CASE("A certificate that is replaced is shown by the next connection, without a restart") {
  const TestCertificates certificates;
  const TlsFiles files = certificates.Make("two", NodeUri(3));  // the wrong one
  PeerTestNode one(TlsOptions(1, certificates.Make("one", NodeUri(1))));
  PeerTestNode two(TlsOptions(2, files));
  two.net->SetPeer(NodeId(1), one.address());
  one.net->SetPeer(NodeId(2), two.address());
  CHECK(one.AwaitLog("the caller's certificate does not name node 2"));
  certificates.Replace(files, certificates.Make("better", NodeUri(2)));
  CHECK(two.AwaitConnected(1));
  CHECK(one.AwaitConnected(2));
}

TEST_CASE("Files that are no certificates, or do not belong together, are refused at the start") {
  const TestCertificates certificates;
  const TlsFiles good = certificates.Make("one", NodeUri(1));
  CHECK(CheckTlsFiles(good).ok());
  const auto why = [](const TlsFiles& files) { return std::string(CheckTlsFiles(files).message()); };
  TlsFiles files = good;
  files.cert = certificates.Path("missing.pem");
  CHECK(why(files) == files.cert + ": cannot be read as a certificate in PEM");
  files = good;
  files.key = certificates.Make("two", NodeUri(2)).key;
  CHECK(why(files).find(files.key + ": cannot be read as a private key in PEM, or does not belong") == 0);
  files = good;
  files.ca = certificates.Path("noise");
  std::ofstream(files.ca) << "noise";
  CHECK(why(files) == files.ca + ": cannot be read as certificates in PEM");
  runtime::SystemClock clock;
  CHECK(GrpcPeerTransport::Make(TlsOptions(1, files), clock).status().code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("What a node is called in its certificate is read strictly") {
  const Uuid cluster = TestCluster();
  const std::string own = cluster.ToString();
  CHECK(UriNamesNode("sluice://" + own + "/node/12", cluster, NodeId(12)));
  CHECK(UriNamesNode("sluice:///node/12", cluster, NodeId(12)));
  CHECK(UriNamesNode("sluice:///node/12", cluster, NodeId()));
  CHECK(UriNamesNode("sluice://" + own + "/node/12", Uuid(), NodeId(12)));
  for (const std::string uri :
       {"", "sluice://", "sluice:///node/", "sluice:///node/1", "sluice:///node/120", "sluice:///node/12/",
        "sluice:///node/+12", "sluice:///node/ 12", "sluice:///node/0", "sluice:///node/-12", "sluice:///nodes/12",
        "sluice://x/node/12", "https:///node/12", "sluice:///node/99999999999"}) {
    INFO(uri);
    CHECK(!UriNamesNode(uri, cluster, NodeId(12)));
  }
  CHECK(!UriNamesNode("sluice://" + Uuid::FromRandom(1, 1).ToString() + "/node/12", cluster, NodeId(12)));
  CHECK(!UriNamesNode("sluice:///node/0", cluster, NodeId()));
}

}  // namespace
}  // namespace sluice::broker::rpc
