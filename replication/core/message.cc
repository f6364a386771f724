#include "replication/core/message.h"

#include "common/text.h"

namespace sluice::raft {

namespace {

std::string Place(const LogPlace& place) {
  return Cat(place.epoch.value(), "@", place.end.value());
}

std::string Doubt(uint64_t doubt) {
  return doubt == kNoDoubt ? "" : ", in doubt";
}

std::string Unfit(bool cannot_lead) {
  return cannot_lead ? ", cannot lead" : "";
}

struct Describer {
  std::string operator()(const VoteRequest& m) const {
    return Cat(m.pre_vote ? "PreVote?" : "Vote?", " log ", Place(m.last), m.transfer ? ", transfer" : "");
  }
  std::string operator()(const VoteResponse& m) const {
    return Cat(m.pre_vote ? "PreVote" : "Vote", m.granted ? " yes" : " no", Doubt(m.doubt),
               m.members.end.value() > 0 ? Cat(", members ", Place(m.members)) : "");
  }
  std::string operator()(const AppendRequest& m) const {
    std::string out = Cat("Append after ", Place(m.previous));
    if (!m.batches.empty()) {
      out += Cat(", ", m.batches.size(), m.batches.size() == 1 ? " batch" : " batches", " to ",
                 Place({m.batches.back().epoch(), m.batches.back().next_offset()}));
    }
    return Cat(out, ", committed ", m.committed.value());
  }
  std::string operator()(const AppendResponse& m) const {
    if (m.rejected)
      return Cat("Rejected ", m.end.value(), ", try ", Place(m.hint), Doubt(m.doubt), Unfit(m.cannot_lead));
    return Cat("Appended to ", m.end.value(), ", committed ", m.committed.value(), Doubt(m.doubt),
               Unfit(m.cannot_lead));
  }
  std::string operator()(const Heartbeat& m) const {
    std::string out = Cat("Heartbeat committed ", m.committed.value());
    if (m.read_seq != 0) out += Cat(", read ", m.read_seq);
    if (m.doubt != kNoDoubt) out += Cat(", leads, log to ", m.confirmed_end.value());
    return m.answer ? out : out + ", no answer";
  }
  std::string operator()(const HeartbeatResponse& m) const {
    std::string out = Cat("Alive log to ", m.log_end.value(), ", committed ", m.committed.value());
    if (m.read_seq != 0) out += Cat(", read ", m.read_seq);
    if (m.members.end.value() > 0) out += Cat(", members ", Place(m.members));
    return out + Doubt(m.doubt) + Unfit(m.cannot_lead);
  }
  std::string operator()(const InstallSnapshot& m) const {
    return Cat("Snapshot ", Place(m.base), ", ", m.configuration.configuration.ToString());
  }
  std::string operator()(const SnapshotFailed& m) const { return Cat("SnapshotFailed ", m.base_end.value()); }
  std::string operator()(const TimeoutNow&) const { return "TimeoutNow"; }
};

}  // namespace

std::string Describe(const Message& message) {
  return Cat(message.from.node.value(), ">", message.to.node.value(), " t", message.term.value(), " ",
             std::visit(Describer{}, message.body));
}

}  // namespace sluice::raft
