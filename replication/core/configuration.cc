#include "replication/core/configuration.h"

#include <algorithm>
#include <utility>

#include "common/endian.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::raft {

namespace {

// docs/formats.md, "Raft configuration", "Raft state of a replica".
constexpr uint16_t kVersion = 0;
constexpr size_t kConfigurationHeaderBytes = 6;
constexpr size_t kMemberBytes = 20;
constexpr size_t kStateHeaderBytes = 38;
constexpr uint16_t kInDoubt = 1;
constexpr size_t kStateEntryBytes = 16;
// Far more than a replica ever has uncommitted, which is one.
constexpr uint16_t kConfigurationsMax = 1024;

template <class T>
void Put(std::string* out, T value) {
  char bytes[sizeof(T)];
  StoreLittle<T>(bytes, value);
  out->append(bytes, sizeof(T));
}

void PutMembers(std::string* out, const std::vector<VoterId>& members) {
  for (const VoterId& m : members) {
    Put<int32_t>(out, m.node.value());
    out->append(m.incarnation.AsBytes());
  }
}

std::vector<VoterId> TakeMembers(std::string_view* bytes, size_t count) {
  std::vector<VoterId> members(count);
  for (VoterId& m : members) {
    m.node = NodeId(LoadLittle<int32_t>(bytes->data()));
    m.incarnation = *Uuid::FromBytes(bytes->substr(sizeof(int32_t), sizeof(Uuid::bytes)));
    bytes->remove_prefix(kMemberBytes);
  }
  return members;
}

bool Has(const std::vector<VoterId>& sorted, const VoterId& id) {
  return std::binary_search(sorted.begin(), sorted.end(), id);
}

absl::Status Damaged(std::string_view what) {
  return absl::DataLossError(Cat("raft configuration: ", what));
}

std::string Nodes(const std::vector<VoterId>& members) {
  std::string out;
  for (const VoterId& m : members) out += Cat(out.empty() ? "" : ", ", m.node.value());
  return out;
}

}  // namespace

absl::StatusOr<Configuration> Configuration::Make(std::vector<VoterId> voters, std::vector<VoterId> learners) {
  Configuration made{std::move(voters), std::move(learners)};
  std::sort(made.voters.begin(), made.voters.end());
  std::sort(made.learners.begin(), made.learners.end());
  std::vector<VoterId> all = made.voters;
  all.insert(all.end(), made.learners.begin(), made.learners.end());
  std::sort(all.begin(), all.end());
  if (all.size() > kMembersMax) {
    return absl::InvalidArgumentError(Cat(all.size(), " members; at most ", kMembersMax, " are possible"));
  }
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i].node.value() <= 0 || all[i].incarnation.IsNil()) {
      return absl::InvalidArgumentError(Cat("a member ", all[i].ToString(), " cannot be"));
    }
    if (i > 0 && all[i] == all[i - 1]) {
      return absl::InvalidArgumentError(Cat("member ", all[i].ToString(), " is named twice"));
    }
  }
  if (made.voters.empty() && !made.learners.empty()) return absl::InvalidArgumentError("learners without a voter");
  return made;
}

std::string Configuration::Encode() const {
  std::string out;
  out.reserve(kConfigurationHeaderBytes + kMemberBytes * (voters.size() + learners.size()));
  Put<uint16_t>(&out, kVersion);
  Put<uint16_t>(&out, static_cast<uint16_t>(voters.size()));
  Put<uint16_t>(&out, static_cast<uint16_t>(learners.size()));
  PutMembers(&out, voters);
  PutMembers(&out, learners);
  return out;
}

absl::StatusOr<Configuration> Configuration::Decode(std::string_view bytes) {
  if (bytes.size() < kConfigurationHeaderBytes) return Damaged("cut short");
  if (LoadLittle<uint16_t>(bytes.data()) != kVersion) {
    return Damaged(Cat("version ", LoadLittle<uint16_t>(bytes.data())));
  }
  const size_t voters = LoadLittle<uint16_t>(bytes.data() + 2);
  const size_t learners = LoadLittle<uint16_t>(bytes.data() + 4);
  bytes.remove_prefix(kConfigurationHeaderBytes);
  if (bytes.size() != (voters + learners) * kMemberBytes) {
    return Damaged(Cat(voters, " voters and ", learners, " learners in ", bytes.size(), " bytes"));
  }
  Configuration read;
  read.voters = TakeMembers(&bytes, voters);
  read.learners = TakeMembers(&bytes, learners);
  auto made = Make(read.voters, read.learners);
  if (!made.ok()) return Damaged(Message(made.status()));
  if (*made != read) return Damaged("the members are not in order");
  return made;
}

bool Configuration::IsVoter(const VoterId& id) const {
  return Has(voters, id);
}

