// Runs the scripts in testdata/: commands, then "----", then what happened. With SLUICE_REWRITE_GOLDEN=1 in the
// environment the scripts are written anew with what happens now; read the difference before you keep it.
//
//   nodes 1 2 3 [learners 4]   new replicas, created with these members      join 5     one that knows nobody
//   option NAME VALUE          before nodes; names as in Options             tick N [times]
//   campaign N                 propose N [records]                           change N voters 1 2 [learners 3]
//   ready N...                 carries out Readys, without a sync            persist N...
//   deliver [to N] [from N]    drop [to N] [from N]                          run        until nothing is left
//   delay [to N] [from N]      late  delivers what was delayed
//   renounce N                 as where it cannot read its log
//   crash N                    losetail N OFFSET  (a crash that loses it)     restart N [doubtful]
//   tearoff N WRITES           a crash that takes back its last durable writes; the next start is in doubt
//   isolate [N...]             nobody: heals
//   transfer N TO              read N CONTEXT                                unreachable N FOLLOWER
//   snapshot N TO              install N       what run does by itself
//   logstart N OFFSET          lost N   (the connection to its leader broke) alive N FOLLOWER   by the driver
//   status N...                log N...                                      quietly    hides what follows but these
//   two
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "common/text.h"
#include "replication/core/test_group.h"

namespace sluice::raft {

namespace {

class Script {
 public:
  /// What the commands of one block print.
  std::string RunBlock(const std::vector<std::string>& commands) {
    out_.clear();
    quiet_ = false;
    for (const std::string& command : commands) {
      std::istringstream words(command);
      std::vector<std::string> all{std::istream_iterator<std::string>(words), {}};
      if (all.empty()) continue;
      INFO("command: " << command);
      Do(all);
      if (group_ && !quiet_) out_ += group_->trace;
      if (group_) group_->trace.clear();
    }
    return out_;
  }

 private:
  static int Number(const std::string& word) { return std::stoi(word); }

  static std::vector<int> Numbers(const std::vector<std::string>& words, size_t from, size_t to) {
    std::vector<int> all;
    for (size_t i = from; i < to; ++i) all.push_back(Number(words[i]));
    return all;
  }

  // "... 1 2 3 [learners 4]" from `from` on.
  static Configuration Members(const std::vector<std::string>& words, size_t from) {
    const auto split = std::find(words.begin(), words.end(), "learners");
    const auto at = static_cast<size_t>(split - words.begin());
    return TestGroup::Members(Numbers(words, from, at),
                              split == words.end() ? std::vector<int>{} : Numbers(words, at + 1, words.size()));
  }

  static int After(const std::vector<std::string>& words, const std::string& key) {
    const auto at = std::find(words.begin(), words.end(), key);
    return at == words.end() ? 0 : Number(*(at + 1));
  }

  void Print(const std::string& line) { out_ += line + "\n"; }

  void Status(const absl::Status& status) {
    if (!status.ok()) Print(Cat(absl::StatusCodeToString(status.code()), ": ", sluice::Message(status)));
  }

  void Do(const std::vector<std::string>& w) {
    if (w[0] == "option") return Option(w[1], Number(w[2]));
    if (w[0] == "nodes" || w[0] == "join") return Nodes(w);
    REQUIRE(group_);
    if (Events(w) || Faults(w)) return;
    const std::vector<int> who = w[0] == "quietly" ? std::vector<int>{} : Numbers(w, 1, w.size());
    if (w[0] == "quietly") {
      quiet_ = true;
    } else if (w[0] == "status") {
      for (int n : who) Print(group_->Status(n));
    } else if (w[0] == "log") {
      for (int n : who) Print(Cat(n, ": ", group_->Log(n)));
    } else {
      FAIL("there is no command " << w[0]);
    }
  }

  void Option(const std::string& name, int value) {
    if (name == "election_ticks") return void(options_.election_ticks = value);
    if (name == "heartbeat_ticks") return void(options_.heartbeat_ticks = value);
    if (name == "explicit_heartbeats") return void(options_.explicit_heartbeats = value != 0);
    if (name == "message_bytes_max") return void(options_.message_bytes_max = value);
    if (name == "inflight_bytes_max") return void(options_.inflight_bytes_max = value);
    if (name == "inflight_messages_max") return void(options_.inflight_messages_max = value);
    if (name == "window_bytes_max") return void(options_.window_bytes_max = value);
    FAIL("there is no option " << name);
  }

