#include "coordinator/membership/numerics_profile.h"

#include <algorithm>

namespace tutti::coordinator {

namespace {

constexpr std::string_view kPortable = "portable";

}  // namespace

std::string_view precision_of(std::string_view profile) {
  if (profile == kPortable) return "fp32";
  const auto begin = profile.find('-');
  if (begin == std::string_view::npos) return {};
  const std::string_view rest = profile.substr(begin + 1);
  return rest.substr(0, rest.find('-'));
}

std::string profile_for(const std::vector<std::vector<std::string>>& gang,
                        std::string_view precision) {
  const auto is_common = [&](const std::string& profile) {
    return std::all_of(gang.begin(), gang.end(), [&](const auto& profiles) {
      return std::find(profiles.begin(), profiles.end(), profile) != profiles.end();
    });
  };
  for (const std::string& profile : gang.empty() ? std::vector<std::string>() : gang.front()) {
    if (precision_of(profile) == precision && is_common(profile)) return profile;
  }
  return std::string(kPortable);
}

}  // namespace tutti::coordinator
