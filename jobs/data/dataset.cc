#include "jobs/data/dataset.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <utility>

namespace tutti::data {
namespace {

// The finaliser of SplitMix64 (Steele et al. 2014): every bit of the input reaches every bit of the
// output.
std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

constexpr int kFeistelRounds = 6;

Error outside_vocabulary(const TokenFile& file, std::uint64_t position, std::uint32_t vocabulary) {
  std::uint32_t id = 0;
  file.copy(position, {&id, 1});
  const std::string shown = file.type() == TokenType::int32
                                ? std::to_string(static_cast<std::int32_t>(id))
                                : std::to_string(id);
  return {ErrorCode::invalid_argument,
          fmt::format("{}: token {} at position {} is outside the vocabulary of {}", file.path(),
                      shown, position, vocabulary)};
}

}  // namespace

std::uint64_t permuted(std::uint64_t index, std::uint64_t count, std::uint64_t key) {
  TUTTI_ASSERT(index < count);
  if (count == 1) return 0;
  const int half = (static_cast<int>(std::bit_width(count - 1)) + 1) / 2;
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  do {
    std::uint64_t left = index >> half;
    std::uint64_t right = index & mask;
    for (std::uint64_t round = 1; round <= kFeistelRounds; ++round) {
      const std::uint64_t drawn = mix(mix(key + round * 0x9e3779b97f4a7c15ULL) ^ right);
      left = std::exchange(right, left ^ (drawn & mask));
    }
    index = left << half | right;
  } while (index >= count);  // the domain is below 4 count, so about four turns at worst on average
  return index;
}

Result<Dataset> Dataset::open(const DatasetOptions& options) {
  TUTTI_ASSERT(options.sequence > 0 && options.batch > 0 && options.vocabulary > 0);
  if (options.tokens.empty()) return Error{ErrorCode::invalid_argument, "no token file is given"};
  Dataset dataset;
  dataset.options_ = options;
  std::uint64_t unscanned = kScannedTokensMax;
  for (const std::string& path : options.tokens) {
    Result<TokenFile> file = TokenFile::open(path);
    if (!file) return file.error();
    if (file->size() == 0) {
      return Error{ErrorCode::invalid_argument, path + " holds no tokens"};
    }
    const std::uint64_t scanned = std::min(unscanned, file->size());
    const std::uint64_t outside = file->find_outside(0, scanned, options.vocabulary);
    if (outside < scanned) return outside_vocabulary(*file, outside, options.vocabulary);
    unscanned -= scanned;
    dataset.starts_.push_back(dataset.tokens_);
    dataset.tokens_ += file->size();
    dataset.files_.push_back(std::move(*file));
  }
  dataset.samples_ = (dataset.tokens_ - 1) / options.sequence;
  if (dataset.samples_ == 0) {
    return Error{
        ErrorCode::invalid_argument,
        fmt::format("the data has {} tokens, fewer than one sample of sequence {} needs "
                    "({}); use more data or a shorter data.sequence",
                    dataset.tokens_, options.sequence, std::uint64_t{options.sequence} + 1)};
  }
  return dataset;
}

std::uint64_t Dataset::sample_at(std::uint64_t step, std::uint32_t k) const {
  TUTTI_ASSERT(k < options_.batch);
  const std::uint64_t position = step * options_.batch + k;
  const std::uint64_t epoch = position / samples_;
  const std::uint64_t index = position % samples_;
  if (options_.order == SampleOrder::as_stored) return index;
  return permuted(index, samples_, mix(mix(options_.seed + 0x9e3779b97f4a7c15ULL) + epoch));
}

Result<> Dataset::read(std::uint64_t sample, std::span<std::uint32_t> tokens) const {
  TUTTI_ASSERT(sample < samples_);
  TUTTI_ASSERT(tokens.size() == std::size_t{options_.sequence} + 1);
  return copy(sample * options_.sequence, tokens);
}

Result<> Dataset::copy(std::uint64_t position, std::span<std::uint32_t> tokens) const {
  auto file = static_cast<std::size_t>(std::upper_bound(starts_.begin(), starts_.end(), position) -
                                       starts_.begin() - 1);
  while (!tokens.empty()) {
    const std::uint64_t offset = position - starts_[file];
    const auto count = static_cast<std::size_t>(
        std::min<std::uint64_t>(tokens.size(), files_[file].size() - offset));
    files_[file].copy(offset, tokens.first(count));
    for (std::size_t i = 0; i < count; ++i) {
      if (tokens[i] >= options_.vocabulary) {
        return outside_vocabulary(files_[file], offset + i, options_.vocabulary);
      }
    }
    tokens = tokens.subspan(count);
    position += count;
    ++file;
  }
  return {};
}

Result<> Dataset::read_pair(std::uint64_t step, std::uint32_t k, std::span<std::uint32_t> inputs,
                            std::span<std::uint32_t> targets) const {
  TUTTI_ASSERT(inputs.size() == options_.sequence && targets.size() == options_.sequence);
  const std::uint64_t first = sample_at(step, k) * options_.sequence;
  if (Result<> copied = copy(first, inputs); !copied) return copied;
  std::copy(inputs.begin() + 1, inputs.end(), targets.begin());
  return copy(first + options_.sequence, targets.last(1));
}

}  // namespace tutti::data
