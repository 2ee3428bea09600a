#include "coordinator/scheduler/capacity.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <limits>

#include "coordinator/membership/numerics_profile.h"
#include "coordinator/scheduler/policies/together.h"

namespace tutti::coordinator::scheduler {

namespace {

// About what an indexed shape costs at each change.
constexpr std::size_t kNodesLookedAt = 64;

std::uint64_t minus(std::uint64_t left, std::uint64_t right) {
  return left > right ? left - right : 0;
}

std::uint32_t ranks_in(const Shape& shape, const Amount& amount) {
  std::uint64_t ranks = amount.slots;
  if (shape.cores != 0) ranks = std::min(ranks, amount.cores / shape.cores);
  if (shape.memory_bytes != 0) ranks = std::min(ranks, amount.memory_bytes / shape.memory_bytes);
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(ranks, std::numeric_limits<std::uint32_t>::max()));
}

bool has(const std::vector<std::string>& labels, const std::string& label) {
  return std::find(labels.begin(), labels.end(), label) != labels.end();
}

// Slots with a device of that size, without these (ascending); no bound where all suit.
std::uint64_t slots_for(const Shape& shape, const NodeState& node,
                        const std::vector<std::uint32_t>& without) {
  if (shape.device_memory_bytes <= node.device_memory_bytes) {
    return std::numeric_limits<std::uint64_t>::max();
  }
  std::uint64_t count = 0;
  for (std::uint32_t slot = 0; slot < node.devices.size(); ++slot) {
    const bool counts =
        slot_suits(shape, node, slot) && !std::binary_search(without.begin(), without.end(), slot);
    count += counts ? 1 : 0;
  }
  return count;
}

std::uint32_t at_most(std::uint32_t ranks, std::uint64_t bound) {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(ranks, bound));
}

std::uint32_t ranks_free_on(const Shape& shape, const NodeState& node) {
  return at_most(ranks_in(shape, node.total.less(node.used)), slots_for(shape, node, node.taken));
}

std::uint64_t largest_device(const NodeState& node) {
  const auto largest = std::max_element(node.devices.begin(), node.devices.end());
  return largest == node.devices.end() ? node.device_memory_bytes : *largest;
}

std::uint64_t slots_free_on(const NodeState& node) {
  return node.usable ? minus(node.total.slots, node.used.slots) : 0;
}

bool has_profile(const Shape& shape, const NodeState& node) {
  return std::any_of(node.profiles.begin(), node.profiles.end(), [&](const auto& profile) {
    return (shape.precision.empty() || precision_of(profile) == shape.precision) &&
           (shape.profile.empty() || shape.profile == profile) &&
           (shape.exchange.empty() || shape.exchange == node.exchange);
  });
}

int preference(const Shape& shape, const NodeState& node) {
  return static_cast<int>(
      std::count_if(shape.prefer.begin(), shape.prefer.end(),
                    [&](const auto& label) { return has(node.labels, label); }));
}

}  // namespace

Amount& Amount::operator+=(const Amount& other) {
  slots += other.slots;
  cores += other.cores;
  memory_bytes += other.memory_bytes;
  return *this;
}

Amount Amount::less(const Amount& other) const {
  return {.slots = minus(slots, other.slots),
          .cores = minus(cores, other.cores),
          .memory_bytes = minus(memory_bytes, other.memory_bytes)};
}

Amount amount_of(const Shape& shape, std::uint64_t ranks) {
  return {.slots = ranks, .cores = shape.cores * ranks, .memory_bytes = shape.memory_bytes * ranks};
}

bool knows_joins(const NodeState& node) {
  return !node.islands.empty() || !node.sockets.empty() || !node.speeds.empty();
}

bool suits(const Shape& shape, const NodeState& node) {
  if (shape.programs ? !node.programs : !has_profile(shape, node)) return false;
  if (shape.device_memory_bytes > largest_device(node)) return false;
  if (std::binary_search(shape.avoid.begin(), shape.avoid.end(), node.name)) return false;
  return std::all_of(shape.labels.begin(), shape.labels.end(),
                     [&](const auto& label) { return has(node.labels, label); });
}

bool slot_suits(const Shape& shape, const NodeState& node, std::uint32_t slot) {
  return shape.device_memory_bytes <=
         (slot < node.devices.size() ? node.devices[slot] : node.device_memory_bytes);
}

