// What people and programs are told of jobs and nodes, in order.
//
// Events are rows in the journal's transaction, and their number is the cursor that readers resume
// from (I15). Kinds are stored by name: new ones go to the end, none is renamed.
//
// Units: times of day in UTC milliseconds.
#pragma once

#include <boost/describe/class.hpp>
#include <boost/describe/enum.hpp>

#include <cstdint>
#include <string>

#include "protocol/base/ids.h"

namespace tutti::coordinator {

// `waiting` says what a queued or recovering job waits for, `restarted` that a job queues again.
// `releasing`: asked to save and leave; `resized`: goes on with another number of ranks or on other
// nodes.
BOOST_DEFINE_ENUM_CLASS(EventKind, submitted, waiting, placed, started, running, rank_lost, aborted,
                        regrouped, recovered, restarted, checkpoint, checkpoint_failed, finished,
                        failed, cancelled, worker_joined, worker_lost, gap,  //
                        releasing,                                           //
                        preempted,                                           //
                        resized,                                             //
                        hang,                                                //
                        straggler,                                           //
                        draining,                                            //
                        drained,                                             //
                        undrained,                                           //
                        quarantined,                                         //
                        worker_forgotten,                                    //
                        rank_returned,                                       //
                        restart_refused)

// One line of what people and programs are told. Zero and -1 are "not about one".
struct Event {
  std::uint64_t seq = 0;  // from 1, without gaps
  std::int64_t unix_ms = 0;
  JobId job = {};
  EventKind kind = EventKind::submitted;
  std::string message = {};
  Generation generation = {};
  std::int32_t rank = -1;
  std::uint64_t step = 0;
  std::string worker = {};

  bool operator==(const Event&) const = default;
};
BOOST_DESCRIBE_STRUCT(Event, (), (seq, unix_ms, job, kind, message, generation, rank, step, worker))

}  // namespace tutti::coordinator
