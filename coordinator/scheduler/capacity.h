// What is free on every node, indexed so that a decision never looks at all of them.
//
// A Shape is what one rank asks of a node. For each shape that jobs ask for, a View keeps how many
// ranks fit where, in the orders that policies read, and the sums over the cluster. A change of one
// node updates the views at that node; whether a gang fits is then a comparison, and choosing its
// nodes takes about one step a rank.
//
// A hold keeps part of a node's free capacity for a job that has its turn (room.h): `now` is what
// others may take. It does not say which slots: where devices differ, a rank that needs a large one
// counts as if the held slots were those that suit it.
//
// Limits: kViewsMax shapes are indexed; further ones are indexed in place of the one unused for
// longest, at the price of one look at every node.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/scheduler/policies/link_speeds.h"

namespace tutti::coordinator::scheduler {

inline constexpr std::size_t kViewsMax = 512;

struct Shape {
  std::uint64_t cores = 0;                // 0: those of its slot
  std::uint64_t memory_bytes = 0;         // 0: not counted
  std::uint64_t device_memory_bytes = 0;  // of its slot's device, at least; 0: any
  bool programs = false;                  // kind `run`
  std::string device = "any";
  std::string precision = {};           // of its numerics profile; empty: any (programs)
  std::string profile = {};             // exactly this one; empty: any of that precision
  std::string exchange = {};            // exactly this one; empty: any
  bool one_profile = false;             // all ranks share one of both (in_one_profile)
  std::vector<std::string> labels;      // all of them
  std::vector<std::string> prefer;      // the more, the better
  std::vector<std::string> avoid = {};  // nodes, ascending: none of them

  auto operator<=>(const Shape&) const = default;
};

// Slots, cores and memory together.
struct Amount {
  std::uint64_t slots = 0;
  std::uint64_t cores = 0;
  std::uint64_t memory_bytes = 0;

  bool operator==(const Amount&) const = default;
  Amount& operator+=(const Amount& other);
  // Never below zero.
  Amount less(const Amount& other) const;
};

Amount amount_of(const Shape& shape, std::uint64_t ranks);

struct NodeState {
  std::string name;
  std::vector<std::string> labels;
  bool programs = true;
  std::uint64_t device_memory_bytes = 0;  // of the smallest of its devices; 0: a slot has none
  std::vector<std::uint64_t> devices;     // by slot, where they differ; empty: all alike
  std::vector<std::uint32_t> islands;     // of devices that links join (policies/together.h)
  std::vector<std::uint32_t> sockets;     // the same
  LinkSpeeds speeds;                      // between slots, as far as they are known
  bool usable = true;                     // takes new work now
  bool lasting = true;                    // will take work again, if it does not now
  std::vector<std::string> profiles = {"portable"};
  std::string exchange = {};  // what its devices exchange by; empty: nothing of the kind
  Amount total;
  Amount used;
  Amount endless;                            // of it by jobs that do not end
  std::vector<std::uint32_t> taken;          // slots, ascending
  std::vector<std::uint32_t> endless_slots;  // of those, ascending

  bool operator==(const NodeState&) const = default;
};

// Ranks of a shape.
struct Fit {
  std::uint32_t now = 0;             // beside what is held for others
  std::uint32_t free = 0;            // with what is held
  std::uint32_t beside_endless = 0;  // if all that ends had ended
  std::uint32_t ever = 0;            // if nothing else ran

  bool operator==(const Fit&) const = default;
};

struct Sum {
  std::uint64_t now = 0;
  std::uint64_t free = 0;
  std::uint64_t beside_endless = 0;
  std::uint64_t ever = 0;
};

using NodeIndex = std::uint32_t;

// Nodes of equal preference on which at least one rank fits now.
struct Tier {
  std::map<std::string, std::pair<NodeIndex, std::uint32_t>> by_name;  // ranks that fit
  std::set<std::pair<std::uint32_t, std::string>> by_fit;
};

struct Share {
  std::string node;
  std::uint32_t ranks = 0;

  bool operator==(const Share&) const = default;
};

class Capacity {
 public:
  Capacity();
  ~Capacity();
  Capacity(Capacity&&) noexcept;
  Capacity& operator=(Capacity&&) noexcept;

