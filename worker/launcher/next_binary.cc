#include "worker/launcher/next_binary.h"

#include <fmt/core.h>
#include <unistd.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <exception>

#include "worker/launcher/answer.h"

namespace tutti::worker {

namespace json = boost::json;

namespace {

constexpr std::size_t kWordsBytesMax = 300;

// The last lines that a program said before it ended, on one.
std::string last_words(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  if (text.size() > kWordsBytesMax) text.erase(0, text.size() - kWordsBytesMax);
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text.empty() ? "it said nothing" : text;
}

bool takes(const json::value& line, std::uint32_t handover) {
  const json::array& taken = line.at("handovers").as_array();
  return std::any_of(taken.begin(), taken.end(), [&](const json::value& version) {
    return version.to_number<std::uint32_t>() == handover;
  });
}

}  // namespace

std::string check_line(const Takeover& ours) {
  return json::serialize(json::object{
      {"version", TUTTI_VERSION}, {"state", ours.state.string()}, {"handovers", {ours.handover}}});
}

// Libraries may write lines of their own before ours.
Result<> accepts(std::string_view answer, const Takeover& ours) {
  const auto begin = answer.rfind("\n{");
  if (begin != std::string_view::npos) answer.remove_prefix(begin + 1);
  try {
    const json::value line = json::parse(answer.substr(0, answer.find('\n')));
    const std::string folder(line.at("state").as_string());
    if (folder != ours.state) {
      return Error{
          ErrorCode::invalid_argument,
          fmt::format("its state folder would be {} and not {}", folder, ours.state.string())};
    }
    if (takes(line, ours.handover)) return {};
    return Error{ErrorCode::unsupported,
                 fmt::format("version {} takes no handover of version {}",
                             std::string(line.at("version").as_string()), ours.handover)};
  } catch (const std::exception&) {
    return Error{ErrorCode::corrupt, "it does not say what it takes over"};
  }
}

Result<> ask_next_binary(std::vector<std::string> command, const Takeover& ours) {
  command.emplace_back("--check");
  LaunchPlan plan{.command = std::move(command), .environment = {}, .folder = {}, .linked = false};
  for (char** variable = ::environ; *variable != nullptr; ++variable) {
    plan.environment.emplace_back(*variable);
  }
  const auto answer = answer_of(plan, kAnswersWithin);
  if (!answer) return answer.error();
  const ExitStatus& status = answer->status;
  if (status.signal != 0 || status.code != 0) {
    const std::string end = status.signal != 0 ? fmt::format("signal {}", status.signal)
                                               : fmt::format("code {}", status.code);
    return Error{ErrorCode::invalid_argument,
                 fmt::format("{} --check ended with {}: {}", plan.command.front(), end,
                             last_words(answer->text))};
  }
  if (Result<> accepted = accepts(answer->text, ours); !accepted) {
    return std::move(accepted).error().with_context(plan.command.front());
  }
  return {};
}

}  // namespace tutti::worker
