#include "tests/simulation/scenario/scenario_file.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "coordinator/scheduler/quotas.h"
#include "protocol/spec/document.h"
#include "protocol/spec/fill.h"
#include "protocol/spec/key_table.h"
#include "tests/simulation/faults/faults.h"
#include "tests/simulation/scenario/coverage.h"
#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

namespace {

using spec::Form;
using spec::form;
using spec::kEvery;
using spec::Need;
using spec::number;
using spec::reach;
using spec::whole;

constexpr double kMsMax = 3'600'000;

// As the file has it.
struct Written {
  std::string name;
  std::string about;
  std::uint32_t workers = 3;
  std::uint32_t slots = 2;
  std::uint32_t gpus = 0;
  std::uint32_t refusing = 0;
  double delay_max_ms = 3;
  double loss = 0;
  double repeat = 0;
  double overtake = 0;
  std::vector<std::string> workloads;
  std::vector<std::string> faults;
  std::vector<std::string> when;
  std::uint64_t every_ms = 400;
  std::uint64_t until_ms = 0;
  std::uint64_t bound_ms = 300'000;
  std::uint32_t seeds = 10;
  std::uint32_t ended_jobs_max = 1'000;
  std::map<std::string, std::string> quotas;
};
using W = Written;

const spec::Key kKeys[] = {
    {"name", form(Form::name), kEvery, Need::required, reach<&W::name>, "of the file, too"},
    {"about", form(Form::text), kEvery, Need::optional, reach<&W::about>, "what it is for"},
    {"cluster.workers", whole(1, 1'000), kEvery, Need::optional, reach<&W::workers>, "machines"},
    {"cluster.slots", whole(1, 64), kEvery, Need::optional, reach<&W::slots>, "of each"},
    {"cluster.gpus", whole(0, 1'000), kEvery, Need::optional, reach<&W::gpus>,
     "machines that have them, the last ones"},
    {"cluster.refusing", whole(0, 1'000), kEvery, Need::optional, reach<&W::refusing>,
     "machines on which no program can be started, the first ones"},
    {"cluster.history", whole(1, 100'000), kEvery, Need::optional, reach<&W::ended_jobs_max>,
     "ended jobs that are kept"},
    {"cluster.quotas", form(Form::text_map), kEvery, Need::optional, reach<&W::quotas>,
     "of users, as the coordinator's configuration has them"},
    {"network.delay", number(0.3, 10'000), kEvery, Need::optional, reach<&W::delay_max_ms>,
     "milliseconds at most"},
    {"network.loss", number(0, 0.5), kEvery, Need::optional, reach<&W::loss>, "of frames"},
    {"network.repeat", number(0, 0.5), kEvery, Need::optional, reach<&W::repeat>, "of frames"},
    {"network.overtake", number(0, 0.5), kEvery, Need::optional, reach<&W::overtake>, "of frames"},
    {"workloads", form(Form::texts), kEvery, Need::required, reach<&W::workloads>,
     "what clients do"},
    {"faults.kinds", form(Form::texts), kEvery, Need::optional, reach<&W::faults>, "what befalls"},
    {"faults.every",
     {Form::duration, 1, kMsMax, {}, {}},
     kEvery,
     Need::optional,
     reach<&W::every_ms>,
     "one, on average"},
    {"faults.until",
     {Form::duration, 0, kMsMax, {}, {}},
     kEvery,
     Need::optional,
     reach<&W::until_ms>,
     "no faults after"},
    {"faults.when", form(Form::texts), kEvery, Need::optional, reach<&W::when>,
     "job states that each waits for; any moment"},
    {"bound",
     {Form::duration, 1, kMsMax, {}, {}},
     kEvery,
     Need::optional,
     reach<&W::bound_ms>,
     "after the faults; every job is terminal by then"},
    {"seeds", whole(1, 100'000), kEvery, Need::optional, reach<&W::seeds>, "that CI runs"},
};

template <class Find>
Result<> all_known(const std::vector<std::string>& names, std::string_view what, const Find& find) {
  for (const std::string& name : names) {
    if (find(name) == nullptr) {
      return Error{ErrorCode::invalid_argument, fmt::format("there is no {} {}", what, name)};
    }
  }
  return {};
}

ScenarioOptions options_of(const Written& from) {
  const auto ms = [](std::uint64_t value) { return Duration(std::chrono::milliseconds(value)); };
  ScenarioOptions out;
  out.name = from.name;
  out.about = from.about;
  out.workers = from.workers;
  out.slots = from.slots;
  out.gpus = from.gpus;
  out.refusing = from.refusing;
  out.network.delay_max = Duration(static_cast<std::int64_t>(from.delay_max_ms * 1e6));
  out.network.loss = from.loss;
  out.network.repeat = from.repeat;
  out.network.overtake = from.overtake;
  out.workloads = from.workloads;
  out.faults = from.faults;
  out.when = from.when;
  out.every = ms(from.every_ms);
  out.until = ms(from.until_ms);
  out.bound = ms(from.bound_ms);
  out.seeds = from.seeds;
  out.ended_jobs_max = from.ended_jobs_max;
  out.quotas = from.quotas;
  return out;
}

constexpr std::pair<std::string_view, Victim> kVictims[] = {
    {"coordinator-before", Victim::coordinator_before_sync},
    {"coordinator-after", Victim::coordinator_after_sync},
    {"worker", Victim::worker},
    {"binary", Victim::binary},
    {"rank", Victim::rank},
    {"link", Victim::link},
};

}  // namespace

Result<ScenarioOptions> parse_scenario(std::string_view yaml, std::string_view file) {
  const std::string source(file);
  const Result<spec::Node> root = spec::parse_document(yaml, source);
  if (!root) return root.error();
  Written written;
  const spec::Table table{kKeys, {}, {}};
  const Result<spec::Places> places = spec::fill(*root, table, &written, {});
  if (!places) return places.error();
  if (Result<> known = all_known(written.workloads, "workload", find_workload); !known) {
    return std::move(known).error().with_context(file);
  }
  if (Result<> known = all_known(written.faults, "fault", find_fault); !known) {
    return std::move(known).error().with_context(file);
  }
  if (Result<> known = all_known(written.when, "state", find_state); !known) {
    return std::move(known).error().with_context(file);
  }
  if (const auto quotas = coordinator::scheduler::parse_quotas(written.quotas); !quotas) {
    return Error(quotas.error()).with_context(file);
  }
  return options_of(written);
}

std::string scenario_folder() {
  const char* folder = std::getenv("TUTTI_SCENARIOS");
  return folder != nullptr ? folder : "tests/simulation/scenarios";
}

Result<ScenarioOptions> load_scenario(const std::string& name) {
  const std::string path = scenario_folder() + "/" + name + ".yaml";
  std::ifstream file(path);
  if (!file) {
    return Error{ErrorCode::not_found,
                 path + " cannot be read; run from the repository's root or set TUTTI_SCENARIOS"};
  }
  std::ostringstream text;
  text << file.rdbuf();
  Result<ScenarioOptions> options = parse_scenario(text.str(), path);
  if (options && options->name != name) {
    return Error{ErrorCode::invalid_argument, path + " has another name: " + options->name};
  }
  return options;
}

Result<std::vector<ScenarioOptions>> load_scenarios() {
  std::vector<std::string> names;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator(scenario_folder(), failed)) {
    if (entry.path().extension() == ".yaml") names.push_back(entry.path().stem().string());
  }
  if (failed) return Error{ErrorCode::not_found, scenario_folder() + ": " + failed.message()};
  std::sort(names.begin(), names.end());
  std::vector<ScenarioOptions> out;
  for (const std::string& name : names) {
    Result<ScenarioOptions> options = load_scenario(name);
    if (!options) return options.error();
    out.push_back(*std::move(options));
  }
  return out;
}

Result<Strike> parse_strike(std::string_view text) {
  const std::size_t colon = text.find(':');
  const std::size_t at = text.find('@');
  const std::size_t plus = text.find('+');
  const Error wrong{ErrorCode::invalid_argument,
                    fmt::format("{} is not VICTIM:NUMBER@EVENT+AWAY_MS", text)};
  if (colon == std::string_view::npos || at == std::string_view::npos || plus < at) return wrong;
  Strike out;
  const auto* row = std::find_if(std::begin(kVictims), std::end(kVictims), [&](const auto& each) {
    return each.first == text.substr(0, colon);
  });
  if (row == std::end(kVictims)) return wrong;
  out.victim = row->second;
  const std::string number(text.substr(colon + 1, at - colon - 1));
  const std::string event(text.substr(at + 1));
  out.number = static_cast<std::uint32_t>(std::strtoul(number.c_str(), nullptr, 10));
  out.event = std::strtoull(event.c_str(), nullptr, 10);
  if (plus != std::string_view::npos) {
    const std::string away(text.substr(plus + 1));
    out.away = std::chrono::milliseconds(std::strtoll(away.c_str(), nullptr, 10));
  }
  return out;
}

bool has_fault(const ScenarioOptions& options, std::initializer_list<std::string_view> any_of) {
  return std::any_of(any_of.begin(), any_of.end(), [&](std::string_view name) {
    return std::find(options.faults.begin(), options.faults.end(), name) != options.faults.end();
  });
}

std::string replay_command(const ScenarioOptions& options) {
  std::string out =
      fmt::format("build/ci/bin/simulate run {} --seed {}", options.name, options.seed);
  for (const Strike& strike : options.strikes) {
    const auto* row = std::find_if(std::begin(kVictims), std::end(kVictims),
                                   [&](const auto& each) { return each.second == strike.victim; });
    out += fmt::format(" --strike {}:{}@{}+{}", row->first, strike.number, strike.event,
                       to_ms(strike.away));
  }
  for (const MutationRow& row : mutations()) {
    if (row.mutation == options.mutation && options.mutation != Mutation::none) {
      out += fmt::format(" --mutate {}", row.name);
    }
  }
  return out;
}

}  // namespace tutti::simulation
