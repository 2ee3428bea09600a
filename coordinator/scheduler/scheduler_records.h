// The part of the durable state that is about waiting for a turn: dependencies, tasks of arrays,
// keys, and what users have had.
//
// The rules of cluster_records.h hold: fields may be added with a default, never renamed.
#pragma once

#include <boost/describe/class.hpp>
#include <boost/describe/enum.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "protocol/base/ids.h"
#include "protocol/wire/rank_messages.h"

namespace tutti::coordinator {

// A job that must have ended before another one starts.
struct Dependency {
  JobId job;
  std::string on;  // ok | failed | any

  bool operator==(const Dependency&) const = default;
};
BOOST_DESCRIBE_STRUCT(Dependency, (), (job, on))

BOOST_DEFINE_ENUM_CLASS(TaskState, waiting, active, done, failed, cancelled)

// How a task ended that is not done.
struct TaskEnd {
  std::uint32_t index = 0;
  std::int32_t exit_code = 0;
  wire::FailureClass failure = wire::FailureClass::none;
  std::string message;                              // of the first kTaskMessagesMax
  std::optional<std::int32_t> code = std::nullopt;  // as in Outcome
  std::optional<std::int32_t> signal = std::nullopt;

  bool operator==(const TaskEnd&) const = default;
};
BOOST_DESCRIBE_STRUCT(TaskEnd, (), (index, exit_code, failure, message, code, signal))

// The tasks of an array. One that is active is a JobRecord of its own; of the others there is one
// letter here, so that memory follows what runs. Task i is job (array + 1 + i), from the submit on.
struct ArrayTasks {
  std::string states;      // by index: w(aiting) a(ctive) d(one) f(ailed) c(ancelled)
  std::uint32_t next = 0;  // none before it is waiting
  std::uint32_t waiting = 0;
  std::uint32_t active = 0;
  std::uint32_t done = 0;
  std::uint32_t failed = 0;
  std::uint32_t cancelled = 0;
  std::vector<TaskEnd> ends;  // in the order in which they ended

  bool operator==(const ArrayTasks&) const = default;
};
BOOST_DESCRIBE_STRUCT(ArrayTasks, (),
                      (states, next, waiting, active, done, failed, cancelled, ends))

// What stays of a job that was forgotten while its key still stands for it.
struct KeyRecord {
  std::string key;
  JobId job;
  std::uint64_t spec_hash = 0;  // of the resolved YAML
  std::int64_t unix_ms = 0;     // of the submit
  std::string owner = {};       // empty: kept by a version that did not say

  bool operator==(const KeyRecord&) const = default;
};
BOOST_DESCRIBE_STRUCT(KeyRecord, (), (key, job, spec_hash, unix_ms, owner))

// What a user has had of the cluster, older use counting less (fair_share.h).
struct UsageRecord {
  std::string owner;
  std::uint64_t slot_ms = 0;
  std::int64_t as_of_unix_ms = 0;

  bool operator==(const UsageRecord&) const = default;
};
BOOST_DESCRIBE_STRUCT(UsageRecord, (), (owner, slot_ms, as_of_unix_ms))

}  // namespace tutti::coordinator
