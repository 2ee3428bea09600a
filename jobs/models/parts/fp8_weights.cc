#include "jobs/models/parts/fp8_weights.h"

#include <utility>

#include "kernels/tensor/device.h"
#include "protocol/base/assert.h"

namespace tutti::models {

namespace {

using Parameters = LayerParameters<const float>;

struct Linear {
  LinearParameters<const float> Parameters::*parameters;
  Role role;
};
constexpr Linear kAll[] = {{&Parameters::query, Role::query}, {&Parameters::key, Role::key},
                           {&Parameters::value, Role::value}, {&Parameters::output, Role::output},
                           {&Parameters::gate, Role::gate},   {&Parameters::up, Role::up},
                           {&Parameters::down, Role::down}};

struct Shape {
  Index rows = 0, columns = 0;
};

// As layer_weights() cuts them.
Shape shape_of(const ParameterLayout& layout, Role role) {
  const bool projects = role == Role::query || role == Role::key || role == Role::value;
  const Parameter* const fused = projects ? layout.find(Role::projections) : nullptr;
  const Parameter* const own = fused == nullptr ? layout.find(role) : fused;
  if (own == nullptr) return {};
  Shape shape{static_cast<Index>(own->shape[0]), static_cast<Index>(own->shape[1])};
  if (fused != nullptr) (layout.order() == WeightOrder::outputs ? shape.rows : shape.columns) /= 3;
  return shape;
}

}  // namespace

Fp8Weights::Places::Places(const Decoder& decoder) {
  static_assert(std::size(kAll) == kLinears);
  const auto take = [this](Index count) {
    constexpr auto kLine = static_cast<Index>(kArenaAlignment);
    return std::exchange(floats, floats + (count + kLine - 1) / kLine * kLine);
  };
  for (std::size_t i = 0; i < kLinears; ++i) {
    const Shape shape = shape_of(decoder.layout(), kAll[i].role);
    if (!kernels::has_fp8_shape(shape.rows, shape.columns)) continue;
    const Index in_floats = shape.rows * shape.columns / static_cast<Index>(sizeof(float));
    Place& place = linears[i];
    place.rows = shape.rows;
    place.columns = shape.columns;
    place.codes = take(in_floats);
    place.scales = take(shape.rows);
    place.turned_codes = take(in_floats);
    place.turned_scales = take(shape.columns);
  }
}

Fp8Weights::Fp8Weights(const Decoder& decoder, kernels::Device& device)
    : decoder_(decoder),
      device_(device),
      places_(decoder),
      memory_(places_.floats * static_cast<Index>(decoder.description().layers), &device) {}

std::uint64_t Fp8Weights::bytes(const Decoder& decoder) {
  return static_cast<std::uint64_t>(Places(decoder).floats) * decoder.description().layers *
         sizeof(float);
}

kernels::Fp8Weight Fp8Weights::at(std::uint32_t layer, const Place& place) const {
  const float* const begin = memory_.data() + layer * places_.floats;
  const auto rows = [begin](Index codes, Index scales) {
    return kernels::Fp8Rows{reinterpret_cast<const std::uint8_t*>(begin + codes), begin + scales};
  };
  return {rows(place.codes, place.scales), rows(place.turned_codes, place.turned_scales)};
}

Result<> Fp8Weights::make(std::span<const float> weights) {
  for (std::uint32_t layer = 0; layer < decoder_.description().layers; ++layer) {
    const Parameters parameters = layer_weights(decoder_.layout(), layer, weights.data());
    for (std::size_t i = 0; i < kLinears; ++i) {
      const Place& place = places_.linears[i];
      if (place.rows == 0) continue;
      const ConstMatrix& weight = (parameters.*kAll[i].parameters).weight;
      TUTTI_ASSERT(weight.rows == place.rows && weight.columns == place.columns);
      if (auto made = device_.make_fp8(weight, at(layer, place)); !made) return made;
    }
  }
  return {};
}

void Fp8Weights::give(std::uint32_t layer, LayerParameters<const float>& parameters) const {
  for (std::size_t i = 0; i < kLinears; ++i) {
    const Place& place = places_.linears[i];
    if (place.rows != 0) (parameters.*kAll[i].parameters).fp8 = at(layer, place);
  }
}

}  // namespace tutti::models