  void Nodes(const std::vector<std::string>& w) {
    if (!group_) group_ = std::make_unique<TestGroup>(options_);
    if (w[0] == "join") return group_->Add(Number(w[1]), Configuration{});
    const Configuration members = Members(w, 1);
    for (const auto* list : {&members.voters, &members.learners}) {
      for (const VoterId& id : *list) group_->Add(id.node.value(), members);
    }
  }

  bool Events(const std::vector<std::string>& w) {
    TestGroup& g = *group_;
    if (w[0] == "tick") {
      g.Tick(Number(w[1]), w.size() > 2 ? Number(w[2]) : 1);
    } else if (w[0] == "campaign") {
      (void)g.Campaign(Number(w[1]));
    } else if (w[0] == "propose") {
      (void)g.Propose(Number(w[1]), "x", w.size() > 2 ? Number(w[2]) : 1);
    } else if (w[0] == "change") {
      (void)g.Change(Number(w[1]), Members(w, 3));
    } else if (w[0] == "ready") {
      for (int n : Numbers(w, 1, w.size())) g.TakeReady(n);
    } else if (w[0] == "persist") {
      for (int n : Numbers(w, 1, w.size())) g.Persist(n);
    } else if (w[0] == "run") {
      g.Run();
    } else if (w[0] == "transfer") {
      Status(g.at(Number(w[1])).TransferLeadership(TestGroup::Id(Number(w[2]))));
    } else if (w[0] == "read") {
      Status(g.at(Number(w[1])).ReadIndex(static_cast<uint64_t>(Number(w[2]))));
    } else {
      return false;
    }
    return true;
  }

  bool Faults(const std::vector<std::string>& w) {
    TestGroup& g = *group_;
    if (w[0] == "deliver") {
      g.Deliver(After(w, "to"), After(w, "from"));
    } else if (w[0] == "drop") {
      g.Drop(After(w, "to"), After(w, "from"));
    } else if (w[0] == "delay") {
      g.Delay(After(w, "to"), After(w, "from"));
    } else if (w[0] == "late") {
      g.DeliverLate();
    } else if (w[0] == "crash") {
      g.Crash(Number(w[1]));
    } else if (w[0] == "losetail") {
      g.LoseTail(Number(w[1]), Offset(Number(w[2])));
    } else if (w[0] == "tearoff") {
      g.TearOff(Number(w[1]), static_cast<size_t>(Number(w[2])));
    } else if (w[0] == "restart") {
      g.Restart(Number(w[1]), w.size() > 2);
    } else if (w[0] == "isolate") {
      g.isolated = Numbers(w, 1, w.size());
    } else if (w[0] == "unreachable") {
      g.at(Number(w[1])).OnUnreachable(TestGroup::Id(Number(w[2])));
    } else if (w[0] == "alive") {
      g.at(Number(w[1])).OnFollowerAlive(TestGroup::Id(Number(w[2])), g.at(Number(w[1])).term());
    } else if (w[0] == "lost") {
      g.at(Number(w[1])).OnLeaderLost();
    } else if (w[0] == "renounce") {
      g.Renounce(Number(w[1]));
    } else if (w[0] == "logstart") {
      g.MoveLogStart(Number(w[1]), Offset(Number(w[2])));
    } else if (w[0] == "snapshot") {
      g.SendSnapshot(Number(w[1]), Number(w[2]));
    } else if (w[0] == "install") {
      g.Install(Number(w[1]));
    } else {
      return false;
    }
    return true;
  }

  Options options_;
  std::unique_ptr<TestGroup> group_;
  std::string out_;
  bool quiet_ = false;
};

// The file as it would be if every block printed what it prints now.
std::string Replay(const std::string& text) {
  Script script;
  std::istringstream in(text);
  std::string result, line;
  std::vector<std::string> commands;
  while (std::getline(in, line)) {
    result += line + "\n";
    if (line != "----") {
      if (!line.empty() && line[0] != '#') commands.push_back(line);
      continue;
    }
    result += script.RunBlock(commands);
    commands.clear();
    while (std::getline(in, line) && !line.empty()) {
    }
    result += "\n";
  }
  REQUIRE(commands.empty());
  return result;
}

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("each golden script happens as it is written") {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(SLUICE_SOURCE_DIR "/replication/core/testdata")) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  REQUIRE_FALSE(files.empty());
  const bool rewrite = std::getenv("SLUICE_REWRITE_GOLDEN") != nullptr;
  for (const auto& path : files) {
    DYNAMIC_SECTION(path.filename().string()) {
      const std::string text = ReadFile(path);
      const std::string now = Replay(text);
      if (rewrite) {
        std::ofstream(path) << now;
      } else {
        REQUIRE(now == text);
      }
    }
  }
}

}  // namespace sluice::raft
