#include "tests/simulation/faults/faults.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "protocol/wire/link.h"

namespace tutti::simulation {

namespace {

const FaultRow kFaults[] = {
    {"crash-coordinator", crash_coordinator, Reach::cluster, "before or after a sync, torn or not"},
    {"stop-coordinator", stop_coordinator, Reach::cluster, "SIGSTOP, or a starved machine"},
    {"crash-worker", crash_worker, Reach::machine, "with all its ranks"},
    {"end-worker", end_worker, Reach::machine, "SIGTERM, and it comes back"},
    {"replace-worker", replace_worker, Reach::machine, "SIGHUP: a new binary, under its ranks"},
    {"revoke-key", revoke_key, Reach::machine, "a session ends at once, and the worker with it"},
    {"kill-rank", kill_rank, Reach::ranks, "SIGKILL from elsewhere"},
    {"hang-rank", hang_rank, Reach::ranks, "SIGSTOP, some of them for ever"},
    {"cut-link", cut_link, Reach::machine, "a node is cut off, now and then beyond its lease"},
    {"cut-one-way", cut_one_way, Reach::machine, "one direction only"},
    {"long-cut", long_cut, Reach::machine, "beyond lease and stop_after together"},
    {"congest-network", congest_network, Reach::cluster, "every frame takes much longer"},
    {"drop-messages", drop_messages, Reach::cluster, "all of one kind, for a while"},
    {"hold-messages", hold_messages, Reach::cluster, "all of one kind come late, others first"},
    {"fill-disk", fill_disk, Reach::cluster, "the ledger's disk takes no more"},
    {"slow-disk", slow_disk, Reach::cluster, "a sync takes up to a second"},
    {"storage-full", fill_storage, Reach::cluster, "checkpoints cannot be written"},
    {"storage-slow", slow_storage, Reach::cluster, "checkpoints take seconds"},
    {"step-clock", step_clock, Reach::cluster, "the coordinator's time of day jumps"},
    {"slow-node", slow_node, Reach::machine, "all on one machine takes many times as long"},
    {"silent-records", silent_records, Reach::cluster, "logs and step records do not arrive"},
    {"cut-ranks", cut_ranks, Reach::machine, "ranks of two machines do not reach each other"},
    {"lose-power", lose_power, Reach::cluster, "of all machines at once, or of one"},
};

template <class Link>
void add_kinds(std::vector<std::string_view>& out) {
  const auto add = [&]<std::size_t... I>(std::index_sequence<I...>) {
    (out.push_back(wire::message_name<Link>(std::variant_alternative_t<I, Link>{})), ...);
  };
  add(std::make_index_sequence<std::variant_size_v<Link>>());
}

std::vector<std::string_view> all_kinds() {
  std::vector<std::string_view> out;
  add_kinds<wire::ToWorker>(out);
  add_kinds<wire::FromWorker>(out);
  return out;
}

}  // namespace

std::span<const FaultRow> faults() { return kFaults; }

const FaultRow* find_fault(std::string_view name) {
  const auto* at = std::find_if(std::begin(kFaults), std::end(kFaults),
                                [&](const FaultRow& row) { return row.name == name; });
  return at == std::end(kFaults) ? nullptr : at;
}

void calm(Struck& at) {
  at.network.calm();
  for (const auto& worker : at.workers) {
    worker->heal();
    worker->slow_down(1);
  }
  at.coordinator.free_disk();
  at.coordinator.slow_disk(0ms);
  at.ranks.cuts.clear();
  at.ranks.storage.full = false;
  at.ranks.storage.write_max = 5ms;
}

Touched meet_one_kind(Struck& at, FrameFate fate) {
  static const std::vector<std::string_view> kinds = all_kinds();
  const std::string_view kind = kinds[at.choice % kinds.size()];
  const Instant end = at.world.now() + at.away;
  at.network.observe([&world = at.world, kind, end, fate](const FrameSeen& frame) {
    return world.now() < end && frame.message == kind ? fate : FrameFate{};
  });
  return at.everyone;
}

}  // namespace tutti::simulation
