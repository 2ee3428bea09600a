// Which of a worker's cores each of its ranks has: no core belongs to two.
//
// A rank asks for as many as it has threads and gets neighbours, or none: then its threads run
// where the system puts them. Ownership: plain values; kept by the host of the worker.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "protocol/base/ids.h"

namespace tutti::worker {

// Read by the rank (kernels/tensor/cores.h): "2,3".
inline constexpr const char* kCoresName = "TUTTI_CORES";

class CoreShare {
 public:
  // `cores`: logical CPUs in the order of the topology.
  explicit CoreShare(std::vector<int> cores) : cores_(std::move(cores)) {}

  // For kCoresName; empty: so many are not free side by side. What the process had is put back.
  std::string take(ProcessId process, std::uint32_t count);
  void put_back(ProcessId process);

  // Over a restart of the worker, which its ranks outlive.
  const std::vector<int>& of(ProcessId process) const;
  void adopt(ProcessId process, std::vector<int> cores);

 private:
  bool is_free(int core) const;

  std::vector<int> cores_;
  std::map<ProcessId, std::vector<int>> taken_;
};

}  // namespace tutti::worker
