// Owned, 64-byte aligned, zeroed fp32 (or byte) memory, of the host or of a device; huge pages are
// asked for where it is large.
//
// Ownership: a buffer on a device ends before the device does. Errors: none as values: memory that
// was planned and is not given is thrown, std::bad_alloc by the host and AllocationFailure by a
// device, and ends what the process was doing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <utility>

#include "kernels/tensor/matrix.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

class Device;

// Why a device gave no memory: exhausted, with the numbers, or unavailable.
class AllocationFailure final : public std::bad_alloc {
 public:
  explicit AllocationFailure(Error error) : error_(std::move(error)) {}
  const Error& error() const noexcept { return error_; }
  const char* what() const noexcept override { return error_.message.c_str(); }

 private:
  Error error_;
};

// Raw memory; a multiple of 64 bytes, zeroed.
class AlignedBytes {
 public:
  AlignedBytes() = default;
  explicit AlignedBytes(std::size_t bytes, Device* device = nullptr);
  AlignedBytes(AlignedBytes&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)),
        device_(other.device_) {}
  AlignedBytes& operator=(AlignedBytes&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(device_, other.device_);
    return *this;
  }
  ~AlignedBytes();

  std::byte* data() const { return data_; }
  std::size_t size() const { return bytes_; }

  // How many this process has made; a step that is under way makes none.
  static long allocations();

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  Device* device_ = nullptr;
};

// `count` floats, zeroed.
class FloatBuffer {
 public:
  FloatBuffer() = default;
  explicit FloatBuffer(Index count, Device* device = nullptr)
      : bytes_(static_cast<std::size_t>(count) * sizeof(float), device), count_(count) {}

  float* data() const { return reinterpret_cast<float*>(bytes_.data()); }
  Index size() const { return count_; }
  std::span<float> span() const { return {data(), static_cast<std::size_t>(count_)}; }
  Matrix matrix(Index rows, Index columns) const {
    TUTTI_ASSERT(rows * columns <= count_);
    return {data(), rows, columns};
  }

 private:
  AlignedBytes bytes_;
  Index count_ = 0;
};

}  // namespace tutti::kernels
