// The NVIDIA GPUs of this machine, as the driver's management library tells of them; loaded at run
// time, so that a worker needs no CUDA and starts everywhere.
//
// Nothing here fails: without a driver there are no GPUs, and `problem` says why in one line. What
// a driver does not tell is left out, and so is a GPU that is cut into MIG instances.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace tutti::worker {

struct Gpu {
  std::string uuid = {};  // "GPU-..."; how a GPU is leased: its number changes with what is visible
  std::string name = {};
  std::uint64_t memory_bytes = 0;
  std::uint64_t memory_free_bytes = 0;
  std::uint32_t power_limit_watts = 0;
  std::uint32_t temperature_celsius = 0;
  std::uint32_t slowdown_celsius = 0;  // from when on it is slowed down; 0: not told
  std::uint32_t clock_mhz = 0;         // of its processors now
  std::uint32_t clock_mhz_max = 0;
  std::vector<std::string> throttle_reasons = {};  // that hold now; empty: none
  std::vector<std::uint32_t> nvlinks = {};         // active links to GPU i of the list
  std::int32_t socket = -1;                        // NUMA node that it hangs on; -1: not told
  // To GPU i of the list (measured_links.h); 0: not measured as they are joined now. May be
  // shorter.
  std::vector<std::uint32_t> measured_mb_per_s = {};
};

struct GpuInventory {
  std::vector<Gpu> gpus = {};
  std::string driver = {};   // version, "580.65.06"
  std::uint32_t cuda = 0;    // that the driver knows: 13000 is 13.0
  std::string problem = {};  // why there are none, or why one is left out; one line, or empty
};

// `library`, `devices` (the system's folder of PCI devices): stand-ins, for tests.
GpuInventory take_gpu_inventory(const char* library = "libnvidia-ml.so.1",
                                const std::filesystem::path& devices = "/sys/bus/pci/devices");

// Why the GPU is slower than it might be, or soon will be; empty: nothing is known against it.
std::string trouble_of(const Gpu& gpu);

// The part that needs no library, for tests: names of the bits that mean less than full speed.
std::vector<std::string> throttle_reasons_of(std::uint64_t bits);

}  // namespace tutti::worker
