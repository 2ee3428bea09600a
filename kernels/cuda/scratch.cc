#include "kernels/cuda/scratch.h"

#include <algorithm>
#include <cstring>
#include <memory>

namespace tutti::kernels::cuda {

namespace {

constexpr std::size_t kAlignment = 256;
constexpr std::size_t kChunkBytesMin = std::size_t{8} << 20;
constexpr std::size_t kUploadAlignment = 16;
constexpr std::size_t kHostBytesMin = 64 << 10;

std::size_t round_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

}  // namespace

Result<void*> ScratchMemory::take(std::size_t bytes) {
  const std::size_t whole = round_up(std::max<std::size_t>(bytes, 1), kAlignment);
  while (chunk_ < chunks_.size() && used_ + whole > chunks_[chunk_].bytes) {
    ++chunk_;
    used_ = 0;
  }
  if (chunk_ == chunks_.size()) {
    if (taken_ == 0) give_back();  // all of it is too small for this op
    // What comes beside what the op has already is put together with it before the next one.
    const std::size_t size =
        round_up(std::max(whole, chunks_.empty() ? taken_most_ : std::size_t{1}), kChunkBytesMin);
    auto memory = make_device_memory(size);
    if (!memory) return std::move(memory).error();
    chunks_.push_back({*std::move(memory), size});
    reserved_ += size;
    chunk_ = chunks_.size() - 1;
    used_ = 0;
  }
  void* const taken = static_cast<std::byte*>(chunks_[chunk_].memory.get()) + used_;
  used_ += whole;
  taken_ += whole;
  taken_most_ = std::max(taken_most_, taken_);
  return taken;
}

void ScratchMemory::reset() {
  if (chunks_.size() > 1) give_back();
  chunk_ = 0;
  used_ = 0;
  taken_ = 0;
}

void ScratchMemory::give_back() {
  if (chunks_.empty() || !release_()) return;
  chunks_.clear();
  reserved_ = 0;
}

// What did not fit into one piece is one the next time.
void HostScratch::reset() {
  if (chunks_.size() > 1) {
    chunks_.clear();
    chunks_.emplace_back(2 * taken_);
  }
  used_ = 0;
  taken_ = 0;
}

void* HostScratch::do_allocate(std::size_t bytes, std::size_t alignment) {
  const auto place_in = [&](std::vector<std::byte>& chunk) -> void* {
    void* place = chunk.data() + used_;
    std::size_t room = chunk.size() - used_;
    if (std::align(alignment, bytes, place, room) == nullptr) return nullptr;
    used_ = chunk.size() - room + bytes;
    return place;
  };
  taken_ += bytes + alignment;
  if (!chunks_.empty()) {
    if (void* const place = place_in(chunks_.back()); place != nullptr) return place;
  }
  chunks_.emplace_back(std::max(bytes + alignment, kHostBytesMin));
  used_ = 0;
  return place_in(chunks_.back());
}

Result<UploadRing> UploadRing::make() {
  UploadRing ring;
  for (Slot& slot : ring.slots_) {
    auto memory = make_pinned_memory(kSlotBytes);
    if (!memory) return std::move(memory).error();
    auto event = make_event();
    if (!event) return std::move(event).error();
    slot.memory = *std::move(memory);
    slot.sent = *std::move(event);
  }
  return ring;
}

Result<> UploadRing::next_slot(cudaStream_t stream) {
  TUTTI_CUDA_CHECK(cudaEventRecord(slots_[slot_].sent.get(), stream));
  slot_ = (slot_ + 1) % kSlots;
  TUTTI_CUDA_CHECK(cudaEventSynchronize(slots_[slot_].sent.get()));
  slots_[slot_].used = 0;
  return {};
}

Result<> UploadRing::send(cudaStream_t stream, void* to, const void* from, std::size_t bytes) {
  for (std::size_t done = 0; done < bytes;) {
    if (slots_[slot_].used == kSlotBytes) {
      if (auto moved = next_slot(stream); !moved) return moved;
    }
    Slot& slot = slots_[slot_];
    const std::size_t piece = std::min(bytes - done, kSlotBytes - slot.used);
    auto* const pinned = static_cast<std::byte*>(slot.memory.get()) + slot.used;
    std::memcpy(pinned, static_cast<const std::byte*>(from) + done, piece);
    TUTTI_CUDA_CHECK(cudaMemcpyAsync(static_cast<std::byte*>(to) + done, pinned, piece,
                                     cudaMemcpyHostToDevice, stream));
    slot.used = std::min(kSlotBytes, round_up(slot.used + piece, kUploadAlignment));
    done += piece;
  }
  return {};
}

}  // namespace tutti::kernels::cuda
