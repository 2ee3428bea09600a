// GPTQ's layout (Frantar et al. 2023, as AutoGPTQ writes it), by a matrix's name without `.weight`:
//
//   qweight  [inputs / n, outputs] i32   n = 32 / bits inputs a word, the first in the lowest bits
//   qzeros   [groups, outputs / n] i32   n outputs a word; a zero less one (v1), or itself (v2)
//   scales   [groups, outputs]
//   g_idx    [inputs] i32                the group of each input; absent: input / group size
//
// value = scale * (code - zero). v1 keeps a zero of none as the largest number of its bits, so one
// is added within them.
//
// AWQ's (Lin et al. 2024, version gemm):
//
//   qweight  [inputs, outputs / 8] i32   eight outputs a word, 0 2 4 6 1 3 5 7 from the lowest bits
//   qzeros   [groups, outputs / 8] i32   the same; a zero itself
//   scales   [groups, outputs]
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

#include "jobs/models/stored/stored_matrix.h"

namespace tutti::models {

namespace {

using kernels::WeightFormat;

constexpr Index kCell = 32;  // inputs that have one scale in the formats
constexpr std::string_view kSuffix = ".weight";

// Where AWQ has each output of a word.
constexpr Index kPlaces[8] = {0, 4, 1, 5, 2, 6, 3, 7};

std::uint32_t word_at(const TensorView& tensor, Index index) {
  std::uint32_t word = 0;
  std::memcpy(&word, tensor.bytes.data() + index * 4, 4);
  return word;
}

class PackedMatrix final : public StoredMatrix {
 public:
  PackedMatrix(WeightFormat format, const WantedMatrix& wanted, const StoredFormat& stored)
      : StoredMatrix(format, wanted.outputs, wanted.inputs),
        bits_(stored.bits),
        by_outputs_(stored.kind == StoredFormat::Kind::awq) {}

  StoredContent content() const override {
    return {by_outputs_ ? "by outputs" : "by inputs",
            {words_->bytes, std::as_bytes(std::span(scales_)), std::as_bytes(std::span(zeros_)),
             std::as_bytes(std::span(entries_)), std::as_bytes(std::span(entry_of_input_))}};
  }
  void read_rows(Index first, Index count, std::span<std::byte> rows) const override {
    TUTTI_ASSERT(rows.size() == static_cast<std::size_t>(count) * row_bytes());
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(inputs()));
    std::vector<float> scales(entries_.size());
    std::vector<std::uint8_t> zeros(entries_.size());
    for (Index i = 0; i < count; ++i) {
      const Index output = first + i;
      for (Index k = 0; k < inputs(); ++k) codes[static_cast<std::size_t>(k)] = code_at(k, output);
      for (std::size_t e = 0; e < entries_.size(); ++e) {
        const auto at = static_cast<std::size_t>(entries_[e] * outputs() + output);
        scales[e] = scales_[at];
        zeros[e] = zeros_[at];
      }
      const auto joined = kernels::join_row(
          format(), {.codes = codes, .scales = scales, .zeros = zeros, .entries = entry_of_input_},
          rows.subspan(static_cast<std::size_t>(i) * row_bytes(), row_bytes()));
      TUTTI_ASSERT(joined.ok());
    }
  }

  const TensorView* words_ = nullptr;
  // [groups, outputs]
  std::vector<float> scales_;
  std::vector<std::uint8_t> zeros_;
  std::vector<Index> entries_;  // the group of each entry of a row's scales
  std::vector<std::uint16_t> entry_of_input_;

 private:
  Index bits_;
  bool by_outputs_;

  std::uint8_t code_at(Index k, Index output) const {
    if (by_outputs_) {
      const std::uint32_t word = word_at(*words_, (k * outputs() + output) / 8);
      return static_cast<std::uint8_t>(word >> (4 * kPlaces[output % 8]) & 15U);
    }
    const Index in_word = 32 / bits_;
    return static_cast<std::uint8_t>(word_at(*words_, k / in_word * outputs() + output) >>
                                         (k % in_word * bits_) &
                                     ((1U << bits_) - 1));
  }
};

// The tensors of one matrix, and what can be wrong with them.
class Opened {
 public:
  Opened(const SafetensorsReader& reader, const WantedMatrix& wanted)
      : reader_(reader),
        wanted_(wanted),
        base_(wanted.tensor.substr(0, wanted.tensor.size() - kSuffix.size())) {}

  std::string name(std::string_view part) const { return fmt::format("{}.{}", base_, part); }
  const TensorView* find(std::string_view part) const { return reader_.find(name(part)); }

  Result<const TensorView*> integers(std::string_view part,
                                     std::initializer_list<Index> shape) const {
    const TensorView* const tensor = find(part);
    if (tensor == nullptr) return wrong(part, "is missing");
    if (tensor->type != TensorType::i32) {
      return wrong(part, fmt::format("is {}, not I32", to_string(tensor->type)));
    }
    if (!std::ranges::equal(tensor->shape, shape, [](std::uint64_t a, Index b) {
          return a == static_cast<std::uint64_t>(b);
        })) {
      return wrong(part, fmt::format("has the shape {}, not [{}]", to_string(tensor->shape),
                                     fmt::join(shape, ", ")));
    }
    return tensor;
  }