std::vector<std::uint32_t> free_slots(const Shape& shape, const NodeState& node,
                                      std::uint32_t wanted, std::span<const std::uint32_t> beside) {
  std::vector<std::uint32_t> out;
  auto taken = node.taken.begin();
  const bool alike = node.devices.empty();
  const bool joined = alike && knows_joins(node);
  for (std::uint32_t slot = 0; slot < node.total.slots; ++slot) {
    if (alike && !joined && out.size() == wanted) break;
    while (taken != node.taken.end() && *taken < slot) ++taken;
    if (taken != node.taken.end() && *taken == slot) continue;
    if (slot_suits(shape, node, slot)) out.push_back(slot);
  }
  if (!alike) {
    std::stable_sort(out.begin(), out.end(), [&](std::uint32_t left, std::uint32_t right) {
      return node.devices[left] < node.devices[right];
    });
  }
  if (joined) {
    return choose_joined({.slots = std::move(out), .wanted = wanted, .beside = beside},
                         {node.islands, node.sockets, node.speeds});
  }
  if (out.size() > wanted) out.resize(wanted);
  return out;
}

std::uint32_t most_joined(const Shape& shape, const NodeState& node) {
  const auto all = free_slots(shape, node, static_cast<std::uint32_t>(node.total.slots));
  if (node.islands.empty() && node.sockets.empty()) return static_cast<std::uint32_t>(all.size());
  return most_together(all, node.islands.empty() ? node.sockets : node.islands);
}

struct Capacity::View {
  Shape shape;
  std::vector<Fit> fits;  // by node
  std::map<int, Tier, std::greater<>> tiers;
  Sum sum;
  std::uint64_t used_at = 0;
};

Capacity::Capacity() = default;
Capacity::~Capacity() = default;
Capacity::Capacity(Capacity&&) noexcept = default;
Capacity& Capacity::operator=(Capacity&&) noexcept = default;

void Capacity::set(NodeState node) {
  const auto [at, news] = index_.try_emplace(node.name, 0);
  if (!news) {
    if (*nodes_[at->second] == node) return;
    count_slots(at->second, Count::take_back);
    count_kinds(*nodes_[at->second], Count::take_back);
  }
  count_kinds(node, Count::add);
  if (news) {
    if (unused_.empty()) {
      unused_.push_back(static_cast<NodeIndex>(nodes_.size()));
      nodes_.emplace_back();
    }
    at->second = unused_.back();
    unused_.pop_back();
  } else if (nodes_[at->second]->labels != node.labels) {
    // Its place in the tiers is found by its labels.
    const NodeIndex index = at->second;
    NodeState gone = *nodes_[index];
    gone.total = {};
    nodes_[index] = std::move(gone);
    update_all(index);
  }
  const NodeIndex index = at->second;
  nodes_[index] = std::move(node);
  count_slots(index, Count::add);
  update_all(index);
}

void Capacity::erase(const std::string& name) {
  const auto at = index_.find(name);
  if (at == index_.end()) return;
  const NodeIndex index = at->second;
  count_slots(index, Count::take_back);
  count_kinds(*nodes_[index], Count::take_back);
  nodes_[index]->total = {};
  update_all(index);
  nodes_[index].reset();
  unused_.push_back(index);
  index_.erase(at);
  holds_.erase(name);
}

void Capacity::count_kinds(const NodeState& node, Count count) {
  const bool joined = knows_joins(node);
  const auto change = [&](std::uint32_t& number) { count == Count::add ? ++number : --number; };
  if (joined) change(joined_);
  for (const std::string& profile : node.profiles) {
    const auto at = kinds_.try_emplace({profile, node.exchange}, 0).first;
    change(at->second);
    if (at->second == 0) kinds_.erase(at);
  }
}

const NodeState* Capacity::node(const std::string& name) const {
  const auto at = index_.find(name);
  return at == index_.end() ? nullptr : &*nodes_[at->second];
}

std::vector<const NodeState*> Capacity::all() const {
  std::vector<const NodeState*> out;
  out.reserve(index_.size());
  for (const auto& [name, index] : index_) out.push_back(&*nodes_[index]);
  return out;
}

void Capacity::hold(const std::string& name, Amount amount) {
  const auto at = index_.find(name);
  if (at == index_.end()) return;
  const auto held = holds_.find(name);
  if ((held == holds_.end() ? Amount{} : held->second) == amount) return;
  count_slots(at->second, Count::take_back);
  if (amount == Amount{}) {
    holds_.erase(held);
  } else {
    holds_[name] = amount;
  }
  count_slots(at->second, Count::add);
  update_all(at->second);
}

Sum Capacity::sum(const Shape& shape) { return view_of(shape).sum; }

Capacity::Room Capacity::room(const Shape& shape) {
  if (views_.contains(shape) || with_free_slots_.size() > kNodesLookedAt) {
    const Sum& sum = view_of(shape).sum;
    return {.now = sum.now, .free = sum.free};
  }
  Room out;
  for (const NodeIndex index : with_free_slots_) {
    const Fit fit = fit_on(shape, index);
    out.now += fit.now;
    out.free += fit.free;
  }
  return out;
}

