// PeerBook: where the other nodes are, for the transport: where they registered last, or where they say that they are
// by now. A cluster whose nodes have all moved has no leader to register with, so what group 0 says of them is the past
// and each other's word is all there is.
//
// Always holds: of two registrations of a node the later one wins, in whatever order they are heard of; a new one wins
// over all that was said before; what a node says of itself wins over
// what others say of it. A wrong address does no harm: whoever is called there says who it is, and is refused.
// Threads: the controller's executor.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "broker/peer_calls.h"
#include "common/types.h"

namespace sluice::broker {

class PeerBook {
 public:
  /// `addresses` is told; borrowed, may be null.
  PeerBook(NodeId self, std::string own_address, PeerAddresses* addresses)
      : self_(self), own_address_(std::move(own_address)), addresses_(addresses) {}

  /// As group 0 has it here, which tells of a node for other reasons, too: `epoch` is that of its last registration.
  void Registered(NodeId node, const std::string& address, Offset epoch) {
    if (node == self_ || address.empty()) return;
    Entry& entry = entries_[node];
    const bool again = std::exchange(entry.epoch, epoch) != epoch;
    const bool moved = epoch > entry.told_at && std::exchange(entry.registered, address) != address;
    if (again || moved) TakeRegistered(node, entry);
  }
  /// As the leader has told it when it had applied `at` of group 0: more than this node has, or less by now.
  void Told(NodeId node, const std::string& address, Offset at) {
    if (node == self_ || address.empty()) return;
    Entry& entry = entries_[node];
    if (at <= entry.epoch || at <= entry.told_at) return;
    entry.told_at = at;
    if (std::exchange(entry.registered, address) != address) TakeRegistered(node, entry);
  }
  /// Somebody says that the node is there; `by_itself`: the node.
  void Said(NodeId node, const std::string& address, bool by_itself) {
    if (node == self_ || address.empty()) return;
    Entry& entry = entries_[node];
    if (!by_itself && entry.by_itself) return;
    entry.by_itself = by_itself;
    if (entry.AddressNow() == address) return;
    entry.said = address;
    Tell(node, address);
  }
  /// Empty for a node that is not known.
  std::string AddressOf(NodeId node) const {
    const auto it = entries_.find(node);
    return it == entries_.end() ? std::string() : it->second.AddressNow();
  }
  /// Of all but this node.
  std::map<NodeId, std::string> All() const {
    std::map<NodeId, std::string> all;
    for (const auto& [node, entry] : entries_) all[node] = entry.AddressNow();
    return all;
  }
  /// What is worth telling others: of this node, and of those that are not where they registered.
  std::map<NodeId, std::string> News() const {
    std::map<NodeId, std::string> news = {{self_, own_address_}};
    for (const auto& [node, entry] : entries_) {
      if (!entry.said.empty()) news[node] = entry.said;
    }
    return news;
  }

 private:
  struct Entry {
    std::string registered;
    Offset epoch{-1};    ///< Of its last registration, as group 0 has it here.
    Offset told_at{-1};  ///< Of group 0, when the leader last told of it.
    std::string said;    ///< Empty: it is where it registered.
    bool by_itself = false;
    const std::string& AddressNow() const { return said.empty() ? registered : said; }
  };
  void TakeRegistered(NodeId node, Entry& entry) {
    entry.said.clear();
    entry.by_itself = false;
    Tell(node, entry.registered);
  }
  void Tell(NodeId node, const std::string& address) {
    if (addresses_ != nullptr) addresses_->SetPeer(node, address);
  }

  const NodeId self_;
  const std::string own_address_;
  PeerAddresses* const addresses_;
  std::map<NodeId, Entry> entries_;
};

}  // namespace sluice::broker