  Result<std::vector<float>> scales(Index groups) const {
    const std::uint64_t shape[] = {static_cast<std::uint64_t>(groups),
                                   static_cast<std::uint64_t>(wanted_.outputs)};
    std::vector<float> values(static_cast<std::size_t>(groups * wanted_.outputs));
    const TensorView* const tensor = find("scales");
    if (tensor == nullptr || tensor->elements() != values.size()) {
      return wrong("scales", fmt::format("is missing, or not of the shape {}", to_string(shape)));
    }
    if (auto read = reader_.read(name("scales"), shape, values); !read) return read.error();
    if (!std::ranges::all_of(values, kernels::is_half)) {
      return wrong("scales", "holds a number that is no finite half, which formats keep");
    }
    return values;
  }

  Error wrong(std::string_view part, std::string_view what) const {
    return Error{ErrorCode::invalid_argument, fmt::format("tensor `{}` {}", name(part), what)};
  }

 private:
  const SafetensorsReader& reader_;
  const WantedMatrix& wanted_;
  std::string_view base_;
};

// The group of each input.
Result<std::vector<Index>> groups_of_inputs(const Opened& opened, Index inputs, Index group,
                                            Index groups) {
  std::vector<Index> own(static_cast<std::size_t>(inputs));
  for (Index k = 0; k < inputs; ++k) own[static_cast<std::size_t>(k)] = k / group;
  if (opened.find("g_idx") == nullptr) return own;
  const auto indices = opened.integers("g_idx", {inputs});
  if (!indices) return indices.error();
  for (Index k = 0; k < inputs; ++k) {
    const std::uint32_t index = word_at(**indices, k);
    if (index >= static_cast<std::uint32_t>(groups)) {
      return opened.wrong("g_idx", fmt::format("names group {} of {}", index, groups));
    }
    own[static_cast<std::size_t>(k)] = static_cast<Index>(index);
  }
  return own;
}

// Whether each cell of inputs is of one group.
bool are_whole_cells(std::span<const Index> groups) {
  for (std::size_t k = 1; k < groups.size(); ++k) {
    if (k % kCell != 0 && groups[k] != groups[k - 1]) return false;
  }
  return true;
}

}  // namespace

Result<std::unique_ptr<StoredMatrix>> open_packed(const SafetensorsReader& reader,
                                                  const StoredFormat& format,
                                                  const WantedMatrix& wanted) {
  const Opened opened(reader, wanted);
  if (!wanted.tensor.ends_with(kSuffix) || opened.find("qweight") == nullptr) {
    return std::unique_ptr<StoredMatrix>();
  }
  if (format.kind != StoredFormat::Kind::gptq && format.kind != StoredFormat::Kind::awq) {
    return opened.wrong("qweight",
                        "is packed, but config.json has no quantization_config of gptq or awq");
  }
  const bool by_outputs = format.kind == StoredFormat::Kind::awq;
  const Index inputs = wanted.inputs;
  const Index outputs = wanted.outputs;
  const Index bits = format.bits;
  const Index in_word = 32 / bits;
  if (inputs % kCell != 0 || outputs % in_word != 0) {
    return opened.wrong("qweight", fmt::format("is of {} inputs and {} outputs: multiples of {} "
                                               "and {} are supported",
                                               inputs, outputs, kCell, in_word));
  }
  const auto words = by_outputs ? opened.integers("qweight", {inputs, outputs / in_word})
                                : opened.integers("qweight", {inputs / in_word, outputs});
  if (!words) return words.error();
  const Index group = format.group == 0 ? inputs : static_cast<Index>(format.group);
  const Index groups = (inputs + group - 1) / group;
  const auto zeros = opened.integers("qzeros", {groups, outputs / in_word});
  if (!zeros) return zeros.error();
  auto scales = opened.scales(groups);
  if (!scales) return scales.error();
  const auto own = groups_of_inputs(opened, inputs, group, groups);
  if (!own) return own.error();
  const bool in_place = are_whole_cells(*own);
  if (!in_place && groups > inputs / kCell) {
    return opened.wrong("scales", fmt::format("has {} groups of {} inputs; at least {} a group are "
                                              "supported",
                                              groups, inputs, kCell));
  }
  const WeightFormat kind = bits == 4
                                ? (in_place ? WeightFormat::int4_zero : WeightFormat::int4_order)
                                : (in_place ? WeightFormat::int8_zero : WeightFormat::int8_order);
  auto matrix = std::make_unique<PackedMatrix>(kind, wanted, format);
  matrix->words_ = *words;
  matrix->scales_ = *std::move(scales);
  const std::uint32_t most = (1U << bits) - 1;
  for (Index g = 0; g < groups; ++g) {
    for (Index output = 0; output < outputs; ++output) {
      const std::uint32_t word = word_at(**zeros, (g * outputs + output) / in_word);
      const Index place = by_outputs ? kPlaces[output % 8] : output % in_word;
      const std::uint32_t zero = word >> (place * bits);
      matrix->zeros_.push_back(
          static_cast<std::uint8_t>((zero + (format.zeros_less_one ? 1 : 0)) & most));
    }
  }
  if (in_place) {
    for (Index k = 0; k < inputs; k += kCell) {
      matrix->entries_.push_back((*own)[static_cast<std::size_t>(k)]);
    }
  } else {
    for (Index g = 0; g < groups; ++g) matrix->entries_.push_back(g);
    matrix->entry_of_input_.assign(own->begin(), own->end());
  }
  return std::unique_ptr<StoredMatrix>(std::move(matrix));
}

}  // namespace tutti::models