Fit Capacity::fit(const Shape& shape, const std::string& name) const {
  const auto at = index_.find(name);
  return at == index_.end() ? Fit{} : fit_on(shape, at->second);
}

const std::map<int, Tier, std::greater<>>& Capacity::tiers(const Shape& shape) {
  return view_of(shape).tiers;
}

std::string Capacity::why_not(const Shape& shape, const NodeState& node) const {
  constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
  if (shape.programs && !node.programs) return "runs no programs";
  if (!shape.programs && !has_profile(shape, node)) {
    Shape by_any = shape;
    by_any.exchange.clear();
    if (has_profile(by_any, node)) {
      return fmt::format("exchanges by {}, the gang's ranks by {}",
                         node.exchange.empty() ? "what it does not tell" : node.exchange,
                         shape.exchange);
    }
    return shape.profile.empty() ? fmt::format("computes in no {}", shape.precision)
                                 : fmt::format("lacks the numerics profile {}", shape.profile);
  }
  if (std::binary_search(shape.avoid.begin(), shape.avoid.end(), node.name)) {
    return "could not start its program";
  }
  for (const std::string& label : shape.labels) {
    if (!has(node.labels, label)) return fmt::format("lacks label {}", label);
  }
  if (shape.device_memory_bytes > largest_device(node)) {
    const double wanted = static_cast<double>(shape.device_memory_bytes) / kGiB;
    return largest_device(node) == 0
               ? fmt::format("has no device with memory of its own, a rank needs {:.1f} GiB",
                             wanted)
               : fmt::format("its devices have {:.1f} GiB of memory, a rank needs {:.1f}",
                             static_cast<double>(largest_device(node)) / kGiB, wanted);
  }
  if (ranks_in(shape, {1, node.total.cores, node.total.memory_bytes}) == 0) {
    return shape.cores > node.total.cores
               ? fmt::format("has {} cores, a rank needs {}", node.total.cores, shape.cores)
               : fmt::format("has {:.1f} GiB of memory, a rank needs {:.1f}",
                             static_cast<double>(node.total.memory_bytes) / kGiB,
                             static_cast<double>(shape.memory_bytes) / kGiB);
  }
  if (!node.usable) return node.lasting ? "is not reachable now" : "takes no new work";
  if (ranks_on(shape, node) > 0) return "";
  if (ranks_free_on(shape, node) > 0) return "what is free there is held for a job before this one";
  const Amount free = node.total.less(node.used);
  if (free.slots == 0) {
    return node.total.slots == 1 ? "its slot is taken"
                                 : fmt::format("all {} slots are taken", node.total.slots);
  }
  if (free.cores < shape.cores) {
    return fmt::format("{} of {} cores are left", free.cores, node.total.cores);
  }
  if (ranks_in(shape, free) > 0) {
    return fmt::format("its devices with {:.1f} GiB of memory are taken",
                       static_cast<double>(shape.device_memory_bytes) / kGiB);
  }
  return fmt::format("{:.1f} GiB of memory are left",
                     static_cast<double>(free.memory_bytes) / kGiB);
}

Capacity::View& Capacity::view_of(const Shape& shape) {
  const auto at = views_.find(shape);
  if (at != views_.end()) {
    at->second->used_at = ++uses_;
    return *at->second;
  }
  if (views_.size() >= kViewsMax) {
    views_.erase(std::min_element(views_.begin(), views_.end(), [](auto& left, auto& right) {
      return left.second->used_at < right.second->used_at;
    }));
  }
  auto made = std::make_unique<View>();
  made->shape = shape;
  made->used_at = ++uses_;
  made->fits.resize(nodes_.size());
  View& view = *made;
  views_.emplace(shape, std::move(made));
  for (const auto& [name, index] : index_) update(view, index);
  return view;
}

std::uint32_t Capacity::ranks_on(const Shape& shape, const NodeState& state) const {
  const auto held = holds_.find(state.name);
  if (held == holds_.end()) return ranks_free_on(shape, state);
  const Amount free = state.total.less(state.used).less(held->second);
  return at_most(ranks_in(shape, free),
                 minus(slots_for(shape, state, state.taken), held->second.slots));
}

Fit Capacity::fit_on(const Shape& shape, NodeIndex index) const {
  const NodeState& node = *nodes_[index];
  if (!suits(shape, node)) return {};
  Fit fit;
  if (node.lasting) {
    fit.ever = at_most(ranks_in(shape, node.total), slots_for(shape, node, {}));
    fit.beside_endless = at_most(ranks_in(shape, node.total.less(node.endless)),
                                 slots_for(shape, node, node.endless_slots));
  }
  if (!node.usable) return fit;
  fit.free = ranks_free_on(shape, node);
  fit.now = holds_.contains(node.name) ? ranks_on(shape, node) : fit.free;
  return fit;
}

