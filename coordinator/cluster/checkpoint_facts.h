// Facts about checkpoints: part of the closed set in cluster_facts.h.
#pragma once

#include <boost/describe/class.hpp>

#include <cstdint>
#include <string>

#include "coordinator/cluster/checkpoint_records.h"
#include "protocol/base/ids.h"

namespace tutti::coordinator {

struct CheckpointPartTaken {
  JobId job;
  Generation generation;
  std::uint64_t step = 0;
  CheckpointPartRecord part;

  bool operator==(const CheckpointPartTaken&) const = default;
};
BOOST_DESCRIBE_STRUCT(CheckpointPartTaken, (), (job, generation, step, part))

struct CheckpointTaken {
  JobId job;
  std::uint64_t step = 0;
  std::string folder;

  bool operator==(const CheckpointTaken&) const = default;
};
BOOST_DESCRIBE_STRUCT(CheckpointTaken, (), (job, step, folder))

struct CheckpointDropped {
  JobId job;
  std::uint64_t step = 0;
  std::string reason;

  bool operator==(const CheckpointDropped&) const = default;
};
BOOST_DESCRIBE_STRUCT(CheckpointDropped, (), (job, step, reason))

// A rank is asked to commit: from here on this may be the newest checkpoint that is there, also
// where its answer is lost with the rank and the coordinator that asked.
struct CommitOrdered {
  JobId job;
  std::uint64_t step = 0;

  bool operator==(const CommitOrdered&) const = default;
};
BOOST_DESCRIBE_STRUCT(CommitOrdered, (), (job, step))

}  // namespace tutti::coordinator
