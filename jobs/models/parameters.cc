#include "jobs/models/parameters.h"

#include <algorithm>
#include <cmath>

#include "jobs/models/families/family.h"
#include "kernels/ops/grid.h"
#include "protocol/base/assert.h"

namespace tutti::models {

namespace {

static_assert(kGridElements == kernels::kGridBlock, "one grid");

constexpr std::uint32_t kRoles = static_cast<std::uint32_t>(Role::head) + 1;
constexpr std::uint32_t kNone = UINT32_MAX;

std::uint64_t aligned(std::uint64_t elements) {
  return (elements + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}

// Of one layer.
std::vector<Role> layer_roles(const DecoderDescription& d) {
  std::vector<Role> roles = {Role::attention_norm, Role::output, Role::feed_forward_norm, Role::up,
                             Role::down};
  const auto add = [&](bool has, std::initializer_list<Role> some) {
    if (has) roles.insert(roles.end(), some);
  };
  const bool fused = d.projections == Projections::fused;
  add(d.norm == Norm::layer, {Role::attention_norm_bias, Role::feed_forward_norm_bias});
  add(fused, {Role::projections});
  add(fused && d.biases, {Role::projections_bias});
  add(!fused, {Role::query, Role::key, Role::value});
  add(d.inner == FeedForward::gated, {Role::gate});
  add(d.biases, {Role::output_bias, Role::up_bias, Role::down_bias});
  return roles;
}

bool is_bias(Role role) {
  switch (role) {
    case Role::attention_norm_bias:
    case Role::projections_bias:
    case Role::output_bias:
    case Role::feed_forward_norm_bias:
    case Role::up_bias:
    case Role::down_bias:
    case Role::final_norm_bias: return true;
    default: return false;
  }
}

std::vector<std::uint64_t> shape_of(const DecoderDescription& d, Role role) {
  const auto matrix = [&](std::uint64_t outputs, std::uint64_t inputs) {
    return d.order == WeightOrder::outputs ? std::vector{outputs, inputs}
                                           : std::vector{inputs, outputs};
  };
  const std::uint64_t projections = d.query_width() + 2 * d.kv_width();
  switch (role) {
    case Role::embedding:
    case Role::head: return {d.vocabulary, d.width};
    case Role::position_embedding: return {d.positions_max, d.width};
    case Role::attention_norm:
    case Role::attention_norm_bias:
    case Role::feed_forward_norm:
    case Role::feed_forward_norm_bias:
    case Role::final_norm:
    case Role::final_norm_bias:
    case Role::output_bias:
    case Role::down_bias: return {d.width};
    case Role::query: return matrix(d.query_width(), d.width);
    case Role::key:
    case Role::value: return matrix(d.kv_width(), d.width);
    case Role::projections: return matrix(projections, d.width);
    case Role::projections_bias: return {projections};
    case Role::output: return matrix(d.width, d.query_width());
    case Role::gate:
    case Role::up: return matrix(d.feed_forward, d.width);
    case Role::up_bias: return {d.feed_forward};
    case Role::down: return matrix(d.width, d.feed_forward);
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
  if (is_bias(role)) parameter.init_value = 0;
  // Those that write to the residual stream: 2L additions of variance 1/(2L) each.
  if (role == Role::output || role == Role::down) {
    parameter.init_deviation /= std::sqrt(2.0 * d.layers);
  }
  return parameter;
}

// Elements of an arena that a parameter has for itself.
std::uint64_t place_of(const DecoderDescription& d, const Parameter& parameter) {
  const bool is_head = parameter.role == (d.tied ? Role::embedding : Role::head);
  return aligned(is_head ? std::uint64_t{d.vocabulary_rows()} * d.width : parameter.elements);
}

}  // namespace

ParameterLayout::ParameterLayout(const DecoderDescription& d) : order_(d.order) {
  const Family* family = find_family(d.family);
  TUTTI_ASSERT(family != nullptr);
  parameters_.push_back(declare(d, *family, Role::embedding, 0));
  for (std::uint32_t layer = 0; layer < d.layers; ++layer) {
    for (const Role role : layer_roles(d)) {
      parameters_.push_back(declare(d, *family, role, layer));
    }
  }
  if (d.positions == Positions::learned) {
    parameters_.push_back(declare(d, *family, Role::position_embedding, 0));
  }
  parameters_.push_back(declare(d, *family, Role::final_norm, 0));
  if (d.norm == Norm::layer) {
    parameters_.push_back(declare(d, *family, Role::final_norm_bias, 0));
  }
  if (d.tied) {
    tied_name_ = family->tensor_name(Role::head, 0);
  } else {
    parameters_.push_back(declare(d, *family, Role::head, 0));
  }
  std::sort(parameters_.begin(), parameters_.end(),
            [](const Parameter& a, const Parameter& b) { return a.name < b.name; });

  by_role_.resize(std::size_t{d.layers} * kRoles, kNone);
  for (std::uint32_t index = 0; index < parameters_.size(); ++index) {
    Parameter& parameter = parameters_[index];
    parameter.offset = elements_;
    elements_ += place_of(d, parameter);
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

const Parameter* ParameterLayout::find(Role role, std::uint32_t layer) const {
  const std::size_t at = std::size_t{layer} * kRoles + static_cast<std::size_t>(role);
  TUTTI_ASSERT(at < by_role_.size());
  return by_role_[at] == kNone ? nullptr : &parameters_[by_role_[at]];
}

const Parameter& ParameterLayout::at(Role role, std::uint32_t layer) const {
  const Parameter* const found = find(role, layer);
  TUTTI_ASSERT(found != nullptr);
  return *found;
}

}  // namespace tutti::models
