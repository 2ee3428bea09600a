#include "jobs/tokenizers/model.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <queue>
#include <utility>

namespace tutti::tokenizers {
namespace {

// Up to this many bytes a scan for the lowest rank beats a heap.
constexpr std::size_t kShortPiece = 48;

}  // namespace

void MergeTable::reserve(std::size_t merges) {
  std::vector<Slot> old = std::exchange(slots_, {});
  slots_.resize(std::bit_ceil(std::max<std::size_t>(2 * merges, 2)));
  for (const Slot& slot : old) {
    if (slot.key != kEmpty) {
      insert(static_cast<TokenId>(slot.key >> 32), static_cast<TokenId>(slot.key), slot.merge);
    }
  }
}

void MergeTable::insert(TokenId left, TokenId right, Merge merge) {
  const std::uint64_t key = key_of(left, right);
  std::size_t i = home_of(key);
  while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & (slots_.size() - 1);
  slots_[i] = {key, merge};
}

Result<> Model::place(std::string bytes, TokenId id) {
  if (id > kTokenIdMax) {
    return Error{ErrorCode::corrupt, fmt::format("token id {} is above {}", id, kTokenIdMax)};
  }
  if (id >= tokens_.size()) tokens_.resize(std::size_t{id} + 1);
  Token& token = tokens_[id];
  if (token.known && token.bytes != bytes) {
    return Error{ErrorCode::corrupt, fmt::format("two tokens have the id {}", id)};
  }
  token.bytes = std::move(bytes);
  token.known = true;
  return {};
}

Result<> Model::add_token(std::string bytes, TokenId id) {
  const auto [at, inserted] = ids_.try_emplace(bytes, id);
  if (!inserted && at->second != id) {
    return Error{ErrorCode::corrupt,
                 fmt::format("one token has the ids {} and {}", at->second, id)};
  }
  return place(std::move(bytes), id);
}

Result<> Model::add_added_token(AddedToken token) {
  if (token.content.empty()) return Error{ErrorCode::corrupt, "an added token is empty"};
  // An added token may be in the vocabulary too, there in byte characters: its content counts.
  if (is_token(token.id)) tokens_[token.id].bytes = token.content;
  if (Result<> placed = place(token.content, token.id); !placed) return placed;
  tokens_[token.id].added = true;
  tokens_[token.id].special = token.special;
  ids_.insert_or_assign(token.content, token.id);
  added_.push_back(std::move(token));
  return {};
}

Result<> Model::add_merge(std::string_view left, std::string_view right) {
  const TokenId left_id = find(left);
  const TokenId right_id = find(right);
  const TokenId merged = find(std::string(left).append(right));
  if (left_id == kNoToken || right_id == kNoToken || merged == kNoToken) {
    return Error{ErrorCode::corrupt,
                 fmt::format("merge {} (\"{}\" and \"{}\") is not of tokens of the vocabulary",
                             merges_.size(), to_byte_characters(left), to_byte_characters(right))};
  }
  // Merges come in by the hundred thousand: grow by doubling.
  if (std::has_single_bit(merges_.size() + 1)) table_.reserve(2 * merges_.size() + 2);
  table_.insert(left_id, right_id, {static_cast<std::uint32_t>(merges_.size()), merged});
  merges_.push_back({left_id, right_id});
  return {};
}

void Model::finish() {
  for (unsigned byte = 0; byte < 256; ++byte) {
    const auto found = ids_.find(std::string(1, static_cast<char>(byte)));
    const bool ordinary = found != ids_.end() && !is_added(found->second);
    byte_ids_[byte] = ordinary ? found->second : kNoToken;
  }
  for (auto& indices : added_by_byte_) indices.clear();
  for (std::uint32_t i = 0; i < added_.size(); ++i) {
    added_by_byte_[static_cast<unsigned char>(added_[i].content[0])].push_back(i);
  }
  for (auto& indices : added_by_byte_) {
    std::stable_sort(indices.begin(), indices.end(), [&](std::uint32_t a, std::uint32_t b) {
      return added_[a].content.size() > added_[b].content.size();
    });
  }
}

TokenId Model::find(std::string_view bytes) const {
  const auto found = ids_.find(bytes);
  return found == ids_.end() ? kNoToken : found->second;
}

void Model::merge(std::string_view bytes, std::vector<TokenId>& out) const {
  if (whole_pieces_first) {
    if (const TokenId id = find(bytes); id != kNoToken && !is_added(id)) {
      out.push_back(id);
      return;
    }
  }
  std::array<TokenId, kShortPiece> few;
  std::vector<TokenId> many;
  std::span<TokenId> ids(few);
  if (bytes.size() > few.size()) {
    many.resize(bytes.size());
    ids = many;
  }
  std::size_t count = 0;
  for (const char byte : bytes) {
    const TokenId id = byte_ids_[static_cast<unsigned char>(byte)];
    if (id != kNoToken) ids[count++] = id;
  }
  ids = ids.first(count);
  if (count <= kShortPiece) {
    merge_short(ids, out);
  } else {
    merge_long(ids, out);
  }
}

void Model::merge_short(std::span<TokenId> ids, std::vector<TokenId>& out) const {
  std::array<MergeTable::Merge, kShortPiece> pairs;  // pairs[i] is of ids[i] and ids[i + 1]
  std::size_t count = ids.size();
  for (std::size_t i = 0; i + 1 < count; ++i) pairs[i] = table_.find(ids[i], ids[i + 1]);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].rank == kNoToken) break;
    ids[best] = pairs[best].merged;
    for (std::size_t i = best + 1; i + 1 < count; ++i) {
      ids[i] = ids[i + 1];
      pairs[i] = pairs[i + 1];
    }
    --count;
    if (best > 0) pairs[best - 1] = table_.find(ids[best - 1], ids[best]);
    if (best + 1 < count) pairs[best] = table_.find(ids[best], ids[best + 1]);
  }
  out.insert(out.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count));
}

void Model::merge_long(std::span<TokenId> ids, std::vector<TokenId>& out) const {
  constexpr std::size_t kNone = ~std::size_t{0};
  struct Candidate {
    MergeTable::Merge merge;
    std::size_t at = 0;
    TokenId left = 0;  // as they were found; another merge may have changed them since
    TokenId right = 0;

    bool operator<(const Candidate& other) const {  // the queue's top is the largest
      return std::pair(merge.rank, at) > std::pair(other.merge.rank, other.at);
    }
  };
  std::vector<std::size_t> next(ids.size());
  std::vector<std::size_t> previous(ids.size());
  std::priority_queue<Candidate> queue;
  const auto propose = [&](std::size_t at) {
    if (at == kNone || next[at] == kNone) return;
    const MergeTable::Merge merge = table_.find(ids[at], ids[next[at]]);
    if (merge.rank != kNoToken) queue.push({merge, at, ids[at], ids[next[at]]});
  };
  for (std::size_t i = 0; i < ids.size(); ++i) {
    previous[i] = i == 0 ? kNone : i - 1;
    next[i] = i + 1 == ids.size() ? kNone : i + 1;
  }
  for (std::size_t i = 0; i < ids.size(); ++i) propose(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    const std::size_t right = next[best.at];
    if (ids[best.at] != best.left || right == kNone || ids[right] != best.right) continue;
    ids[best.at] = best.merge.merged;
    ids[right] = kNoToken;
    next[best.at] = next[right];
    if (next[right] != kNone) previous[next[right]] = best.at;
    propose(previous[best.at]);
    propose(best.at);
  }
  for (std::size_t at = 0; at != kNone; at = next[at]) out.push_back(ids[at]);
}

}  // namespace tutti::tokenizers
