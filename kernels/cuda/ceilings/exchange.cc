#include <fmt/core.h>

#include <memory>
#include <thread>
#include <utility>

#include "kernels/collective/collectives.h"
#include "kernels/collective/communicator.h"
#include "kernels/collective/nccl_group.h"
#include "kernels/cuda/ceilings/measures.h"
#include "kernels/cuda/ceilings/words.h"

namespace tutti::kernels::cuda {

namespace {

constexpr int kRounds = 10;

// A GPU of the exchange: what it sends lies in blocks by receiver, and the same for what it gets.
class Member {
 public:
  Member(int index, FormOptions form, std::size_t block_bytes)
      : index_(index), form_(std::move(form)), bytes_(block_bytes) {}

  // Seconds of the fastest round; rank 0's begin when all are ready.
  Result<double> run(Listener& listener, const std::string& id) {
    if (auto opened = open(listener, id); !opened) return std::move(opened).error();
    double least = 0;
    for (int round = 0; round <= kRounds; ++round) {
      if (auto all = exchange_votes(*group_, {}); !all) return std::move(all).error();
      const Instant begun = monotonic_now();
      if (auto sent = all_to_all(*group_, {.out = out_, .in = in_}); !sent)
        return std::move(sent).error();
      const double took = std::chrono::duration<double>(monotonic_now() - begun).count();
      if (round == 1 || took < least) least = took;  // the first forms the group
    }
    if (auto same = expect(); !same) return std::move(same).error();
    return std::max(least, 1e-9);
  }

 private:
  static std::uint32_t seed_of(std::uint32_t from, std::uint32_t to) { return 256 * from + to; }

  Result<> open(Listener& listener, const std::string& id) {
    if (auto usable = use_device(index_); !usable) return usable;
    const std::size_t ranks = form_.addresses.size();
    auto stream = make_stream();
    auto out = make_device_memory(ranks * bytes_);
    auto in = make_device_memory(ranks * bytes_);
    if (!stream) return std::move(stream).error();
    if (!out || !in) return out ? in.error() : out.error();
    stream_ = *std::move(stream);
    out_memory_ = *std::move(out);
    in_memory_ = *std::move(in);
    for (std::uint32_t peer = 0; peer < ranks; ++peer) {
      out_.emplace_back(static_cast<std::byte*>(out_memory_.get()) + peer * bytes_, bytes_);
      in_.emplace_back(static_cast<std::byte*>(in_memory_.get()) + peer * bytes_, bytes_);
      fill_words(stream_.get(), out_.back().data(), bytes_, seed_of(form_.rank, peer));
    }
    TUTTI_CUDA_CHECK(cudaMemsetAsync(in_memory_.get(), 0, ranks * bytes_, stream_.get()));
    TUTTI_CUDA_CHECK(cudaStreamSynchronize(stream_.get()));
    auto sockets = listener.connect(form_);
    if (!sockets) return std::move(sockets).error();
    auto group = NcclGroup::over(*std::move(sockets), {.id = id, .compute = stream_.get()});
    if (!group) return std::move(group).error();
    group_ = *std::move(group);
    return {};
  }

  Result<> expect() {
    for (std::uint32_t peer = 0; peer < in_.size(); ++peer) {
      if (peer == form_.rank) continue;
      auto same = expect_words(stream_.get(), in_[peer].data(), bytes_, seed_of(peer, form_.rank),
                               "an exchange of all");
      if (!same) return same;
    }
    return {};
  }

  int index_;
  FormOptions form_;
  std::size_t bytes_;
  Stream stream_;
  DeviceMemory out_memory_;
  DeviceMemory in_memory_;
  std::vector<std::span<std::byte>> out_;
  std::vector<std::span<std::byte>> in_;
  std::unique_ptr<Communicator> group_;  // ends before its stream and memory
};

}  // namespace

Result<DeviceSpeed> exchange_of_all(std::span<const int> indices, const MeasureSizes& sizes) {
  const std::size_t ranks = indices.size();
  std::vector<std::unique_ptr<Listener>> listeners;
  FormOptions form{.generation = 1, .secret = "within one process"};
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    auto listener = Listener::open({});
    if (!listener) return std::move(listener).error();
    form.addresses.push_back((*listener)->address());
    listeners.push_back(*std::move(listener));
  }
  const auto id = make_nccl_id();
  if (!id) return id.error();
  std::vector<Result<double>> took(ranks, 0.0);
  std::vector<std::thread> threads;
  for (std::uint32_t rank = 0; rank < ranks; ++rank) {
    FormOptions own = form;
    own.rank = rank;
    threads.emplace_back([&, own, rank] {
      took[rank] = Member(indices[rank], own, sizes.copy_bytes).run(*listeners[rank], *id);
    });
  }
  for (std::thread& thread : threads) thread.join();
  // Whose peer failed says that only; whose own work did says why.
  const Error* first = nullptr;
  for (const Result<double>& one : took) {
    if (one) continue;
    const bool tells = one.error().code != ErrorCode::aborted;
    if (first == nullptr || tells) first = &one.error();
  }
  if (first != nullptr) return *first;
  const double seconds = **std::ranges::max_element(took, {}, [](const auto& one) { return *one; });
  const double sent = static_cast<double>((ranks - 1) * sizes.copy_bytes);
  return DeviceSpeed{.value = sent / seconds * 1e-9, .direct = false};
}

}  // namespace tutti::kernels::cuda
