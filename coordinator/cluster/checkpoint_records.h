// Checkpoints of a job, as the durable state holds them.
//
// The rules of cluster_records.h hold: fields may be added with a default, never renamed.
#pragma once

#include <boost/describe/class.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "protocol/base/ids.h"
#include "protocol/wire/rank_messages.h"

namespace tutti::coordinator {

struct CheckpointPartRecord {
  std::uint32_t rank = 0;
  std::vector<wire::CheckpointFile> files;

  bool operator==(const CheckpointPartRecord&) const = default;
};
BOOST_DESCRIBE_STRUCT(CheckpointPartRecord, (), (rank, files))

// The one checkpoint that is being written, if step is not 0. With the parts of all ranks it only
// waits for its commit.
struct OpenCheckpoint {
  std::uint64_t step = 0;
  Generation generation;
  std::uint32_t size = 0;  // parts that make it whole
  std::vector<CheckpointPartRecord> parts;

  bool whole() const { return step != 0 && parts.size() == size; }
  bool operator==(const OpenCheckpoint&) const = default;
};
BOOST_DESCRIBE_STRUCT(OpenCheckpoint, (), (step, generation, size, parts))

struct CommittedCheckpoint {
  std::uint64_t step = 0;
  std::string folder;

  bool operator==(const CommittedCheckpoint&) const = default;
};
BOOST_DESCRIBE_STRUCT(CommittedCheckpoint, (), (step, folder))

}  // namespace tutti::coordinator
