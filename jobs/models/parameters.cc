#include "jobs/models/parameters.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "jobs/models/families/family.h"
#include "kernels/ops/grid.h"
#include "protocol/base/assert.h"

namespace tutti::models {

namespace {

static_assert(kGridElements == kernels::kGridBlock, "one grid");

constexpr std::uint32_t kRoles = static_cast<std::uint32_t>(Role::head) + 1;
constexpr std::array kLayerRoles = {Role::attention_norm, Role::query,  Role::key,
                                    Role::value,          Role::output, Role::feed_forward_norm,
                                    Role::gate,           Role::up,     Role::down};

std::uint64_t aligned(std::uint64_t elements) {
  return (elements + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}

std::vector<std::uint64_t> shape_of(const DecoderDescription& d, Role role) {
  switch (role) {
    case Role::embedding:
    case Role::head: return {d.vocabulary, d.width};
    case Role::attention_norm:
    case Role::feed_forward_norm:
    case Role::final_norm: return {d.width};
    case Role::query: return {d.query_width(), d.width};
    case Role::key:
    case Role::value: return {d.kv_width(), d.width};
    case Role::output: return {d.width, d.query_width()};
    case Role::gate:
    case Role::up: return {d.feed_forward, d.width};
    case Role::down: return {d.width, d.feed_forward};
  }
  return {};
}

Parameter declare(const DecoderDescription& d, const Family& family, Role role,
                  std::uint32_t layer) {
  Parameter parameter;
  parameter.name = family.tensor_name(role, layer);
  parameter.role = role;
  parameter.layer = layer;
  parameter.shape = shape_of(d, role);
  parameter.elements = 1;
  for (const std::uint64_t extent : parameter.shape) parameter.elements *= extent;
  const bool matrix = parameter.shape.size() == 2;
  parameter.decay = matrix;
  if (matrix) parameter.init_deviation = d.init_deviation;
  // Those that write to the residual stream: 2L additions of variance 1/(2L) each.
  if (role == Role::output || role == Role::down) {
    parameter.init_deviation /= std::sqrt(2.0 * d.layers);
  }
  return parameter;
}

}  // namespace

ParameterLayout::ParameterLayout(const DecoderDescription& d) {
  const Family* family = find_family(d.family);
  TUTTI_ASSERT(family != nullptr);
  parameters_.push_back(declare(d, *family, Role::embedding, 0));
  for (std::uint32_t layer = 0; layer < d.layers; ++layer) {
    for (const Role role : kLayerRoles) parameters_.push_back(declare(d, *family, role, layer));
  }
  parameters_.push_back(declare(d, *family, Role::final_norm, 0));
  if (d.tied) {
    tied_name_ = family->tensor_name(Role::head, 0);
  } else {
    parameters_.push_back(declare(d, *family, Role::head, 0));
  }
  std::sort(parameters_.begin(), parameters_.end(),
            [](const Parameter& a, const Parameter& b) { return a.name < b.name; });

  by_role_.resize(std::size_t{d.layers} * kRoles);
  for (std::uint32_t index = 0; index < parameters_.size(); ++index) {
    Parameter& parameter = parameters_[index];
    parameter.offset = elements_;
    elements_ += aligned(parameter.elements);
    parameter_count_ += parameter.elements;
    by_role_[parameter.layer * kRoles + static_cast<std::uint32_t>(parameter.role)] = index;
    for (std::uint64_t at = 0; at < parameter.elements; at += kGridElements) {
      const std::uint64_t count = std::min(kGridElements, parameter.elements - at);
      blocks_.push_back({index, static_cast<std::uint32_t>(count), parameter.offset + at});
    }
  }
  gradient_elements_ = elements_;
  if (d.tied) {
    const auto embedding = static_cast<std::size_t>(Role::embedding);
    by_role_[static_cast<std::size_t>(Role::head)] = by_role_[embedding];
    gradient_elements_ += aligned(parameters_[by_role_[embedding]].elements);
  }
}

const Parameter* ParameterLayout::find(std::string_view name) const {
  if (!tied_name_.empty() && name == tied_name_) return &at(Role::embedding);
  const auto found = std::lower_bound(
      parameters_.begin(), parameters_.end(), name,
      [](const Parameter& parameter, std::string_view wanted) { return parameter.name < wanted; });
  return found == parameters_.end() || found->name != name ? nullptr : &*found;
}

const Parameter& ParameterLayout::at(Role role, std::uint32_t layer) const {
  const std::size_t at = std::size_t{layer} * kRoles + static_cast<std::size_t>(role);
  TUTTI_ASSERT(at < by_role_.size());
  return parameters_[by_role_[at]];
}

}  // namespace tutti::models
