// Clusters whose ranks compute on the emulated GPU, and the job that tests run there.
#pragma once

#include <string>
#include <vector>

#include "tests/support/cluster.h"

namespace tutti::test {

// Ranks are processes of tutti-rank-emulation, each with a GPU of its own.
ClusterOptions emulated(unsigned slots, std::vector<std::string> more = {});

// A training job of some seconds.
std::string tiny_spec(const Cluster& cluster, unsigned ranks, unsigned steps = 5);

}  // namespace tutti::test
