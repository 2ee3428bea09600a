#include "kernels/ops/reference/rows.h"

#include <algorithm>
#include <cmath>

namespace tutti::kernels::reference {

Table layer_norm(const Table& x, const LayerNorm& norm) {
  Table y(x.rows, x.columns);
  const auto width = static_cast<double>(x.columns);
  for (Index r = 0; r < x.rows; ++r) {
    double mean = 0.0;
    for (Index c = 0; c < x.columns; ++c) mean += x.at(r, c) / width;
    double variance = 0.0;
    for (Index c = 0; c < x.columns; ++c) variance += std::pow(x.at(r, c) - mean, 2) / width;
    for (Index c = 0; c < x.columns; ++c) {
      const auto at = static_cast<std::size_t>(c);
      y.at(r, c) = (x.at(r, c) - mean) / std::sqrt(variance + norm.epsilon) * norm.weight[at] +
                   (norm.bias.empty() ? 0.0 : norm.bias[at]);
    }
  }
  return y;
}

double activation(Activation kind, double x) {
  switch (kind) {
    case Activation::gelu: return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
    case Activation::gelu_tanh:
      return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::silu: return x / (1.0 + std::exp(-x));
    case Activation::relu: return std::max(x, 0.0);
  }
  return 0.0;
}

Table activation(Activation kind, const Table& x) {
  Table y = x;
  for (double& value : y.data) value = activation(kind, value);
  return y;
}

Table gate(Activation kind, const Table& gate, const Table& up) {
  Table y = activation(kind, gate);
  for (std::size_t i = 0; i < y.data.size(); ++i) y.data[i] *= up.data[i];
  return y;
}

Table softmax(const Table& x) {
  Table y = x;
  for (Index r = 0; r < x.rows; ++r) {
    double top = -INFINITY;
    for (Index c = 0; c < x.columns; ++c) top = std::max(top, x.at(r, c));
    double total = 0.0;
    for (Index c = 0; c < x.columns; ++c) total += (y.at(r, c) = std::exp(x.at(r, c) - top));
    for (Index c = 0; c < x.columns; ++c) y.at(r, c) /= total;
  }
  return y;
}

}  // namespace tutti::kernels::reference
