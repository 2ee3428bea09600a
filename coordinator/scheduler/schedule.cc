#include "coordinator/scheduler/schedule.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>
#include <utility>

#include "coordinator/cluster/job_life.h"
#include "coordinator/cluster/recovery.h"
#include "coordinator/life/broken_gangs.h"
#include "coordinator/life/failures.h"
#include "coordinator/life/line.h"
#include "coordinator/scheduler/arrays.h"
#include "coordinator/scheduler/index.h"
#include "coordinator/scheduler/policies/policies.h"
#include "coordinator/scheduler/room.h"
#include "protocol/base/counted.h"

namespace tutti::coordinator {

using scheduler::Amount;
using scheduler::Board;
using scheduler::JobQueue;
using scheduler::NodeState;
using scheduler::Shape;
using scheduler::Share;
using scheduler::Sum;

namespace {

// Nodes of one tier that are looked at for how their devices are joined.
constexpr std::size_t kJoinedLookedAt = 64;

// A node that one island, or socket, of joins the whole gang.
struct Joining {
  std::string node;
  std::uint32_t mb_per_s = 0;  // of the slowest link that it would have there; 0: not measured
};

// The first whose slowest link is as fast as the best one's, or was not measured.
Share fastest_of(const std::vector<Joining>& joining, std::uint32_t wanted) {
  std::uint32_t best = 0;
  for (const Joining& one : joining) best = std::max(best, one.mb_per_s);
  const auto found = std::ranges::find_if(joining, [&](const Joining& one) {
    return one.mb_per_s == 0 || scheduler::is_alike(one.mb_per_s, best);
  });
  return {found->node, wanted};
}

// The node where the whole gang is joined best: by one island, or socket, or where devices are
// joined at all. Of such the one with the fastest slowest link, as far as links were measured, then
// the fullest, so that room for larger ones stays. None: nothing is known.
std::optional<Share> joined_node(const Board& board, const Shape& shape,
                                 const scheduler::Tier& tier, std::uint32_t wanted) {
  std::optional<Share> apart;
  std::vector<Joining> joining;
  std::size_t looked_at = 0;
  for (auto at = tier.by_fit.lower_bound({wanted, std::string()}); at != tier.by_fit.end(); ++at) {
    if (looked_at++ == kJoinedLookedAt) break;
    const NodeState& node = *board.capacity.node(at->second);
    if (!knows_joins(node)) continue;
    if (most_joined(shape, node) >= wanted) {
      joining.push_back({.node = at->second});
      if (node.speeds.measured) {
        joining.back().mb_per_s = slowest_link(node.speeds, free_slots(shape, node, wanted));
      } else if (joining.size() == 1) {
        break;  // none behind it is known to be better
      }
    } else if (!apart) {
      apart = Share{at->second, wanted};
    }
  }
  return joining.empty() ? apart : std::optional(fastest_of(joining, wanted));
}

std::vector<Share> shares_by_policy(Board& board, const Shape& shape, const std::string& name,
                                    std::uint32_t wanted) {
  const scheduler::Policy& policy = scheduler::policy_of(name);
  const bool joined =
      wanted > 1 && policy.links == scheduler::Links::followed && board.capacity.knows_links();
  std::vector<Share> out;
  std::uint32_t given = 0;
  for (const auto& [preference, tier] : board.capacity.tiers(shape)) {
    if (joined && given == 0) {
      if (auto node = joined_node(board, shape, tier, wanted)) return {*std::move(node)};
    }
    const std::size_t from = out.size();
    policy.choose(tier, wanted - given, out);
    for (std::size_t i = from; i < out.size(); ++i) given += out[i].ranks;
    if (given == wanted) return out;
  }
  return {};
}

}  // namespace

std::optional<std::vector<Seat>> choose_seats(Desk& desk, const Shape& shape,
                                              const std::string& policy, std::uint32_t wanted) {
  Board& board = desk.board;
  while (board.capacity.sum(shape).now >= wanted) {
    const std::vector<Share> shares = shares_by_policy(board, shape, policy, wanted);
    const auto gone = std::find_if(shares.begin(), shares.end(), [&](const Share& share) {
      return !is_reachable(desk, share.node);
    });
    if (gone != shares.end()) {
      // It fell silent since it was looked at last.
      refresh_worker(desk, gone->node);
      continue;
    }
    std::vector<Seat> seats;
    for (const Share& share : shares) {
      for (const std::uint32_t slot :
           free_slots(shape, *board.capacity.node(share.node), share.ranks)) {
        seats.push_back({share.node, slot});
      }
    }
    if (seats.size() == wanted) return seats;
    return std::nullopt;
  }
  return std::nullopt;
}

std::string waits_for_room(const JobRecord& job) {
  const std::uint32_t wanted = job.terms.ranks_min;
  return wanted == 1 ? "waits until a slot is free"
                     : fmt::format("waits until {} slots are free", wanted);
}

std::string never_fits(scheduler::Capacity& capacity, const Shape& shape, const JobRecord& job,
                       std::uint64_t ever) {
  if (ever == 0 && job.terms.device_memory_bytes != 0) {
    constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
    Shape smaller = shape;
    smaller.device_memory_bytes = 0;
    if (capacity.sum(smaller).ever > 0) {
      return fmt::format("no worker that suits it has a device with {:.1f} GiB of memory",
                         static_cast<double>(job.terms.device_memory_bytes) / kGiB);
    }
  }
  if (ever == 0 && !job.terms.labels.empty()) {
    return fmt::format("no worker has the label {}", job.terms.labels.front());
  }
  if (ever == 0 && job.terms.precision != "fp32") {
    return fmt::format("no worker computes in {}", job.terms.precision);
  }
  return fmt::format("needs {}, and the cluster has {} that suit it",
                     counted(job.terms.ranks_min, "slot"), ever);
}

void wait_for(Desk& desk, JobId id, Tell tell, std::string what) {
  JobSoft& soft = desk.soft(id);
  if (soft.waiting == what) return;
  soft.waiting = std::move(what);
  if (tell == Tell::readers) return;
  desk.note({.job = id, .kind = EventKind::waiting, .message = soft.waiting});
}

Placement place(const Desk& desk, ProcessId process, const Seat& seat) {
  return {.process = process,
          .worker = seat.worker,
          .incarnation = desk.durable.worker(seat.worker)->incarnation,
          .slot = seat.slot,
          .survivor = false};
}

Placement stay(const ProcessRecord& process) {
  return {.process = process.process,
          .worker = process.worker,
          .incarnation = process.incarnation,
          .slot = process.slot,
          .survivor = true};
}

void start_generation(Desk& desk, JobId id, std::vector<Placement> gang) {
  JobSoft& soft = desk.soft(id);
  soft.waiting.clear();
  soft.wait_due.reset();
  soft.queued_due.reset();
  soft.full_size_due.reset();
  soft.overdue_due.reset();
  soft.grow_due.reset();
  soft.partial_since.reset();
  soft.may_grow_at.reset();
  soft.settle_until.reset();
  soft.regroup_due.reset();
  soft.start_due.reset();
  soft.hang_due.reset();
  soft.first_step.reset();
  bool survivors = false;
  bool starters = false;
  for (const Placement& each : gang) (each.survivor ? survivors : starters) = true;
  if (survivors) soft.regroup_due = desk.now + desk.settings.regroup_max;
  if (starters) soft.start_due = desk.now + desk.settings.start_max + kStartSlack;
  desk.record(GenerationStarted{.job = id,
                                .generation = Generation{desk.job(id).generation.value + 1},
                                .gang = std::move(gang),
                                .unix_ms = desk.wall.unix_ms});
  refresh_board(desk);
}

namespace {

// The queue
// ----------------------------------------------------------------------------------------

enum class Turn { passed, placed, blocks };

std::uint32_t size_limit(const Desk& desk, const JobRecord& job) {
  std::uint64_t limit = job.terms.ranks_max;
  if (const auto slots = desk.board.quotas.of(job.owner).slots) {
    const auto user = desk.board.users.find(job.owner);
    const std::uint64_t used = user == desk.board.users.end() ? 0 : user->second.slots;
    limit = std::min<std::uint64_t>(limit, *slots > used ? *slots - used : 0);
  }
  return static_cast<std::uint32_t>(limit);
}

}  // namespace

std::uint32_t full_size(const Desk& desk, const JobRecord& job, std::uint64_t ever) {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(size_limit(desk, job), ever));
}

