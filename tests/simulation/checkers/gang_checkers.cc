// Who may run where: I3, I4, I5, I6.
#include <map>
#include <set>
#include <string>
#include <variant>

#include "tests/simulation/checkers/checkers.h"

namespace tutti::simulation {

namespace {

using coordinator::JobRecord;
using coordinator::JobState;

// What a generation effects is taken from the newest one only, and only while it lives. (Groups and
// programs of two generations at a time are seen by the ranks.)
class GenerationChecker final : public Checker {
 public:
  void before_fact(const Observed& seen, const coordinator::Fact& fact) override {
    std::visit([&](const auto& each) { check(seen, each); }, fact);
  }

 private:
  void check_living(const Observed& seen, JobId id, Generation generation) {
    const JobRecord* job = seen.shadow.job(id);
    if (job == nullptr) return;
    if (job->generation == generation && job->generation_alive) return;
    seen.world.violate("I3", describe(*job) + ": generation " + to_string(generation) +
                                 " has an effect, the newest is " + to_string(job->generation));
  }

  void check(const Observed& seen, const coordinator::GroupOrdered& fact) {
    check_living(seen, fact.job, fact.generation);
  }
  void check(const Observed& seen, const coordinator::GroupRunning& fact) {
    check_living(seen, fact.job, fact.generation);
  }
  void check(const Observed& seen, const coordinator::FirstStepSeen& fact) {
    check_living(seen, fact.job, fact.generation);
  }
  void check(const Observed& seen, const coordinator::CheckpointPartTaken& fact) {
    check_living(seen, fact.job, fact.generation);
  }
  void check(const Observed& seen, const coordinator::GenerationStarted& fact) {
    const JobRecord* job = seen.shadow.job(fact.job);
    if (job == nullptr) return;
    note_change(seen, *job);
    if (fact.generation.value == job->generation.value + 1) return;
    seen.world.violate("I3", describe(*job) + ": generation " + to_string(fact.generation) +
                                 " follows " + to_string(job->generation));
  }
  // Whoever was ended while nobody could reach it does not come back.
  void check(const Observed& seen, const coordinator::ProcessReturned& fact) {
    const coordinator::ProcessRecord* process = seen.shadow.process(fact.process);
    const JobRecord* job = process == nullptr ? nullptr : seen.shadow.job(process->job);
    if (job == nullptr) return;
    seen.world.reached("a rank came back with its state");
    if (process->lost && !process->ordered_to_stop && !job->generation_alive) return;
    seen.world.violate("I3", describe(*job) + ": process " + to_string(fact.process) +
                                 " came back and is not wanted");
  }
  template <class Other>
  void check(const Observed&, const Other&) {}

  static void note_change(const Observed& seen, const JobRecord& job) {
    const coordinator::ReleaseRecord& release = job.release;
    if (release.to != coordinator::ReleaseTo::resize) return;
    if (release.cause != coordinator::ReleaseCause::moved) return;
    seen.world.reached(job.terms.kind == "serve" ? "a server's successor took over"
                                                 : "ranks moved off a drained node");
  }
};

class GangChecker final : public Checker {
 public:
  void before_fact(const Observed& seen, const coordinator::Fact& fact) override {
    if (const auto* started = std::get_if<coordinator::GenerationStarted>(&fact)) {
      check_size(seen, started->job, started->gang.size());
    }
    const auto* leaving = std::get_if<coordinator::JobReleasing>(&fact);
    if (leaving == nullptr || leaving->release.to != coordinator::ReleaseTo::resize) return;
    check_size(seen, leaving->job, leaving->release.next.size());
  }

  void decided(const Observed& seen, const coordinator::Decision& decision) override {
    if (decision.facts.empty()) return;
    for (const auto& [id, job] : seen.shadow.jobs()) {
      if (job.state != JobState::running || !job.generation_alive) continue;
      std::size_t present = job.ranks_done;
      for (const ProcessId member : job.members) present += member ? 1 : 0;
      if (present == job.members.size() && present >= job.terms.ranks_min) continue;
      seen.world.violate("I4", describe(job) + " runs with " + std::to_string(present) + " of " +
                                   std::to_string(job.members.size()) + " ranks");
    }
  }

