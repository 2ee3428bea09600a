// Which gang gets which slots: all ranks of a generation or none, in one fact (I4, I5).
//
// Order of a pass:
//   1. jobs that lost ranks, by priority, then by age: they outrank newcomers, and what is free for
//      a part of their ranks is kept for them, for at most on_loss.wait (life/broken_gangs.h)
//   2. the queue, in its order (job_queue.h). The first job that could start but for others' ends
//      is the head: it gets a reservation (room.h), and those behind it take only what that does
//      not need, or what they give back in time (they have a limit.time). Jobs that cannot start
//      whatever ends (no such machine, only servers in the way, a quota) are passed and block
//      nobody
//   3. what the head may take from jobs of lower priority (room.h)
//   4. room that nobody waits for goes to running jobs that may grow
//
// The size of a gang: as many ranks as there is room for, from ranks.min to ranks.max. A train job
// grows later; another kind waits kFullSizePatience for all of ranks.max first, because it cannot.
// The bits of a result do not depend on the size (DESIGN numerics).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

inline constexpr Duration kFullSizePatience = std::chrono::seconds(10);
// Placements of one decision; the rest follow in the next one, so that nobody waits long for an
// answer while thousands of tasks start.
inline constexpr std::size_t kPlacementsPerPass = 256;
// Lanes that one pass looks at from the front of the queue on, and as many from where the last pass
// ended: so all of a longer queue have their turn, by and by, behind the same head.
inline constexpr std::size_t kLanesPerPass = 250;
inline constexpr Duration kSweepEvery = std::chrono::milliseconds(20);

// Places all that can be placed now. The jobs that got a generation are touched.
void schedule(Desk& desk);

// Journals the job's next generation, and by when its ranks must be ready.
void start_generation(Desk& desk, JobId job, std::vector<Placement> gang);

// Slots of the worker that nothing holds; processes of lost generations hold theirs until they are
// gone.
std::uint32_t free_slots(const Desk& desk, const std::string& worker);

struct Seat {
  std::string worker;
  std::uint32_t slot = 0;
};

// Seats for so many ranks by the policy, on nodes that are reachable now; nothing if there are not
// as many.
std::optional<std::vector<Seat>> choose_seats(Desk& desk, const scheduler::Shape& shape,
                                              const std::string& policy, std::uint32_t wanted);

// The most ranks that it may start with: ranks.max, its owner's quota, or all there is for it
// (`ever`: what suits it in all).
std::uint32_t full_size(const Desk& desk, const JobRecord& job, std::uint64_t ever);

// Whether its owner would hold more than its quota.
bool exceeds_quota(const Desk& desk, const JobRecord& job);

Placement place(const Desk& desk, ProcessId process, const Seat& seat);
// A member that goes on into the next generation, where it is.
Placement stay(const ProcessRecord& process);

// What a job waits for that needs more slots than are free, or (`ever`: what suits it in all) than
// there are.
std::string waits_for_room(const JobRecord& job);
std::string never_fits(scheduler::Capacity& capacity, const scheduler::Shape& shape,
                       const JobRecord& job, std::uint64_t ever);

// What the job waits for; an event says so if it is not just its turn.
enum class Tell { readers, events };
void wait_for(Desk& desk, JobId job, Tell tell, std::string what);

}  // namespace tutti::coordinator