bool exceeds_quota(const Desk& desk, const JobRecord& job) {
  if (size_limit(desk, job) < job.terms.ranks_min) return true;
  const auto running = desk.board.quotas.of(job.owner).running;
  const auto user = desk.board.users.find(job.owner);
  return running && user != desk.board.users.end() && user->second.running >= *running;
}

namespace {

// Whether a gang of several has one island of a node's devices.
bool is_linked(const Desk& desk, const std::vector<Seat>& seats) {
  const NodeState* const node = desk.board.capacity.node(seats.front().worker);
  if (seats.size() < 2 || node == nullptr || node->islands.empty()) return false;
  const auto island_of = [&](const Seat& seat) {
    return seat.slot < node->islands.size() ? std::optional(node->islands[seat.slot])
                                            : std::nullopt;
  };
  return std::all_of(seats.begin(), seats.end(), [&](const Seat& seat) {
    return seat.worker == node->name && island_of(seat) &&
           island_of(seat) == island_of(seats.front());
  });
}

// Starts the job, or the array's next task, on the seats.
void start(Desk& desk, JobId id, const std::vector<Seat>& seats) {
  const JobId started = desk.job(id).terms.array_count == 0 ? id : start_task(desk, id);
  std::vector<Placement> gang;
  std::uint64_t next = desk.durable.next_process().value;
  std::set<std::string> where;
  for (const Seat& seat : seats) {
    gang.push_back(place(desk, ProcessId{next++}, seat));
    where.insert(seat.worker);
  }
  std::string names;
  for (const std::string& name : where) names += (names.empty() ? "" : ", ") + name;
  if (is_linked(desk, seats)) names += ", joined by links";
  start_generation(desk, started, std::move(gang));
  desk.note({.job = started,
             .kind = EventKind::placed,
             .message = fmt::format("{} on {}", counted(seats.size(), "rank"), names),
             .generation = desk.job(started).generation});
}

// How many ranks it starts with, of those there is room for; 0: it waits for more.
std::uint32_t size_now(Desk& desk, const JobRecord& job, std::uint64_t room, std::uint64_t ever) {
  const std::uint32_t full = full_size(desk, job, ever);
  if (room >= full) return full;
  if (room < job.terms.ranks_min) return 0;
  const auto part = static_cast<std::uint32_t>(room);
  if (job.terms.kind == "train") return part;  // and grows
  JobSoft& soft = desk.soft(job.job);
  if (!soft.partial_since) {
    soft.partial_since = desk.now;
    soft.full_size_due = desk.now + kFullSizePatience;
  }
  return desk.now >= *soft.partial_since + kFullSizePatience ? part : 0;
}

// Seats for the job on what is free for it now.
bool place_now(Desk& desk, const JobRecord& job, const Sum& sum, const Shape& shape) {
  const std::uint32_t size = size_now(desk, job, sum.now, sum.ever);
  if (size == 0) return false;
  const auto seats = choose_seats(desk, shape, job.terms.policy, size);
  if (!seats) return false;
  start(desk, job.job, *seats);
  return true;
}

// Beside its own reservation, or, if it ends before it is needed, on that of another one.
bool place_on_held(Desk& desk, const JobRecord& job, const Shape& shape) {
  Board& board = desk.board;
  if (board.capacity.sum(shape).free < job.terms.ranks_min) return false;
  const scheduler::Reservation kept = *board.reservation;
  drop_reservation(desk);
  const bool placed = place_now(desk, job, board.capacity.sum(shape), shape);
  if (placed && kept.job == job.job) return true;
  board.reservation = kept;
  for (const Share& seat : kept.seats) hold_room(desk, seat.node);
  return placed;
}

// It ends, by its limit, before the head can start.
bool ends_in_time(const Desk& desk, const scheduler::LaneKey& lane) {
  const auto& start = desk.board.reservation->start_unix_ms;
  const Duration around = longest_start(desk, lane.shape) + desk.settings.stop_grace;
  return start && lane.time_ms != 0 &&
         desk.wall.unix_ms + static_cast<std::int64_t>(lane.time_ms) + to_ms(around) <= *start;
}

class QueuePass {
 public:
  explicit QueuePass(Desk& desk) : desk_(desk), board_(desk.board) {}

