// Facts about workers: part of the closed set in cluster_facts.h.
#pragma once

#include <boost/describe/class.hpp>

#include <cstdint>
#include <string>

#include "coordinator/cluster/cluster_records.h"

namespace tutti::coordinator {

// A worker said Hello as a new process, or after it had been lost.
struct WorkerJoined {
  WorkerRecord worker;

  bool operator==(const WorkerJoined&) const = default;
};
BOOST_DESCRIBE_STRUCT(WorkerJoined, (), (worker))

// Its processes are lost with it, in the same fact: nobody counts on them any more.
struct WorkerLost {
  std::string worker;
  std::string reason;
  std::int64_t unix_ms = 0;

  bool operator==(const WorkerLost&) const = default;
};
BOOST_DESCRIBE_STRUCT(WorkerLost, (), (worker, reason, unix_ms))

// The worker is back, and this process of it holds the newest state of a job that has not been
// taken up by others since: it is a member of its gang again.
struct ProcessReturned {
  ProcessId process;

  bool operator==(const ProcessReturned&) const = default;
};
BOOST_DESCRIBE_STRUCT(ProcessReturned, (), (process))

// A lost worker that has been away for long, without processes, is not listed any more.
struct WorkerForgotten {
  std::string worker;

  bool operator==(const WorkerForgotten&) const = default;
};
BOOST_DESCRIBE_STRUCT(WorkerForgotten, (), (worker))

// The node gets no new work, and is empty by `drain.due_unix_ms`.
struct NodeDraining {
  std::string worker;
  Drain drain;

  bool operator==(const NodeDraining&) const = default;
};
BOOST_DESCRIBE_STRUCT(NodeDraining, (), (worker, drain))

// Takes work again; what it was blamed for is forgotten, unless it only stayed for a while.
struct NodeUndrained {
  std::string worker;
  bool keeps_blames = false;

  bool operator==(const NodeUndrained&) const = default;
};
BOOST_DESCRIBE_STRUCT(NodeUndrained, (), (worker, keeps_blames))

// A program of the job could not be started on the worker. Nobody is to blame until it is tried
// elsewhere; `proven`: it has started there, and this worker is to blame.
struct StartRefused {
  JobId job;
  std::string worker;
  bool proven = false;

  bool operator==(const StartRefused&) const = default;
};
BOOST_DESCRIBE_STRUCT(StartRefused, (), (job, worker, proven))

// No other node is left for it: it is tried again where it could not be started.
struct RefusalsForgotten {
  JobId job;

  bool operator==(const RefusalsForgotten&) const = default;
};
BOOST_DESCRIBE_STRUCT(RefusalsForgotten, (), (job))

// A job failed on the node in a way that may be the node's doing.
struct NodeBlamed {
  std::string worker;
  NodeBlame blame;

  bool operator==(const NodeBlamed&) const = default;
};
BOOST_DESCRIBE_STRUCT(NodeBlamed, (), (worker, blame))

}  // namespace tutti::coordinator
