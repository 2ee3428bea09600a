// Tasks of an array of short programs stand in line on a slot, behind the one that holds it.
//
//   task 7 runs on slot 0          its end -> the worker begins task 8 at once
//   tasks 8, 9, 10 stand in line            -> the coordinator hears of many ends in one turn, and
//                                              lines up the next ones in one decision
//
// A program that lasts as long as asking for the next one takes would leave its slot idle half of
// the time, and each end would cost a sync of its own. Only the array whose turn it is gets a line,
// and only as long as its tasks are short (their mean so far): what stands in line is worth
// kLineWorth of time. Whoever stands for kStandsMax, because the one before it is not short after
// all, or in the way of a job of higher priority, is called back, unless it has begun meanwhile,
// and queues again; nobody is charged for that.
//
// A line takes no more room than the slot it stands on.
#pragma once

#include <string>

#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

inline constexpr Duration kLineWorth = std::chrono::milliseconds(100);
inline constexpr Duration kStandsMax = std::chrono::seconds(1);
// On a slot, and on all slots of a worker.
inline constexpr std::uint32_t kLineMax = 32;
inline constexpr std::uint32_t kLinesOfWorkerMax = 256;

// A task has ended on its slot: how long it took, and that its line is one shorter.
void note_task_end(Desk& desk, const ProcessRecord& process, const wire::RankExited& exit);
// Fills the lines that became shorter; `head`: whose turn it is.
void line_up(Desk& desk, JobId head);

// It waits for its slot behind others.
bool stands_in_line(const ProcessRecord& process);
// The worker ended it before it began, as it was asked to.
bool was_called_back(const ProcessRecord& process, const wire::RankExited& exit);
// Of a job that was read from the ledger.
void resume_line(Desk& desk, const JobRecord& job);
// It stood for too long.
void call_back(Desk& desk, JobId task);

}  // namespace tutti::coordinator