  // The job whose turn it is and that waits for room; none: nobody does.
  JobId run() {
    const JobId last_head = board_.head;
    std::optional<JobQueue::Turn> through = walk(JobQueue::kBeforeAll);
    if (through) {
      // The head of the last pass is the first that waits for room of all that are before it.
      const auto head = board_.queue.head_of(last_head);
      if (!head_ && head && *through < head->turn) places(*head);
      through = walk(std::max(*through, board_.passed_through.value_or(*through)));
    }
    board_.passed_through = through;
    board_.sweep_due = through ? std::optional(desk_.now + kSweepEvery) : std::nullopt;
    return head_;
  }

  // A broken gang went elsewhere than where seats were held for it. Other broken gangs may lack
  // just those, and are given them before anybody else: in a pass that begins anew.
  bool let_seats_go() const { return moved_; }

 private:
  // From behind that turn on. Says how far it came, if there are more lanes than it looks at;
  // nothing: there is no more to do.
  std::optional<JobQueue::Turn> walk(JobQueue::Turn last) {
    std::size_t lanes = 0;
    auto head = board_.queue.after(last);
    while (head) {
      if (placements_ == kPlacementsPerPass) {
        desk_.schedule_next = true;
        break;
      }
      if (lanes == kLanesPerPass) return last;
      if (moved_ && !head->lane->broken) break;
      if (is_all_given()) break;
      const JobQueue::Turn turn = head->turn;
      if (places(*head)) {
        // An array has its turn until it has no room or no task left.
        head = board_.queue.after(last);
        continue;
      }
      last = turn;
      ++lanes;
      head = board_.queue.next(*head);
    }
    return std::nullopt;
  }

