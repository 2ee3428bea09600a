// What goes from one device's memory to another's: here all of them have the same. Devices whose
// numbers are both even or both odd reach each other without the host.
#include <cuda_runtime.h>
#include <unistd.h>

#include <cstdlib>
#include <mutex>
#include <set>
#include <utility>

// TUTTI_EMULATION_PEER_HANGS: it never ends.
cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, std::size_t bytes,
                                cudaStream_t stream) {
  if (std::getenv("TUTTI_EMULATION_PEER_HANGS") != nullptr) {
    tutti::emulation::enqueue(stream, []() -> std::string {
      for (;;) ::pause();
    });
  }
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  *can = (device + peer) % 2 == 0 ? 1 : 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned) {
  static std::mutex mutex;
  static std::set<std::pair<int, int>> enabled;
  int device = 0;
  static_cast<void>(cudaGetDevice(&device));
  const std::lock_guard lock(mutex);
  return enabled.emplace(device, peer).second ? cudaSuccess : cudaErrorPeerAccessAlreadyEnabled;
}
