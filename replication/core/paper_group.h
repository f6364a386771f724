// A group that makes what the paper and the dissertation describe: places, logs and messages by hand.
#pragma once

#include <catch2/catch.hpp>
#include <set>
#include "replication/core/test_group.h"

namespace sluice::raft {

class Paper : public TestGroup {
 public:
  explicit Paper(int count = 3, Options opts = {}) : TestGroup(opts), count_(count) {
    std::vector<int> all;
    for (int n = 1; n <= count; ++n) all.push_back(n);
    for (int n : all) Add(n, Members(all));
  }

  /// 1 leads term 1 and has committed its first entry everywhere.
  Paper& Led() {
    REQUIRE(Campaign(1).ok());
    Run();
    REQUIRE(Leader() == 1);
    Spread();
    return *this;
  }
  /// Heartbeats, and what follows from them.
  void Spread(int times = 3) {
    for (int i = 0; i < times; ++i) {
      for (auto& [number, n] : nodes) Tick(number);
      Run();
    }
  }
  /// Entries, of which whoever is not isolated hears.
  void ProposeSome(int leader, int count = 1) {
    for (int i = 0; i < count; ++i) REQUIRE(Propose(leader).ok());
    Run();
  }
  /// The replica restarts with a log of one-record batches of these epochs.
  void GiveLog(int number, const std::vector<int>& epochs, int term) {
    DiskImage& disk = node(number).durable;
    disk.log.clear();
    for (size_t i = 0; i < epochs.size(); ++i) {
      disk.log.push_back(Data("x").Assign(Offset(static_cast<int64_t>(i)), LeaderEpoch(epochs[i])));
    }
    disk.hard_state = {LeaderEpoch(term), VoterId{}};
    Restart(number);
  }
  Message From(int from, int to, int term, MessageBody body) const {
    return {Id(from), Id(to), LeaderEpoch(term), std::move(body)};
  }
  Message VoteAsked(int from, int to, int term, LogPlace last, bool pre_vote = false) const {
    return From(from, to, term, VoteRequest{pre_vote, false, last});
  }
  /// What `from` has sent of this kind and is still under way.
  template <class Body>
  std::vector<Body> Sent(int from) const {
    std::vector<Body> found;
    for (const Message& message : network) {
      if (message.from != Id(from)) continue;
      if (const auto* body = std::get_if<Body>(&message.body)) found.push_back(*body);
    }
    return found;
  }
  /// The first node of `among` that campaigns leads.
  void MakeLeader(int number) {
    for (int tries = 0; tries < 50 && Leader() != number; ++tries) {
      for (auto& [other, n] : nodes) Tick(other, other == number ? 0 : 1);
      if (at(number).role() != Role::kLeader) (void)Campaign(number);
      Run();
    }
    REQUIRE(Leader() == number);
  }
  /// Time passes until one that is not isolated leads and serves.
  int ElectAmongThose() {
    const auto leads = [this](int n) {
      return std::find(isolated.begin(), isolated.end(), n) == isolated.end() && at(n).Serving();
    };
    for (int i = 0; i < 200; ++i) {
      Spread(1);
      for (int n = 1; n <= count_; ++n) {
        if (leads(n)) return n;
      }
    }
    FAIL("nobody came to lead");
    return 0;
  }
  std::vector<int> Epochs(int number) const {
    std::vector<int> all;
    for (const record::Batch& b : nodes.at(number).memory.log) all.push_back(b.epoch().value());
    return all;
  }
  bool SameLogs() const {
    for (int n = 2; n <= count_; ++n) {
      if (Log(n) != Log(1)) return false;
    }
    return true;
  }

 private:
  const int count_;
};

inline LogPlace Place(int epoch, int64_t end) {
  return {LeaderEpoch(epoch), Offset(end)};
}

}  // namespace sluice::raft
