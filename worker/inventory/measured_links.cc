#include "worker/inventory/measured_links.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <exception>
#include <utility>

#include "protocol/base/file.h"

namespace tutti::worker {

namespace json = boost::json;

namespace {

// Of the pairs of 64 GPUs, with room.
constexpr std::uint64_t kLinksFileBytesMax = std::uint64_t{2} << 20;

std::size_t gpu_at(const GpuInventory& inventory, const std::string& uuid) {
  return static_cast<std::size_t>(std::ranges::find(inventory.gpus, uuid, &Gpu::uuid) -
                                  inventory.gpus.begin());
}

}  // namespace

std::string print_measured_links(const std::vector<MeasuredLink>& links) {
  json::array lines;
  for (const MeasuredLink& link : links) {
    lines.push_back(json::object{
        {"from", link.from}, {"to", link.to}, {"count", link.count}, {"mb_per_s", link.mb_per_s}});
  }
  return json::serialize(json::object{{"links", std::move(lines)}}) + "\n";
}

Result<std::vector<MeasuredLink>> parse_measured_links(std::string_view text) {
  try {
    std::vector<MeasuredLink> out;
    const json::value value = json::parse(text);
    for (const json::value& link : value.at("links").as_array()) {
      out.push_back({.from = std::string(link.at("from").as_string()),
                     .to = std::string(link.at("to").as_string()),
                     .count = link.at("count").to_number<std::uint32_t>(),
                     .mb_per_s = link.at("mb_per_s").to_number<std::uint32_t>()});
    }
    return out;
  } catch (const std::exception& what) {
    return Error{ErrorCode::corrupt, std::string("no measured links: ") + what.what()};
  }
}

Result<std::vector<MeasuredLink>> read_measured_links(const std::filesystem::path& file) {
  const auto text = read_file(file, kLinksFileBytesMax);
  if (!text) return text.error();
  auto links = parse_measured_links(*text);
  if (!links) return std::move(links).error().with_context(file.string());
  return links;
}

void add_measured_links(GpuInventory& inventory, const std::vector<MeasuredLink>& links) {
  for (const MeasuredLink& link : links) {
    const std::size_t from = gpu_at(inventory, link.from);
    const std::size_t to = gpu_at(inventory, link.to);
    const std::size_t count = inventory.gpus.size();
    if (from == count || to == count || from == to) continue;
    Gpu& gpu = inventory.gpus[from];
    const std::uint32_t joined = to < gpu.nvlinks.size() ? gpu.nvlinks[to] : 0;
    if (joined != link.count) continue;
    gpu.measured_mb_per_s.resize(count);
    gpu.measured_mb_per_s[to] = link.mb_per_s;
  }
}

}  // namespace tutti::worker
