// What the coordinator keeps of spools: bytes by process and stream, as coordinator/store does on a
// real disk.
#include <algorithm>

#include "tests/simulation/cluster/sim_coordinator.h"

namespace tutti::simulation {

void SimCoordinator::take_spool(const std::string& peer, SessionId session,
                                const wire::SpoolData& data) {
  if (standing_still() || !state_->owns_session(peer, session)) return;
  if (!state_->knows(data.job)) {
    // Nobody wants it any more: the worker may drop it.
    return doors_.send({.peer = peer,
                        .session = session,
                        .generation = {},
                        .sequence = {},
                        .message = wire::SpoolAcked{.process = data.process,
                                                    .stream = data.stream,
                                                    .offset = data.offset + data.bytes.size(),
                                                    .end = data.end}});
  }
  if (full_) {
    world_.reached("records could not be stored for a while");
    if (spools_failing_.insert(data.job).second) {
      on(coordinator::SpoolFailed{.job = data.job, .message = "disk full"});
    }
    return;
  }
  spools_failing_.erase(data.job);
  std::string& stored = stored_[{data.process, data.stream}];
  const std::size_t before = stored.size();
  std::uint64_t offset = before;
  if (data.stream == wire::Stream::steps) {
    // Records say themselves which step they are; those that are known stay as they are.
    offset = data.offset + data.bytes.size();
    if (data.offset <= before && offset > before) stored += data.bytes.substr(before - data.offset);
  } else if (data.offset == before) {
    offset += data.bytes.size();
    if (!world_.breaks(Mutation::ack_unstored)) stored += data.bytes;
  }
  if (data.cut) cut_logs_.insert(data.process);
  if (world_.breaks(Mutation::ack_unstored))
    offset = std::max(offset, data.offset + data.bytes.size());
  doors_.send(
      {.peer = peer,
       .session = session,
       .generation = {},
       .sequence = {},
       .message = wire::SpoolAcked{.process = data.process,
                                   .stream = data.stream,
                                   .offset = offset,
                                   .end = data.end && data.offset + data.bytes.size() <= offset}});
  if (data.stream == wire::Stream::steps) tell_of_steps(data, before);
}

// A line is `STEP HASH`; the first record of a step stays, another hash is a mismatch.
void SimCoordinator::tell_of_steps(const wire::SpoolData& data, std::size_t from) {
  const std::string fresh = stored_[{data.process, data.stream}].substr(from);
  std::uint64_t newest = 0;
  std::size_t at = 0;
  while (at < fresh.size()) {
    const std::size_t end = fresh.find('\n', at);
    const std::size_t space = fresh.find(' ', at);
    const std::uint64_t step = std::stoull(fresh.substr(at, space - at));
    const std::string hash = fresh.substr(space + 1, end - space - 1);
    at = end + 1;
    const auto [known, news] = step_hash_.emplace(std::pair(data.job, step), hash);
    if (!news && known->second != hash) {
      world_.violate(
          "I13", "job " + to_string(data.job) + " has two hashes for step " + std::to_string(step));
      return;
    }
    newest = std::max(newest, step);
  }
  if (newest != 0) on(coordinator::StepsRecorded{.job = data.job, .step = newest});
}

}  // namespace tutti::simulation
