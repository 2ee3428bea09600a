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

std::string profile_for(const std::vector<std::string>& profiles, std::string_view precision) {
  const auto at = std::find_if(profiles.begin(), profiles.end(), [&](const auto& profile) {
    return precision_of(profile) == precision;
  });
  return at == profiles.end() ? std::string(kPortable) : *at;
}

}  // namespace tutti::coordinator