  // Nobody behind the head can be placed: no slot is free, or all that are free are kept for it and
  // nobody knows until when.
  bool is_all_given() const {
    if (!head_) return false;
    if (board_.capacity.free_slots() == 0) return true;
    const bool until = board_.reservation && board_.reservation->start_unix_ms;
    return reserved_ && !until && board_.capacity.free_slots_beside_holds() == 0;
  }

  bool places(const JobQueue::Head& head) {
    const Turn turn = take_turn(head.job, *head.lane);
    if (turn == Turn::blocks && !head_) head_ = head.job;
    if (turn != Turn::placed) return false;
    ++placements_;
    seen_.reset();
    return true;
  }

  Turn take_turn(JobId id, const scheduler::LaneKey& lane) {
    if (!lane.broken) return surely_passed(lane) ? Turn::passed : consider(id, lane);
    // What is held for it is for it.
    const HeldSeats seats = lift_seats(desk_, id);
    seen_.reset();
    const Turn turn = consider(id, lane);
    if (turn == Turn::placed) {
      if (seats_of(id) != seats) moved_ = true;
      return turn;
    }
    if (turn == Turn::blocks) {
      head_ = id;
      reserve(desk_, head_);
      reserved_ = true;
    }
    keep_seats(desk_, id, seats);
    return turn;
  }

  HeldSeats seats_of(JobId id) const {
    HeldSeats out;
    const scheduler::Amount one = amount_of(shape_of(desk_.job(id).terms), 1);
    for (const ProcessId process : desk_.durable.processes_of(id)) {
      out[desk_.durable.process(process)->worker] += one;
    }
    return out;
  }

  // Behind the head, as far as the lane says it without a look at its job: most lanes of a long
  // queue, which the pass goes by.
  bool surely_passed(const scheduler::LaneKey& lane) {
    if (!head_) return false;
    if (board_.capacity.free_slots() < lane.ranks_min) return true;
    // Most of a long queue, where what is free is kept for the head.
    if (reserved_ && (!board_.reservation || !ends_in_time(desk_, lane)) &&
        board_.capacity.free_slots_beside_holds() < lane.ranks_min) {
      return true;
    }
    if (!seen_ || !(seen_->first == lane.shape)) {
      seen_.emplace(lane.shape, board_.capacity.room(lane.shape));
    }
    const scheduler::Capacity::Room& room = seen_->second;
    if (room.free < lane.ranks_min) return true;
    if (!reserved_) return false;
    if (!board_.reservation) return true;
    return room.now < lane.ranks_min && !ends_in_time(desk_, lane);
  }

