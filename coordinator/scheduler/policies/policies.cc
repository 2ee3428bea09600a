#include "coordinator/scheduler/policies/policies.h"

#include <algorithm>
#include <iterator>

namespace tutti::coordinator::scheduler {

namespace {

constexpr Policy kPolicies[] = {{"first-fit", choose_first_fit},
                                {"packed", choose_packed},
                                {"spread", choose_spread, Links::ignored}};

}  // namespace

std::span<const Policy> policies() { return kPolicies; }

const Policy& policy_of(std::string_view name) {
  const auto at = std::find_if(std::begin(kPolicies), std::end(kPolicies),
                               [&](const Policy& policy) { return policy.name == name; });
  return at == std::end(kPolicies) ? kPolicies[0] : *at;
}

}  // namespace tutti::coordinator::scheduler