 private:
  static void check_size(const Observed& seen, JobId id, std::size_t size) {
    const JobRecord* job = seen.shadow.job(id);
    const PlannedJob* planned = job == nullptr ? nullptr : planned_of(seen, *job);
    if (planned == nullptr) return;
    if (job->state == JobState::recovering && job->size != 0 && size > job->size) {
      seen.world.reached("a job went on with more ranks");
    }
    if (job->state == JobState::recovering && size < job->size) {
      seen.world.reached("a job went on with fewer ranks");
    }
    if (size <= planned->spec.resources.ranks_max) return;
    seen.world.violate("I4", describe(*job) + " is given " + std::to_string(size) +
                                 " ranks, and asked for at most " +
                                 std::to_string(planned->spec.resources.ranks_max));
  }
};

class ResourceChecker final : public Checker {
 public:
  // Cores and memory, as clients asked for them.
  void decided(const Observed& seen, const coordinator::Decision& decision) override {
    if (decision.facts.empty()) return;
    std::map<std::string, std::pair<std::uint64_t, std::uint64_t>> held;
    for (const auto& [id, process] : seen.shadow.processes()) {
      const JobRecord* job = seen.shadow.job(process.job);
      const PlannedJob* planned = job == nullptr ? nullptr : planned_of(seen, *job);
      if (planned == nullptr || process.lined_up) continue;
      const spec::ResourceSpec& asked = planned->spec.resources;
      auto& [cores, bytes] = held[process.worker];
      cores += asked.cores;  // who names none has what others leave
      bytes += asked.memory_bytes;
    }
    for (const auto& [worker, given] : held) {
      const auto& [cores, bytes] = given;
      if (cores <= seen.options.slots && bytes <= kNodeMemory) continue;
      seen.world.violate("I5", worker + " gives away " + std::to_string(cores) + " cores of " +
                                   std::to_string(seen.options.slots) + " and " +
                                   std::to_string(bytes) + " bytes of memory of " +
                                   std::to_string(kNodeMemory));
    }
  }

  void looked(const Observed& seen) override {
    if (seen.coordinator.state() == nullptr || ++count_ % 20 != 0) return;
    std::map<std::string, std::set<std::uint32_t>> held;
    for (const auto& [id, process] : seen.shadow.processes()) {
      held[process.worker].insert(process.slot);
    }
    for (const coordinator::NodeView& node : seen.coordinator.nodes()) {
      if (node.state == "lost") continue;
      const std::size_t reserved = held[node.name].size();
      if (node.free_slots + reserved == node.slots) continue;
      seen.world.violate("I5", node.name + ": " + std::to_string(node.free_slots) + " free and " +
                                   std::to_string(reserved) + " reserved of " +
                                   std::to_string(node.slots));
    }
  }

 private:
  std::uint64_t count_ = 0;
};

class SlotChecker final : public Checker {
 public:
  void decided(const Observed& seen, const coordinator::Decision& decision) override {
    if (decision.facts.empty()) return;
    std::set<std::pair<std::string, std::uint32_t>> held;
    for (const auto& [id, process] : seen.shadow.processes()) {
      if (process.lined_up) continue;  // it waits for those before it
      if (held.emplace(process.worker, process.slot).second) continue;
      seen.world.violate("I6", "slot " + std::to_string(process.slot) + " of " + process.worker +
                                   " was given twice");
    }
  }

  void looked(const Observed& seen) override {
    for (const auto& worker : seen.workers) {
      for (const auto& [slot, count] : worker->slots_in_use()) {
        if (count == 1) continue;
        seen.world.violate("I6", std::to_string(count) + " processes are in slot " +
                                     std::to_string(slot) + " of " + worker->name());
      }
    }
  }
};

}  // namespace

std::unique_ptr<Checker> make_generation_checker() { return std::make_unique<GenerationChecker>(); }
std::unique_ptr<Checker> make_gang_checker() { return std::make_unique<GangChecker>(); }
std::unique_ptr<Checker> make_resource_checker() { return std::make_unique<ResourceChecker>(); }
std::unique_ptr<Checker> make_slot_checker() { return std::make_unique<SlotChecker>(); }

}  // namespace tutti::simulation
