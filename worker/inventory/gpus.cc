#include "worker/inventory/gpus.h"

#include <dlfcn.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <memory>

#include "protocol/base/file.h"

namespace tutti::worker {

namespace {

// The library's interface, as far as it is used: names and layouts are its contract with programs
// built for any driver.
using Device = struct NvmlDevice*;
constexpr int kSuccess = 0;
constexpr unsigned kTextMax = 96;
constexpr unsigned kLinksMax = 18;
constexpr int kTemperatureOfGpu = 0;
constexpr int kThresholdSlowdown = 1;
constexpr int kClockOfProcessors = 1;
// Where a GPU does not say from when it slows down: of the H100 it is 87.
constexpr std::uint32_t kHotCelsius = 85;
// So near to it, the next warm hour slows it down.
constexpr std::uint32_t kNearCelsius = 3;

struct Memory {
  unsigned long long total, free, used;
};
struct PciInfo {
  char bus_id_legacy[16];
  unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
};

struct Library {
  explicit Library(const char* path) : handle(::dlopen(path, RTLD_NOW | RTLD_LOCAL), &::dlclose) {
    if (!handle) return;
    // Without these there is nothing to tell; without one of the others, a part is missing.
    complete = load(init, "nvmlInit_v2") && load(shutdown, "nvmlShutdown") &&
               load(count, "nvmlDeviceGetCount_v2") &&
               load(by_index, "nvmlDeviceGetHandleByIndex_v2") && load(uuid, "nvmlDeviceGetUUID");
    load(driver_version, "nvmlSystemGetDriverVersion");
    load(cuda_version, "nvmlSystemGetCudaDriverVersion_v2");
    load(name, "nvmlDeviceGetName");
    load(memory, "nvmlDeviceGetMemoryInfo");
    load(power_limit, "nvmlDeviceGetPowerManagementLimit");
    load(temperature, "nvmlDeviceGetTemperature");
    load(threshold, "nvmlDeviceGetTemperatureThreshold");
    load(clock, "nvmlDeviceGetClockInfo");
    load(clock_max, "nvmlDeviceGetMaxClockInfo");
    // Its name since driver 535, and before.
    if (!load(throttle_reasons, "nvmlDeviceGetCurrentClocksEventReasons"))
      load(throttle_reasons, "nvmlDeviceGetCurrentClocksThrottleReasons");
    load(mig_mode, "nvmlDeviceGetMigMode");
    load(pci, "nvmlDeviceGetPciInfo_v3");
    load(link_state, "nvmlDeviceGetNvLinkState");
    load(link_peer, "nvmlDeviceGetNvLinkRemotePciInfo_v2");
  }

  template <class Function>
  bool load(Function*& function, const char* symbol) {
    function = reinterpret_cast<Function*>(::dlsym(handle.get(), symbol));
    return function != nullptr;
  }

