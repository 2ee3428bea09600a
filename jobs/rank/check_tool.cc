#include "jobs/rank/check_tool.h"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "jobs/tokenizers/tool_arguments.h"
#include "kernels/ceilings/ceilings.h"
#include "kernels/ceilings/products.h"
#include "kernels/ops/cpu_path.h"
#include "kernels/tensor/cores.h"

namespace tutti::rank {

namespace json = boost::json;

namespace {

using kernels::Ceiling;
using kernels::CeilingKind;
using kernels::ProductKind;

constexpr std::string_view kHelp =
    R"(usage: tutti check [--compute | --gpu | --disk] [--deadline N] [--threads N] [-o text|json]

What this machine can do, measured: with --compute (and as long as nothing else is asked for) the
arithmetic of one core and of all of them, how fast they read the caches and memory, and what
products of 1,024 x 1,024 x 1,024 reach of that arithmetic. What a machine gives of it changes with
its other work; compare machines of one kind with each other.

  --compute          arithmetic, caches, memory and products
  --gpu              this machine's GPUs instead: `tutti check --gpu --help`
  --disk             its disks instead: `tutti check --disk --help`
  --deadline N       seconds for each measurement (default 5); one that has no result by then is
                     left out, the others have their own time, and the exit code is 3
  --threads N        of "all cores"; default: one a core, of hyperthreads too
  -o text|json       json: one object with `path`, `threads`, `complete`, `late` (what has no
                     result in its time), `ceilings` (`name`, `unit`, `one`, `all`; null: not
                     there, or late) and `products` (the same, and `of`, the ceiling's name,
                     `share_one`, `share_all` of it)

Examples:
  tutti check --compute
  tutti check --compute --deadline 2 -o json
)";

constexpr int kExitLate = 3;
constexpr Duration kEach = std::chrono::milliseconds(200);

struct Options {
  bool compute = false;
  double deadline = 5;
  std::uint32_t threads = 0;
  std::string format = "text";
};

// What one core reaches, and all together.
struct Reached {
  CeilingKind kind;
  Ceiling one;
  Ceiling all;
};

struct ReachedProduct {
  ProductKind kind;
  Ceiling one;
  Ceiling all;
};

struct Checked {
  std::vector<Reached> rows;
  std::vector<ReachedProduct> products;
  int threads = 1;
  std::vector<std::string> late;
};

Checked check_compute(const Options& options) {
  const auto deadline =
      std::chrono::duration_cast<Duration>(std::chrono::duration<double>(options.deadline));
  Checked checked;
  for (const CeilingKind& kind : kernels::ceiling_kinds()) checked.rows.push_back({kind, {}, {}});
  for (const ProductKind& kind : kernels::product_kinds()) {
    checked.products.push_back({kind, {}, {}});
  }
  const auto measure_each = [&](kernels::ThreadPool& pool, auto& rows, auto reached) {
    for (auto& row : rows) {
      const InTime measured = measure_in_time(row.kind.measure, pool, deadline);
      row.*reached = measured.reached;
      if (!measured.late) continue;
      checked.late.push_back(
          fmt::format("{} ({})", row.kind.name, pool.threads() == 1 ? "one core" : "all cores"));
    }
  };
  const auto measure = [&](int threads, auto reached, auto product_reached) {
    kernels::ThreadPool pool(threads);
    measure_each(pool, checked.rows, reached);
    measure_each(pool, checked.products, product_reached);
  };
  const std::size_t threads =
      options.threads > 0 ? options.threads : kernels::cores_of_machine().size();
  checked.threads =
      static_cast<int>(std::clamp<std::size_t>(threads, 1, kernels::ThreadPool::kThreadsMax));
  measure(1, &Reached::one, &ReachedProduct::one);
  measure(checked.threads, &Reached::all, &ReachedProduct::all);
  return checked;
}

// What the product reaches of its ceiling; none where one of them is not there.
struct Shares {
  Ceiling one;
  Ceiling all;
};
Shares shares_of(const Checked& checked, const ReachedProduct& product) {
  const auto ceiling =
      std::find_if(checked.rows.begin(), checked.rows.end(),
                   [&](const Reached& row) { return row.kind.name == product.kind.of; });
  const auto share = [](const Ceiling& reached, const Ceiling& of) {
    return reached && of ? Ceiling(*reached / *of) : std::nullopt;
  };
  return {share(product.one, ceiling->one), share(product.all, ceiling->all)};
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
  const auto share = [](const Ceiling& value) {
    return value ? fmt::format("{:.2f}", *value) : std::string("-");
  };
  for (const ReachedProduct& row : checked.products) {
    const Shares shares = shares_of(checked, row);
    out += fmt::format("{:<28} {:<8} {:>9} {:>9}  {} and {} of {}\n", row.kind.name, row.kind.unit,
                       number(row.one), number(row.all), share(shares.one), share(shares.all),
                       row.kind.of);
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
  json::array products;
  for (const ReachedProduct& row : checked.products) {
    const Shares shares = shares_of(checked, row);
    products.push_back(json::object{{"name", std::string(row.kind.name)},
                                    {"unit", std::string(row.kind.unit)},
                                    {"of", std::string(row.kind.of)},
                                    {"one", number(row.one)},
                                    {"all", number(row.all)},
                                    {"share_one", number(shares.one)},
                                    {"share_all", number(shares.all)}});
  }
  return json::serialize(
             json::object{{"path", std::string(to_string(kernels::cpu_path()))},
                          {"threads", checked.threads},
                          {"complete", checked.late.empty()},
                          {"late", json::array(checked.late.begin(), checked.late.end())},
                          {"ceilings", std::move(rows)},
                          {"products", std::move(products)}}) +
         "\n";
}

}  // namespace

InTime measure_in_time(Measure measure, kernels::ThreadPool& pool, Duration deadline) {
  const Instant until = monotonic_now() + deadline;
  const Ceiling reached = measure(pool, {kEach, until});
  // None for want of time, or of what is measured: after the deadline nobody knows.
  return {reached, !reached && monotonic_now() >= until};
}

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
  if (checked.late.empty()) return tokenizers::kExitOk;
  fmt::print(stderr, "tutti check: no result within {} s: {}\n", options.deadline,
             fmt::join(checked.late, "; "));
  return kExitLate;
}

}  // namespace tutti::rank
