#include "jobs/rank/check_tool.h"

#include <fmt/core.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "jobs/tokenizers/tool_arguments.h"
#include "kernels/ceilings/ceilings.h"
#include "kernels/ops/cpu_path.h"

namespace tutti::rank {

namespace json = boost::json;

namespace {

using kernels::Ceiling;
using kernels::CeilingKind;

constexpr std::string_view kHelp =
    R"(usage: tutti check [--compute] [--deadline SECONDS] [--threads N] [-o text|json]

What this machine can do, measured: with --compute (and as long as nothing else is asked for) the
arithmetic of one core and of all of them, and how fast they read the caches and memory. What a
machine gives of it changes with its other work; compare machines of one kind with each other.

  --compute          arithmetic, caches and memory
  --deadline N       seconds for all of it (default 30); what was not begun by then is left out,
                     and the exit code is 3
  --threads N        of "all cores"; default: one a core
  -o text|json       json: one object with `path`, `threads`, `complete`, and `ceilings` (`name`,
                     `unit`, `one`, `all`; null: not there, or not measured)

Examples:
  tutti check --compute
  tutti check --compute --deadline 5 -o json
)";

constexpr int kExitLate = 3;
constexpr Duration kEach = std::chrono::milliseconds(200);

struct Options {
  bool compute = false;
  double deadline = 30;
  std::uint32_t threads = 0;
  std::string format = "text";
};

// What one core reaches, and all together.
struct Reached {
  CeilingKind kind;
  Ceiling one;
  Ceiling all;
};

struct Checked {
  std::vector<Reached> rows;
  int threads = 1;
  bool complete = true;
};

Checked check_compute(const Options& options) {
  const Instant deadline = monotonic_now() + std::chrono::duration_cast<Duration>(
                                                 std::chrono::duration<double>(options.deadline));
  Checked checked;
  for (const CeilingKind& kind : kernels::ceiling_kinds()) checked.rows.push_back({kind, {}, {}});
  const auto measure = [&](int threads, Ceiling Reached::*reached) {
    kernels::ThreadPool pool(threads);
    for (Reached& row : checked.rows) {
      if (monotonic_now() >= deadline) {
        checked.complete = false;
        return;
      }
      row.*reached = row.kind.measure(pool, kEach);
    }
  };
  const unsigned cores =
      options.threads > 0 ? options.threads : std::thread::hardware_concurrency();
  checked.threads = std::max(1, static_cast<int>(cores));
  measure(1, &Reached::one);
  measure(checked.threads, &Reached::all);
  return checked;
}

std::string text_of(const Checked& checked) {
  std::string out = fmt::format("{:<28} {:<8} {:>9} {:>9}\n",
                                "path " + std::string(to_string(kernels::cpu_path())), "",
                                "one core", fmt::format("all {}", checked.threads));
  const auto number = [](const Ceiling& value) {
    return value ? fmt::format("{:.1f}", *value) : std::string("-");
  };
  for (const Reached& row : checked.rows) {
    out += fmt::format("{:<28} {:<8} {:>9} {:>9}\n", row.kind.name, row.kind.unit, number(row.one),
                       number(row.all));
  }
  return out;
}

std::string json_of(const Checked& checked) {
  const auto number = [](const Ceiling& value) {
    return value ? json::value(*value) : json::value(nullptr);
  };
  json::array rows;
  for (const Reached& row : checked.rows) {
    rows.push_back(json::object{{"name", std::string(row.kind.name)},
                                {"unit", std::string(row.kind.unit)},
                                {"one", number(row.one)},
                                {"all", number(row.all)}});
  }
  return json::serialize(json::object{{"path", std::string(to_string(kernels::cpu_path()))},
                                      {"threads", checked.threads},
                                      {"complete", checked.complete},
                                      {"ceilings", std::move(rows)}}) +
         "\n";
}

}  // namespace

int run_check_tool(std::span<const std::string> args) {
  Options options;
  tokenizers::ToolArguments arguments("check", kHelp);
  arguments.flag("--compute", options.compute);
  arguments.option("--deadline", options.deadline);
  arguments.option("--threads", options.threads);
  arguments.option("-o", options.format);
  if (const auto exit = arguments.parse(args)) return *exit;
  if (options.format != "text" && options.format != "json") {
    return tokenizers::tool_failed("check", "-o is text or json");
  }
  if (!(options.deadline >= 0 && options.deadline <= 3600)) {
    return tokenizers::tool_failed("check", "--deadline takes 0 to 3600 seconds");
  }
  const Checked checked = check_compute(options);
  fmt::print("{}", options.format == "json" ? json_of(checked) : text_of(checked));
  if (checked.complete) return tokenizers::kExitOk;
  fmt::print(stderr, "tutti check: the deadline of {} s passed before all was measured\n",
             options.deadline);
  return kExitLate;
}

}  // namespace tutti::rank