void Capacity::update(View& view, NodeIndex index) {
  if (view.fits.size() < nodes_.size()) view.fits.resize(nodes_.size());
  const NodeState& node = *nodes_[index];
  const Fit next = fit_on(view.shape, index);
  Fit& last = view.fits[index];
  if (next == last) return;
  view.sum.now += next.now - std::uint64_t{last.now};
  view.sum.free += next.free - std::uint64_t{last.free};
  view.sum.beside_endless += next.beside_endless - std::uint64_t{last.beside_endless};
  view.sum.ever += next.ever - std::uint64_t{last.ever};
  if (next.now != last.now) {
    Tier& tier = view.tiers[preference(view.shape, node)];
    if (last.now != 0) tier.by_fit.erase({last.now, node.name});
    if (next.now != 0) {
      tier.by_fit.emplace(next.now, node.name);
      tier.by_name[node.name] = {index, next.now};
    } else {
      tier.by_name.erase(node.name);
    }
  }
  last = next;
}

void Capacity::count_slots(NodeIndex index, Count count) {
  const NodeState& node = *nodes_[index];
  const std::uint64_t free = slots_free_on(node);
  if (free == 0) return;
  const auto hold = holds_.find(node.name);
  const std::uint64_t held = hold == holds_.end() ? 0 : std::min(free, hold->second.slots);
  if (count == Count::add) {
    free_slots_ += free;
    held_slots_ += held;
    with_free_slots_.insert(index);
  } else {
    free_slots_ -= free;
    held_slots_ -= held;
    with_free_slots_.erase(index);
  }
}

void Capacity::update_all(NodeIndex index) {
  for (auto& [shape, view] : views_) update(*view, index);
}

namespace {

// The shape for each profile that it may have, and, where there are several, for each way to
// exchange that nodes with this profile have.
std::vector<Shape> by_kind(const Capacity& capacity, const Shape& shape) {
  std::vector<Shape> out;
  const Capacity::Kinds& kinds = capacity.kinds();
  for (auto kind = kinds.begin(); kind != kinds.end(); ++kind) {
    const auto& [profile, exchange] = kind->first;
    if (precision_of(profile) != shape.precision) continue;
    if (!shape.profile.empty() && shape.profile != profile) continue;
    if (!shape.exchange.empty() && shape.exchange != exchange) continue;
    const auto has_profile_too = [&](auto other) {
      return other != kinds.end() && other->first.first == profile;
    };
    const bool several = has_profile_too(std::next(kind)) ||
                         (kind != kinds.begin() && has_profile_too(std::prev(kind)));
    out.push_back(shape);
    out.back().profile = profile;
    if (several) out.back().exchange = exchange;
  }
  return out;
}

// One node by name that is of the kind, for people; empty: none.
std::string one_of_kind(const Capacity& capacity, const Shape& shape) {
  for (const NodeState* const node : capacity.all()) {
    if (has_profile(shape, *node)) return node->name;
  }
  return {};
}

}  // namespace

Shape in_one_profile(Capacity& capacity, const Shape& shape, std::uint32_t wanted) {
  if (!shape.one_profile || !shape.exchange.empty()) return shape;
  std::vector<Shape> each = by_kind(capacity, shape);
  if (each.size() < 2) return shape;
  const auto fit = [&](const Shape& one) {
    const Sum sum = capacity.sum(one);
    return std::pair(sum.now >= wanted ? sum.now : 0, sum.ever);
  };
  return *std::max_element(each.begin(), each.end(), [&](const Shape& left, const Shape& right) {
    return fit(left) < fit(right);
  });
}

std::string mixed_profiles(Capacity& capacity, const Shape& shape) {
  if (!shape.one_profile) return {};
  Shape open = shape;
  open.profile.clear();
  open.exchange.clear();
  const std::vector<Shape> each = by_kind(capacity, open);
  if (each.size() < 2) return {};
  const bool versions =
      std::any_of(each.begin(), each.end(), [](const Shape& one) { return !one.exchange.empty(); });
  std::string out =
      versions ? "; its ranks share one numerics profile and one version of NCCL, CUDA and "
                 "driver: "
               : "; its ranks share one numerics profile: ";
  for (const Shape& one : each) {
    if (&one != each.data()) out += ", ";
    out += one.profile;
    if (!one.exchange.empty())
      out += fmt::format(" by {} ({})", one.exchange, one_of_kind(capacity, one));
    out += fmt::format(" has {}", capacity.sum(one).ever);
  }
  return out;
}

}  // namespace tutti::coordinator::scheduler
