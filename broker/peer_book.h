// PeerBook: where the other nodes are, for the transport: where they registered last, or where they say that they are
// by now. A cluster whose nodes have all moved has no leader to register with, so what group 0 says of them is the past
// and each other's word is all there is.
//
// Always holds: what is known of a node is as of one of its registrations (their epochs grow), and newer knowledge wins
// over older, in whatever order it is heard:
//  - what is of a later registration wins over what is of an earlier one; hearsay too says of which one it is, so that
//    who has missed a registration undoes it for nobody;
//  - of one registration, what was said since wins over where the node registered, the last that was heard over what
//    was heard before, and what the node said itself over what others say of it;
//  - what a node says itself is news, of whatever registration it knows: it may have forgotten the last one.
// A node's process registers once it finds the leader; so what is wrong all the same lasts until then. A wrong address
// does no harm: whoever is called there says who it is, and is refused.
// Threads: the controller's executor.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "broker/cluster_calls.h"
#include "broker/peer_calls.h"
#include "common/types.h"
#include "replication/core/configuration.h"

namespace sluice::broker {

class PeerBook {
 public:
  /// `addresses` is told; borrowed, may be null.
  PeerBook(NodeId self, std::string own_address, PeerAddresses* addresses)
      : self_(self), own_{.address = std::move(own_address), .since = true}, addresses_(addresses) {}

  /// As group 0 has it: `epoch` is that of the registration. Also of this node.
  void Registered(NodeId node, const std::string& address, Offset epoch) {
    Heard(node, {.address = address, .epoch = epoch, .since = false});
  }
  /// Somebody else's word; `since`: the node is there since that registration, it was not where it registered.
  void Heard(NodeId node, const PeerWhere& where) {
    if (node == self_ && !where.since && where.epoch >= own_.epoch) {
      own_.epoch = where.epoch;
      own_.since = where.address != own_.address;
    }
    if (!Takes(node, where.address)) return;
    Entry& entry = entries_[node];
    if (where.epoch < entry.where.epoch) return;
    const bool same = where.epoch == entry.where.epoch;
    if (same && (!where.since || entry.by_itself || where.address == entry.where.address)) return;
    entry.by_itself = false;
    Take(node, &entry, where);
  }
  /// The node says so itself; `epoch` is that of the last registration that it knows of.
  void SaidItself(NodeId node, const std::string& address, Offset epoch) {
    if (!Takes(node, address)) return;
    Entry& entry = entries_[node];
    epoch = std::max(epoch, entry.where.epoch);
    const bool registered = !entry.where.since && epoch == entry.where.epoch && entry.where.address == address;
    entry.by_itself = true;
    if (!registered) Take(node, &entry, {.address = address, .epoch = epoch, .since = true});
  }
  NodeId self() const { return self_; }
  const PeerWhere& own() const { return own_; }
  /// Empty for a node that is not known.
  std::string AddressOf(NodeId node) const {
    if (node == self_) return own_.address;
    const auto it = entries_.find(node);
    return it == entries_.end() ? std::string() : it->second.where.address;
  }
  /// This node among them.
  std::map<NodeId, PeerWhere> All() const {
    std::map<NodeId, PeerWhere> all = {{self_, own_}};
    for (const auto& [node, entry] : entries_) all[node] = entry.where;
    return all;
  }

 private:
  struct Entry {
    PeerWhere where;
    bool by_itself = false;
  };
  bool Takes(NodeId node, const std::string& address) const {
    if (node == self_ || node < NodeId(1) || address.empty()) return false;
    return entries_.contains(node) || entries_.size() < raft::Configuration::kMembersMax;
  }
  void Take(NodeId node, Entry* entry, const PeerWhere& where) {
    const bool moved = std::exchange(entry->where, where).address != where.address;
    if (moved && addresses_ != nullptr) addresses_->SetPeer(node, where.address);
  }

  const NodeId self_;
  PeerWhere own_;
  PeerAddresses* const addresses_;
  std::map<NodeId, Entry> entries_;
};

}  // namespace sluice::broker
