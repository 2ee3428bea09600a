// Parts of the durable records (cluster_records.h) that say how jobs leave their slots and try
// again, and what is held against nodes.
//
// Units: as named; times of day in UTC milliseconds.
#pragma once

#include <boost/describe/class.hpp>
#include <boost/describe/enum.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "protocol/base/ids.h"
#include "protocol/wire/rank_messages.h"

namespace tutti::coordinator {

// A failure with this exit code, or this text at the end of its log, is of this class.
struct RetryRule {
  bool by_code = false;
  std::int32_t code = 0;
  std::string log;  // empty: any
  wire::FailureClass failure = wire::FailureClass::user;

  bool operator==(const RetryRule&) const = default;
};
BOOST_DESCRIBE_STRUCT(RetryRule, (), (by_code, code, log, failure))

// Where a job goes when it is asked to leave its slots; `none`: it is not asked.
BOOST_DEFINE_ENUM_CLASS(ReleaseTo, none, queue, end, resize)
// Why, for counters: each has a count of its own.
BOOST_DEFINE_ENUM_CLASS(ReleaseCause, none, preempted, drained, cancelled, grown, shrunk, moved)

// That a job is asked to leave (release.h), until it has.
struct ReleaseRecord {
  ReleaseTo to = ReleaseTo::none;
  ReleaseCause cause = ReleaseCause::none;
  std::string reason;  // one line
  std::int64_t begun_unix_ms = 0;
  std::int64_t due_unix_ms = 0;  // not kept: stopped hard
  bool save = false;             // leaves a checkpoint
  // resize: processes of the next generation that run already or are started for it, by rank.
  std::vector<ProcessId> next;

  bool operator==(const ReleaseRecord&) const = default;
};
BOOST_DESCRIBE_STRUCT(ReleaseRecord, (),
                      (to, cause, reason, begun_unix_ms, due_unix_ms, save, next))

BOOST_DEFINE_ENUM_CLASS(DrainCause, none, asked, leaving, quarantine)

// That a node gets no new work. `leaving`: it said so itself, and takes work again once it is back.
struct Drain {
  DrainCause cause = DrainCause::none;
  std::string reason;
  std::int64_t since_unix_ms = 0;
  std::int64_t due_unix_ms = 0;    // empty by then
  std::int64_t empty_unix_ms = 0;  // since when nothing runs there; 0: not yet
  bool leaving =
      false;  // it said that it leaves, whatever else it is drained for: until it is back
  // quarantine: it takes work again once it has stayed for so long; 0: once it is undrained.
  std::uint64_t steady_ms = 0;

  bool operator==(const Drain&) const = default;
};
BOOST_DESCRIBE_STRUCT(Drain, (),
                      (cause, reason, since_unix_ms, due_unix_ms, empty_unix_ms, leaving,
                       steady_ms))

// failed: of a job there. refused: a program could not be started there, and was elsewhere.
// lost: the node itself; no job is named.
BOOST_DEFINE_ENUM_CLASS(BlameKind, failed, refused, lost)

struct NodeBlame {
  JobId job;
  std::string owner;
  std::string cause;
  std::int64_t unix_ms = 0;
  BlameKind kind = BlameKind::failed;

  bool operator==(const NodeBlame&) const = default;
};
BOOST_DESCRIBE_STRUCT(NodeBlame, (), (job, owner, cause, unix_ms, kind))

}  // namespace tutti::coordinator
