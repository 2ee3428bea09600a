#include "ops/cli/gpus/gpu_check.h"

#include <fmt/core.h>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>

#include <algorithm>
#include <exception>
#include <functional>
#include <utility>

namespace tutti::cli {

namespace json = boost::json;

namespace {

constexpr std::string_view kPeerMeasure = "copy to a peer";
constexpr std::string_view kBothWays = "copies both ways";

std::string text_at(const json::object& line, const char* key) {
  const json::value* const found = line.if_contains(key);
  return found != nullptr && found->is_string() ? std::string(found->as_string()) : std::string();
}

void take_devices(const json::object& line, GpuCheck& check) {
  std::vector<GpuCheck::Seen> gpus;
  for (const json::value& device : line.at("devices").as_array()) {
    gpus.push_back({std::string(device.at("uuid").as_string()),
                    std::string(device.at("name").as_string()),
                    device.at("memory_bytes").to_number<std::uint64_t>()});
  }
  check.gpus = std::move(gpus);
  check.stack = text_at(line, "stack");
}

void take_end(const json::object& line, GpuMeasure& measure) {
  measure.problem = text_at(line, "problem");
  if (!measure.problem.empty()) return;
  measure.value = line.at("value").to_number<double>();
  measure.direct = line.at("direct").as_bool();
}

const worker::Gpu* told_of(const GpuCheck& check, const std::string& uuid) {
  const auto found = std::ranges::find(check.readings.gpus, uuid, &worker::Gpu::uuid);
  return found == check.readings.gpus.end() ? nullptr : &*found;
}

// As people call it: its place in the list.
std::size_t place_of(const GpuCheck& check, const std::string& uuid) {
  return static_cast<std::size_t>(std::ranges::find(check.gpus, uuid, &GpuCheck::Seen::uuid) -
                                  check.gpus.begin());
}

std::string subject_of(const GpuCheck& check, const GpuMeasure& measure) {
  if (measure.gpu.empty()) return "all GPUs";
  const std::size_t number = place_of(check, measure.gpu);
  if (measure.name == kBothWays)
    return fmt::format("GPUs {} and {}", number, place_of(check, measure.peer));
  if (!measure.peer.empty())
    return fmt::format("GPU {} to {}", number, place_of(check, measure.peer));
  return fmt::format("GPU {}", number);
}

std::uint32_t links_between(const GpuCheck& check, const GpuMeasure& measure) {
  const worker::Gpu* const from = told_of(check, measure.gpu);
  if (from == nullptr) return 0;
  for (std::size_t i = 0; i < from->nvlinks.size() && i < check.readings.gpus.size(); ++i) {
    if (check.readings.gpus[i].uuid == measure.peer) return from->nvlinks[i];
  }
  return 0;
}

// Measures with one key are to be alike.
std::string kind_of(const GpuCheck& check, const GpuMeasure& measure) {
  const auto name_of = [&](const std::string& uuid) {
    const std::size_t number = place_of(check, uuid);
    return number < check.gpus.size() ? check.gpus[number].name : std::string();
  };
  std::string key = measure.name + "|" + name_of(measure.gpu);
  if (measure.peer.empty()) return key;
  return fmt::format("{}|{}|{}|{}", key, name_of(measure.peer), measure.direct,
                     links_between(check, measure));
}

bool is_of_host(const GpuMeasure& measure) {
  return measure.name.ends_with("the host") || !measure.peer.empty();
}

std::string value_text(const GpuMeasure& measure) {
  return fmt::format("{:.1f} {}", *measure.value, measure.unit);
}

void judge_speed(const GpuCheck& check, const GpuMeasure& measure, const Judging& judging,
                 std::vector<Finding>& out) {
  const std::string kind = kind_of(check, measure);
  double best = *measure.value;
  for (const GpuMeasure& other : check.measures) {
    if (other.value && kind_of(check, other) == kind) best = std::max(best, *other.value);
  }
  const double least = judging.share_min * (is_of_host(measure) ? 0.5 : 1.0);
  if (*measure.value >= least * best) return;
  out.push_back({Verdict::problem, subject_of(check, measure),
                 fmt::format("{}: {}, the best of its kind has {:.1f}", measure.name,
                             value_text(measure), best),
                 "other programs on it? else its clocks, power and slot: nvidia-smi -q, and "
                 "`nvidia-smi topo -m` for links"});
}

void judge_reading(const GpuCheck& check, const GpuCheck::Seen& gpu, std::vector<Finding>& out) {
  const worker::Gpu* const reading = told_of(check, gpu.uuid);
  const std::string trouble = reading == nullptr ? std::string() : worker::trouble_of(*reading);
  if (trouble.empty()) return;
  // A card at its power cap does what it was bought for.
  const bool capped_only = reading->throttle_reasons == std::vector<std::string>{"power cap"};
  out.push_back({capped_only ? Verdict::note : Verdict::problem,
                 fmt::format("GPU {}", place_of(check, gpu.uuid)), trouble,
                 "a gang waits for its slowest GPU: see to cooling and power"});
}

std::vector<std::string> reading_cells(const worker::Gpu* reading) {
  const auto cell = [](std::uint32_t value, std::string_view unit) {
    return value == 0 ? std::string("-") : fmt::format("{} {}", value, unit);
  };
  if (reading == nullptr) return {"-", "-", "-", "-"};
  std::string reasons;
  for (const std::string& reason : reading->throttle_reasons)
    reasons += (reasons.empty() ? "" : "; ") + reason;
  const std::string clock =
      reading->clock_mhz == 0
          ? std::string("-")
          : fmt::format("{} of {} MHz", reading->clock_mhz, reading->clock_mhz_max);
  return {cell(reading->power_limit_watts, "W"), cell(reading->temperature_celsius, "C"), clock,
          reasons.empty() ? "no" : reasons};
}

std::string cards_table(const GpuCheck& check, Paint paint) {
  Table table({{"gpu", Align::right},
               {"name"},
               {"memory", Align::right},
               {"power", Align::right},
               {"heat", Align::right},
               {"clock", Align::right},
               {"slowed down"},
               {"uuid"}});
  for (std::size_t i = 0; i < check.gpus.size(); ++i) {
    const GpuCheck::Seen& gpu = check.gpus[i];
    std::vector<std::string> row{std::to_string(i), gpu.name, print_bytes_short(gpu.memory_bytes)};
    for (std::string& cell : reading_cells(told_of(check, gpu.uuid)))
      row.push_back(std::move(cell));
    row.push_back(gpu.uuid);
    table.add(std::move(row));
  }
  return table.print(paint);
}

std::string speed_cell(const GpuMeasure* measure) {
  if (measure == nullptr) return "-";
  return measure->value ? fmt::format("{:.1f}", *measure->value) : std::string("failed");
}

// A row a measure, a column a GPU; of copies between them, a row for each that receives.
std::string speeds_table(const GpuCheck& check, Paint paint) {
  std::vector<std::string> titles;
  for (std::size_t i = 0; i < check.gpus.size(); ++i) titles.push_back(fmt::format("gpu {}", i));
  std::vector<Table::Column> columns{{"measured"}, {"unit"}};
  for (const std::string& title : titles) columns.push_back({title, Align::right});
  Table table(columns);
  const auto title_of = [&](const GpuMeasure& measure) {
    if (measure.peer.empty()) return measure.name;
    return fmt::format("{} gpu {}", measure.name == kBothWays ? "both ways with" : "copy to",
                       place_of(check, measure.peer));
  };
  std::vector<std::string> done;
  for (const GpuMeasure& first : check.measures) {
    const std::string title = title_of(first);
    if (first.gpu.empty() || std::ranges::find(done, title) != done.end()) continue;
    done.push_back(title);
    std::vector<std::string> row{title, first.unit};
    for (const GpuCheck::Seen& gpu : check.gpus) {
      const auto found = std::ranges::find_if(check.measures, [&](const GpuMeasure& one) {
        return one.gpu == gpu.uuid && title_of(one) == title;
      });
      row.push_back(speed_cell(found == check.measures.end() ? nullptr : &*found));
    }
    table.add(std::move(row));
  }
  std::string out = table.print(paint);
  for (const GpuMeasure& measure : check.measures) {
    if (measure.gpu.empty() && measure.value)
      out += fmt::format("{}: each sends {} at once\n", measure.name, value_text(measure));
  }
  return out;
}

json::object reading_json(const worker::Gpu& reading) {
  return {{"power_limit_watts", reading.power_limit_watts},
          {"temperature_celsius", reading.temperature_celsius},
          {"slowdown_celsius", reading.slowdown_celsius},
          {"clock_mhz", reading.clock_mhz},
          {"clock_mhz_max", reading.clock_mhz_max},
          {"throttle_reasons",
           json::array(reading.throttle_reasons.begin(), reading.throttle_reasons.end())},
          {"nvlinks", json::array(reading.nvlinks.begin(), reading.nvlinks.end())}};
}

}  // namespace

bool GpuCheck::take(std::string_view line) {
  try {
    const json::value value = json::parse(line);
    const json::object& object = value.as_object();
    if (object.contains("begins")) {
      measures.push_back({.number = object.at("begins").to_number<std::uint32_t>(),
                          .name = text_at(object, "name"),
                          .unit = text_at(object, "unit"),
                          .gpu = text_at(object, "gpu"),
                          .peer = text_at(object, "peer")});
    } else if (object.contains("ended")) {
      GpuMeasure* const measure = open();
      if (measure == nullptr || object.at("ended").to_number<std::uint32_t>() != measure->number)
        return false;
      take_end(object, *measure);
    } else if (object.contains("devices")) {
      take_devices(object, *this);
    } else if (object.contains("problem")) {
      problem = text_at(object, "problem");
    } else {
      return false;
    }
    return true;
  } catch (const std::exception&) {
    return false;  // libraries may write lines of their own
  }
}

GpuMeasure* GpuCheck::open() {
  if (measures.empty()) return nullptr;
  GpuMeasure& last = measures.back();
  return last.value || !last.problem.empty() ? nullptr : &last;
}

void add_reading(worker::GpuInventory& sum, const worker::GpuInventory& reading) {
  worker::GpuInventory next = reading;
  for (worker::Gpu& gpu : next.gpus) {
    const auto before = std::ranges::find(sum.gpus, gpu.uuid, &worker::Gpu::uuid);
    if (before == sum.gpus.end()) continue;
    gpu.temperature_celsius = std::max(gpu.temperature_celsius, before->temperature_celsius);
    gpu.clock_mhz = std::max(gpu.clock_mhz, before->clock_mhz);
    for (const std::string& reason : before->throttle_reasons) {
      if (std::ranges::find(gpu.throttle_reasons, reason) == gpu.throttle_reasons.end())
        gpu.throttle_reasons.push_back(reason);
    }
  }
  // A driver that has ceased to answer tells nothing new.
  if (!next.gpus.empty() || sum.gpus.empty()) sum = std::move(next);
}

std::vector<Finding> judge_check(const GpuCheck& check, const Judging& judging) {
  std::vector<Finding> out;
  if (!check.problem.empty()) out.push_back({Verdict::problem, "gpus", check.problem, ""});
  for (const GpuCheck::Seen& gpu : check.gpus) judge_reading(check, gpu, out);
  for (const GpuMeasure& measure : check.measures) {
    if (measure.value) judge_speed(check, measure, judging, out);
    if (!measure.problem.empty()) {
      out.push_back({Verdict::problem, subject_of(check, measure),
                     measure.name + ": " + measure.problem, ""});
    }
  }
  for (const worker::Gpu& gpu : check.readings.gpus) {
    if (place_of(check, gpu.uuid) < check.gpus.size()) continue;
    out.push_back({Verdict::note, gpu.uuid, "the driver has it, and no rank would compute on it",
                   "CUDA_VISIBLE_DEVICES names those that ranks see"});
  }
  if (!check.readings.problem.empty())
    out.push_back({Verdict::note, "driver", check.readings.problem, ""});
  return out;
}

std::vector<worker::MeasuredLink> links_of(const GpuCheck& check) {
  std::vector<worker::MeasuredLink> out;
  for (const GpuMeasure& measure : check.measures) {
    if (measure.name != kPeerMeasure) continue;
    const double mb_per_s = measure.value.value_or(0) * 1000;
    out.push_back({.from = measure.gpu,
                   .to = measure.peer,
                   .count = links_between(check, measure),
                   .mb_per_s = static_cast<std::uint32_t>(
                       std::clamp<double>(mb_per_s, worker::kFailedLinkMbPerS, 1e9))});
  }
  return out;
}

std::string check_page(const GpuCheck& check, const std::vector<Finding>& findings, Paint paint) {
  std::string page = check.readings.driver.empty()
                         ? std::string()
                         : fmt::format("driver {}, ", check.readings.driver);
  page += check.stack + "\n" + cards_table(check, paint) + "\n";
  if (!check.measures.empty()) page += speeds_table(check, paint) + "\n";
  return page + findings_page(findings, paint);
}

json::object check_json(const GpuCheck& check, const std::vector<Finding>& findings) {
  json::array gpus;
  for (const GpuCheck::Seen& gpu : check.gpus) {
    json::object one{{"uuid", gpu.uuid}, {"name", gpu.name}, {"memory_bytes", gpu.memory_bytes}};
    const worker::Gpu* const reading = told_of(check, gpu.uuid);
    one["reading"] = reading == nullptr ? json::value(nullptr) : reading_json(*reading);
    gpus.push_back(std::move(one));
  }
  json::array measures;
  for (const GpuMeasure& measure : check.measures) {
    const auto or_null = [](const std::string& text) {
      return text.empty() ? json::value(nullptr) : json::value(text);
    };
    measures.push_back(
        json::object{{"name", measure.name},
                     {"unit", measure.unit},
                     {"gpu", or_null(measure.gpu)},
                     {"peer", or_null(measure.peer)},
                     {"value", measure.value ? json::value(*measure.value) : json::value(nullptr)},
                     {"direct", measure.direct},
                     {"problem", or_null(measure.problem)}});
  }
  json::object out{{"driver", check.readings.driver},
                   {"stack", check.stack},
                   {"gpus", std::move(gpus)},
                   {"measures", std::move(measures)}};
  const json::value judged = findings_json(findings);
  for (const auto& [key, value] : judged.as_object()) out[key] = value;
  return out;
}

}  // namespace tutti::cli
