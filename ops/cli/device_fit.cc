#include "ops/cli/device_fit.h"

#include <fmt/core.h>

#include <boost/json/array.hpp>

#include <algorithm>
#include <span>
#include <utility>

#include "ops/cli/client/fields.h"
#include "ops/cli/text/table.h"
#include "protocol/spec/parse.h"

namespace tutti::cli {

namespace json = boost::json;

namespace {

// What is tried for a job that fits nowhere: settings that change its memory and not what it is.
// More than one of a row are separated by blanks; the first row that fits is enough.
constexpr const char* kTrainingChanges[] = {
    "train.recompute=selective",
    "train.recompute=full",
    "train.micro=1",
    "train.recompute=full train.micro=1",
    "train.precision=fp32",
    "train.precision=fp32 train.recompute=full train.micro=1",
};
constexpr const char* kServingChanges[] = {
    "serve.tokens_max=4096",
    "serve.batch_max=1",
    "serve.weights=q8_0",
    "serve.weights=q4_0",
    "serve.weights=q4_0 serve.tokens_max=4096 serve.batch_max=1",
};

std::vector<std::string> words_of(std::string_view row) {
  std::vector<std::string> words;
  while (!row.empty()) {
    const auto end = row.find(' ');
    words.emplace_back(row.substr(0, end));
    row.remove_prefix(end == std::string_view::npos ? row.size() : end + 1);
  }
  return words;
}

// Settings that take less, with what they take; those of one that fits are the last.
std::vector<std::string> tried_changes(const spec::JobSpec& spec, const DeviceFit& fit,
                                       const AskMemory& ask) {
  const std::span<const char* const> rows = spec.kind == spec::JobKind::train
                                                ? std::span<const char* const>(kTrainingChanges)
                                                : std::span<const char* const>(kServingChanges);
  const std::string yaml = spec::to_yaml(spec);
  std::vector<std::string> lines;
  for (const char* const row : rows) {
    const auto changed = spec::parse_job_spec(yaml, {.file = "spec", .overrides = words_of(row)});
    if (!changed || *changed == spec) continue;
    const auto memory = ask(*changed);
    if (!memory || memory->least_bytes >= fit.memory->least_bytes) continue;
    const bool enough = memory->least_bytes <= fit.devices.largest_bytes;
    lines.push_back(fmt::format("with {} it takes {}{}", row,
                                print_bytes_short(memory->least_bytes),
                                enough ? ", which fits" : ""));
    if (enough) break;
  }
  return lines;
}

}  // namespace

ClusterDevices devices_of(const json::value& nodes) {
  ClusterDevices devices;
  bool has_speechless = false;
  for (const json::value& node : list_of(nodes, "nodes")) {
    const json::array& labels = list_of(node, "labels");
    const bool for_gpus = std::any_of(labels.begin(), labels.end(), [](const json::value& label) {
      return label.is_string() && label.as_string() == "device=gpu";
    });
    has_speechless = has_speechless || (for_gpus && list_of(node, "devices").empty());
    for (const json::value& device : list_of(node, "devices")) {
      const auto bytes = static_cast<std::uint64_t>(whole_of(device, "memory_bytes"));
      if (bytes == 0) devices.has_unknown = true;
      if (bytes <= devices.largest_bytes) continue;
      devices.largest_bytes = bytes;
      devices.largest_node = text_of(node, "name");
    }
  }
  devices.has_unknown = devices.has_unknown || (has_speechless && devices.largest_bytes == 0);
  return devices;
}

DeviceFit fit_devices(spec::JobSpec& spec, const ClusterDevices& devices, const AskMemory& ask) {
  DeviceFit fit;
  fit.devices = devices;
  fit.given = spec.resources.device_memory_bytes != 0;
  if (!spec::takes_gpus(spec)) return fit;
  auto memory = ask(spec);
  if (!memory) {
    fit.problem = memory.error().message;
    return fit;
  }
  fit.memory = *std::move(memory);
  if (!fit.fits()) fit.changes = tried_changes(spec, fit, ask);
  // A device whose size nobody knows would never be large enough.
  if (!fit.given && !devices.has_unknown) {
    spec.resources.device_memory_bytes = fit.memory->least_bytes;
    fit.filled = true;
  }
  return fit;
}

std::string fit_text(const DeviceFit& fit) {
  if (!fit.problem.empty()) return "memory of its GPUs is not estimated: " + fit.problem + "\n";
  if (!fit.memory) return "";
  const DeviceMemory& memory = *fit.memory;
  std::string text = fmt::format("memory of the GPU of each rank, estimated for {} rank{}\n",
                                 memory.ranks, memory.ranks == 1 ? "" : "s");
  const auto add = [&](std::string_view name, std::uint64_t bytes) {
    text += fmt::format("  {:<16}{:>8}\n", name, print_bytes_short(bytes));
  };
  for (const DeviceMemory::Part& part : memory.parts) add(part.name, part.bytes);
  add("in all", memory.bytes);
  if (memory.least_bytes < memory.bytes) add("at least", memory.least_bytes);
  if (fit.devices.largest_bytes == 0) return text + "no node has told of a GPU\n";
  text +=
      fmt::format("{}: the largest GPU has {} (node {})\n", fit.fits() ? "fits" : "does not fit",
                  print_bytes_short(fit.devices.largest_bytes), fit.devices.largest_node);
  if (!fit.fits() && fit.given)
    text += "it is placed by the resources.device_memory that it says\n";
  for (const std::string& line : fit.changes) text += line + '\n';
  return text;
}

std::string misfit_line(const DeviceFit& fit) {
  const bool helped = !fit.changes.empty() && fit.changes.back().ends_with("fits");
  return fmt::format(
      "the job takes {} of each GPU, and the largest of the cluster has {}: {}",
      print_bytes_short(fit.memory->least_bytes), print_bytes_short(fit.devices.largest_bytes),
      helped ? fit.changes.back()
             : "no setting that was tried makes it fit; take a smaller model or larger GPUs");
}

json::value fit_json(const DeviceFit& fit) {
  if (!fit.problem.empty()) return json::object{{"problem", fit.problem}};
  if (!fit.memory) return nullptr;
  json::array parts;
  for (const DeviceMemory::Part& part : fit.memory->parts) {
    parts.push_back(json::object{{"name", part.name}, {"bytes", part.bytes}});
  }
  json::array changes(fit.changes.begin(), fit.changes.end());
  return json::object{{"bytes", fit.memory->bytes},
                      {"least_bytes", fit.memory->least_bytes},
                      {"ranks", fit.memory->ranks},
                      {"parts", std::move(parts)},
                      {"largest_device_bytes", fit.devices.largest_bytes},
                      {"fits", fit.fits()},
                      {"changes", std::move(changes)}};
}

}  // namespace tutti::cli
