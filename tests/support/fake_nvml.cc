// A stand-in for the driver's management library: two GPUs joined by two links, the second too hot.
// With TUTTI_FAKE_NVML_OLD, one that has only what every driver has. In a process with
// TUTTI_FAKE_MIG=N the first N GPUs are cut into MIG instances; with TUTTI_FAKE_EMULATED they are
// those of the emulation, by their UUIDs, and TUTTI_FAKE_COOL leaves both cool.
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

struct Memory {
  unsigned long long total, free, used;
};
struct PciInfo {
  char bus_id_legacy[16];
  unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
};

// A device is its number, one higher, as an address.
long number_of(const void* device) { return reinterpret_cast<long>(device) - 1; }

#ifndef TUTTI_FAKE_NVML_OLD
bool is_cool(const void* device) {
  return number_of(device) == 0 || std::getenv("TUTTI_FAKE_COOL") != nullptr;
}
#endif

}  // namespace

extern "C" {

int nvmlInit_v2() { return 0; }
int nvmlShutdown() { return 0; }
int nvmlSystemGetDriverVersion(char* text, unsigned size) {
  std::snprintf(text, size, "580.65.06");
  return 0;
}
#ifndef TUTTI_FAKE_NVML_OLD
int nvmlSystemGetCudaDriverVersion_v2(int* version) {
  *version = 13000;
  return 0;
}
#endif
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 2;
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  *device = reinterpret_cast<void*>(static_cast<long>(index) + 1);
  return 0;
}
int nvmlDeviceGetName(void*, char* text, unsigned size) {
  std::snprintf(text, size, "Made-up H100");
  return 0;
}
int nvmlDeviceGetUUID(void* device, char* text, unsigned size) {
  const bool emulated = std::getenv("TUTTI_FAKE_EMULATED") != nullptr;
  std::snprintf(text, size, emulated ? "GPU-656d756c-6174-6564-2d3%ld-000000000000" : "GPU-%ld",
                number_of(device));
  return 0;
}
#ifndef TUTTI_FAKE_NVML_OLD
int nvmlDeviceGetMemoryInfo(void*, Memory* memory) {
  *memory = {80ULL << 30, 79ULL << 30, 1ULL << 30};
  return 0;
}
int nvmlDeviceGetPowerManagementLimit(void*, unsigned* milliwatts) {
  *milliwatts = 700000;
  return 0;
}
int nvmlDeviceGetTemperature(void* device, int, unsigned* celsius) {
  *celsius = is_cool(device) ? 40 : 92;
  return 0;
}
int nvmlDeviceGetTemperatureThreshold(void*, int, unsigned* celsius) {
  *celsius = 90;
  return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void* device, unsigned long long* reasons) {
  *reasons = is_cool(device) ? 0x1 : 0x1 | 0x40;
  return 0;
}
int nvmlDeviceGetClockInfo(void* device, int, unsigned* megahertz) {
  *megahertz = is_cool(device) ? 1980 : 1200;
  return 0;
}
int nvmlDeviceGetMaxClockInfo(void*, int, unsigned* megahertz) {
  *megahertz = 1980;
  return 0;
}
int nvmlDeviceGetMigMode(void* device, unsigned* now, unsigned* later) {
  const char* const cut = std::getenv("TUTTI_FAKE_MIG");
  *now = *later = cut != nullptr && number_of(device) < std::atol(cut) ? 1 : 0;
  return 0;
}
int nvmlDeviceGetPciInfo_v3(void* device, PciInfo* info) {
  std::memset(info, 0, sizeof(*info));
  std::snprintf(info->bus_id, sizeof(info->bus_id), "00000000:%02x:00.0",
                static_cast<unsigned>(number_of(device) & 0xFF));
  return 0;
}
int nvmlDeviceGetNvLinkState(void*, unsigned link, unsigned* active) {
  *active = link < 2 ? 1 : 0;
  return link < 4 ? 0 : 2;
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void* device, unsigned, PciInfo* info) {
  std::memset(info, 0, sizeof(*info));
  std::snprintf(info->bus_id, sizeof(info->bus_id), "00000000:%02x:00.0",
                static_cast<unsigned>((1 - number_of(device)) & 0xFF));
  return 0;
}
#endif

}  // extern "C"
