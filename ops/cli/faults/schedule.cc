#include "ops/cli/faults/schedule.h"

#include <fmt/core.h>

#include <algorithm>

#include "protocol/base/rng.h"
#include "protocol/spec/fill.h"
#include "protocol/spec/quantity.h"

namespace tutti::cli {

namespace {

Error wrong(const FaultEntry& entry, std::string_view message) {
  return {ErrorCode::invalid_argument, fmt::format("{}: {}", entry.place, message)};
}

std::uint64_t draw(Rng& rng, const FaultSpan& span) {
  return span.first + rng.below(span.last - span.first + 1);
}

Result<> check_entry(const FaultEntry& entry, const FaultSetting& setting) {
  const FaultKindRow& row = row_of(entry.kind);
  if (row.target == FaultTarget::rank && entry.rank && *entry.rank >= setting.ranks) {
    return wrong(entry,
                 fmt::format("there is no rank {}: the job has {}", *entry.rank,
                             setting.ranks == 1 ? std::string("rank 0 alone")
                                                : fmt::format("ranks 0 to {}", setting.ranks - 1)));
  }
  const bool by_step = (entry.at ? entry.at : entry.every)->clock == FaultClock::step;
  if (by_step && setting.steps == 0) {
    return wrong(entry, "the job has no steps; give times, such as at: 3s");
  }
  const bool named = row.target == FaultTarget::node && !entry.node.empty();
  if (named && !setting.nodes.empty() &&
      std::find(setting.nodes.begin(), setting.nodes.end(), entry.node) == setting.nodes.end()) {
    return wrong(entry, fmt::format("there is no node \"{}\"{}", entry.node,
                                    spec::suggestion(
                                        entry.node, {setting.nodes.begin(), setting.nodes.end()})));
  }
  return {};
}

// Victims are drawn even where the file names them, so that naming one moves no moment.
PlannedFault draw_fault(const FaultEntry& entry, const FaultSetting& setting, Rng& rng) {
  PlannedFault out;
  out.kind = entry.kind;
  out.lasts_ms = entry.lasts_ms;
  out.delay_ms = entry.delay_ms;
  const std::uint64_t victim = rng.next();
  const FaultTarget target = row_of(entry.kind).target;
  if (target == FaultTarget::rank) {
    const std::uint32_t drawn = static_cast<std::uint32_t>(victim % std::max(1U, setting.ranks));
    out.rank = entry.rank.value_or(drawn);
  }
  if (target == FaultTarget::node) {
    out.node = entry.node;
    if (out.node.empty() && !setting.nodes.empty()) {
      out.node = setting.nodes[victim % setting.nodes.size()];
    }
  }
  return out;
}

void draw_entry(const FaultEntry& entry, const FaultSetting& setting, Rng rng,
                std::vector<PlannedFault>& into) {
  std::uint64_t reached = 0;
  for (std::uint32_t i = 0; i < entry.times; ++i) {
    PlannedFault fault = draw_fault(entry, setting, rng);
    const bool first = entry.at && (i == 0 || !entry.every);
    const FaultSpan& span = first ? *entry.at : *entry.every;
    fault.clock = span.clock;
    fault.at = draw(rng, span) + (first ? 0 : reached);
    reached = fault.at;
    into.push_back(std::move(fault));
  }
}

}  // namespace

Result<std::vector<PlannedFault>> make_schedule(const FaultFile& file, std::uint64_t seed,
                                                const FaultSetting& setting) {
  std::vector<PlannedFault> out;
  for (std::size_t i = 0; i < file.entries.size(); ++i) {
    const FaultEntry& entry = file.entries[i];
    if (Result<> checked = check_entry(entry, setting); !checked) return checked.error();
    if (out.size() + entry.times > kFaultsMax) {
      return wrong(entry, fmt::format("the schedule has more than {} faults", kFaultsMax));
    }
    const std::size_t before = out.size();
    draw_entry(entry, setting, Rng(Rng(seed + i * 0x9e3779b97f4a7c15ULL).next()), out);
    for (std::size_t drawn = before; drawn < out.size(); ++drawn) {
      if (out[drawn].clock != FaultClock::step || out[drawn].at < setting.steps) continue;
      return wrong(entry, fmt::format("a {} would come at step {}, and the job ends with step {}",
                                      row_of(entry.kind).name, out[drawn].at, setting.steps));
    }
  }
  std::stable_sort(out.begin(), out.end(), [](const PlannedFault& one, const PlannedFault& other) {
    if (one.clock != other.clock) return one.clock == FaultClock::step;
    return one.at < other.at;
  });
  for (std::size_t i = 0; i < out.size(); ++i) out[i].number = static_cast<std::uint32_t>(i + 1);
  return out;
}

std::string print_moment(const PlannedFault& fault) {
  if (fault.clock == FaultClock::step) return fmt::format("step {}", fault.at);
  return fmt::format("{:.1f} s", static_cast<double>(fault.at) / 1000);
}

std::string print_victim(const PlannedFault& fault) {
  switch (row_of(fault.kind).target) {
    case FaultTarget::rank: return fmt::format("rank {}", fault.rank);
    case FaultTarget::node: return fault.node.empty() ? "any node" : "node " + fault.node;
    case FaultTarget::coordinator: return "coordinator";
  }
  return "";
}

std::string schedule_table(const std::vector<PlannedFault>& schedule, Paint paint) {
  Table table({{"#", Align::right}, {"AT", Align::right}, {"FAULT"}, {"WHOM"}, {"FOR"}});
  for (const PlannedFault& fault : schedule) {
    std::string lasts;
    if (row_of(fault.kind).lasts == FaultLasts::yes) {
      lasts = fault.lasts_ms == 0 ? "ever" : spec::print_duration(fault.lasts_ms);
    }
    if (fault.delay_ms != 0) {
      lasts += fmt::format(", {} a write", spec::print_duration(fault.delay_ms));
    }
    table.add({std::to_string(fault.number), print_moment(fault),
               std::string(row_of(fault.kind).name), print_victim(fault), lasts});
  }
  return table.print(paint);
}

}  // namespace tutti::cli
