// What would fit if some jobs let go of what they hold: for reservations and preemption, without
// touching anything.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "coordinator/scheduler/capacity.h"

namespace tutti::coordinator::scheduler {

// What one job holds on one node.
struct Holding {
  std::string node;
  Amount amount;
  std::vector<std::uint32_t> slots = {};
};

class Outlook {
 public:
  // `wanted` ranks of the shape, beside what is held for others.
  Outlook(Capacity& capacity, Shape shape, std::uint32_t wanted);

  bool enough() const { return total_ >= wanted_; }
  std::uint64_t ranks() const { return total_; }

  // Whether it holds something where such a rank could run.
  bool may_help(const std::vector<Holding>& holdings) const;
  void release(const std::vector<Holding>& holdings);
  void take_back(const std::vector<Holding>& holdings);

  // Nodes for the wanted ranks: those that were released first, then what is free anyway.
  std::vector<Share> choose() const;

 private:
  struct Released {
    Amount amount;
    std::set<std::uint32_t> slots;
    std::uint32_t ranks = 0;  // that would fit there
  };
  std::uint32_t ranks_with(const std::string& node, const Released& released) const;
  void set(const std::string& node, Released released);

  Capacity& capacity_;
  Shape shape_;
  std::uint32_t wanted_;
  std::uint64_t total_;
  std::map<std::string, Released> released_;
};

}  // namespace tutti::coordinator::scheduler