bool Configuration::IsLearner(const VoterId& id) const {
  return Has(learners, id);
}

absl::Status Configuration::CheckStep(const Configuration& next) const {
  if (next.voters.empty()) return absl::InvalidArgumentError("no voter would be left");
  std::vector<VoterId> all;
  for (const auto* list : {&voters, &learners, &next.voters, &next.learners}) {
    all.insert(all.end(), list->begin(), list->end());
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  const auto differs = [&](const VoterId& id) {
    return IsVoter(id) != next.IsVoter(id) || IsLearner(id) != next.IsLearner(id);
  };
  const auto count = std::count_if(all.begin(), all.end(), differs);
  if (count == 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat("from ", ToString(), " to ", next.ToString(), " changes ", count, " members, not one"));
}

std::string Configuration::ToString() const {
  std::string out = Cat("voters ", Nodes(voters));
  if (!learners.empty()) out += Cat("; learners ", Nodes(learners));
  return out;
}

std::string ReplicaRaftState::Encode() const {
  std::string out;
  Put<uint16_t>(&out, kVersion);
  Put<uint16_t>(&out, static_cast<uint16_t>(configurations.size()));
  Put<uint16_t>(&out, in_doubt ? kInDoubt : 0);
  for (const Base& b : {base, installing}) {
    Put<int64_t>(&out, b.start.value());
    Put<int32_t>(&out, b.epoch.exact.value());
    Put<int32_t>(&out, b.epoch.at_most.value());
  }
  for (const ConfigurationAt& at : configurations) {
    const std::string bytes = at.configuration.Encode();
    Put<int64_t>(&out, at.offset.value());
    Put<int32_t>(&out, at.epoch.value());
    Put<uint32_t>(&out, static_cast<uint32_t>(bytes.size()));
    out += bytes;
  }
  return out;
}

absl::StatusOr<ReplicaRaftState> ReplicaRaftState::Decode(std::string_view bytes) {
  if (bytes.size() < kStateHeaderBytes) return Damaged("the state is cut short");
  if (LoadLittle<uint16_t>(bytes.data()) != kVersion) {
    return Damaged(Cat("state of version ", LoadLittle<uint16_t>(bytes.data())));
  }
  const uint16_t count = LoadLittle<uint16_t>(bytes.data() + 2);
  ReplicaRaftState state;
  const uint16_t flags = LoadLittle<uint16_t>(bytes.data() + 4);
  if ((flags & ~kInDoubt) != 0) return Damaged(Cat("a state with flags ", flags));
  state.in_doubt = (flags & kInDoubt) != 0;
  size_t at_byte = 6;
  for (Base* b : {&state.base, &state.installing}) {
    b->start = Offset(LoadLittle<int64_t>(bytes.data() + at_byte));
    b->epoch.exact = LeaderEpoch(LoadLittle<int32_t>(bytes.data() + at_byte + 8));
    b->epoch.at_most = LeaderEpoch(LoadLittle<int32_t>(bytes.data() + at_byte + 12));
    at_byte += 16;
    if (b->start.value() < 0 || b->epoch.exact.value() < 0 || b->epoch.at_most < b->epoch.exact) {
      return Damaged(Cat("a state with base ", b->start, ", epoch ", b->epoch.exact));
    }
  }
  if (count == 0 || count > kConfigurationsMax) return Damaged(Cat("a state of ", count, " configurations"));
  bytes.remove_prefix(kStateHeaderBytes);
  for (uint16_t i = 0; i < count; ++i) {
    if (bytes.size() < kStateEntryBytes) return Damaged("the state is cut short");
    ConfigurationAt at;
    at.offset = Offset(LoadLittle<int64_t>(bytes.data()));
    at.epoch = LeaderEpoch(LoadLittle<int32_t>(bytes.data() + 8));
    const size_t size = LoadLittle<uint32_t>(bytes.data() + 12);
    bytes.remove_prefix(kStateEntryBytes);
    if (size > bytes.size()) return Damaged("the state is cut short");
    SLUICE_ASSIGN_OR_RETURN(at.configuration, Configuration::Decode(bytes.substr(0, size)));
    bytes.remove_prefix(size);
    const bool ascends = state.configurations.empty() ||
                         std::pair(state.configurations.back().offset, state.configurations.back().epoch) <
                             std::pair(at.offset, at.epoch);
    if (!ascends || at.offset.value() < -1 || at.epoch.value() < 0) {
      return Damaged(Cat("a configuration at offset ", at.offset.value()));
    }
    state.configurations.push_back(std::move(at));
  }
  if (!bytes.empty()) return Damaged(Cat(bytes.size(), " bytes left over"));
  return state;
}

}  // namespace sluice::raft