  Turn consider(JobId id, const scheduler::LaneKey& lane) {
    const JobRecord& job = desk_.job(id);
    if (exceeds_quota(desk_, job)) return Turn::passed;
    const Shape shape = in_one_profile(board_.capacity, lane.shape, job.terms.ranks_min);
    const Sum sum = board_.capacity.sum(shape);
    if (head_) return backfill(job, sum, lane);
    if (sum.ever < job.terms.ranks_min) {
      if (!job.terms.avoid.empty()) {
        // Nothing else is left for it.
        desk_.record(RefusalsForgotten{.job = id});
        desk_.capacity_changed();
        return Turn::passed;
      }
      wait_for(desk_, id, Tell::events,
               never_fits(board_.capacity, shape, job, sum.ever) +
                   mixed_profiles(board_.capacity, shape));
      return Turn::passed;
    }
    if (job.terms.kind == "run" && is_fenced_off(desk_, id)) return Turn::passed;
    if (board_.reservation && !is_reservation_sound(desk_)) drop_reservation(desk_);
    const bool own = board_.reservation && board_.reservation->job == id;
    if (board_.reservation && !own && sum.now < job.terms.ranks_min) {
      // Somebody with an earlier turn has come.
      drop_reservation(desk_);
    }
    const bool placed = own ? place_on_held(desk_, job, shape)
                            : place_now(desk_, job, board_.capacity.sum(shape), shape);
    if (placed) return Turn::placed;
    if (sum.beside_endless < job.terms.ranks_min) {
      wait_for(desk_, id, Tell::readers, "waits for slots that servers hold");
      return Turn::passed;
    }
    wait_for(desk_, id, Tell::readers, waits_for_room(job));
    return Turn::blocks;
  }

  // Behind the head: only what it does not need.
  Turn backfill(const JobRecord& job, const Sum& sum, const scheduler::LaneKey& lane) {
    if (sum.free < job.terms.ranks_min) return Turn::passed;
    if (job.terms.kind == "run" && is_fenced_off(desk_, job.job)) return Turn::passed;
    if (!reserved_) reserve(desk_, head_);
    reserved_ = true;
    seen_.reset();
    // Without a reservation nobody can say what the head needs.
    if (!board_.reservation) return Turn::passed;
    // Of the numerics profiles, one that has room beside what was just reserved.
    const Shape shape = in_one_profile(board_.capacity, lane.shape, job.terms.ranks_min);
    const Sum beside = board_.capacity.sum(shape);
    if (place_now(desk_, job, beside, shape)) return Turn::placed;
    return ends_in_time(desk_, lane) && place_on_held(desk_, job, shape) ? Turn::placed
                                                                         : Turn::passed;
  }

  Desk& desk_;
  Board& board_;
  JobId head_;
  bool moved_ = false;
  bool reserved_ = false;  // in this pass: nothing in it makes a reservation unsound
  std::size_t placements_ = 0;
  std::optional<std::pair<Shape, scheduler::Capacity::Room>>
      seen_;  // of the last shape, as long as nothing is placed
};

}  // namespace

void schedule(Desk& desk) {
  desk.schedule_due = false;
  // Nothing could be ordered before it is durable: whoever finds room would hold it in vain.
  if (!desk.ledger_failure.empty()) return;
  refresh_board(desk);
  place_broken(desk);
  date_reservation(desk);
  QueuePass pass(desk);
  const JobId head = pass.run();
  desk.board.head = head;
  if (pass.let_seats_go()) {
    desk.schedule_next = true;
    return;
  }
  line_up(desk, head);
  if (!head) {
    drop_reservation(desk);
  } else {
    preempt_for(desk, head);
  }
  // Growth takes only what the head does not need.
  if (head && !desk.board.growing.empty()) reserve(desk, head);
  if (!head || desk.board.reservation) grow_jobs(desk);
}

std::uint32_t free_slots(const Desk& desk, const std::string& worker) {
  const WorkerRecord* record = desk.durable.worker(worker);
  if (record == nullptr || record->lost) return 0;
  std::set<std::uint32_t> taken;
  for (const ProcessId id : desk.durable.processes_on(worker)) {
    taken.insert(desk.durable.process(id)->slot);
  }
  const auto at = desk.links.find(worker);
  if (at != desk.links.end()) {
    for (const auto& [id, slot] : at->second.strangers) taken.insert(slot);
  }
  const auto used = static_cast<std::uint32_t>(
      std::count_if(taken.begin(), taken.end(), [&](auto slot) { return slot < record->slots; }));
  return record->slots - used;
}

}  // namespace tutti::coordinator