  // A node as it is now; the same again costs nothing.
  void set(NodeState node);
  void erase(const std::string& name);
  const NodeState* node(const std::string& name) const;
  std::size_t nodes() const { return index_.size(); }
  // On nodes that take new work, held or not; and beside what is held.
  std::uint64_t free_slots() const { return free_slots_; }
  std::uint64_t free_slots_beside_holds() const { return free_slots_ - held_slots_; }

  // Keeps part of what is free, or will be, from everybody but those who lift it.
  void hold(const std::string& name, Amount amount);
  const std::map<std::string, Amount>& holds() const { return holds_; }

  Sum sum(const Shape& shape);
  // `now` and `free` of the sum, for one of many shapes. Where few nodes have a free slot these are
  // looked at, so that a queue of more shapes than are indexed does not index them in turns.
  struct Room {
    std::uint64_t now = 0;
    std::uint64_t free = 0;
  };
  Room room(const Shape& shape);
  Fit fit(const Shape& shape, const std::string& name) const;
  // By preference, the best first.
  const std::map<int, Tier, std::greater<>>& tiers(const Shape& shape);

  // Ranks that would fit on a node in this state, beside what is held on it.
  std::uint32_t ranks_on(const Shape& shape, const NodeState& state) const;
  // Why not one more such rank fits on the node now; empty: it does.
  std::string why_not(const Shape& shape, const NodeState& node) const;
  std::vector<const NodeState*> all() const;
  // Of any node, ascending: each profile, and what nodes that have it exchange by.
  using Kinds = std::map<std::pair<std::string, std::string>, std::uint32_t>;
  const Kinds& kinds() const { return kinds_; }
  // Whether of any node something is known of how its devices are joined.
  bool knows_links() const { return joined_ > 0; }

 private:
  struct View;
  View& view_of(const Shape& shape);
  Fit fit_on(const Shape& shape, NodeIndex index) const;
  void update(View& view, NodeIndex index);
  void update_all(NodeIndex index);
  // Counts what is free, and held, on a node; takes the count back before it changes.
  enum class Count { add, take_back };
  void count_slots(NodeIndex index, Count count);
  void count_kinds(const NodeState& node, Count count);

  std::map<std::string, NodeIndex> index_;
  std::vector<std::optional<NodeState>> nodes_;
  std::vector<NodeIndex> unused_;
  std::set<NodeIndex> with_free_slots_;  // that take new work
  std::map<std::string, Amount> holds_;
  Kinds kinds_;               // how many nodes have it
  std::uint32_t joined_ = 0;  // nodes
  std::map<Shape, std::unique_ptr<View>> views_;
  std::uint64_t uses_ = 0;
  std::uint64_t free_slots_ = 0;
  std::uint64_t held_slots_ = 0;  // of those that are free
};

bool suits(const Shape& shape, const NodeState& node);
// Whether something is known of how its devices are joined.
bool knows_joins(const NodeState& node);
bool slot_suits(const Shape& shape, const NodeState& node, std::uint32_t slot);
// Up to `wanted` free slots for such ranks: the smallest devices that suit first; of devices that
// are alike those that are joined best and fastest, also with those that the gang has there; then
// by number.
// The slots for more ranks need not be those for fewer, and others beside.
std::vector<std::uint32_t> free_slots(const Shape& shape, const NodeState& node,
                                      std::uint32_t wanted,
                                      std::span<const std::uint32_t> beside = {});
// Of all that are free, how many one island, or socket, has together; where neither is known, all.
std::uint32_t most_joined(const Shape& shape, const NodeState& node);

// A gang that shares one numerics profile, and one way to exchange, on a cluster that has several:
// the shape for the one of which most ranks fit now, or ever, if none has `wanted` now. Every other
// shape as it is.
Shape in_one_profile(Capacity& capacity, const Shape& shape, std::uint32_t wanted);

// "; its ranks share one numerics profile: portable has 2, sm_90-... has 1", where that is why; of
// versions of what they exchange by, with a node of each.
std::string mixed_profiles(Capacity& capacity, const Shape& shape);

}  // namespace tutti::coordinator::scheduler
