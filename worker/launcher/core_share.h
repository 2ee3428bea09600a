// Which of a worker's cores each of its ranks has: no core belongs to two.
//
// A rank asks for as many as it has threads. Neighbours in one NUMA node come first: a rank's
// memory is that of the node where its threads are (kernels/tensor/cores.h). Of several places the
// tightest is taken, so that wide ones stay for wide ranks. Where no neighbours are left it gets
// what is free, wherever that lies; where too few are free, none: then the system places its
// threads, anywhere but on the agent's core. Ownership: plain values; kept by the host of the
// worker.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "protocol/base/ids.h"
#include "worker/inventory/cores.h"

namespace tutti::worker {

// Read by the rank (kernels/tensor/cores.h): "2,3".
inline constexpr const char* kCoresName = "TUTTI_CORES";

class CoreShare {
 public:
  // In the order of the topology, so that the cores of a node are side by side.
  explicit CoreShare(std::vector<Core> cores) : cores_(std::move(cores)) {}

  // For kCoresName; empty: so many are not free. What the process had is put back.
  std::string take(ProcessId process, std::uint32_t count);
  void put_back(ProcessId process);
  // Logical CPUs of all cores, taken or free: for a rank that got none. Empty: the share has none.
  std::vector<int> cpus() const;

  // Over a restart of the worker, which its ranks outlive.
  const std::vector<int>& of(ProcessId process) const;
  void adopt(ProcessId process, std::vector<int> cores);

 private:
  enum class Borders { nodes, none };

  bool is_free(int cpu) const;
  // The shortest row of free neighbours that holds `count`; empty: none does.
  std::span<const Core> tightest(std::size_t count, Borders borders) const;
  std::vector<int> place_for(std::size_t count) const;

  std::vector<Core> cores_;
  std::map<ProcessId, std::vector<int>> taken_;
};

}  // namespace tutti::worker
