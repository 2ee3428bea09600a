#include "coordinator/scheduler/outlook.h"

#include <algorithm>
#include <utility>

namespace tutti::coordinator::scheduler {

Outlook::Outlook(Capacity& capacity, Shape shape, std::uint32_t wanted)
    : capacity_(capacity),
      shape_(std::move(shape)),
      wanted_(wanted),
      total_(capacity.sum(shape_).now) {}

std::uint32_t Outlook::ranks_with(const std::string& name, const Released& released) const {
  const NodeState* node = capacity_.node(name);
  if (node == nullptr || !node->usable || !suits(shape_, *node)) return 0;
  NodeState freed = *node;
  freed.used = node->used.less(released.amount);
  std::erase_if(freed.taken, [&](std::uint32_t slot) { return released.slots.contains(slot); });
  return capacity_.ranks_on(shape_, freed);
}

bool Outlook::may_help(const std::vector<Holding>& holdings) const {
  return std::any_of(holdings.begin(), holdings.end(), [&](const Holding& each) {
    const NodeState* node = capacity_.node(each.node);
    return node != nullptr && node->usable && suits(shape_, *node) &&
           std::any_of(each.slots.begin(), each.slots.end(),
                       [&](std::uint32_t slot) { return slot_suits(shape_, *node, slot); });
  });
}

void Outlook::set(const std::string& node, Released released) {
  const auto at = released_.find(node);
  const std::uint32_t before =
      at == released_.end() ? capacity_.fit(shape_, node).now : at->second.ranks;
  released.ranks = ranks_with(node, released);
  total_ += released.ranks - std::uint64_t{before};
  if (released.amount == Amount{}) {
    released_.erase(node);
  } else {
    released_[node] = std::move(released);
  }
}

void Outlook::release(const std::vector<Holding>& holdings) {
  for (const Holding& each : holdings) {
    const auto at = released_.find(each.node);
    Released released = at == released_.end() ? Released{} : at->second;
    released.amount += each.amount;
    released.slots.insert(each.slots.begin(), each.slots.end());
    if (released.amount != Amount{}) set(each.node, std::move(released));
  }
}

void Outlook::take_back(const std::vector<Holding>& holdings) {
  for (const Holding& each : holdings) {
    const auto at = released_.find(each.node);
    if (at == released_.end()) continue;
    Released released = at->second;
    released.amount = released.amount.less(each.amount);
    for (const std::uint32_t slot : each.slots) released.slots.erase(slot);
    set(each.node, std::move(released));
  }
}

std::vector<Share> Outlook::choose() const {
  std::vector<Share> out;
  std::uint32_t left = wanted_;
  std::vector<Share> freed;
  for (const auto& [name, released] : released_) {
    if (released.ranks > 0) freed.push_back({name, released.ranks});
  }
  std::stable_sort(freed.begin(), freed.end(),
                   [](const Share& a, const Share& b) { return a.ranks > b.ranks; });
  const auto take = [&](const std::string& node, std::uint32_t ranks) {
    const std::uint32_t taken = std::min(ranks, left);
    if (taken > 0) out.push_back({node, taken});
    left -= taken;
  };
  for (const Share& each : freed) take(each.node, each.ranks);
  for (const auto& [preference, tier] : capacity_.tiers(shape_)) {
    for (auto at = tier.by_fit.rbegin(); at != tier.by_fit.rend() && left > 0; ++at) {
      if (!released_.contains(at->second)) take(at->second, at->first);
    }
  }
  return left == 0 ? out : std::vector<Share>{};
}

}  // namespace tutti::coordinator::scheduler
