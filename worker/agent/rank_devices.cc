#include "worker/agent/rank_devices.h"

#include <boost/json/parse.hpp>

#include <exception>

#include "worker/launcher/answer.h"

namespace tutti::worker {

namespace json = boost::json;

namespace {

constexpr std::size_t kDevicesMax = 64;

constexpr int kNotLoaded = 127;

std::string_view last_line_of(std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  const auto begin = text.rfind('\n');
  return begin == std::string_view::npos ? text : text.substr(begin + 1);
}

RankDevices devices_of(const json::object& line) {
  RankDevices out;
  for (const json::value& profile : line.at("profiles").as_array()) {
    out.profiles.emplace_back(profile.as_string());
  }
  out.stack = std::string(line.at("stack").as_string());
  if (const json::value* exchange = line.if_contains("exchange"))
    out.exchange = std::string(exchange->as_string());
  for (const json::value& device : line.at("devices").as_array()) {
    if (out.devices.size() == kDevicesMax) break;
    out.devices.push_back({.uuid = std::string(device.at("uuid").as_string()),
                           .name = std::string(device.at("name").as_string()),
                           .memory_bytes = device.at("memory_bytes").to_number<std::uint64_t>()});
  }
  return out;
}

}  // namespace

// Libraries may write lines of their own before ours.
Result<RankDevices> parse_rank_devices(std::string_view output) {
  const Error none{ErrorCode::corrupt, "the rank binary says nothing of devices"};
  const auto begin = output.rfind("\n{");
  if (begin != std::string_view::npos) output.remove_prefix(begin + 1);
  try {
    const json::value line = json::parse(output.substr(0, output.find('\n')));
    if (!line.is_object()) return none;
    if (const json::value* problem = line.as_object().if_contains("problem")) {
      return Error{ErrorCode::unsupported, std::string(problem->as_string())};
    }
    return devices_of(line.as_object());
  } catch (const std::exception&) {
    return none;
  }
}

Result<RankDevices> ask_rank_devices(const std::filesystem::path& binary,
                                     const std::vector<std::string>& environment,
                                     Duration deadline) {
  const auto answer = answer_of({.command = {binary.string(), "devices"},
                                 .environment = environment,
                                 .folder = {},
                                 .linked = false},
                                deadline);
  if (!answer) return answer.error();
  auto devices = parse_rank_devices(answer->text);
  const std::string_view last = last_line_of(answer->text);
  if (devices || devices.error().code != ErrorCode::corrupt || last.empty()) return devices;
  // A library that is not there is the loader's to say: the binary never began.
  return Error{answer->status.code == kNotLoaded ? ErrorCode::unsupported : ErrorCode::corrupt,
               std::string(last)};
}

}  // namespace tutti::worker