  std::unique_ptr<void, int (*)(void*)> handle;
  bool complete = false;
  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  int (*driver_version)(char*, unsigned) = nullptr;
  int (*cuda_version)(int*) = nullptr;
  int (*count)(unsigned*) = nullptr;
  int (*by_index)(unsigned, Device*) = nullptr;
  int (*name)(Device, char*, unsigned) = nullptr;
  int (*uuid)(Device, char*, unsigned) = nullptr;
  int (*memory)(Device, Memory*) = nullptr;
  int (*power_limit)(Device, unsigned*) = nullptr;
  int (*temperature)(Device, int, unsigned*) = nullptr;
  int (*threshold)(Device, int, unsigned*) = nullptr;
  int (*clock)(Device, int, unsigned*) = nullptr;
  int (*clock_max)(Device, int, unsigned*) = nullptr;
  int (*throttle_reasons)(Device, unsigned long long*) = nullptr;
  int (*mig_mode)(Device, unsigned*, unsigned*) = nullptr;
  int (*pci)(Device, PciInfo*) = nullptr;
  int (*link_state)(Device, unsigned, unsigned*) = nullptr;
  int (*link_peer)(Device, unsigned, PciInfo*) = nullptr;
};

// Whether the library has the function, and it answered.
template <class... P, class... A>
bool tells(int (*function)(P...), A... args) {
  return function != nullptr && function(args...) == kSuccess;
}

// What a GPU does not tell stays at its default.
Gpu describe(const Library& nvml, Device device) {
  Gpu gpu;
  char text[kTextMax] = {};
  if (tells(nvml.uuid, device, text, kTextMax)) gpu.uuid = text;
  if (tells(nvml.name, device, text, kTextMax)) gpu.name = text;
  Memory memory = {};
  if (tells(nvml.memory, device, &memory)) {
    gpu.memory_bytes = memory.total;
    gpu.memory_free_bytes = memory.free;
  }
  unsigned value = 0;
  if (tells(nvml.power_limit, device, &value)) gpu.power_limit_watts = value / 1000;
  if (tells(nvml.temperature, device, kTemperatureOfGpu, &value)) gpu.temperature_celsius = value;
  if (tells(nvml.threshold, device, kThresholdSlowdown, &value)) gpu.slowdown_celsius = value;
  if (tells(nvml.clock, device, kClockOfProcessors, &value)) gpu.clock_mhz = value;
  if (tells(nvml.clock_max, device, kClockOfProcessors, &value)) gpu.clock_mhz_max = value;
  unsigned long long reasons = 0;
  if (tells(nvml.throttle_reasons, device, &reasons)) {
    gpu.throttle_reasons = throttle_reasons_of(reasons);
  }
  return gpu;
}

// An instance has a part of the GPU's processors and memory, and no links: nothing here counts with
// that.
bool is_cut(const Library& nvml, Device device) {
  unsigned now = 0;
  unsigned later = 0;
  return tells(nvml.mig_mode, device, &now, &later) && now != 0;
}

// Links by whom they lead to; a link to a switch counts for every GPU that the switch has too.
void count_links(const Library& nvml, const std::vector<Device>& devices, std::vector<Gpu>& gpus) {
  std::vector<std::string> buses(devices.size());
  for (std::size_t i = 0; i < devices.size(); ++i) {
    PciInfo info = {};
    if (tells(nvml.pci, devices[i], &info)) buses[i] = info.bus_id;
  }
  for (std::size_t i = 0; i < devices.size(); ++i) {
    gpus[i].nvlinks.assign(devices.size(), 0);
    std::uint32_t to_switch = 0;
    for (unsigned link = 0; link < kLinksMax; ++link) {
      unsigned active = 0;
      PciInfo peer = {};
      if (!tells(nvml.link_state, devices[i], link, &active) || active == 0) continue;
      if (!tells(nvml.link_peer, devices[i], link, &peer)) continue;
      bool direct = false;
      for (std::size_t j = 0; j < devices.size(); ++j) {
        if (buses[j].empty() || buses[j] != peer.bus_id) continue;
        ++gpus[i].nvlinks[j];
        direct = true;
      }
      to_switch += direct ? 0 : 1;
    }
    for (std::size_t j = 0; j < devices.size(); ++j) {
      if (j != i) gpus[i].nvlinks[j] += to_switch;
    }
  }
}

}  // namespace

namespace {

// Of "00000000:0A:00.0", as the driver calls it; the system says four digits and small letters.
std::int32_t socket_of(const std::filesystem::path& devices, std::string bus) {
  constexpr std::size_t kDigitsMore = 4;
  if (bus.size() <= kDigitsMore) return -1;
  bus.erase(0, kDigitsMore);
  std::ranges::transform(bus, bus.begin(), [](unsigned char c) { return std::tolower(c); });
  const auto text = read_file(devices / bus / "numa_node", 64);
  std::int32_t socket = -1;
  if (text) std::from_chars(text->data(), text->data() + text->size(), socket);
  return socket;
}

}  // namespace

std::vector<std::string> throttle_reasons_of(std::uint64_t bits) {
  // Idle, and clocks that a user set, are not throttling.
  static constexpr struct {
    std::uint64_t bit;
    const char* name;
  } kReasons[] = {{0x4, "power cap"},          {0x8, "hardware slowdown"},
                  {0x20, "thermal, software"}, {0x40, "thermal, hardware"},
                  {0x80, "power brake"},       {0x10, "sync boost"}};
  std::vector<std::string> names;
  for (const auto& reason : kReasons) {
    if ((bits & reason.bit) != 0) names.emplace_back(reason.name);
  }
  return names;
}

std::string trouble_of(const Gpu& gpu) {
  std::string reasons;
  for (const std::string& reason : gpu.throttle_reasons) {
    reasons += (reasons.empty() ? "" : "; ") + reason;
  }
  const std::string degrees = std::to_string(gpu.temperature_celsius) + " C";
  if (!reasons.empty()) return "slowed down (" + reasons + ") at " + degrees;
  const std::uint32_t slows = gpu.slowdown_celsius;
  const bool hot = gpu.temperature_celsius >= (slows > 0 ? slows - kNearCelsius : kHotCelsius);
  if (!hot) return {};
  return "hot: " + degrees +
         (slows > 0 ? ", and it slows down at " + std::to_string(slows) + " C" : std::string());
}

GpuInventory take_gpu_inventory(const char* library, const std::filesystem::path& devices_folder) {
  GpuInventory inventory;
  const Library nvml(library);
  if (!nvml.handle) {
    inventory.problem = std::string("no NVIDIA driver: ") + library + " is not there";
    return inventory;
  }
  if (!nvml.complete) {
    inventory.problem =
        std::string("the NVIDIA driver is too old: ") + library + " lacks a function";
    return inventory;
  }
  if (const int failed = nvml.init(); failed != kSuccess) {
    inventory.problem = "the NVIDIA driver does not answer (NVML error " + std::to_string(failed) +
                        "): see dmesg, and whether driver and library are of one version";
    return inventory;
  }
  char text[kTextMax] = {};
  if (tells(nvml.driver_version, text, kTextMax)) inventory.driver = text;
  int cuda = 0;
  if (tells(nvml.cuda_version, &cuda)) inventory.cuda = static_cast<std::uint32_t>(cuda);
  unsigned count = 0;
  std::vector<Device> devices;
  if (nvml.count(&count) == kSuccess) {
    for (unsigned i = 0; i < count; ++i) {
      Device device = nullptr;
      if (nvml.by_index(i, &device) != kSuccess) continue;
      Gpu gpu = describe(nvml, device);
      if (is_cut(nvml, device)) {
        inventory.problem = gpu.uuid + " (" + gpu.name +
                            ") is cut into MIG instances, which are not leased: end that by "
                            "`nvidia-smi -i " +
                            std::to_string(i) + " -mig 0`";
        continue;
      }
      PciInfo info = {};
      if (tells(nvml.pci, device, &info)) gpu.socket = socket_of(devices_folder, info.bus_id);
      devices.push_back(device);
      inventory.gpus.push_back(std::move(gpu));
    }
  }
  count_links(nvml, devices, inventory.gpus);
  if (inventory.gpus.empty() && inventory.problem.empty())
    inventory.problem = "the NVIDIA driver sees no GPU";
  nvml.shutdown();
  return inventory;
}

}  // namespace tutti::worker
