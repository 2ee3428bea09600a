#include "kernels/ops/reference/reference.h"

#include <algorithm>
#include <cmath>

namespace tutti::kernels::reference {

Table::Table(const ConstMatrix& from) : Table(from.rows, from.columns) {
  for (Index r = 0; r < rows; ++r) {
    for (Index c = 0; c < columns; ++c) at(r, c) = static_cast<double>(from.row(r)[c]);
  }
}

Table rms_norm(const Table& x, std::span<const double> weight, double epsilon) {
  Table y(x.rows, x.columns);
  for (Index r = 0; r < x.rows; ++r) {
    double squares = 0.0;
    for (Index c = 0; c < x.columns; ++c) squares += x.at(r, c) * x.at(r, c);
    const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(x.columns) + epsilon);
    for (Index c = 0; c < x.columns; ++c) {
      y.at(r, c) = x.at(r, c) * inverse * weight[static_cast<std::size_t>(c)];
    }
  }
  return y;
}

Table silu_gate(const Table& gate, const Table& up) {
  Table y(gate.rows, gate.columns);
  for (std::size_t i = 0; i < y.data.size(); ++i) {
    y.data[i] = gate.data[i] / (1.0 + std::exp(-gate.data[i])) * up.data[i];
  }
  return y;
}

Table rotary(const Table& x, std::span<const std::int32_t> positions,
             std::span<const float> frequencies, Index head_width) {
  Table y = x;
  const auto half = static_cast<Index>(frequencies.size());
  for (Index r = 0; r < x.rows; ++r) {
    for (Index head = 0; head < x.columns; head += head_width) {
      for (Index i = 0; i < half; ++i) {
        const float angle = static_cast<float>(positions[static_cast<std::size_t>(r)]) *
                            frequencies[static_cast<std::size_t>(i)];
        const double cosine = std::cos(static_cast<double>(angle));
        const double sine = std::sin(static_cast<double>(angle));
        const double a = x.at(r, head + i);
        const double b = x.at(r, head + half + i);
        y.at(r, head + i) = a * cosine - b * sine;
        y.at(r, head + half + i) = b * cosine + a * sine;
      }
    }
  }
  return y;
}

namespace {

double score_of(const AttentionShape& shape, double product, Index distance, Index head) {
  double score = product * static_cast<double>(shape.scale);
  if (shape.soft_cap > 0.0F) {
    const auto cap = static_cast<double>(shape.soft_cap);
    score = cap * std::tanh(score / cap);
  }
  if (shape.slopes != nullptr) {
    score -= static_cast<double>(shape.slopes[head]) * static_cast<double>(std::abs(distance));
  }
  return score;
}

// Rows of one sample.
struct Sample {
  Index first = 0;
  Index end = 0;
};

// One query against the keys that it sees; writes its head's columns of `out`.
void attend(const AttentionShape& shape, const Table& q, const Table& k, const Table& v,
            const Sample& sample, Index row, Index head, Table& out) {
  const bool causal = shape.mask == AttentionMask::causal;
  const Index first =
      shape.window > 0 ? std::max(sample.first, row - shape.window + 1) : sample.first;
  const Index end = causal ? row + 1 : sample.end;
  const Index width = shape.head_width;
  const Index column = head * width;
  const Index kv_column = head / (shape.heads / shape.kv_heads) * width;
  std::vector<double> scores;
  for (Index key = first; key < end; ++key) {
    double score = 0.0;
    for (Index d = 0; d < width; ++d) score += q.at(row, column + d) * k.at(key, kv_column + d);
    scores.push_back(score_of(shape, score, row - key, head));
  }
  const double top = *std::max_element(scores.begin(), scores.end());
  double total = 0.0;
  for (double& score : scores) total += (score = std::exp(score - top));
  for (Index d = 0; d < width; ++d) {
    double sum = 0.0;
    for (Index key = first; key < end; ++key) {
      sum += scores[static_cast<std::size_t>(key - first)] * v.at(key, kv_column + d);
    }
    out.at(row, column + d) = sum / total;
  }
}

}  // namespace

Table attention(const AttentionShape& shape, const Table& q, const Table& k, const Table& v,
                std::span<const std::int32_t> sample_offsets) {
  Table out(q.rows, q.columns);
  for (std::size_t s = 0; s + 1 < sample_offsets.size(); ++s) {
    for (Index row = sample_offsets[s]; row < sample_offsets[s + 1]; ++row) {
      for (Index head = 0; head < shape.heads; ++head) {
        attend(shape, q, k, v, {sample_offsets[s], sample_offsets[s + 1]}, row, head, out);
      }
    }
  }
  return out;
}

namespace {

double log_sum_exp(std::span<const double> x) {
  const double top = *std::max_element(x.begin(), x.end());
  double total = 0.0;
  for (const double value : x) total += std::exp(value - top);
  return top + std::log(total);
}

}  // namespace

Table log_softmax(const Table& x) {
  Table out = x;
  for (Index r = 0; r < x.rows && x.columns > 0; ++r) {
    const std::span row(out.data.data() + r * x.columns, static_cast<std::size_t>(x.columns));
    const double offset = log_sum_exp(row);
    for (double& value : row) value -= offset;
  }
  return out;
}

std::vector<double> cross_entropy(const Table& hidden, const Table& weight,
                                  std::span<const std::int32_t> targets) {
  std::vector<double> losses(targets.size(), 0.0);
  for (Index r = 0; r < hidden.rows; ++r) {
    const std::int32_t target = targets[static_cast<std::size_t>(r)];
    if (target < 0) continue;
    std::vector<double> logits;
    for (Index v = 0; v < weight.rows; ++v) {
      double logit = 0.0;
      for (Index c = 0; c < hidden.columns; ++c) logit += hidden.at(r, c) * weight.at(v, c);
      logits.push_back(logit);
    }
    losses[static_cast<std::size_t>(r)] =
        log_sum_exp(logits) - logits[static_cast<std::size_t>(target)];
  }
  return losses;
}

}  // namespace tutti::kernels::reference
